"""The errors that a person can cause or must hear of: one line each, with what was expected and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError


class InputError(ValueError):
    """Bad input. Its text is one line: what was wrong, what was expected, what to do."""


class TrainingDiverged(RuntimeError):
    """A network's validation loss was never finite. Its text is one line and names the seeds."""


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
