"""The state of a sweep: its configurations in rows, a bar with the time left, and a summary in words.

It takes events and is told the time; it knows no terminal and no clock.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bench.executors.events import EpochDone, Finished, Planned, Started
from melcnn.config import Trial, short_names
from melcnn.data.clips import Fold
from melcnn.training import Epoch

# The states of a configuration, the most interesting first, and their styles.
STYLES = {"training": "bold", "waiting": "dim", "finished": "green"}
BAR_WIDTH = 24
# More configurations than these are counted, not listed, in a single line.
MOST_LISTED = 6


# A network of a configuration, and a stack in training: by fold (None: no cross-validation) and seed or seeds.
NetworkKey = tuple[Fold | None, int]
StackKey = tuple[Fold | None, tuple[int, ...]]


@dataclass(eq=False)
class BoardRow:
    """A configuration.

    Attributes:
        networks: networks wanted.
        finished: validation accuracies of those that are finished.
        failed: those that failed.
        training: the latest epoch of each stack in training; None before its first.
    """

    trial: Trial
    name: str
    networks: int
    finished: dict[NetworkKey, float]
    failed: set[NetworkKey] = field(default_factory=set)
    training: dict[StackKey, Epoch | None] = field(default_factory=dict)

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
        """Epochs done, out of `epochs`; a network that stopped early counts in full, as those to come are likely to."""
        # A stack that is trained again because its writing was cut short holds seeds that are finished already.
        going = (
            epoch.number * sum((fold, seed) not in self.finished for seed in seeds)
            for (fold, seeds), epoch in self.training.items()
            if epoch
        )
        return self.ended * self.trial.training.epochs + sum(going)


class Board:
    """All configurations of a sweep that begins at `now` (seconds)."""

    def __init__(self, planned: Planned, now: float):
        named = short_names([one.trial for one in planned.trials])
        self.rows = {
            one.trial: BoardRow(one.trial, named[one.trial], one.networks, dict(one.finished)) for one in planned.trials
        }
        self.fold: Fold | None = None
        self.begun = self.updated = now
        self.epochs = sum(row.epochs for row in self.rows.values())
        # Work of earlier runs took none of this run's time.
        self.epochs_done = self.done_before = sum(row.epochs_done for row in self.rows.values())

    def update(self, event: Started | EpochDone | Finished, now: float) -> None:
        """Take in an event at `now` (seconds)."""
        job = event.job
        row, fold = self.rows[job.trial], job.fold
        seeds = event.seeds if isinstance(event, EpochDone) else job.seeds
        before = row.epochs_done
        # A stack may go on in parts, which report each by itself.
        for key in [key for key in row.training if key[0] == fold and not set(key[1]).isdisjoint(seeds)]:
            del row.training[key]
        if isinstance(event, Finished):
            # A network that was kept before stays the one that counts.
            row.finished = {(fold, n.seed): n.validation_accuracy for n in event.outcome.networks} | row.finished
            row.failed |= {(fold, failure.seed) for failure in event.outcome.failures} - row.finished.keys()
        else:
            row.training[fold, seeds] = event.epoch if isinstance(event, EpochDone) else None
        self.epochs_done += row.epochs_done - before
        self.fold, self.updated = fold, now

    def left(self) -> str:
        """Return the time left at this run's pace, such as `about 3 min left`; empty if it cannot be estimated."""
        done, rest = self.epochs_done - self.done_before, self.epochs - self.epochs_done
        if not done or not rest:
            return ""
        seconds = (self.updated - self.begun) / done * rest
        if seconds < 90:
            return f"about {seconds:.0f} s left"
        return f"about {seconds / 60:.0f} min left" if seconds < 90 * 60 else f"about {seconds / 3600:.1f} h left"

    def counted(self) -> str:
        """Return how many networks are finished, as `30 of 50 networks`."""
        rows = self.rows.values()
        return f"{sum(len(row.finished) for row in rows)} of {sum(row.networks for row in rows)} networks"

    def failures(self) -> list[str]:
        """Return how many failed, as `2 failed`; an empty list if none did."""
        failed = sum(len(row.failed) for row in self.rows.values())
        return [f"{failed} failed"] if failed else []

    def line(self, event: Finished) -> str:
        """Return a line about a stack that has ended, with the time left."""
        job, networks, failures = event.job, event.outcome.networks, event.outcome.failures
        row, seeds = self.rows[job.trial], job.seeds
        what = f"{job.fold}, {row.name}" if job.fold else row.name
        if len(seeds) < row.networks:
            what += f" seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f" seed {seeds[0]}"
        accuracy, left = _mean([network.validation_accuracy for network in networks]), self.left()
        found = f"mean validation accuracy {accuracy}" if accuracy else "trained" if networks else "failed"
        if networks and failures:
            found += f", {len(failures)} failed"
        return f"{what}: {found}; {left}" if left else f"{what}: {found}"

    def summary(self) -> str:
        """Return one line about what is finished."""
        rows = self.rows.values()
        begun = [row for row in rows if row.finished]
        counted = ", ".join([f"{self.counted()} finished", *self.failures()])
        if not begun or len(rows) == 1 or all(row.state == "finished" for row in rows):
            return counted
        if len(begun) > MOST_LISTED:
            return f"{counted} ({sum(row.state == 'finished' for row in rows)} of {len(rows)} configurations whole)"
        return f"{counted} ({', '.join(f'{row.name}: {len(row.finished)} of {row.networks}' for row in begun)})"


def view(board: Board, width: int, lines: int, stage: str) -> RenderableType:
    """Return a board in at most `lines` lines, one or more: a bar, and above it as many rows as fit.

    Args:
        stage: a text shown instead of the bar, unless it is empty.
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
    """Return at most `count` rows in their order: those in training, then those that come next."""
    order = list(STYLES)
    first = sorted(rows, key=lambda row: order.index(row.state))[: max(count, 0)]
    return [row for row in rows if row in first]


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _bar(board: Board, width: int) -> RenderableType:
    label = _line(", ".join(filter(None, [board.counted(), *board.failures(), str(board.fold or ""), board.left()])))
    room = min(BAR_WIDTH, width - len(label) - 1)
    if room < 1:
        return label
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(ProgressBar(board.epochs, board.epochs_done, room), label)
    return grid


def _table(rows: Sequence[BoardRow], shown: Sequence[BoardRow], width: int) -> Table:
    # From all rows, so that no column comes and goes with the rows that are shown.
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
    going = [epoch for epoch in row.training.values() if epoch]
    reached = sorted({epoch.number if epoch else 0 for epoch in row.training.values()})
    between = "-".join(map(str, dict.fromkeys(reached[:1] + reached[-1:])))
    return {
        "configuration": row.name,
        "networks": f"{len(row.finished)}/{row.networks}",
        "failed": str(len(row.failed)) if row.failed else "",
        "val accuracy": _mean(list(row.finished.values())),
        "state": row.state,
        "epoch": f"{between}/{row.trial.training.epochs}" if row.training else "",
        "so far": _mean([math.nan if a is None else a for epoch in going for a in epoch.best_accuracy]),
    }


def _mean(accuracies: Sequence[float]) -> str:
    """Return the mean as text; empty without a value, as without validation clips."""
    mean = sum(accuracies) / len(accuracies) if accuracies else math.nan
    return f"{mean:.4f}" if math.isfinite(mean) else ""
