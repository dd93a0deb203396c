"""Folders of records put into one: which records come together, which are refused, and that nothing is overwritten."""

import errno
import json
import os

import pytest

from bench.records import FailureRecord, RecordFolder
from bench.records.merging import Merged, merge
from bench.system.environment import collect
from melcnn import InputError
from tests.helpers.configurations import plain
from tests.helpers.records import timing_record, trial_record

HERE = collect("cpu")
ELSEWHERE = HERE.model_copy(update={"cpu": "another", "packages": {**HERE.packages, "torch": "0.0"}})


def timing(*trials, environment=HERE, **changes):
    return timing_record(*(trials or [plain()]), **changes).model_copy(update={"environment": environment})


def failure(**changes):
    about = trial_record(**changes)
    shared = {name: getattr(about, name) for name in ("trial", "seed", "stack", "dataset", "data_fingerprint")}
    told = {"kind": "error", "message": "ValueError: no", "log": "", "epoch": 0, "attempt": 1, "environment": None}
    return FailureRecord(**shared, **told, finished_at=about.finished_at)


def numbers(trials, timings, failures=0):
    return {"trial": trials, "failure": failures, "timing": timings}


@pytest.fixture
def folder_of(tmp_path):
    """`folder_of(name, records...)`: a folder with these records in it, and its path."""

    def make(name, *records):
        folder = RecordFolder(tmp_path / name)
        folder.prepare()
        for record in records:
            folder.write(record)
        return folder.path

    return make


def files(path):
    return {each.name: each.read_bytes() for each in path.iterdir()}


def test_all_records_of_both_byte_by_byte(folder_of, tmp_path):
    a = folder_of("a", trial_record(0), timing())
    b = folder_of("b", trial_record(1, environment=ELSEWHERE), timing(plain(groups=2)))
    out = RecordFolder(tmp_path / "c")
    assert merge([a, b], out) == [Merged(a, numbers(1, 1), 2), Merged(b, numbers(1, 1), 2)]
    assert files(out.path) == files(a) | files(b)


def test_one_of_them_may_be_where_they_go(folder_of):
    a, b = folder_of("a", trial_record(0)), folder_of("b", trial_record(1))
    expected = files(a) | files(b)
    assert merge([a, b], RecordFolder(a)) == [
        Merged(a, numbers(1, 0), 0),
        Merged(b, numbers(1, 0), 1),
    ]
    assert files(a) == expected
    # Done again it finds all there.
    assert merge([a, b], RecordFolder(a)) == [
        Merged(a, numbers(2, 0), 0),
        Merged(b, numbers(1, 0), 0),
    ]
    assert files(a) == expected


def test_the_same_training_twice_is_one_record_and_the_first_stays(folder_of):
    later = {
        "finished_at": "2027-01-01T00:00:00+00:00",
        "environment": ELSEWHERE,
        "stack": [0],
        "elapsed_seconds": [1.0],
    }
    a, b = folder_of("a", trial_record(0)), folder_of("b", trial_record(0, kernels="melcnn", **later))
    before = files(a)
    assert merge([b, a], RecordFolder(a)) == [
        Merged(a, numbers(1, 0), 0),
        Merged(b, numbers(1, 0), 0),
    ]
    assert files(a) == before, "what is in --out stays, whatever is named first"


@pytest.mark.parametrize(
    "changes",
    [
        {"logits": ((0.1, 0.9), (0.6, 0.4))},
        {"train_loss": [0.4]},
        {"kept_epoch": 2},
        {"validation_loss": [float("nan")]},
    ],
)
def test_different_results_of_one_identity_are_refused_and_both_named(folder_of, tmp_path, changes):
    a = folder_of("a", trial_record(0), trial_record(1))
    b = folder_of("b", trial_record(0, **changes), trial_record(1, **changes), trial_record(2))
    with pytest.raises(InputError) as caught:
        merge([a, b], RecordFolder(tmp_path / "c"))
    name = trial_record(0).file_name
    assert str(caught.value).startswith(f"{a / name} and {b / name} are of the same configuration, data and seed")
    assert "and 1 more pairs" in str(caught.value) and files(tmp_path / "c") == {}


def test_a_loss_that_is_no_number_is_equal_to_itself(folder_of, tmp_path):
    diverged = trial_record(0, validation_loss=[float("nan")])
    a, b = folder_of("a", diverged), folder_of("b", diverged)
    assert merge([a, b], RecordFolder(tmp_path / "c"))[1].written == 0


