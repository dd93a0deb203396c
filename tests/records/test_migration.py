"""Records of format 1, as melbench wrote them before records said their fold and corpus."""

import json
import re
from pathlib import Path

import pytest

from bench.records import FORMAT_VERSION, FailureRecord, TimingRecord, TrialRecord, Untrusted, read
from melcnn.data.clips import Fold
from tests.helpers.configurations import plain
from tests.helpers.records import failure_record, trial_record

RESULTS = Path(__file__).parents[2] / "results"
FOLDS = sorted((RESULTS / "recommendation" / "records").glob("trial-*.json"))
OWN_SPLITS = sorted((RESULTS / "recipes" / "records").glob("trial-*.json"))
TIMING = next((RESULTS / "recipes" / "records").glob("timing-*.json"))


def stored(path):
    """Return the JSON of a stored file, which is of format 1."""
    content = json.loads(path.read_text())
    assert content["format_version"] == 1 and not {"fold", "corpus"} & set(content)
    return content


def written(path, record, **changes):
    """Write a record's JSON with these fields changed and return the file."""
    file = path / record.file_name
    file.write_text(json.dumps({**json.loads(record.model_dump_json()), **changes}))
    return file


def as_format_1(record, **changes):
    """Return the JSON of a record of today as format 1 had it."""
    content = json.loads(record.model_dump_json(exclude={"fold", "corpus"}))
    return {**content, "format_version": 1, **changes}


@pytest.mark.parametrize("path", FOLDS[:: len(FOLDS) // 10], ids=lambda path: path.stem)
def test_a_stored_fold(path):
    old = stored(path)
    number, of = map(int, re.fullmatch(r"speech_commands, fold (\d) of (\d)", old["dataset"]).groups())
    record = read(path, TrialRecord)
    assert (record.dataset, record.fold, record.corpus) == ("speech_commands", Fold(number - 1, of), "")
    assert record.format_version == FORMAT_VERSION
    # The identity, which is in the file's name, and every result stay.
    assert record.file_name == path.name
    assert record.test.names == old["test"]["names"] and record.train_loss == old["train_loss"]


def test_a_stored_record_of_the_own_splits():
    old, record = stored(OWN_SPLITS[0]), read(OWN_SPLITS[0], TrialRecord)
    assert (record.dataset, record.fold, record.corpus) == (old["dataset"], None, "")


def test_a_stored_timing_run():
    old, record = stored(TIMING), read(TIMING, TimingRecord)
    assert (record.dataset, record.corpus, record.file_name) == ("", "", TIMING.name)
    assert [one.epoch_seconds for one in record.timed] == [one["epoch_seconds"] for one in old["timed"]]


def test_a_failure(tmp_path):
    record = failure_record(2, plain(groups=4))
    file = tmp_path / record.file_name
    file.write_text(json.dumps(as_format_1(record, dataset="my, fold 1 of 1, words, fold 3 of 5")))
    read_again = read(file, FailureRecord)
    assert (read_again.dataset, read_again.fold) == ("my, fold 1 of 1, words", Fold(2, 5))
    assert read_again.file_name == file.name


@pytest.mark.parametrize("name", ["speech, fold 6 of 5", "speech, fold 0 of 5", "speech, fold of 5", ", fold 1 of 5"])
def test_a_name_that_only_looks_like_a_fold_stays(tmp_path, name):
    record = trial_record()
    file = tmp_path / record.file_name
    file.write_text(json.dumps(as_format_1(record, dataset=name)))
    assert (read(file, TrialRecord).dataset, read(file, TrialRecord).fold) == (name, None)


def test_a_record_of_today_is_not_parsed(tmp_path):
    file = written(tmp_path, trial_record(), dataset="speech, fold 1 of 5")
    assert (read(file, TrialRecord).dataset, read(file, TrialRecord).fold) == ("speech, fold 1 of 5", None)


@pytest.mark.parametrize(("index", "of"), [(5, 5), (-1, 5), (0, 0), (0, 1000)])
def test_a_fold_that_cannot_be_is_refused(tmp_path, index, of):
    file = written(tmp_path, trial_record(), fold={"index": index, "of": of})
    with pytest.raises(Untrusted, match=f"there is no fold {index} of {of}"):
        read(file, TrialRecord)


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, "1", None])
def test_a_format_of_another_time_is_refused(tmp_path, version):
    file = written(tmp_path, trial_record(), format_version=version)
    with pytest.raises(Untrusted, match="record format"):
        read(file, TrialRecord)
