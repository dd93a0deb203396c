"""The errors that a person can cause or must hear of: one line each, with what was expected and what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

# What a terminal obeys instead of showing: controls, separators of lines, changes of the direction of writing; and
# halves of surrogate pairs, which no encoding knows.
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# Characters of a message, of which the end says what to do; what is quoted between may be of any length.
LONGEST = 480
LONGEST_END = 200
# That are listed one by one.
MOST_PROBLEMS = 100


def visible(text: str) -> str:
    """`text` as one line that shows all and commands nothing: control characters as `\\n`, `\\x1b` or `\\u202e`."""
    return OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _message(text: str) -> str:
    """`text` as one line that a person can read, whatever names and values from files it quotes."""
    line = visible(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - LONGEST_END - 5]} ... {line[-LONGEST_END:]}"


class InputError(ValueError):
    """Bad input. Its text is one line: what was wrong, what was expected, what to do."""

    def __init__(self, text: str = ""):
        super().__init__(_message(text))


class Failed(RuntimeError):
    """Work that could not be finished, through no fault of the input. Its text is one line."""

    def __init__(self, text: str = ""):
        super().__init__(_message(text))


class TrainingDiverged(Failed):
    """A network has no epoch to keep, of finite loss. Its text names the seeds.

    runs: what `fit` would have returned of the others. curves: of those that diverged, by seed.
    """

    def __init__(self, text: str = "", runs=(), curves=None):
        super().__init__(text)
        self.runs, self.curves = list(runs), dict(curves or {})


def first_line(error: BaseException) -> str:
    """What another's exception says, in one line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no more is said'])[0]}"


def first_problem(error: ValidationError) -> str:
    """Where a value is not what it should be, and why: the first of pydantic's many lines."""
    if (number := error.error_count()) > MOST_PROBLEMS:  # Listing millions of them would take longer than reading them.
        return f"{number:,} values are not what they should be"
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    # Our own checks speak for themselves; pydantic prefixes them with "Value error, ".
    return ": ".join(part for part in (f"{where:.60}", first["msg"].removeprefix("Value error, ")) if part)


@contextmanager
def one_line(subject: str) -> Iterator[None]:
    """Turns pydantic's many-line report into one `InputError` line that starts with `subject`."""
    try:
        yield
    except ValidationError as error:
        if error.error_count() > MOST_PROBLEMS:
            raise InputError(f"{subject}: {first_problem(error)}") from None
        problems = []
        for problem in error.errors(include_url=False):
            where = str(problem["loc"][-1]) if problem["loc"] else ""
            # Our own checks speak for themselves; pydantic prefixes them with "Value error, ".
            what = problem["msg"].removeprefix("Value error, ")
            value = "" if problem["type"] in ("missing", "value_error") else f" (got {problem['input']!r:.60})"
            problems.append(f"{where}: {what}{value}" if where else what)
        raise InputError(f"{subject}: " + "; ".join(problems)) from None
