"""Out-of-fold predictions: every clip outside the test split is predicted by networks that never saw its speaker."""

from collections.abc import Iterator, Sequence

from bench.executors.base import Executor
from bench.executors.events import Event, OnEvent, Planned
from bench.grid import check_seeds
from bench.records import FailureRecord, RecordFolder, TrialRecord
from bench.records.failures import as_error
from bench.records.folds import OutOfFold, out_of_fold_of
from bench.sweep.run import ignore, planned, train_missing
from bench.sweep.store import StoredTrials, find_stored
from melcnn.config import Trial
from melcnn.data.clips import ClipSet, Fold
from melcnn.data.folds import FOLDS, held_out


def out_of_fold(
    trials: Sequence[Trial],
    seeds: int,
    clips: ClipSet,
    folder: RecordFolder,
    executor: Executor,
    on_event: OnEvent = ignore,
    retry_failed: bool = False,
    kernels: str | None = None,
) -> tuple[list[OutOfFold], list[FailureRecord]]:
    """Cross-validate each trial over the training and validation clips, with seeds 0 to `seeds` - 1 in each fold.

    A fold is a clip set of its own (`melcnn.data.folds`), and its records lie in `folder`; missing ones are trained, as
    in `bench.sweep.run.sweep`. If some networks of a trial failed, the seeds that all folds have count; a trial without
    any is left out.

    Returns:
        the out-of-fold predictions, and the failures.

    Raises:
        Failed: if no trial has a seed in all folds.
    """
    check_seeds(seeds)
    found: dict[Trial, list[list[TrialRecord]]] = {trial: [] for trial in trials}
    failures: list[FailureRecord] = []

    def forward(event: Event) -> None:
        # All folds were announced together.
        if not isinstance(event, Planned):
            on_event(event)

    with folder.locked():
        on_event(_planned(trials, seeds, clips, folder, retry_failed))
        for chosen, part in _folds(trials, clips):
            done, failed = train_missing(chosen, seeds, part, folder, executor, forward, retry_failed, kernels)
            failures += failed
            of_trial: dict[Trial, list[TrialRecord]] = {trial: [] for trial in chosen}
            for record in done:
                of_trial[record.trial].append(record)
            for trial, records in of_trial.items():
                found[trial].append(records)
    complete = [one for trial, folds in found.items() if (one := out_of_fold_of(trial, folds))]
    if not complete:
        raise as_error(failures, folder.path)
    return complete, failures


def _folds(trials: Sequence[Trial], clips: ClipSet) -> Iterator[tuple[list[Trial], ClipSet]]:
    """Yield for each fold the trials that are trained on it, and its clips, which are made when asked for."""
    for fold in range(FOLDS):
        for validated in (True, False):
            if chosen := [trial for trial in trials if (trial.training.keep == "best") == validated]:
                yield chosen, held_out(clips, fold, validated)


def _planned(trials: Sequence[Trial], seeds: int, clips: ClipSet, folder: RecordFolder, retry_failed: bool) -> Planned:
    """Return the state of all folds: the time left depends on the later ones, too."""
    present, failures = folder.trials(), folder.failures()
    of_trial: dict[Trial, dict[Fold | None, StoredTrials]] = {trial: {} for trial in trials}
    for chosen, part in _folds(trials, clips):
        of_fold = find_stored(chosen, seeds, part, present, failures)
        for trial in chosen:
            of_trial[trial][part.fold] = of_fold
    return Planned(tuple(planned(trial, seeds, folds, retry_failed) for trial, folds in of_trial.items()))
