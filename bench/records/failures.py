"""What failed, in words: short, by configuration, with what to do."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench.formats.sheet import Sheet
from bench.records.schema import FailureRecord
from melcnn.config import Trial, short_names
from melcnn.data.folds import fold_named
from melcnn.errors import Failed

# Seeds named before the rest are counted.
NAMED = 4


def describe_failures(failures: Sequence[FailureRecord], trials: Sequence[Trial]) -> list[str]:
    """A text for each configuration, such as `groups=16 seeds 0, 3 (out of memory), seed 2 (diverged)`; trials: all
    that the sweep is of."""
    named = short_names(trials)
    by_trial: dict[Trial, list[FailureRecord]] = {}
    for failure in failures:
        by_trial.setdefault(failure.trial, []).append(failure)
    return [f"{name} {_by_kind(by_trial[trial])}" for trial, name in named.items() if trial in by_trial]


def _by_kind(failures: Sequence[FailureRecord]) -> str:
    kinds: dict[str, list[str]] = {}
    for failure in failures:
        fold = fold_named(failure.dataset)
        kinds.setdefault(failure.kind, []).append(f"{failure.seed}" + (f" of fold {fold[1] + 1}" if fold else ""))
    return ", ".join(f"seed{'s' * (len(own) > 1)} {_listed(own)} ({kind})" for kind, own in kinds.items())


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - NAMED
    return ", ".join(texts[:NAMED]) + (f" and {more} more" if more > 0 else "")


def report_failures(
    note: Callable[[str], None], failures: Sequence[FailureRecord], trials: Sequence[Trial], folder: Path
) -> int:
    """Notes what failed, a line for each configuration, and what to do. The exit code that says it: 1, or 0."""
    if not failures:
        return 0
    for text in describe_failures(failures, trials):
        note(f"failed: {text}")
    note(f"such as {_first(failures, trials)}; {_what_to_do(folder)}")
    return 1


def _first(failures: Sequence[FailureRecord], trials: Sequence[Trial]) -> str:
    first = failures[0]
    return f"{short_names(trials)[first.trial]} seed {first.seed}: {first.message}"


def _what_to_do(folder: Path) -> str:
    return f"the logs are in {folder / 'failure-*.json'}; --retry-failed runs them again"


def with_failures(sheet: Sheet, failures: Sequence[FailureRecord], trials: Sequence[Trial]) -> Sheet:
    """The sheet, which says what is missing in it."""
    remark = [f"failed, and not in the table: {'; '.join(describe_failures(failures, trials))}"] if failures else []
    return replace(sheet, note="; ".join([*([sheet.note] if sheet.note else []), *remark]))


def as_error(failures: Sequence[FailureRecord], folder: Path | None = None) -> Failed:
    """Where there is nothing to show without what failed. folder: where its records are, if they are kept."""
    text = f"{len(failures)} trial{'s' * (len(failures) > 1)} failed, such as "
    text += _first(failures, [failure.trial for failure in failures])
    return Failed(f"{text}; {_what_to_do(folder)}" if folder else text)
