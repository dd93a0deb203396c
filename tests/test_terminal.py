"""An interruption, by Ctrl-C or by a job scheduler, ends in good order."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import typer

from bench.terminal import finish, resumable

SMALL = ["n_mels=16", "channels=16", "hop_length=800", "n_fft=256", "batch_size=16"]
COMMAND = [sys.executable, "-c", "from bench.cli import main; main()", "sweep", "groups=1,2,4", *SMALL]


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
def test_a_signal_is_an_interruption_and_a_second_one_is_not(capsys, number, code):
    assert interrupted(number=number) == code
    assert capsys.readouterr().err == "interrupted: all is kept\n"
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.raise_signal(again)


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
