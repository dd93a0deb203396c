"""Out-of-fold predictions: each clip that is not for testing is heard by networks that never heard its speaker."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.counting.profile import Complexity
from bench.executors.threads import Executor
from bench.records.failures import as_error
from bench.records.schema import FailureRecord, Predictions, RecordFolder, TrialRecord
from bench.sweep.run import check_seeds, standing, trained
from bench.sweep.schedule import Listener, Standing, Status
from bench.sweep.store import Held, held
from melcnn.config import Trial
from melcnn.data.clips import ClipSet
from melcnn.data.folds import FOLDS, fold_named, held_out


@dataclass(frozen=True)
class OutOfFold:
    """A configuration's out-of-fold predictions. correct: bool `(seeds, clips)`; speakers: who speaks in each clip.
    train_clips: of one fold's training, on average. devices: on which it was trained."""

    trial: Trial
    complexity: Complexity
    correct: np.ndarray
    speakers: tuple[str, ...]
    train_clips: float
    devices: tuple[str, ...] = ()


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
            done, failed = trained(chosen, seeds, part, folder, where, _of_fold(listener, fold), retry_failed)
            failures += failed
            of_trial: dict[Trial, list[TrialRecord]] = {trial: [] for trial in chosen}
            for record in done:
                of_trial[record.trial].append(record)
            for trial, records in of_trial.items():
                found[trial].append(records)
    complete = [one for trial, by_fold in found.items() if (one := whole(trial, by_fold))]
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
    of_trial: dict[Trial, dict[str, Held]] = {trial: {} for trial in trials}
    for fold, chosen, part in _folds(trials, clips):
        of_fold = held(chosen, seeds, part, present, failures)
        for trial in chosen:
            of_trial[trial][fold] = of_fold
    return [standing(trial, seeds, by_fold, retry_failed) for trial, by_fold in of_trial.items()]


def _of_fold(listener: Listener, fold: str) -> Listener:
    """Hears of a fold as of a sweep of its own, and tells `listener`, which has heard of the beginning of all folds."""

    def status(now: Status) -> None:
        listener.status(replace(now, fold=fold))

    return Listener(note=lambda text: listener.note(f"{fold}: {text}"), status=status, stage=listener.stage)


def by_fold(records: Sequence[TrialRecord]) -> list[list[TrialRecord]]:
    """One configuration's records by fold, from the first; a fold without one is empty."""
    found: list[list[TrialRecord]] = [[] for _ in range(fold_named(records[0].dataset)[2])]
    for record in records:
        found[fold_named(record.dataset)[1]].append(record)
    return found


def lacking(
    records: Sequence[TrialRecord], seeds: Collection[int], failures: Sequence[FailureRecord]
) -> set[tuple[int, int]]:
    """The folds and seeds, of `seeds`, of which one configuration has no record, and that have not failed either."""
    trial = records[0].trial
    failed = {(fold[1], f.seed) for f in failures if f.trial == trial and (fold := fold_named(f.dataset))}
    wanted = {(fold, seed) for fold, _ in enumerate(by_fold(records)) for seed in seeds}
    return wanted - failed - {(fold_named(record.dataset)[1], record.seed) for record in records}


def in_all(folds: Sequence[Sequence[TrialRecord]]) -> list[list[TrialRecord]]:
    """One configuration's records by fold, of the seeds that all folds have, which rise."""
    seeds = sorted(set.intersection(*({record.seed for record in records} for records in folds)))
    of_seed = [{record.seed: record for record in records} for records in folds]
    return [[records[seed] for seed in seeds] for records in of_seed]


def whole(trial: Trial, folds: Sequence[Sequence[TrialRecord]]) -> OutOfFold | None:
    """Of the seeds that all folds have; None: there is none."""
    found = in_all(folds)
    return joined(trial, found) if found[0] else None


def predictions(folds: Sequence[Sequence[TrialRecord]]) -> list[Predictions]:
    """Of each seed, what its networks said of the clips that they were not trained on: of all clips, fold by fold."""

    def all_of(name: str, records: Sequence[TrialRecord]) -> list:
        return [one for record in records for one in getattr(record.test, name)]

    return [
        Predictions.model_construct(
            **{name: all_of(name, records) for name in ("names", "speakers", "labels")},
            logits=np.concatenate([record.test.logits for record in records]),
        )
        for records in zip(*folds, strict=True)
    ]


def joined(trial: Trial, by_fold: Sequence[Sequence[TrialRecord]]) -> OutOfFold:
    """Of one configuration's records by fold, of the same seeds in each."""
    first, said = [records[0] for records in by_fold], predictions(by_fold)
    return OutOfFold(
        trial=trial,
        complexity=first[0].complexity,
        correct=np.stack([one.correct for one in said]),
        speakers=tuple(said[0].speakers),
        train_clips=float(np.mean([record.train_clips for record in first])),
        devices=tuple(sorted({record.environment.device for records in by_fold for record in records})),
    )