def test_failures_come_along_and_the_networks_that_took_their_place(folder_of, tmp_path, caplog):
    a = folder_of("a", failure(seed=0), failure(seed=1))
    b = folder_of("b", failure(seed=1, finished_at="2027-01-01T00:00:00+00:00"), trial_record(0))
    merged = merge([a, b], RecordFolder(tmp_path / "c"))
    assert merged == [Merged(a, numbers(0, 0, failures=2), 2), Merged(b, numbers(1, 0, failures=1), 1)]
    assert files(tmp_path / "c") == files(b) | files(a)
    name = failure(seed=1).file_name
    assert caplog.messages == [f"left out: {b / name}: {a / name} is of the same, and there already"]


def test_older_numbers_come_along(folder_of, tmp_path):
    old, new = trial_record(0, results_version=1), trial_record(0)
    merge([folder_of("a", old), folder_of("b", new)], RecordFolder(tmp_path / "c"))
    assert set(files(tmp_path / "c")) == {old.file_name, new.file_name}


def test_timings_of_different_environments_are_refused_unless_asked_for(folder_of, tmp_path):
    a, b = folder_of("a", timing()), folder_of("b", timing(environment=ELSEWHERE), trial_record(0))
    out = RecordFolder(tmp_path / "c")
    with pytest.raises(InputError) as caught:
        merge([a, b], out)
    assert f"torch: {HERE.packages['torch']} and 0.0, cpu: {HERE.cpu} and another" in str(caught.value)
    assert "--mix-timings" in str(caught.value) and "\n" not in str(caught.value) and files(out.path) == {}
    merge([a, b], out, mix_timings=True)
    assert files(out.path) == files(a) | files(b)
    # What is in --out counts too.
    third = HERE.model_copy(update={"cpu": "a third"})
    with pytest.raises(InputError, match="cpu: .* and a third"):
        merge([folder_of("d", timing(plain(groups=2), environment=third))], out)


def test_a_folder_with_timings_of_two_environments_goes_on_being_merged_into(folder_of):
    out = RecordFolder(folder_of("c", timing(), timing(environment=ELSEWHERE)))
    more = folder_of("a", trial_record(3), timing(), timing(plain(groups=2), environment=ELSEWHERE))
    assert [one.written for one in merge([more], out)] == [0, 2]
    assert [one.written for one in merge([more], out)] == [0, 0]


def test_of_two_timing_runs_of_the_same_the_first_is_taken_and_the_other_named(folder_of, tmp_path, caplog):
    a, b = folder_of("a", timing(seconds=[1.0])), folder_of("b", timing(seconds=[2.0]))
    merge([a, b, a], RecordFolder(tmp_path / "c"))
    name = timing().file_name
    assert caplog.messages == [f"left out: {b / name}: {a / name} is of the same, and there already"]
    assert files(tmp_path / "c") == files(a)


def test_a_merge_that_was_cut_short_is_done_again(folder_of, tmp_path, monkeypatch):
    a, b = folder_of("a", trial_record(0), trial_record(1)), folder_of("b", trial_record(2))
    out = RecordFolder(tmp_path / "c")
    synced, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 2:  # one file and its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced(descriptor)

    with monkeypatch.context() as context:
        context.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            merge([a, b], out)
    assert set(files(out.path)) == {trial_record(0).file_name}
    assert [one.written for one in merge([a, b], out)] == [0, 1, 1]
    assert files(out.path) == files(a) | files(b)


def test_what_cannot_be_trusted_is_not_spread(folder_of, tmp_path):
    a, b = folder_of("a", trial_record(0)), folder_of("b", trial_record(1))
    (b / trial_record(1).file_name).write_text("{")
    with pytest.raises(InputError, match=f"melbench results check {b}"):
        merge([a, b], RecordFolder(tmp_path / "c"))
    assert files(tmp_path / "c") == {}


def test_a_folder_without_records(folder_of, tmp_path):
    with pytest.raises(InputError, match=r"nowhere holds no records"):
        merge([folder_of("a", trial_record(0)), tmp_path / "nowhere"], RecordFolder(tmp_path / "c"))
    assert not (tmp_path / "c").exists()


def test_the_command(folder_of, melbench, tmp_path):
    a, b, out = folder_of("a", timing()), folder_of("b", timing(environment=ELSEWHERE)), tmp_path / "c"
    code, printed, err = melbench("results", "merge", a, b, "--out", out)
    assert code == 2 and not printed and "different environments" in err and err.count("\n") == 1
    code, printed, err = melbench("results", "merge", a, b, "--out", out, "--mix-timings", "--json")
    assert (code, err) == (0, "")
    assert json.loads(printed) == [
        {"folder": str(a), "trials": 0, "failures": 0, "timings": 1, "written": 1},
        {"folder": str(b), "trials": 0, "failures": 0, "timings": 1, "written": 1},
    ]
