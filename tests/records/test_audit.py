"""What `melbench results check` finds in a folder of records, and what becomes of it: nothing is lost."""

import json
import os
import shutil

import pytest

from bench.records import FORMAT_VERSION, RESULTS_VERSION, RecordFolder
from bench.records.audit import Finding, inspect, move_aside
from melcnn import InputError, locking
from tests.helpers.configurations import plain
from tests.helpers.records import timing_record, trial_record


@pytest.fixture
def folder(tmp_path):
    """Three records that count."""
    folder = RecordFolder(tmp_path / "runs")
    folder.prepare()
    for record in (trial_record(0), trial_record(1), timing_record(plain())):
        folder.write(record)
    return folder


def changed(folder, record, **changes):
    """The record in a file of its own name, with something changed in it."""
    folder.write(record)
    path = folder.path / record.file_name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def truncated(folder):
    path = changed(folder, trial_record(7))
    path.write_text(path.read_text()[:-1])
    return path, "is not a whole melbench record"


def empty(folder):
    path = folder.path / "timing-0123456789ab.json"
    path.touch()
    return path, "is not a whole melbench record"


def no_text(folder):
    path = folder.path / trial_record(7).file_name
    path.write_bytes(b"\xff\xfe\x00")
    return path, "is not a whole melbench record"


def somebody_elses(folder):
    path = folder.path / "trial-of-something-else.json"
    path.write_text('{"accuracy": 1.0}')
    return path, "it has no format_version"


def of_a_newer_format(folder):
    return changed(
        folder, trial_record(7), format_version=FORMAT_VERSION + 1
    ), f"has record format {FORMAT_VERSION + 1}"


def without_a_field(folder):
    return changed(folder, trial_record(7), seed=None), "is no melbench TrialRecord (seed"


def edited(folder):
    return changed(folder, trial_record(7), seed=8), "holds what belongs into trial-mels80-groups1-seed8"


def renamed(folder):
    path = changed(folder, trial_record(9))
    return path.rename(folder.path / "my best.JSON"), f"holds what belongs into {path.name}"


def a_copy(folder):
    name = trial_record(0).file_name
    return shutil.copy(folder.path / name, folder.path / f"copy of {name}"), f"holds what belongs into {name}"


def another_copy(folder):
    name = timing_record(plain()).file_name
    return shutil.copy(folder.path / name, folder.path / f"timing-{name}"), f"holds what belongs into {name}"


def stale(folder):
    record = trial_record(0, results_version=RESULTS_VERSION - 1)
    folder.write(record)
    return folder.path / record.file_name, f"is of version {RESULTS_VERSION - 1} of melbench's numbers"


def stale_timing(folder):
    record = timing_record(plain()).model_copy(update={"results_version": RESULTS_VERSION - 1})
    folder.write(record)
    return folder.path / record.file_name, f"is of version {RESULTS_VERSION - 1} of melbench's numbers"


def newer(folder):
    record = trial_record(0, results_version=RESULTS_VERSION + 1)
    folder.write(record)
    return folder.path / record.file_name, f"is of version {RESULTS_VERSION + 1} of melbench's numbers, and this"


def leftover(folder):
    path = folder.path / f".{trial_record(7).file_name}.0123abcd.tmp"
    path.write_text('{"format')
    return path, "is of a write that was cut short"


def no_file(folder):
    path = folder.path / trial_record(7).file_name
    path.mkdir()
    return path, "is no file"


AMISS = {
    truncated: "truncated",
    empty: "truncated",
    no_text: "truncated",
    somebody_elses: "foreign",
    of_a_newer_format: "foreign",
    without_a_field: "foreign",
    edited: "foreign",
    renamed: "foreign",
    a_copy: "duplicate",
    another_copy: "duplicate",
    stale: "stale",
    stale_timing: "stale",
    newer: "newer",
    leftover: "leftover",
    no_file: "unreadable",
}


def contents(path):
    return sorted(each.read_bytes() if each.is_file() else each.name.encode() for each in path.rglob("*"))


@pytest.mark.parametrize(("spoil", "kind"), AMISS.items(), ids=[spoil.__name__ for spoil in AMISS])
def test_what_is_amiss_is_moved_aside_with_its_reason(folder, spoil, kind):
    path, reason = spoil(folder)
    before = contents(folder.path)
    assert inspect(folder.path) == inspect(folder.path) and contents(folder.path) == before, "who looks changes nothing"
    found, moved = move_aside(folder)
    (finding,) = found.findings
    assert (finding.path, finding.kind) == (path, kind) and reason in finding.reason
    assert found.counting == {"trial": 2, "failure": 0, "timing": 1}
    target = moved[finding]
    assert target == folder.path / "aside" / kind / path.name.lstrip(".") and target.exists() and not path.exists()
    explained = target.with_name(f"{target.name}.txt")
    assert reason in explained.read_text() and kind in explained.read_text()
    # Nothing else has changed: the file is the same elsewhere, in two new folders, with one new file beside it.
    assert sorted([*before, b"aside", kind.encode(), explained.read_bytes()]) == contents(folder.path)
    # A sweep can go on, and there is nothing left to do.
    assert len(folder.trials()) == 2 and len(folder.timings()) == 1
    assert move_aside(folder) == (inspect(folder.path), {}) and not inspect(folder.path).findings


