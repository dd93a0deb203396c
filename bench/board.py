"""Where a sweep stands: its configurations in rows, a bar with the time left, and what is finished in words.

It hears of stacks and is told the time; it knows no terminal and no clock.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bench.stacks import Standing, Status
from melcnn.config import Trial, describe, settings_of, telling

# What a configuration can be, the most telling first, and how it is shown.
STYLES = {"training": "bold", "waiting": "dim", "finished": "green"}
BAR_WIDTH = 24
# More configurations than these are counted, not listed, where a line must do.
MOST_LISTED = 6


@dataclass(eq=False)
class Row:
    """A configuration: the networks wanted of it, the accuracies of those finished by fold and seed, and what was heard
    last of its stacks in training by fold and seeds."""

    trial: Trial
    name: str
    networks: int
    finished: dict[tuple[str, int], float]
    training: dict[tuple[str, tuple[int, ...]], Status] = field(default_factory=dict)

    @property
    def state(self) -> str:
        if self.training:
            return "training"
        return "finished" if len(self.finished) == self.networks else "waiting"

    @property
    def epochs(self) -> int:
        """The most epochs of all its networks, each counted by itself."""
        return self.networks * self.trial.training.epochs

    @property
    def epochs_done(self) -> int:
        """Of `epochs`. A network that stopped early has done all of its own: those to come are likely to stop, too."""
        # Of a stack that is trained again, because its writing was cut short, some seeds are finished already.
        going = (
            now.epoch * sum((now.fold, seed) not in self.finished for seed in now.seeds)
            for now in self.training.values()
        )
        return len(self.finished) * self.trial.training.epochs + sum(going)


class Board:
    """All configurations of a sweep that begins at `now` (seconds)."""

    def __init__(self, standings: Sequence[Standing], now: float):
        names = _names([one.trial for one in standings])
        self.rows = {
            one.trial: Row(one.trial, name, one.networks, dict(one.finished))
            for one, name in zip(standings, names, strict=True)
        }
        self.fold = ""
        self.begun = self.heard = now
        # Earlier runs' work took none of this run's time.
        self.done_before = self.epochs_done

    def hear(self, status: Status, now: float) -> None:
        """Takes in what is told of a stack at `now` (seconds)."""
        row, fold, seeds = self.rows[status.trial], status.fold, status.seeds
        if status.ended:
            row.training.pop((fold, seeds), None)
            ended = {(fold, seed): accuracy for seed, accuracy in zip(seeds, status.accuracies, strict=True)}
            row.finished = ended | row.finished  # what was kept before is what counts
        else:
            row.training[fold, seeds] = status
        self.fold, self.heard = fold, now

    @property
    def epochs(self) -> int:
        return sum(row.epochs for row in self.rows.values())

    @property
    def epochs_done(self) -> int:
        return sum(row.epochs_done for row in self.rows.values())

    def left(self) -> str:
        """The time that the rest takes at this run's pace, such as `about 3 min left`; empty where none can be told."""
        done, rest = self.epochs_done - self.done_before, self.epochs - self.epochs_done
        if not done or not rest:
            return ""
        seconds = (self.heard - self.begun) / done * rest
        if seconds < 90:
            return f"about {seconds:.0f} s left"
        return f"about {seconds / 60:.0f} min left" if seconds < 90 * 60 else f"about {seconds / 3600:.1f} h left"

    def counted(self) -> str:
        """How many networks are finished, as `30 of 50 networks`."""
        rows = self.rows.values()
        return f"{sum(len(row.finished) for row in rows)} of {sum(row.networks for row in rows)} networks"

    def line(self, status: Status) -> str:
        """That a stack has ended, with the time left."""
        row, seeds = self.rows[status.trial], status.seeds
        what = f"{status.fold}, {row.name}" if status.fold else row.name
        if len(seeds) < row.networks:
            what += f" seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f" seed {seeds[0]}"
        accuracy, left = _mean(status.accuracies), self.left()
        found = f"mean validation accuracy {accuracy}" if accuracy else "trained"
        return f"{what}: {found}; {left}" if left else f"{what}: {found}"

    def summary(self) -> str:
        """What is finished, in a line."""
        rows = self.rows.values()
        begun = [row for row in rows if row.finished]
        counted = f"{self.counted()} finished"
        if not begun or len(rows) == 1 or all(row.state == "finished" for row in rows):
            return counted
        if len(begun) > MOST_LISTED:
            return f"{counted} ({sum(row.state == 'finished' for row in rows)} of {len(rows)} configurations whole)"
        return f"{counted} ({', '.join(f'{row.name}: {len(row.finished)} of {row.networks}' for row in begun)})"


