"""Records of cross-validation, put together fold by fold into out-of-fold predictions."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from bench.counting.profile import Complexity
from bench.records.schema import FailureRecord, Predictions, TrialRecord
from melcnn.config import Trial
from melcnn.data.folds import fold_named


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


def by_fold(records: Sequence[TrialRecord]) -> list[list[TrialRecord]]:
    """One configuration's records by fold, from the first; a fold without one is empty."""
    found: list[list[TrialRecord]] = [[] for _ in range(fold_named(records[0].dataset)[2])]
    for record in records:
        found[fold_named(record.dataset)[1]].append(record)
    return found


def missing_seeds(
    records: Sequence[TrialRecord], seeds: Collection[int], failures: Sequence[FailureRecord]
) -> set[tuple[int, int]]:
    """The folds and seeds, of `seeds`, of which one configuration has no record, and that have not failed either."""
    trial = records[0].trial
    failed = {(fold[1], f.seed) for f in failures if f.trial == trial and (fold := fold_named(f.dataset))}
    wanted = {(fold, seed) for fold, _ in enumerate(by_fold(records)) for seed in seeds}
    return wanted - failed - {(fold_named(record.dataset)[1], record.seed) for record in records}


def common_seeds(folds: Sequence[Sequence[TrialRecord]]) -> list[list[TrialRecord]]:
    """One configuration's records by fold, of the seeds that all folds have, which rise."""
    seeds = sorted(set.intersection(*({record.seed for record in records} for records in folds)))
    of_seed = [{record.seed: record for record in records} for records in folds]
    return [[records[seed] for seed in seeds] for records in of_seed]


def out_of_fold_of(trial: Trial, folds: Sequence[Sequence[TrialRecord]]) -> OutOfFold | None:
    """Of the seeds that all folds have; None: there is none."""
    found = common_seeds(folds)
    return join_folds(trial, found) if found[0] else None


def out_of_fold_predictions(folds: Sequence[Sequence[TrialRecord]]) -> list[Predictions]:
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


def join_folds(trial: Trial, by_fold: Sequence[Sequence[TrialRecord]]) -> OutOfFold:
    """Of one configuration's records by fold, of the same seeds in each."""
    first, said = [records[0] for records in by_fold], out_of_fold_predictions(by_fold)
    return OutOfFold(
        trial=trial,
        complexity=first[0].complexity,
        correct=np.stack([one.correct for one in said]),
        speakers=tuple(said[0].speakers),
        train_clips=float(np.mean([record.train_clips for record in first])),
        devices=tuple(sorted({record.environment.device for records in by_fold for record in records})),
    )
