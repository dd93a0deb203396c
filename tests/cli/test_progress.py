"""What a person sees of a sweep: a live view at a terminal, else lines; the clock is a fake one."""

import io
import re

import pytest
from rich.console import Console

from bench.cli.progress import REDRAW_SECONDS, SweepProgress
from bench.executors.events import Planned, PlannedTrial, Stage
from tests.cli.test_board import told
from tests.helpers.configurations import plain

TRIALS = [plain(groups=groups) for groups in (1, 2)]
CONTROLS = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")


def screen(output, height):
    """What a terminal of `height` lines shows, scrolled-off lines included, and whether its cursor is there."""
    lines, row, column, cursor = [""], 0, 0, True
    for control in CONTROLS.finditer(output):
        text, (argument, letter) = control[0], control.groups()
        if text == "\r":
            column = 0
        elif text == "\n":
            row, column = row + 1, 0
            lines += [""] * (row == len(lines))
        elif letter == "A":  # up, but not beyond the upper edge
            row = max(row - int(argument or 1), len(lines) - height, 0)
        elif letter == "K":
            lines[row] = ""
        elif letter in ("h", "l"):
            assert argument == "?25"
            cursor = letter == "h"
        else:
            assert letter in (None, "m"), text
            if not letter:
                lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
                column += len(text)
    return "\n".join(line.rstrip() for line in lines).rstrip("\n").split("\n"), cursor


class Watched:
    """A `SweepProgress` on a terminal of so many lines, whose seconds the test counts."""

    def __init__(self, height=24, **console):
        self.out, self.height, self.seconds = io.StringIO(), height, 0.0
        console = {"force_terminal": True, "force_interactive": True, "color_system": None} | console
        own = Console(file=self.out, width=80, height=height, legacy_windows=False, _environ={}, **console)
        self.progress = SweepProgress(own, clock=lambda: self.seconds)

    def lines(self):
        return screen(self.out.getvalue(), self.height)[0]


def status(trial, epoch, accuracy, seeds=(0, 1), **more):
    return told(trial, seeds, epoch, (accuracy,) * len(seeds), **more)


def planned(trials=TRIALS, finished=()):
    return Planned(tuple(PlannedTrial(trial, 2, {(None, seed): 0.9 for seed in finished}) for trial in trials))


def test_the_view_lives_and_leaves_nothing_but_notices():
    watched = Watched()
    with watched.progress as on_event:
        assert watched.lines() == ["preparing"]
        watched.progress.console.print("a notice")
        on_event(planned())
        on_event(status(TRIALS[0], 0, float("nan")))
        assert watched.lines()[:3] == [
            "a notice",
            "configuration networks state    epoch",
            "groups=1           0/2 training  0/30",
        ]
        watched.seconds = 60.0
        on_event(status(TRIALS[0], 15, 0.7))
        # A quarter of 2 x 2 x 30 epochs in a minute.
        assert watched.lines()[-1].endswith(" 0 of 4 networks, about 3 min left")
        on_event(status(TRIALS[0], 30, 0.8, ended=True))
        assert watched.lines()[2] == "groups=1           2/2       0.8000 finished"
        watched.progress.console.print("another notice")
        on_event(Stage("timing epochs"))
        assert watched.lines()[-1] == "timing epochs" and not screen(watched.out.getvalue(), 24)[1]
    assert screen(watched.out.getvalue(), 24) == (["a notice", "another notice"], True)


def test_epochs_are_drawn_now_and_then():
    watched = Watched()
    with watched.progress as on_event:
        on_event(planned())
        for epoch in (1, 2):
            watched.seconds = 10.0 + epoch * REDRAW_SECONDS / 4
            on_event(status(TRIALS[0], epoch, 0.7))
        assert " 1/30 " in watched.lines()[1]
        watched.seconds = 10.0 + 5 / 4 * REDRAW_SECONDS
        on_event(status(TRIALS[0], 3, 0.7))
        assert " 3/30 " in watched.lines()[1]
        # That a stack begins, or has ended, is shown at once.
        on_event(status(TRIALS[1], 0, 0.7))
        assert " 0/30" in watched.lines()[2]


@pytest.mark.parametrize("height", [2, 3, 4, 5, 10])
def test_more_configurations_than_lines_do_not_break_the_screen(height):
    trials = [plain(n_mels=n_mels) for n_mels in range(20, 40)]
    watched = Watched(height)
    with watched.progress as on_event:
        watched.progress.console.print("a notice")
        on_event(planned(trials))
        for trial in trials:
            on_event(status(trial, 30, 0.8, ended=True))
            watched.progress.console.print("a notice")
            # Nothing is drawn that cannot be erased.
            assert len([line for line in watched.lines() if line and line != "a notice"]) <= height - 1
    assert watched.lines() == ["a notice"] * 21


def test_an_interruption_is_told_what_is_finished():
    watched = Watched()
    with pytest.raises(KeyboardInterrupt) as raised, watched.progress as on_event:
        on_event(planned(finished=[0]))
        on_event(status(TRIALS[0], 30, 0.8, seeds=[1], ended=True))
        on_event(status(TRIALS[1], 29, 0.8, seeds=[1]))
        raise KeyboardInterrupt
    assert str(raised.value) == "3 of 4 networks finished (groups=1: 2 of 2, groups=2: 1 of 2)"
    assert screen(watched.out.getvalue(), 24) == ([""], True)
    with pytest.raises(KeyboardInterrupt) as early, Watched().progress:
        raise KeyboardInterrupt
    assert str(early.value) == ""
    with pytest.raises(ValueError, match="as it was"), Watched().progress as on_event:
        on_event(planned())
        raise ValueError("as it was")


@pytest.mark.parametrize(
    "console", [{"force_terminal": False, "force_interactive": None}, {"force_interactive": False}]
)
def test_without_a_terminal_there_is_a_line_a_stack(console):
    watched = Watched(**console)
    with watched.progress as on_event:
        on_event(planned())
        for number, trial in enumerate(TRIALS, 1):
            watched.seconds = 30.0 * number
            for epoch in range(30):
                on_event(status(trial, epoch, 0.5))
            on_event(status(trial, 30, 0.9 + number / 50, ended=True))
        on_event(Stage("timing epochs"))
        watched.progress.console.print("a notice")
    assert watched.out.getvalue().splitlines() == [
        "groups=1: mean validation accuracy 0.9200; about 30 s left",
        "groups=2: mean validation accuracy 0.9400",
        "a notice",
    ]
