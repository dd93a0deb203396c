"""Failures in words: short, by configuration, with the remedy."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.formats import Sheet
from bench.records.schema import FailureRecord
from melcnn.config import Trial, short_names
from melcnn.errors import Failed

log = logging.getLogger(__name__)

# Seeds named before the rest are counted.
NAMED = 4


def describe_failures(failures: Sequence[FailureRecord], trials: Sequence[Trial]) -> list[str]:
    """Return one text a configuration, such as `groups=16 seeds 0, 3 (out of memory), seed 2 (diverged)`.

    Args:
        trials: all configurations of the sweep, by which each is named.
    """
    named = short_names(trials)
    by_trial: dict[Trial, list[FailureRecord]] = {}
    for failure in failures:
        by_trial.setdefault(failure.trial, []).append(failure)
    return [f"{name} {_by_kind(by_trial[trial])}" for trial, name in named.items() if trial in by_trial]


def _by_kind(failures: Sequence[FailureRecord]) -> str:
    kinds: dict[str, list[str]] = {}
    for failure in failures:
        fold = f" of fold {failure.fold.index + 1}" if failure.fold else ""
        kinds.setdefault(failure.kind, []).append(f"{failure.seed}{fold}")
    return ", ".join(f"seed{'s' * (len(own) > 1)} {_listed(own)} ({kind})" for kind, own in kinds.items())


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - NAMED
    return ", ".join(texts[:NAMED]) + (f" and {more} more" if more > 0 else "")


def log_failures(failures: Sequence[FailureRecord], trials: Sequence[Trial], folder: Path) -> None:
    """Log the failures, one line a configuration, and the remedy."""
    for text in describe_failures(failures, trials):
        log.warning(f"failed: {text}")
    if failures:
        log.warning(f"such as {_first(failures, trials)}; {_remedy(folder)}")


def _first(failures: Sequence[FailureRecord], trials: Sequence[Trial]) -> str:
    first = failures[0]
    return f"{short_names(trials)[first.trial]} seed {first.seed}: {first.message}"


def _remedy(folder: Path) -> str:
    return f"the logs are in {folder / 'failure-*.json'}; --retry-failed runs them again"


def with_failures(sheet: Sheet, failures: Sequence[FailureRecord], trials: Sequence[Trial]) -> Sheet:
    """Return the sheet with a note of the configurations and seeds that are missing from it."""
    if not failures:
        return sheet
    return replace(
        sheet, notes=[*sheet.notes, f"Failed and not shown: {'; '.join(describe_failures(failures, trials))}."]
    )


def as_error(failures: Sequence[FailureRecord], folder: Path | None = None) -> Failed:
    """Return the error to raise where nothing succeeded.

    Args:
        folder: the folder of their records; None if they are not kept.
    """
    text = f"{len(failures)} trial{'s' * (len(failures) > 1)} failed, such as "
    text += _first(failures, [failure.trial for failure in failures])
    return Failed(f"{text}; {_remedy(folder)}" if folder else text)
