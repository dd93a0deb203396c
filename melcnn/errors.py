"""Errors that a person can cause or must know of: one line each, with what was expected and what to do."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import ValidationError

if TYPE_CHECKING:
    from melcnn.training import Curves, TrainedNetwork

# Characters that a terminal obeys instead of showing: controls, line separators and changes of the writing direction;
# and lone surrogates, which no encoding can write.
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# Characters of a message. Its middle may quote text of any length and is cut; its end says what to do and is kept.
MAX_MESSAGE_LENGTH = 480
MESSAGE_END_LENGTH = 200
# Validation problems that are listed one by one.
MAX_PROBLEMS = 100


def visible(text: str) -> str:
    """Return `text` as one line with control characters escaped, as `\\n`, `\\x1b` or `\\u202e`."""
    return CONTROL_CHARACTERS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _message(text: str) -> str:
    """Return `text` as one line that a person can read, even where it quotes names and values from files."""
    line = visible(text)
    if len(line) <= MAX_MESSAGE_LENGTH:
        return line
    return f"{line[: MAX_MESSAGE_LENGTH - MESSAGE_END_LENGTH - 5]} ... {line[-MESSAGE_END_LENGTH:]}"


class InputError(ValueError):
    """Bad input. Its text is one line: what was wrong, what was expected, what to do."""

    def __init__(self, text: str = "") -> None:
        super().__init__(_message(text))


class Failed(RuntimeError):
    """Work that failed although the input was good. Its text is one line."""

    def __init__(self, text: str = "") -> None:
        super().__init__(_message(text))


class TrainingDiverged(Failed):
    """A network has no epoch of finite loss to keep. The text names the seeds.

    Attributes:
        runs: the networks of the other seeds, as `fit` would have returned them.
        curves: the curves of the networks that diverged, by seed.
    """

    def __init__(
        self, text: str = "", runs: "Sequence[TrainedNetwork]" = (), curves: "Mapping[int, Curves] | None" = None
    ) -> None:
        super().__init__(text)
        self.runs, self.curves = list(runs), dict(curves or {})


def check_type(value: object, kind: type, remedy: str) -> None:
    """Raise `InputError`, which ends with `remedy`, unless a value is of the type."""
    if not isinstance(value, kind):
        raise InputError(f"{kind.__name__} expected, not {type(value).__name__}: {remedy}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ", did you mean ...?" if one of the known names is much like `name`, else nothing."""
    close = difflib.get_close_matches(str(name).lower().replace("-", "_"), list(known), 1)
    return f", did you mean {close[0]}?" if close else ""


def first_line(error: BaseException) -> str:
    """Return one line about an error of other software."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no more is said'])[0]}"


def first_problem(error: ValidationError) -> str:
    """Return the place and the reason of the first validation problem."""
    if (number := error.error_count()) > MAX_PROBLEMS:  # Listing millions of problems takes longer than finding them.
        return f"{number:,} values are not what they should be"
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    # Our own checks speak for themselves; pydantic prefixes them with "Value error, ".
    return ": ".join(part for part in (f"{where:.60}", first["msg"].removeprefix("Value error, ")) if part)


@contextmanager
def one_line(subject: str) -> Iterator[None]:
    """Turn a `ValidationError` of the body into an `InputError` of one line that begins with `subject`."""
    try:
        yield
    except ValidationError as error:
        if error.error_count() > MAX_PROBLEMS:
            raise InputError(f"{subject}: {first_problem(error)}") from None
        problems = []
        for problem in error.errors(include_url=False):
            where = str(problem["loc"][-1]) if problem["loc"] else ""
            # Our own checks speak for themselves; pydantic prefixes them with "Value error, ".
            what = problem["msg"].removeprefix("Value error, ")
            value = "" if problem["type"] in ("missing", "value_error") else f" (got {problem['input']!r:.60})"
            problems.append(f"{where}: {what}{value}" if where else what)
        raise InputError(f"{subject}: " + "; ".join(problems)) from None
