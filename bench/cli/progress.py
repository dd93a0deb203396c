"""What a person sees while waiting: a live view at a terminal, else a line now and then; on standard error."""

import math
import time
from collections.abc import Callable, Sequence

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from bench.cli.board import Board, view
from bench.sweep.events import Listener, Standing, Status
from melcnn.errors import visible

# Seconds between two drawings: drawing takes milliseconds, and so may an epoch.
REDRAW_SECONDS = 0.25
# With more configurations than these a stack that begins or ends is not drawn at once: each row takes its time.
MOST_DRAWN_AT_ONCE = 100


class SweepProgress:
    """A context that shows on `console` where a sweep stands: a live view at a terminal, else a line a stack.

    To a KeyboardInterrupt it gives what is finished as its text.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        self.console = console
        self.clock = clock
        self.board: Board | None = None
        self.stage = "preparing"
        self.drawn = -math.inf
        # Drawn when something is heard, by no thread of its own, which would disturb the timing of epochs.
        self.live = Live(console=console, auto_refresh=False, transient=True, get_renderable=self._view)

    def __enter__(self) -> Listener:
        if self.console.is_interactive:
            self.live.start(refresh=True)
        return Listener(note=self._note, begin=self._begin, status=self._status, stage=self._stage)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.live.stop()
        if isinstance(error, KeyboardInterrupt) and self.board:
            error.args = (self.board.summary(),)

    def _note(self, text: str) -> None:
        self.console.print(visible(text), style="yellow", markup=False, highlight=False, soft_wrap=True)

    def _begin(self, standings: Sequence[Standing]) -> None:
        self.board, self.stage = Board(standings, self.clock()), ""
        self._draw()

    def _status(self, status: Status) -> None:
        self.board.hear(status, self.clock())
        if status.ended and not self.live.is_started:
            self.console.print(self.board.line(status), markup=False, highlight=False, soft_wrap=True)
        at_once = (not status.epoch or status.ended) and len(self.board.rows) <= MOST_DRAWN_AT_ONCE
        if at_once or self.clock() - self.drawn >= REDRAW_SECONDS:
            self._draw()

    def _stage(self, text: str) -> None:
        self.stage = text
        self._draw()

    def _draw(self) -> None:
        if self.live.is_started:
            self.live.refresh()
            self.drawn = self.clock()

    def _view(self) -> RenderableType:
        width, height = self.console.size
        # A line is left to the cursor, which goes there in the end.
        return view(self.board, width, max(height - 1, 1), self.stage) if self.board else self.stage


class DownloadProgress:
    """A context that shows how far a download is: `progress(bytes done, bytes in all)`."""

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
        return self._hear

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def _hear(self, done: int, total: int) -> None:
        self.bar.start()
        self.bar.update(self.task, completed=done, total=total)
        if not self.console.is_terminal and done * 10 // total > self.tenth:
            self.tenth = done * 10 // total
            self.console.print(f"downloaded {done / 1e6:,.0f} of {total / 1e6:,.0f} MB", highlight=False)
