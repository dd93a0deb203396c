"""Out-of-fold predictions: each clip that is not for testing is heard by networks that never heard its speaker."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bench.executors.base import Executor
from bench.grid import check_seeds
from bench.records import FailureRecord, RecordFolder, TrialRecord
from bench.records.failures import as_error
from bench.records.folds import OutOfFold, out_of_fold_of
from bench.sweep.events import Listener, Standing, Status
from bench.sweep.run import standing, train_missing
from bench.sweep.store import StoredTrials, find_stored
from melcnn.config import Trial
from melcnn.data.clips import ClipSet
from melcnn.data.folds import FOLDS, held_out


def out_of_fold(
    trials: Sequence[Trial],
    seeds: int,
    clips: ClipSet,
    folder: RecordFolder,
    where: str | Executor,
    listener: Listener,
    retry_failed: bool = False,
) -> tuple[list[OutOfFold], list[FailureRecord]]:
    """Cross-validates each trial over the training and validation clips, with seeds 0 to `seeds` - 1 in each fold, and
    the failures. Of a trial of which some failed, the seeds that all folds have count; one without any is left out.

    A fold is a data set of its own (`melcnn.data.folds`), whose records lie in `folder`; what is missing is trained, as
    in `bench.sweep.run.sweep`. Raises `Failed` if no trial has a seed in all folds.
    """
    check_seeds(seeds)
    found: dict[Trial, list[list[TrialRecord]]] = {trial: [] for trial in trials}
    failures: list[FailureRecord] = []
    with folder.locked():
        listener.begin(_standings(trials, seeds, clips, folder, retry_failed))
        for fold, chosen, part in _folds(trials, clips):
            done, failed = train_missing(chosen, seeds, part, folder, where, _of_fold(listener, fold), retry_failed)
            failures += failed
            of_trial: dict[Trial, list[TrialRecord]] = {trial: [] for trial in chosen}
            for record in done:
                of_trial[record.trial].append(record)
            for trial, records in of_trial.items():
                found[trial].append(records)
    complete = [one for trial, by_fold in found.items() if (one := out_of_fold_of(trial, by_fold))]
    if not complete:
        raise as_error(failures, folder.path)
    return complete, failures


def _folds(trials: Sequence[Trial], clips: ClipSet) -> Iterator[tuple[str, list[Trial], ClipSet]]:
    """Each fold's name, the trials that are trained on it, and its clips, which are made when they are asked for."""
    for fold in range(FOLDS):
        for validated in (True, False):
            if chosen := [trial for trial in trials if (trial.training.keep == "best") == validated]:
                yield f"fold {fold + 1} of {FOLDS}", chosen, held_out(clips, fold, validated)


def _standings(
    trials: Sequence[Trial], seeds: int, clips: ClipSet, folder: RecordFolder, retry_failed: bool
) -> list[Standing]:
    """Where all folds stand: the time left depends on what the later ones lack, too."""
    present, failures = folder.trials(), folder.failures()
    of_trial: dict[Trial, dict[str, StoredTrials]] = {trial: {} for trial in trials}
    for fold, chosen, part in _folds(trials, clips):
        of_fold = find_stored(chosen, seeds, part, present, failures)
        for trial in chosen:
            of_trial[trial][fold] = of_fold
    return [standing(trial, seeds, by_fold, retry_failed) for trial, by_fold in of_trial.items()]


def _of_fold(listener: Listener, fold: str) -> Listener:
    """Hears of a fold as of a sweep of its own, and tells `listener`, which has heard of the beginning of all folds."""

    def status(now: Status) -> None:
        listener.status(replace(now, fold=fold))

    return Listener(note=lambda text: listener.note(f"{fold}: {text}"), status=status, stage=listener.stage)
