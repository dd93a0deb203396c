"""Shared by all commands: standard error, notices, the end of an interrupted command, words and formats."""

import io
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console

from bench.formats import FORMATS
from bench.formats.escaping import ENCODING_ERRORS
from melcnn.errors import Failed, InputError, visible
from melcnn.files import check_writable

# Standard output carries the result alone.
stderr = Console(stderr=True)


def note(text: str) -> None:
    """Print a one-line notice on standard error, apart from the result."""
    stderr.print(visible(text), style="yellow", markup=False, highlight=False, soft_wrap=True)


class _Notices(logging.Handler):
    """Shows log records as notices."""

    def emit(self, record: logging.LogRecord) -> None:
        note(" ".join(record.getMessage().split()))


def _show_log() -> None:
    """Show what melcnn and bench log as notices; a second call changes nothing."""
    for name in ("melcnn", "bench"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        if not any(isinstance(handler, _Notices) for handler in logger.handlers):
            logger.addHandler(_Notices())


class Terminated(KeyboardInterrupt):
    """SIGTERM, as job schedulers send it: an interruption like Ctrl-C with another exit code."""


# Two signals may come from one interruption: `timeout`, for one, sends it to the process and to its group.
ONE_INTERRUPTION_S = 0.5

ENDING = "interrupted: ending cleanly; a second signal ends it at once\n"


def _interrupt(number: int, frame: object) -> NoReturn:
    first = time.monotonic()

    def again(number: int, frame: object) -> None:
        if time.monotonic() - first > ONE_INTERRUPTION_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, again)
    if not stderr.is_terminal:  # At a terminal the live view says so.
        with suppress(OSError):
            os.write(2, ENDING.encode())  # The console may be in the middle of a line.
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def resumable(going_on: str) -> Iterator[None]:
    """End a command that Ctrl-C or SIGTERM interrupts with exit code 130 or 143.

    It prints what was done, if the exception says it, and `going_on`: what is kept and how to go on. A second signal
    ends the process at once.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A process that ignores a signal, as a shell's background job does Ctrl-C, goes on ignoring it.
    handled = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in handled:
        signal.signal(number, _interrupt)
    try:
        yield
    except KeyboardInterrupt as interruption:
        done = str(interruption)
        note(f"interrupted: {done or going_on}")
        if done:
            note(going_on)
        raise typer.Exit(143 if isinstance(interruption, Terminated) else 130) from None
    finally:
        for number, handler in handled.items():
            if signal.getsignal(number) is _interrupt:  # After a signal the process ends; it handles no more.
                signal.signal(number, handler)


# The exception of a missing or malformed option. typer does not export it, and which click it is built on varies.
USAGE_ERROR: type[Any] = typer.BadParameter.__mro__[1]


def finish(command: Callable[[], object]) -> NoReturn:
    """Run a program to its end: exit code 0 good, 1 failed, 2 bad input, 130 interrupted; errors are one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # No encoding may end a command: a pipe or an old terminal has few signs.
            stream.reconfigure(errors=ENCODING_ERRORS)
    _show_log()
    try:
        with warnings.catch_warnings():
            # A warning is a notice like others: one line, without its place in the code.
            warnings.showwarning = lambda message, *_, **__: note(" ".join(str(message).split()))
            code = command()
        sys.exit(code if isinstance(code, int) else 0)
    except (InputError, Failed) as error:
        _end(str(error), 2 if isinstance(error, InputError) else 1)
    except (KeyboardInterrupt, typer.Abort) as interruption:
        _end(": ".join(["interrupted", *map(str, interruption.args)]), 130)
    except MemoryError as error:
        _end(f"out of memory{f': {error}' if str(error) else ''}; try a smaller --batch-size", 1)
    except OSError as error:
        # A closed folder, a full disk, a name too long: finished records are safe, and the system says what it is.
        _end(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 2)
    except USAGE_ERROR as error:
        if not error.format_message():  # a command without arguments has shown its help
            sys.exit(2)
        _end(f"{error.format_message()} (see {error.ctx.command_path if error.ctx else 'melbench'} --help)", 2)


def _end(message: str, code: int) -> NoReturn:
    line = visible(" ".join(message.splitlines()))
    stderr.print(f"melbench: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


def chosen_format(format: str, json: bool, csv: Path | None = None) -> str:
    """Return the format to print in. Raises `InputError` for an unknown one, and if `csv` cannot be written."""
    if format not in FORMATS:
        raise InputError(f"there is no format {format!r}: use one of {', '.join(FORMATS)}")
    if json and format not in ("table", "json"):
        raise InputError(f"--json and --format {format} are both given: use one of them")
    if csv:
        check_writable(csv)
    return "json" if json else format


def split_words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
