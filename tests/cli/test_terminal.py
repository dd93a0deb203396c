"""An interruption, by Ctrl-C or by a job scheduler, ends in good order."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import typer

from bench.cli.terminal import finish, resumable

SMALL = ["n_mels=16", "channels=16", "hop_length=800", "n_fft=256", "batch_size=16"]
COMMAND = [sys.executable, "-c", "from bench.cli.app import main; main()", "sweep", "groups=1,2,4", *SMALL]


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupted(error=None, number=None):
    """The exit code of a command that is interrupted by an exception or a signal."""
    with pytest.raises(typer.Exit) as ended, resumable("all is kept"):
        if error:
            raise error
        signal.raise_signal(number)
        raise AssertionError("the signal was not heard")
    return ended.value.exit_code


def test_what_was_done_and_how_to_go_on(capsys, handlers):
    assert interrupted(KeyboardInterrupt("3 of 4 networks finished")) == 130
    assert capsys.readouterr().err == "interrupted: 3 of 4 networks finished\nall is kept\n"
    assert interrupted(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted: all is kept\n"
    assert {number: signal.getsignal(number) for number in handlers} == handlers


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 128 + 2), (signal.SIGTERM, 128 + 15)])
def test_a_signal_is_an_interruption_that_says_at_once_that_it_was_noticed(capfd, number, code):
    assert interrupted(number=number) == code
    heard, kept = capfd.readouterr().err.splitlines()
    assert heard == "interrupted: ending cleanly; a second signal ends it at once"
    assert kept == "interrupted: all is kept"


# In a process of its own, which a signal ends: whatever it says of how it ends would be a line more.
TWICE = """
import signal, sys, time
from bench.cli.terminal import resumable
now = [0.0]
time.monotonic = lambda: now[0]
with resumable("all is kept"):
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        now[0] += float(sys.argv[1])
        signal.raise_signal(int(sys.argv[2]))
        print("went on")
"""


@pytest.mark.parametrize("seconds, number", [(0.6, signal.SIGINT), (0.6, signal.SIGTERM), (3600, signal.SIGTERM)])
def test_a_second_signal_ends_it_at_once_as_the_system_does(seconds, number):
    done = subprocess.run([sys.executable, "-c", TWICE, str(seconds), str(int(number))], capture_output=True, text=True)
    assert done.returncode == -number and done.stdout == "" and len(done.stderr.splitlines()) == 1


def test_two_signals_of_one_interruption_are_one():
    # As `timeout` sends them: to the process, then to the group that it is in.
    done = subprocess.run([sys.executable, "-c", TWICE, "0", str(int(signal.SIGTERM))], capture_output=True, text=True)
    assert done.stdout == "went on\n" and "interrupted: all is kept" in done.stderr.splitlines()


def test_what_was_ignored_is_ignored_still():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with resumable("all is kept"):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_without_a_word_on_going_on(capsys):
    def command():
        raise KeyboardInterrupt("3 of 4 networks finished")

    with pytest.raises(SystemExit) as exit:
        finish(command)
    assert exit.value.code == 130 and capsys.readouterr().err == "melbench: interrupted: 3 of 4 networks finished\n"


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_sweep_keeps_all_that_it_says_is_finished(corpus, tmp_path, number, code):
    runs = tmp_path / "runs"
    command = [*COMMAND, "--data", corpus, "--seeds", "3", "--epochs", "100", "--out", runs]
    sweep = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(runs.glob("trial-*")):
        assert sweep.poll() is None
        time.sleep(0.002)
    os.kill(sweep.pid, number)
    out, err = sweep.communicate()
    kept = list(runs.glob("trial-*"))
    assert sweep.returncode == code and out == "" and len(kept) < 9 and len(kept) == len(list(runs.iterdir()))
    *_, what, going_on = err.splitlines()
    assert re.match(rf"interrupted: {len(kept)} of 9 networks finished \(groups=", what)
    assert going_on == f"finished trials are kept in {runs}, and the same command goes on from there"
