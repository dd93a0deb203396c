"""What a person sees while waiting: a live bar at a terminal, else a line now and then; on standard error."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from bench.stacks import Listener, Status


class SweepProgress:
    """A context that shows a sweep's `Status` on `console`, with the time left."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        self.console = console
        self.clock = clock
        self.start = clock()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs, {task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("preparing", total=None, left="")

    def __enter__(self) -> Listener:
        self.bar.start()
        return Listener(note=self._note, status=self._status)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def _note(self, text: str) -> None:
        self.console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def _status(self, status: Status) -> None:
        accuracy = "" if status.accuracy is None else f", best validation accuracy {status.accuracy:.4f}"
        self.bar.update(
            self.task,
            description=status.label + accuracy,
            completed=status.done,
            total=status.planned,
            left=self._left(status),
        )
        if status.ended:  # kept on the screen
            left = f"; {self._left(status)}" if status.done < status.planned else ""
            found = (
                "trained"
                if status.accuracy is None
                else f"mean of the best validation accuracies {status.accuracy:.4f}"
            )
            self.console.print(
                f"{status.label}: {found}{left}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def _left(self, status: Status) -> str:
        if not status.done:
            return ""
        seconds = (self.clock() - self.start) / status.done * (status.planned - status.done)
        return f"about {seconds:.0f} s left" if seconds < 90 else f"about {seconds / 60:.0f} min left"


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
