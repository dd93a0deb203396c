"""Progress on standard error: a live view at a terminal, else a line now and then."""

import math
import time
from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from bench.cli.board import Board, view
from bench.executors.events import EpochDone, Event, Finished, OnEvent, Planned, Stage

# Seconds between two drawings: a drawing takes milliseconds, and so may an epoch.
REDRAW_SECONDS = 0.25
# With more configurations than these, a stack that starts or ends is not drawn at once: each row takes its time.
MAX_DRAWN_AT_ONCE = 100


class SweepProgress:
    """A context that shows the state of a sweep on `console`: a live view at a terminal, else a line a stack.

    It gives a KeyboardInterrupt the summary of what is finished as its text.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        self.console = console
        self.clock = clock
        self.board: Board | None = None
        self.stage = "preparing"
        self.drawn = -math.inf
        # Events draw it, and no thread of its own, which would disturb the timing of epochs.
        self.live = Live(console=console, auto_refresh=False, transient=True, get_renderable=self._view)

    def __enter__(self) -> OnEvent:
        if self.console.is_interactive:
            self.live.start(refresh=True)
        return self._show

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.live.stop()
        if isinstance(error, KeyboardInterrupt) and self.board:
            error.args = (self.board.summary(),)

    def _show(self, event: Event) -> None:
        if isinstance(event, Planned):
            self.board, self.stage = Board(event, self.clock()), ""
            self._draw()
        elif isinstance(event, Stage):
            self.stage = event.text
            self._draw()
        elif self.board:
            self.board.update(event, self.clock())
            if isinstance(event, Finished) and not self.live.is_started:
                self.console.print(self.board.line(event), markup=False, highlight=False, soft_wrap=True)
            at_once = not isinstance(event, EpochDone) and len(self.board.rows) <= MAX_DRAWN_AT_ONCE
            if at_once or self.clock() - self.drawn >= REDRAW_SECONDS:
                self._draw()

    def _draw(self) -> None:
        if self.live.is_started:
            self.live.refresh()
            self.drawn = self.clock()

    def _view(self) -> RenderableType:
        width, height = self.console.size
        # One line stays free for the cursor, which ends up there.
        return view(self.board, width, max(height - 1, 1), self.stage) if self.board else self.stage


class DownloadProgress:
    """A context that shows a download: `progress(bytes done, bytes in all)`."""

    def __init__(self, console: Console):
        self.console = console
        self.tenth = 0
        self.bar = Progress(
            TextColumn("downloading"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("downloading", total=None)

    def __enter__(self) -> Callable[[int, int], None]:
        return self._show

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def _show(self, done: int, total: int) -> None:
        self.bar.start()
        self.bar.update(self.task, completed=done, total=total)
        if not self.console.is_terminal and done * 10 // total > self.tenth:
            self.tenth = done * 10 // total
            self.console.print(f"downloaded {done / 1e6:,.0f} of {total / 1e6:,.0f} MB", highlight=False)
