"""What every command shares: standard error, notices, an end to an interruption, words and formats."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console

from bench.formats import FORMATS
from melcnn.errors import Failed, InputError

# Standard output carries the result alone.
stderr = Console(stderr=True)


def note(text: str) -> None:
    """A one-line notice for the person, apart from the result."""
    stderr.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def resumable(going_on: str) -> Iterator[None]:
    """Ends an interrupted command with what is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"interrupted: {going_on}")
        raise typer.Exit(130) from None


# What typer raises for a missing or malformed option, whichever click it is built on.
USAGE_ERROR = typer.BadParameter.__mro__[1]


def finish(command: Callable[[], object]) -> NoReturn:
    """Runs a program to its end: exit code 0 good, 1 failed, 2 bad input, 130 interrupted; errors are one line."""
    try:
        with warnings.catch_warnings():
            # A warning is a notice like others: one line, without the place in the code.
            warnings.showwarning = lambda message, *_, **__: note(" ".join(str(message).split()))
            code = command()
        sys.exit(code if isinstance(code, int) else 0)
    except (InputError, Failed) as error:
        _end(str(error), 2 if isinstance(error, InputError) else 1)
    except (KeyboardInterrupt, typer.Abort):
        _end("interrupted", 130)
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
    line = " ".join(message.splitlines())
    stderr.print(f"melbench: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


def chosen_format(format: str, json: bool) -> str:
    if format not in FORMATS:
        raise InputError(f"there is no format {format!r}: use one of {', '.join(FORMATS)}")
    if json and format not in ("table", "json"):
        raise InputError(f"--json and --format {format} are both given: use one of them")
    return "json" if json else format


def split_words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