def test_everything_at_once(folder):
    # Those that leave the same name behind come in turns.
    spoils = [spoil for spoil in AMISS if spoil not in (no_text, of_a_newer_format, without_a_field, edited, no_file)]
    paths = [spoil(folder)[0] for spoil in spoils]
    found, moved = move_aside(folder)
    assert [finding.path for finding in found.findings] == sorted(paths) and len(set(moved.values())) == len(paths)


def test_nothing_aside_is_overwritten(folder):
    for number in range(3):
        path, _ = truncated(folder)
        path.write_text(f"{{ number {number}")
        move_aside(folder)
    home = folder.path / "aside" / "truncated"
    names = [f"{path.name}{suffix}" for suffix in ("", ".2", ".3")]
    assert sorted(os.listdir(home)) == sorted([*names, *(f"{name}.txt" for name in names)])
    assert [(home / name).read_text() for name in names] == ["{ number 0", "{ number 1", "{ number 2"]


def test_stale_records_aside_are_a_folder_of_records(folder):
    stale(folder)
    move_aside(folder)
    (record,) = RecordFolder(folder.path / "aside" / "stale").trials().values()
    assert record.results_version == RESULTS_VERSION - 1


def test_of_a_whole_and_a_truncated_one_the_whole_is_no_duplicate(folder):
    path, _ = renamed(folder)
    right = folder.path / trial_record(9).file_name
    right.write_text("{")
    found, _ = move_aside(folder)
    assert [(one.path, one.kind) for one in found.findings] == [(path, "foreign"), (right, "truncated")]


def test_what_is_no_record_and_has_no_records_name_stays(folder):
    others = {
        "table.csv": "a,b\n",
        "times.json": '{"works": []}',
        "broken.json": "{",
        "trial-notes.txt": "",
        ".x.tmp": "",
    }
    for name, text in others.items():
        (folder.path / name).write_text(text)
    (folder.path / "records.json").mkdir()
    assert inspect(folder.path).findings == ()


@pytest.mark.parametrize("name", ["aside", "aside/truncated"])
def test_nothing_is_moved_through_a_link(folder, tmp_path, name):
    path, _ = truncated(folder)
    (tmp_path / "elsewhere").mkdir()
    (folder.path / name).parent.mkdir(exist_ok=True)
    (folder.path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{name} is a link, and nothing is moved out of") as caught:
        move_aside(folder)
    assert "\n" not in str(caught.value) and path.exists() and not any((tmp_path / "elsewhere").iterdir())


def test_a_pipe_in_a_records_name(folder):
    path = folder.path / trial_record(7).file_name
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"cannot be read \(not a regular file\)"):
        folder.trials()
    assert inspect(folder.path).findings == (Finding(path, "unreadable", "is no file"),)


def test_a_kill_between_reason_and_file_leaves_the_file(folder, monkeypatch):
    path, _ = truncated(folder)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("pathlib.Path.rename", killed)
        with pytest.raises(KeyboardInterrupt):
            move_aside(folder)
    assert path.exists()
    _, moved = move_aside(folder)
    assert list(moved.values()) == [folder.path / "aside" / "truncated" / path.name]


def test_not_while_a_sweep_is_at_work(folder, monkeypatch):
    monkeypatch.setattr(locking, "PATIENCE_SECONDS", 0)
    path, _ = leftover(folder)
    with RecordFolder(folder.path).locked():
        with pytest.raises(InputError, match="in use by process"):
            move_aside(folder)
        assert path.exists() and inspect(folder.path).findings == (Finding(path, "leftover", leftover(folder)[1]),)


def test_no_such_folder(tmp_path):
    for look_for in (inspect, lambda path: move_aside(RecordFolder(path))):
        with pytest.raises(InputError, match="there is no folder .*runs: name a folder of records"):
            look_for(tmp_path / "runs")
    assert os.listdir(tmp_path) == []


def test_the_command(folder, melbench):
    path, reason = truncated(folder)
    code, out, err = melbench("results", "check", folder.path, "--dry-run", "--json")
    finding = {"file": path.name, "kind": "truncated", "reason": f"{reason} (JSONDecodeError)", "moved_to": ""}
    about = {"folder": str(folder.path), "trials": 2, "failures": 0, "timings": 1, "findings": 1}
    assert (code, json.loads(out), err) == (1, {"records": about, "findings": [finding]}, "")
    code, out, _ = melbench("results", "check", folder.path, "--format", "csv")
    assert code == 1 and out.splitlines()[0] == "file,kind,reason,moved_to" and "aside/truncated" in out
    code, out, _ = melbench("results", "check", folder.path, "--json")
    assert (code, json.loads(out)) == (0, {"records": about | {"findings": 0}, "findings": []})
    code, out, err = melbench("results", "check", folder.path / "no")
    assert code == 2 and not out and err.startswith("melbench: there is no folder") and err.count("\n") == 1
