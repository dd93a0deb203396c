"""The errors that a person can cause or must hear of: one line each, with what was expected and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError


class InputError(ValueError):
    """Bad input. Its text is one line: what was wrong, what was expected, what to do."""


class Failed(RuntimeError):
    """Work that could not be finished, through no fault of the input. Its text is one line."""


class TrainingDiverged(Failed):
    """A network's validation loss was never finite. Its text names the seeds."""


def first_line(error: BaseException) -> str:
    """What another's exception says, in one line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no more is said'])[0]}"


@contextmanager
def one_line(subject: str) -> Iterator[None]:
    """Turns pydantic's many-line report into one `InputError` line that starts with `subject`."""
    try:
        yield
    except ValidationError as error:
        problems = []
        for problem in error.errors(include_url=False):
            where = str(problem["loc"][-1]) if problem["loc"] else ""
            # Our own checks speak for themselves; pydantic prefixes them with "Value error, ".
            what = problem["msg"].removeprefix("Value error, ")
            value = "" if problem["type"] in ("missing", "value_error") else f" (got {problem['input']!r:.60})"
            problems.append(f"{where}: {what}{value}" if where else what)
        raise InputError(f"{subject}: " + "; ".join(problems)) from None
