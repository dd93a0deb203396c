"""What every command shares: standard error, notices, an end to an interruption, words and formats."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from bench.formats import FORMATS
from melcnn.errors import InputError

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


def chosen_format(format: str, json: bool) -> str:
    if format not in FORMATS:
        raise InputError(f"there is no format {format!r}: use one of {', '.join(FORMATS)}")
    if json and format not in ("table", "json"):
        raise InputError(f"--json and --format {format} are both given: use one of them")
    return "json" if json else format


def split_words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
