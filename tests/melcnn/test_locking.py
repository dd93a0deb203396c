"""One process at a time in a folder: between processes, and whatever becomes of them."""

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys

import pytest

from bench.executors.events import EpochDone, Finished, Planned, Stage, Started
from bench.executors.threads import Threads
from bench.grid import parse_axes, plan
from bench.records import RecordFolder
from bench.sweep.run import sweep
from melcnn import InputError, locking
from melcnn.locking import held

HOLDER = """
import pathlib, sys
from melcnn.locking import held
with held(pathlib.Path(sys.argv[1]), ""):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(locking, "PATIENCE_SECONDS", 0)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder until it is told to end, or is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_who_holds_it_is_named_and_what_to_do(holder, tmp_path):
    with pytest.raises(InputError) as caught, held(tmp_path, "stand on your head"):
        pass
    assert f"{tmp_path} is in use by process {holder.pid} on " in str(caught.value)
    assert str(caught.value).endswith(" UTC: wait until that has ended, or stand on your head")


@pytest.mark.parametrize("end", [lambda process: process.communicate("\n"), lambda process: process.kill()])
def test_it_is_free_once_the_holder_has_ended_however_it_did(holder, tmp_path, end):
    end(holder)
    assert holder.wait() in (0, -signal.SIGKILL)
    with held(tmp_path, ""):
        assert os.listdir(tmp_path) == [locking.NAME]
    assert os.listdir(tmp_path) == []


def test_another_folder_in_its_place_is_not_unlocked(tmp_path):
    folder, moved = tmp_path / "folder", tmp_path / "moved"
    folder.mkdir()
    with held(folder, ""):
        folder.rename(moved)
        folder.mkdir()
        with held(folder, ""):
            pass
        (folder / locking.NAME).write_text("another process's")
    assert (folder / locking.NAME).read_text() == "another process's"


def test_what_a_lock_file_says_is_not_obeyed(tmp_path, holder):
    (tmp_path / locking.NAME).write_text("\x1b[31mred\nprocess 0" + "!" * 1000)
    with pytest.raises(InputError) as caught, held(tmp_path, ""):
        pass
    assert "in use by \\x1b[31mred\\nprocess 0!!!" in str(caught.value)
    assert str(caught.value).count("!") == locking.MAX_HOLDER_BYTES - len("\x1b[31mred\nprocess 0")
    (tmp_path / locking.NAME).write_text("")
    with pytest.raises(InputError, match="in use by another process: "), held(tmp_path, ""):
        pass


def fail(number):
    def call(*_):
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number, caplog):
    monkeypatch.setattr(fcntl, "flock", fail(number))
    done = []
    with held(tmp_path, ""):
        done.append(1)
    assert done and re.search(f"{tmp_path} cannot be locked .*: run nothing else", caplog.text)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(locking.FileLock, "acquire", fail(errno.EROFS))
    with pytest.raises(InputError, match=r"cannot be locked \(Read-only file system\): go"), held(tmp_path, "go"):
        pass


def test_a_disk_that_is_full_can_be_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", fail(errno.ENOSPC))
    with held(tmp_path, ""), pytest.raises(InputError, match="in use by another process"), held(tmp_path, ""):
        pass


def test_nobody_else_may_write_it_whatever_the_mask(tmp_path):
    before = os.umask(0)
    try:
        with held(tmp_path, ""):
            assert (tmp_path / locking.NAME).stat().st_mode & 0o777 == 0o664
    finally:
        os.umask(before)


def test_what_fails_within_is_raised_and_frees_it(tmp_path):
    with pytest.raises(OSError, match="its own"), held(tmp_path, ""):
        raise OSError("its own")
    with held(tmp_path, ""):
        pass


def test_a_sweep_holds_its_folder_until_its_epochs_are_timed(clips, tmp_path):
    trials = plan(parse_axes(["n_mels=16", "channels=16", "hop_length=800", "n_fft=256"]), epochs=1)
    refused = []

    def second(event):
        with pytest.raises(InputError, match="in use by process"):
            RecordFolder(tmp_path).prepare()
        refused.append(type(event))

    sweep(trials, 1, clips, RecordFolder(tmp_path), Threads("cpu"), second)
    assert refused == [Planned, Started, EpochDone, Finished, Stage]
    RecordFolder(tmp_path).prepare()


def test_the_command_is_refused_before_it_reads_any_data(melbench, tmp_path):
    with RecordFolder(tmp_path / "runs").locked():
        code, out, err = melbench("sweep", "groups", "--data", tmp_path / "no data", "--out", tmp_path / "runs")
    assert code == 2 and not out and err.count("\n") == 1
    assert err.startswith(f"melbench: {tmp_path / 'runs'} is in use by process {os.getpid()} on ")