def _names(trials: Sequence[Trial]) -> list[str]:
    """The settings that tell the trials apart; those in common are known to whoever asked for the sweep."""
    settings = [settings_of(trial) for trial in trials]
    names = telling(settings) if trials else []
    return [
        " ".join(f"{name}={each[name]}" for name in names) or describe(trial, trials)
        for trial, each in zip(trials, settings, strict=True)
    ]


def view(board: Board, width: int, lines: int, stage: str) -> RenderableType:
    """A board in at most `lines` lines, one or more: a bar, and above it as many rows as there is room for.

    stage: what is shown instead of the bar, unless it is empty.
    """
    below = _line(stage) if stage else _bar(board, width)
    rows = list(board.rows.values())
    room = lines - 2  # beside the headings and the bar
    shown = rows if len(rows) <= room else _first(rows, room - 1)
    if not shown:
        return below
    hidden = Counter(row.state for row in rows if row not in shown)
    rest = ", ".join(f"{hidden[state]} {state}" for state in STYLES if hidden[state])
    return Group(_table(rows, shown, width), *([_line(f"and {rest}", "dim")] if rest else []), below)


def _first(rows: Sequence[Row], count: int) -> list[Row]:
    """At most `count` rows in their order: those in training, then those that come next."""
    order = list(STYLES)
    first = sorted(rows, key=lambda row: order.index(row.state))[: max(count, 0)]
    return [row for row in rows if row in first]


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _bar(board: Board, width: int) -> RenderableType:
    told = _line(", ".join(filter(None, [board.counted(), board.fold, board.left()])))
    room = min(BAR_WIDTH, width - len(told) - 1)
    if room < 1:
        return told
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(ProgressBar(board.epochs, board.epochs_done, room), told)
    return grid


def _table(rows: Sequence[Row], shown: Sequence[Row], width: int) -> Table:
    # By all rows, so that no column comes and goes with the rows that are shown.
    cells = {row: _cells(row) for row in rows}
    widths = {name: max(len(each[name]) for each in cells.values()) for name in cells[rows[0]]}
    first, *others = [name for name, longest in widths.items() if longest]
    # In a narrow terminal the names are cut, and the numbers are not.
    taken = sum(max(len(name), widths[name]) + 1 for name in others)
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True, overflow="ellipsis", max_width=max(width - taken - 1, 1))
    for name in others:
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    for row in shown:
        table.add_row(*(cells[row][name] for name in (first, *others)), style=STYLES[row.state])
    return table


def _cells(row: Row) -> dict[str, str]:
    going = list(row.training.values())
    reached = sorted({now.epoch for now in going})
    between = "-".join(map(str, dict.fromkeys(reached[:1] + reached[-1:])))
    return {
        "configuration": row.name,
        "networks": f"{len(row.finished)}/{row.networks}",
        "val accuracy": _mean(list(row.finished.values())),
        "state": row.state,
        "epoch": f"{between}/{row.trial.training.epochs}" if going else "",
        "so far": _mean([accuracy for now in going if now.epoch for accuracy in now.accuracies]),
    }


def _mean(accuracies: Sequence[float]) -> str:
    """Empty where there is none, as without validation clips."""
    mean = sum(accuracies) / len(accuracies) if accuracies else math.nan
    return f"{mean:.4f}" if math.isfinite(mean) else ""
