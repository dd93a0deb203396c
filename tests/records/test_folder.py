import errno
import hashlib
import itertools
import json
import math
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.records import (
    FORMAT_VERSION,
    RESULTS_VERSION,
    FailureRecord,
    RecordFolder,
    TimingRecord,
    TrialRecord,
    Untrusted,
    kind_of,
    timing_identity,
)
from bench.system.environment import collect
from melcnn import InputError, locking
from tests.helpers.configurations import plain
from tests.helpers.records import timing_record, trial_record


def fails(number, times=math.inf):
    """A stand-in for a call to the system that fails so many times, then does nothing."""
    calls = itertools.count(1)

    def call(*_):
        if next(calls) <= times:
            raise OSError(number, os.strerror(number))

    return call


@pytest.fixture
def folder(tmp_path):
    folder = RecordFolder(tmp_path / "deep" / "runs")
    folder.prepare()
    return folder


def test_round_trip(folder):
    logit = 0.1234567  # not a float32: stored as the shortest text of the nearest one
    record, timing = trial_record(logits=[[logit, 0.2], [1e-9, 0.3]]), timing_record(plain())
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
        trial_record(trial=plain(groups=2)),
        trial_record(data_fingerprint="f01"),
        trial_record(results_version=RESULTS_VERSION + 1),
    ]
    assert len(same | {record.identity for record in others}) == 5


def test_a_write_that_fails_leaves_nothing_and_keeps_the_old_file(folder, monkeypatch):
    record = trial_record()
    folder.write(record)
    before = (folder.path / record.file_name).read_text()
    monkeypatch.setattr(os, "fsync", fails(errno.ENOSPC))
    with pytest.raises(InputError, match=rf"{record.file_name} cannot be written \(No space left on device\)"):
        folder.write(trial_record(finished_at="later"))
    assert os.listdir(folder.path) == [record.file_name]
    assert (folder.path / record.file_name).read_text() == before


def test_a_write_is_tried_once_more(folder, monkeypatch):
    monkeypatch.setattr(os, "fsync", fails(errno.EIO, times=1))
    folder.write(trial_record())
    assert os.listdir(folder.path) == [trial_record().file_name]


def test_a_folder_that_is_gone_is_made_again_with_what_was_written_to_it(folder, caplog):
    records = [trial_record(seed) for seed in range(3)]
    RecordFolder(folder.path).write(records[0])  # another sweep's
    folder.write(records[1])
    shutil.rmtree(folder.path.parent)
    folder.write(records[2])
    assert re.search(f"{folder.path} was gone .* with the 1 records of this run", caplog.text)
    assert [record.seed for record in folder.trials().values()] == [1, 2]


def test_another_folder_in_its_place_is_given_what_was_written_and_is_locked(folder, monkeypatch, caplog):
    monkeypatch.setattr(locking, "PATIENCE_SECONDS", 0)
    other = RecordFolder(folder.path)
    with folder.locked():
        folder.write(trial_record(0))
        folder.path.rename(folder.path.parent / "moved")
        folder.path.mkdir()
        folder.write(trial_record(1))
        folder.write(trial_record(2))  # of which nothing is said again
        (warning,) = caplog.messages
        assert "was gone and is there again, with the 1 records of this run" in warning
        assert len(other.trials()) == 3
        with pytest.raises(InputError, match="is in use by process"):
            other.prepare()
    other.prepare()
    assert locking.NAME not in os.listdir(folder.path)


def test_another_folder_in_its_place_in_which_somebody_is_at_work(folder, monkeypatch):
    monkeypatch.setattr(locking, "PATIENCE_SECONDS", 0)
    other = RecordFolder(folder.path)
    with folder.locked():
        folder.write(trial_record(0))
        shutil.rmtree(folder.path)
        with other.locked(), pytest.raises(InputError, match="is in use by process"):
            folder.write(trial_record(1))
        assert not other.trials()


def test_a_folder_that_another_thread_locked_again_is_free_at_the_end(folder, monkeypatch, caplog):
    monkeypatch.setattr(locking, "PATIENCE_SECONDS", 0)
    with folder.locked():
        shutil.rmtree(folder.path)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(folder.write, trial_record(0)).result()
        assert "there again" in caplog.text
    assert os.listdir(folder.path) == [trial_record(0).file_name]
    RecordFolder(folder.path).prepare()


def test_a_folder_that_cannot_be_made_again(folder):
    folder.write(trial_record(0))
    shutil.rmtree(folder.path.parent)
    folder.path.parent.write_text("a file in its place")
    with pytest.raises(InputError, match="cannot be written .* the same command goes on") as caught:
        folder.write(trial_record(1))
    assert "\n" not in str(caught.value)


def test_a_disk_without_room_for_a_few_records_is_found_before_the_training(folder, monkeypatch):
    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def write(self, content):
            if len(content) >= 100_000:  # a record of a thousand clips
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("bench.records.folder.tempfile.TemporaryFile", lambda dir: Full())
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\): choose another with --out"):
        folder.prepare()


def test_one_at_a_time_is_in_the_folder(folder, monkeypatch):
    monkeypatch.setattr(locking, "PATIENCE_SECONDS", 0)
    other = RecordFolder(folder.path)
    with folder.locked():
        with folder.locked():  # a sweep within a command that holds the folder
            pass
        for refused in (other.prepare, other.locked().__enter__):
            with pytest.raises(InputError, match=f"{folder.path} is in use by process {os.getpid()} on .* --out"):
                refused()
        folder.write(trial_record())
        assert len(other.trials()) == 1, "who only reads need not wait"
    other.prepare()
    assert os.listdir(folder.path) == [trial_record().file_name]


