"""Records of a cross-validation, put together fold by fold into out-of-fold predictions."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.counting.profile import Complexity
from bench.records.schema import FailureRecord, Predictions, TrialRecord
from melcnn.config import Trial
from melcnn.data.clips import Fold


@dataclass(frozen=True)
class OutOfFold:
    """A configuration's out-of-fold predictions.

    Attributes:
        correct: whether each network is right, bool `(seeds, clips)`.
        speakers: the speaker of each clip.
        train_clips: training clips of a fold, the mean over folds.
        devices: the devices that trained it.
    """

    trial: Trial
    complexity: Complexity
    correct: np.ndarray
    speakers: tuple[str, ...]
    train_clips: float
    devices: tuple[str, ...] = ()


def fold_of_record(record: TrialRecord | FailureRecord) -> Fold:
    """Return the fold of a cross-validation's record. Raises ValueError for a record of the data set's own splits."""
    if record.fold is None:
        raise ValueError(f"{record.file_name} is not a fold's")
    return record.fold


def by_fold(records: Sequence[TrialRecord]) -> list[list[TrialRecord]]:
    """Return one configuration's records fold by fold; a fold without records is empty."""
    found: list[list[TrialRecord]] = [[] for _ in range(fold_of_record(records[0]).of)]
    for record in records:
        found[fold_of_record(record).index].append(record)
    return found


def missing_seeds(
    records: Sequence[TrialRecord], seeds: Collection[int], failures: Sequence[FailureRecord]
) -> set[tuple[int, int]]:
    """Return the pairs of fold and seed that one configuration still lacks: neither recorded nor failed.

    Args:
        records: the configuration's records, of any fold.
        seeds: the seeds that every fold should have.
        failures: of any configuration.
    """
    trial = records[0].trial
    failed = {(failure.fold.index, failure.seed) for failure in failures if failure.trial == trial and failure.fold}
    wanted = {(fold, seed) for fold, _ in enumerate(by_fold(records)) for seed in seeds}
    return wanted - failed - {(fold_of_record(record).index, record.seed) for record in records}


def common_seeds(folds: Sequence[Sequence[TrialRecord]]) -> list[list[TrialRecord]]:
    """Return one configuration's records fold by fold, restricted to the seeds that all folds have, seeds rising."""
    seeds = sorted(set.intersection(*({record.seed for record in records} for records in folds)))
    of_seed = [{record.seed: record for record in records} for records in folds]
    return [[records[seed] for seed in seeds] for records in of_seed]


def out_of_fold_of(trial: Trial, folds: Sequence[Sequence[TrialRecord]]) -> OutOfFold | None:
    """Return the out-of-fold predictions of the seeds that all folds have; None if there is no such seed."""
    found = common_seeds(folds)
    return join_folds(trial, found) if found[0] else None


def out_of_fold_predictions(folds: Sequence[Sequence[TrialRecord]]) -> list[Predictions]:
    """Return for each seed the predictions of all clips, fold by fold, each by a network that was not trained on it."""

    def joined(records: Sequence[TrialRecord]) -> Predictions:
        parts = [record.test for record in records]
        fields: dict[str, Any] = {
            name: [one for part in parts for one in getattr(part, name)] for name in ("names", "speakers", "labels")
        }
        # Each part was checked when it was read.
        fields["logits"] = np.concatenate([part.logits for part in parts])
        return Predictions.model_construct(None, **fields)

    return [joined(records) for records in zip(*folds, strict=True)]


def join_folds(trial: Trial, folds: Sequence[Sequence[TrialRecord]]) -> OutOfFold:
    """Return the out-of-fold predictions of one configuration's records, which hold the same seeds in each fold."""
    first, predictions = [records[0] for records in folds], out_of_fold_predictions(folds)
    return OutOfFold(
        trial=trial,
        complexity=first[0].complexity,
        correct=np.stack([one.correct for one in predictions]),
        speakers=tuple(predictions[0].speakers),
        train_clips=float(np.mean([record.train_clips for record in first])),
        devices=tuple(sorted({record.environment.device for records in folds for record in records})),
    )
