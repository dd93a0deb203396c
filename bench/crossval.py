"""Out-of-fold predictions: each clip that is not for testing is heard by networks that never heard its speaker."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.complexity import Complexity
from bench.records import RecordFolder, TrialRecord
from bench.stacks import Listener, Status
from bench.sweep import check_seeds, trained
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
    found: dict[Trial, list[list[TrialRecord]]] = {trial: [] for trial in trials}
    for fold in range(FOLDS):
        for validated in (True, False):
            chosen = [trial for trial in trials if (trial.training.keep == "best") == validated]
            if chosen:
                part = held_out(clips, fold, validated)
                done = trained(chosen, seeds, part, folder, device, _of_fold(listener, fold))
                for number, trial in enumerate(chosen):
                    found[trial].append(done[number * seeds : (number + 1) * seeds])
    return [_joined(trial, by_fold) for trial, by_fold in found.items()]


def _of_fold(listener: Listener, fold: int) -> Listener:
    name = f"fold {fold + 1} of {FOLDS}"

    def status(now: Status) -> None:
        # Every fold takes about as long.
        done, planned = now.done + fold * now.planned, FOLDS * now.planned
        listener.status(Status(done, planned, f"{name}, {now.label}", now.accuracy, now.ended))

    return Listener(note=lambda text: listener.note(f"{name}: {text}"), status=status)


def _joined(trial: Trial, by_fold: Sequence[Sequence[TrialRecord]]) -> OutOfFold:
    first = [records[0] for records in by_fold]
    return OutOfFold(
        trial=trial,
        complexity=first[0].complexity,
        correct=np.concatenate([np.stack([record.test.correct for record in records]) for records in by_fold], 1),
        speakers=tuple(speaker for record in first for speaker in record.test.speakers),
        train_clips=float(np.mean([record.train_clips for record in first])),
    )