def test_the_longest_name_is_one_for_every_file_system():
    # The most mel filters are the bins of the longest transform, 16,384 // 2 + 1, and the most groups would be its
    # channels; eCryptfs, the strictest of those in use, allows 143 characters.
    trial = plain(n_fft=16_384, n_mels=8192, channels=4096, groups=4096)
    name = trial_record(9999, trial=trial).file_name
    unfinished = f".{name}.12345678.tmp"
    assert len(name) == len("trial-mels8192-groups4096-seed9999-.json") + 12 and len(unfinished) < 143
    assert name == name.lower(), "or two would be one where upper and lower case are the same"


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda text: text[: len(text) // 2], "not a whole melbench record"),
        (lambda text: "", "not a whole melbench record"),
        (lambda text: "[1, 2]", "no melbench record .it has no format_version"),
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
    assert message.startswith("upgrade") or f"melbench results check {folder.path}" in str(caught.value)


def test_what_the_system_does_not_give(folder):
    path = folder.path / trial_record().file_name
    path.mkdir()
    with pytest.raises(Untrusted, match=r"cannot be read \(Is a directory\): .*results check") as caught:
        folder.trials()
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (trial_record().file_name, TrialRecord),
        (timing_record(plain()).file_name, TimingRecord),
        ("failure-mels80-groups1-seed0-0123456789ab-1.json", FailureRecord),
        ("trial.json", None),
        ("trial-notes.txt", None),
        ("trials-1.json", None),
        (".trial-1.json.0123abcd.tmp", None),
        ("times.json", None),
    ],
)
def test_what_a_file_holds_by_its_name(name, kind):
    assert kind_of(name) is kind


def test_a_loss_that_is_no_number_stays_one(folder):
    folder.write(trial_record(train_loss=[float("nan")], validation_loss=[float("inf")]))
    (read,) = folder.trials().values()
    assert read.train_loss[0] != read.train_loss[0] and read.validation_loss == [float("inf")]


def test_timings_are_found_by_work_and_environment(folder):
    one, two = plain(), plain(groups=2)
    names = {timing_record(one).file_name, timing_record(two).file_name, timing_record(one, two).file_name}
    other = collect("cpu").model_copy(update={"threads": 99})
    names.add(timing_record(one).model_copy(update={"environment": other}).file_name)
    assert len(names) == 4
    assert timing_record(one, two).file_name == timing_record(two, one).file_name
    assert timing_record(one, seconds=(3.0,)).file_name == timing_record(one).file_name


def test_a_time_is_of_a_precision():
    env = collect("cpu")
    assert env.precision is None
    # As older versions named it, whose environments knew no precision.
    known = env.model_dump_json().replace(',"precision":null', "")
    text = "\n".join([plain().canonical(), "4", known, str(RESULTS_VERSION)])
    name = timing_identity([plain()], 4, env)
    assert name == hashlib.sha256(text.encode()).hexdigest()[:12]
    of = [timing_identity([plain()], 4, env.model_copy(update={"precision": p})) for p in ("fp32", "tf32")]
    assert len({name, *of}) == 3


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out"):
        RecordFolder(tmp_path / "file" / "runs").prepare()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format_version": 0}, "has record format 0, .*upgrade melbench"),
        ({"format_version": "1" * 9999}, "has record format '1{59}, and"),
        ({"complexity": {"macs": 0}}, "contradicts itself .its network has no parameters or does nothing"),
        ({"complexity": {"macs": -5}}, "its network has no parameters or does nothing"),
        ({"complexity": {"params": 0}}, "its network has no parameters or does nothing"),
        ({"complexity": {"macs_all_layers": 0}}, "its network has no parameters or does nothing"),
        ({"train_loss": [0.5, 0.4]}, "contradicts itself .its curves are of different numbers of epochs"),
        ({"elapsed_seconds": [1.0, 2.0]}, "its curves are of different numbers of epochs"),
        ({"validation": {"labels": [1, 2]}}, "a label has no logit"),
        ({"test": {"labels": [-1, 0]}}, "a label has no logit"),
        ({"test": {"logits": [[0.1], [0.2]], "labels": [0, 0]}}, "has other logits than one for each of 2 words"),
        ({"test": {name: [] for name in ("names", "speakers", "labels", "logits")}}, "it has no test clips"),
        ({"dataset": "\ud800"}, "is not a whole melbench record .half a character"),
        ({"seed": 10**18}, "is not a whole melbench record .a number of more than 18 digits"),
        ({"surprise" * 50: 1}, "is no melbench TrialRecord .(surprise){7}surp: Extra inputs"),
    ],
)
def test_records_that_contradict_themselves_or_cannot_be(folder, changes, says):
    record = trial_record()
    content = json.loads(record.model_dump_json())
    for name, change in changes.items():
        content[name] = {**content[name], **change} if isinstance(change, dict) else change
    (folder.path / record.file_name).write_text(json.dumps(content))
    with pytest.raises(Untrusted, match=says) as caught:
        folder.trials()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1.0, float("inf"), float("nan")])
def test_a_timing_whose_time_is_none(folder, seconds):
    record = timing_record(plain())
    content = json.loads(record.model_dump_json())
    content["timed"][0]["epoch_seconds"] = [1.0, seconds]
    (folder.path / record.file_name).write_text(json.dumps(content))
    with pytest.raises(Untrusted, match="is no melbench TimingRecord .timed.0.epoch_seconds.1: Input should be"):
        folder.timings()
