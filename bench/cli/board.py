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

from bench.sweep.events import Standing, Status
from melcnn.config import Trial, short_names

# What a configuration can be, the most telling first, and how it is shown.
STYLES = {"training": "bold", "waiting": "dim", "finished": "green"}
BAR_WIDTH = 24
# More configurations than these are counted, not listed, where a line must do.
MOST_LISTED = 6


@dataclass(eq=False)
class BoardRow:
    """A configuration: the networks wanted of it, the accuracies of those finished by fold and seed, those that failed,
    and what was heard last of its stacks in training by fold and seeds."""

    trial: Trial
    name: str
    networks: int
    finished: dict[tuple[str, int], float]
    failed: set[tuple[str, int]] = field(default_factory=set)
    training: dict[tuple[str, tuple[int, ...]], Status] = field(default_factory=dict)

    @property
    def state(self) -> str:
        if self.training:
            return "training"
        return "finished" if self.ended == self.networks else "waiting"

    @property
    def ended(self) -> int:
        """Networks that are finished or failed."""
        return len(self.finished) + len(self.failed)

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
        return self.ended * self.trial.training.epochs + sum(going)


class Board:
    """All configurations of a sweep that begins at `now` (seconds)."""

    def __init__(self, standings: Sequence[Standing], now: float):
        named = short_names([one.trial for one in standings])
        self.rows = {
            one.trial: BoardRow(one.trial, named[one.trial], one.networks, dict(one.finished)) for one in standings
        }
        self.fold = ""
        self.begun = self.heard = now
        self.epochs = sum(row.epochs for row in self.rows.values())
        # Earlier runs' work took none of this run's time.
        self.epochs_done = self.done_before = sum(row.epochs_done for row in self.rows.values())

    def hear(self, status: Status, now: float) -> None:
        """Takes in what is told of a stack at `now` (seconds)."""
        row, fold, seeds = self.rows[status.trial], status.fold, status.seeds
        before = row.epochs_done
        # A stack may go on in parts, of which each is heard of by itself.
        for key in [key for key in row.training if key[0] == fold and not set(key[1]).isdisjoint(seeds)]:
            del row.training[key]
        if status.ended:
            heard = {(fold, seed): accuracy for seed, accuracy in zip(seeds, status.accuracies, strict=True)}
            failed = {(fold, seed) for seed in status.failed}
            # What was kept before is what counts.
            row.finished = {key: accuracy for key, accuracy in heard.items() if key not in failed} | row.finished
            row.failed |= failed - row.finished.keys()
        else:
            row.training[fold, seeds] = status
        self.epochs_done += row.epochs_done - before
        self.fold, self.heard = fold, now

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

    def failures(self) -> list[str]:
        """How many failed, as `2 failed`; nothing if none did."""
        failed = sum(len(row.failed) for row in self.rows.values())
        return [f"{failed} failed"] if failed else []

    def line(self, status: Status) -> str:
        """That a stack has ended, with the time left."""
        row, seeds = self.rows[status.trial], status.seeds
        what = f"{status.fold}, {row.name}" if status.fold else row.name
        if len(seeds) < row.networks:
            what += f" seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f" seed {seeds[0]}"
        good = [a for seed, a in zip(seeds, status.accuracies, strict=True) if seed not in status.failed]
        accuracy, left = _mean(good), self.left()
        found = f"mean validation accuracy {accuracy}" if accuracy else "trained" if good else "failed"
        if good and status.failed:
            found += f", {len(status.failed)} failed"
        return f"{what}: {found}; {left}" if left else f"{what}: {found}"

    def summary(self) -> str:
        """What is finished, in a line."""
        rows = self.rows.values()
        begun = [row for row in rows if row.finished]
        counted = ", ".join([f"{self.counted()} finished", *self.failures()])
        if not begun or len(rows) == 1 or all(row.state == "finished" for row in rows):
            return counted
        if len(begun) > MOST_LISTED:
            return f"{counted} ({sum(row.state == 'finished' for row in rows)} of {len(rows)} configurations whole)"
        return f"{counted} ({', '.join(f'{row.name}: {len(row.finished)} of {row.networks}' for row in begun)})"


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


def _first(rows: Sequence[BoardRow], count: int) -> list[BoardRow]:
    """At most `count` rows in their order: those in training, then those that come next."""
    order = list(STYLES)
    first = sorted(rows, key=lambda row: order.index(row.state))[: max(count, 0)]
    return [row for row in rows if row in first]


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _bar(board: Board, width: int) -> RenderableType:
    told = _line(", ".join(filter(None, [board.counted(), *board.failures(), board.fold, board.left()])))
    room = min(BAR_WIDTH, width - len(told) - 1)
    if room < 1:
        return told
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(ProgressBar(board.epochs, board.epochs_done, room), told)
    return grid


def _table(rows: Sequence[BoardRow], shown: Sequence[BoardRow], width: int) -> Table:
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


def _cells(row: BoardRow) -> dict[str, str]:
    going = list(row.training.values())
    reached = sorted({now.epoch for now in going})
    between = "-".join(map(str, dict.fromkeys(reached[:1] + reached[-1:])))
    return {
        "configuration": row.name,
        "networks": f"{len(row.finished)}/{row.networks}",
        "failed": str(len(row.failed)) if row.failed else "",
        "val accuracy": _mean(list(row.finished.values())),
        "state": row.state,
        "epoch": f"{between}/{row.trial.training.epochs}" if going else "",
        "so far": _mean([accuracy for now in going if now.epoch for accuracy in now.accuracies]),
    }


def _mean(accuracies: Sequence[float]) -> str:
    """Empty where there is none, as without validation clips."""
    mean = sum(accuracies) / len(accuracies) if accuracies else math.nan
    return f"{mean:.4f}" if math.isfinite(mean) else ""
