import json
import os

import pytest

from bench.complexity import Complexity
from bench.environment import collect
from bench.records import (
    FORMAT_VERSION,
    RESULTS_VERSION,
    Predictions,
    RecordFolder,
    TimedTrial,
    TimingRecord,
    TrialRecord,
)
from melcnn import InputError, configure


def trial_record(seed=0, logits=((0.1, 0.9), (0.7, 0.3)), **changes) -> TrialRecord:
    predictions = Predictions(names=["a/1", "b/2"], speakers=["1", "2"], labels=[1, 0], logits=logits)
    values = {
        "trial": configure(),
        "seed": seed,
        "stack": [0, 1],
        "kernels": "torch",
        "dataset": "speech_commands",
        "data_fingerprint": "f00",
        "train_clips": 10,
        "complexity": Complexity(params=1, macs=2, macs_all_layers=3),
        "train_loss": [0.5],
        "validation_loss": [0.4],
        "validation_accuracy": [1.0],
        "kept_epoch": 1,
        "validation": predictions,
        "test": predictions,
        "environment": collect("cpu"),
        "finished_at": "2026-01-01T00:00:00+00:00",
    }
    return TrialRecord(**{**values, **changes})


def timing_record(*trials, seconds=(1.0, 2.0, 4.0)) -> TimingRecord:
    timed = [TimedTrial(trial=trial, train_clips=10, epoch_seconds=list(seconds)) for trial in trials]
    return TimingRecord(timed=timed, environment=collect("cpu"), finished_at="2026-01-01T00:00:00+00:00")


@pytest.fixture
def folder(tmp_path):
    folder = RecordFolder(tmp_path / "deep" / "runs")
    folder.prepare()
    return folder


def test_round_trip(folder):
    logit = 0.1234567  # not a float32: stored as the shortest text of the nearest one
    record, timing = trial_record(logits=[[logit, 0.2], [1e-9, 0.3]]), timing_record(configure())
    folder.write(record)
    folder.write(timing)
    (read,) = folder.trials().values()
    assert read.test.logits == [[0.1234567, 0.2], [1e-9, 0.3]] and read.identity == record.identity
    assert folder.timings() == {timing.file_name: timing}
    assert sorted(os.listdir(folder.path)) == sorted([record.file_name, timing.file_name])


def test_accuracy_by_hand():
    # predictions 1 and 0; labels 1 and 0
    assert trial_record().test.accuracy == 1.0
    assert trial_record(logits=[[0.9, 0.1], [0.7, 0.3]]).test.accuracy == 0.5


def test_identity_is_configuration_data_seed_and_version():
    same = {trial_record(finished_at="later", stack=[0]).identity, trial_record().identity}
    assert len(same) == 1
    others = [
        trial_record(seed=1),
        trial_record(trial=configure(groups=2)),
        trial_record(data_fingerprint="f01"),
        trial_record(results_version=RESULTS_VERSION + 1),
    ]
    assert len(same | {record.identity for record in others}) == 5


def test_a_write_that_fails_leaves_nothing_and_keeps_the_old_file(folder, monkeypatch):
    record = trial_record()
    folder.write(record)
    before = (folder.path / record.file_name).read_text()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        folder.write(trial_record(kept_epoch=7))
    assert os.listdir(folder.path) == [record.file_name]
    assert (folder.path / record.file_name).read_text() == before


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda text: text[: len(text) // 2], "not a whole melbench record"),
        (lambda text: "", "not a whole melbench record"),
        (lambda text: "[1, 2]", "not a whole melbench record"),
        (lambda text: json.dumps({**json.loads(text), "format_version": FORMAT_VERSION + 1}), "upgrade melbench"),
        (lambda text: json.dumps({**json.loads(text), "seed": "seven"}), "no melbench TrialRecord .seed"),
        (lambda text: json.dumps({**json.loads(text), "surprise": 1}), "no melbench TrialRecord .surprise"),
        (lambda text: json.dumps({**json.loads(text), "seed": 7}), "holds what belongs into .*seed7"),
        (lambda text: text.replace('"labels":[1,0]', '"labels":[1,0,1]'), "differ in number"),
        (lambda text: "[" * 100_000, "not a whole melbench record"),
    ],
)
def test_records_that_cannot_be_trusted(folder, spoil, message):
    record = trial_record()
    folder.write(record)
    path = folder.path / record.file_name
    path.write_text(spoil(path.read_text()))
    with pytest.raises(InputError, match=message) as caught:
        folder.trials()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_loss_that_is_no_number_stays_one(folder):
    folder.write(trial_record(train_loss=[float("nan")], validation_loss=[float("inf")]))
    (read,) = folder.trials().values()
    assert read.train_loss[0] != read.train_loss[0] and read.validation_loss == [float("inf")]


def test_timings_are_found_by_work_and_environment(folder):
    one, two = configure(), configure(groups=2)
    names = {timing_record(one).file_name, timing_record(two).file_name, timing_record(one, two).file_name}
    other = collect("cpu").model_copy(update={"threads": 99})
    names.add(timing_record(one).model_copy(update={"environment": other}).file_name)
    assert len(names) == 4
    assert timing_record(one, two).file_name == timing_record(two, one).file_name
    assert timing_record(one, seconds=(3.0,)).file_name == timing_record(one).file_name


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out"):
        RecordFolder(tmp_path / "file" / "runs").prepare()
