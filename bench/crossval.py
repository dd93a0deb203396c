"""Out-of-fold predictions: each clip that is not for testing is heard by networks that never heard its speaker."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.complexity import Complexity
from bench.records import RecordFolder, TrialRecord
from bench.stacks import Listener, Standing, Status
from bench.sweep import check_seeds, finished, trained
from melcnn.config import Trial
from melcnn.data.clips import ClipSet
from melcnn.data.folds import FOLDS, held_out


@dataclass(frozen=True)
class OutOfFold:
    """A configuration's out-of-fold predictions. correct: bool `(seeds, clips)`; speakers: who speaks in each clip.
    train_clips: of one fold's training, on average."""

    trial: Trial
    complexity: Complexity
    correct: np.ndarray
    speakers: tuple[str, ...]
    train_clips: float


def out_of_fold(
    trials: Sequence[Trial], seeds: int, clips: ClipSet, folder: RecordFolder, device: str, listener: Listener
) -> list[OutOfFold]:
    """Cross-validates each trial over the training and validation clips, with seeds 0 to `seeds` - 1 in each fold.

    A fold is a data set of its own (`melcnn.data.folds`), whose records lie in `folder`; what is missing is trained.
    """
    check_seeds(seeds)
    listener.begin(_standings(trials, seeds, clips, folder))
    found: dict[Trial, list[list[TrialRecord]]] = {trial: [] for trial in trials}
    for fold, chosen, part in _folds(trials, clips):
        done = trained(chosen, seeds, part, folder, device, _of_fold(listener, fold))
        for number, trial in enumerate(chosen):
            found[trial].append(done[number * seeds : (number + 1) * seeds])
    return [joined(trial, by_fold) for trial, by_fold in found.items()]


def _folds(trials: Sequence[Trial], clips: ClipSet) -> Iterator[tuple[str, list[Trial], ClipSet]]:
    """Each fold's name, the trials that are trained on it, and its clips, which are made when they are asked for."""
    for fold in range(FOLDS):
        for validated in (True, False):
            if chosen := [trial for trial in trials if (trial.training.keep == "best") == validated]:
                yield f"fold {fold + 1} of {FOLDS}", chosen, held_out(clips, fold, validated)


def _standings(trials: Sequence[Trial], seeds: int, clips: ClipSet, folder: RecordFolder) -> list[Standing]:
    """Where all folds stand: the time left depends on what the later ones lack, too."""
    present = folder.trials()
    before: dict[Trial, dict[tuple[str, int], float]] = {trial: {} for trial in trials}
    for fold, chosen, part in _folds(trials, clips):
        for trial in chosen:
            records = finished(trial, seeds, part, present)
            before[trial] |= {(fold, seed): record.validation.accuracy for seed, record in records.items()}
    return [Standing(trial, FOLDS * seeds, by_network) for trial, by_network in before.items()]


def _of_fold(listener: Listener, fold: str) -> Listener:
    """Hears of a fold as of a sweep of its own, and tells `listener`, which has heard of the beginning of all folds."""

    def status(now: Status) -> None:
        listener.status(replace(now, fold=fold))

    return Listener(note=lambda text: listener.note(f"{fold}: {text}"), status=status, stage=listener.stage)


def joined(trial: Trial, by_fold: Sequence[Sequence[TrialRecord]]) -> OutOfFold:
    first = [records[0] for records in by_fold]
    return OutOfFold(
        trial=trial,
        complexity=first[0].complexity,
        correct=np.concatenate([np.stack([record.test.correct for record in records]) for records in by_fold], 1),
        speakers=tuple(speaker for record in first for speaker in record.test.speakers),
        train_clips=float(np.mean([record.train_clips for record in first])),
    )
