"""What a folder holds of a sweep's trials, and records made of what comes of training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import torch

from bench.counting.profile import Complexity
from bench.executors.jobs import Failure, JobOutcome, TrainedStack, TrainingJob
from bench.records import FailureRecord, Predictions, RecordFolder, TrialRecord, trial_identity
from bench.stats.intervals import significant
from bench.system.environment import Environment
from melcnn.config import Trial
from melcnn.data.clips import ClipSet
from melcnn.training import TrainedNetwork


@dataclass(frozen=True)
class StoredTrials:
    """The records of trials, and the last failures of those without one; by trial and seed. data: the fingerprint of
    what each trial hears. What comes of training is added."""

    found: dict[Trial, dict[int, TrialRecord]]
    failed: dict[Trial, dict[int, FailureRecord]]
    data: dict[Trial, str]

    def settled(self, trial: Trial, retry_failed: bool) -> dict[int, TrialRecord | FailureRecord]:
        """What is not trained again."""
        return {**({} if retry_failed else self.failed[trial]), **self.found[trial]}


def find_stored(
    trials: Sequence[Trial],
    seeds: int,
    clips: ClipSet,
    present: Mapping[str, TrialRecord],
    failures: Mapping[str, FailureRecord],
) -> StoredTrials:
    """What there is of seeds 0 to `seeds` - 1 of each trial, trained on `clips`, among records by identity."""
    # The same for all that hear noise, of which a hash takes as long as a small training.
    heard = {trial.training.noise: trial.training for trial in trials}
    heard_by = {noise: clips.heard_by(training) for noise, training in heard.items()}
    data = {trial: heard_by[trial.training.noise] for trial in trials}
    keys = {trial: [trial_identity(trial, data[trial], seed) for seed in range(seeds)] for trial in trials}
    return StoredTrials(
        found={t: {seed: present[key] for seed, key in enumerate(own) if key in present} for t, own in keys.items()},
        failed={
            trial: {seed: failures[key] for seed, key in enumerate(own) if key in failures and key not in present}
            for trial, own in keys.items()
        },
        data=data,
    )


def record_writer(
    held: StoredTrials, clips: ClipSet, folder: RecordFolder, costs: Mapping[Trial, Complexity], retry_failed: bool
) -> Callable[[TrainingJob, JobOutcome], None]:
    """What writes what came of a job to `folder`, and adds it to `held`. What is settled stays: a seed that was trained
    again for its neighbours' sake alone has its record."""
    settled = {trial: set(held.settled(trial, retry_failed)) for trial in held.data}
    spoken = {split: _spoken(clips, split) for split in ("validation", "test")}
    environments: dict[str, Environment] = {}  # Each once: of thousands of outcomes nearly all bring the same.

    def keep(job: TrainingJob, outcome: JobOutcome) -> None:
        trial, env = job.trial, outcome.environment
        about = {
            "trial": trial,
            "dataset": clips.dataset,
            "data_fingerprint": held.data[trial],
            "environment": env and environments.setdefault(env.model_dump_json(), env),
            "finished_at": now(),
        }
        for trained in outcome.trained:
            for run in [run for run in trained.runs if run.seed not in settled[trial]]:
                record = _trial_record(run, trained, clips, spoken, about | {"complexity": costs[trial]})
                folder.write(record)
                held.found[trial][run.seed] = record
                held.failed[trial].pop(run.seed, None)
        for failure in [failure for failure in outcome.failures if failure.seed not in settled[trial]]:
            record = _failure_record(failure, held.failed[trial].get(failure.seed), about)
            folder.write(record)
            held.failed[trial][failure.seed] = record

    return keep


def _spoken(clips: ClipSet, split: str) -> dict[str, list]:
    """What all predictions of a split have in common."""
    part = clips.split(split)
    return {name: getattr(clips, name)[part].tolist() for name in ("names", "speakers", "labels")}


def _trial_record(
    run: TrainedNetwork,
    trained: TrainedStack,
    clips: ClipSet,
    spoken: Mapping[str, dict[str, list]],
    about: Mapping[str, Any],
) -> TrialRecord:
    def predictions(split: str, logits: torch.Tensor) -> Predictions:
        return Predictions(**spoken[split], logits=logits.tolist())

    return TrialRecord(
        **about,
        seed=run.seed,
        stack=list(trained.stack),
        kernels=run.kernels,
        train_clips=clips.split("train").stop,
        left_out_clips=len(clips.left_out),
        train_loss=run.curves.train_loss,
        validation_loss=run.curves.validation_loss,
        validation_accuracy=run.curves.validation_accuracy,
        elapsed_seconds=[significant(seconds) for seconds in trained.elapsed[: len(run.curves.train_loss)]],
        kept_epoch=run.kept_epoch,
        validation=predictions("validation", run.validation_logits),
        test=predictions("test", run.test_logits),
    )


def _failure_record(failure: Failure, before: FailureRecord | None, about: Mapping[str, Any]) -> FailureRecord:
    told = {**vars(failure), "stack": list(failure.stack)}
    return FailureRecord(**about, **told, attempt=before.attempt + 1 if before else 1)


def now() -> str:
    """The time for records."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
