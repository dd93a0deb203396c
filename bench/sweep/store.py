"""Records of a sweep's trials: those that a folder holds, and those made of training outcomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from torch import Tensor

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
    """The records of trials by trial and seed; outcomes of training are added.

    Attributes:
        found: records of trained networks.
        failed: the last failures of trials without one.
        data: the fingerprint of each trial's training data.
    """

    found: dict[Trial, dict[int, TrialRecord]]
    failed: dict[Trial, dict[int, FailureRecord]]
    data: dict[Trial, str]

    def settled(self, trial: Trial, retry_failed: bool) -> dict[int, TrialRecord | FailureRecord]:
        """Return the records of the seeds that are not trained again."""
        return {**({} if retry_failed else self.failed[trial]), **self.found[trial]}


def find_stored(
    trials: Sequence[Trial],
    seeds: int,
    clips: ClipSet,
    present: Mapping[str, TrialRecord],
    failures: Mapping[str, FailureRecord],
) -> StoredTrials:
    """Find the records of seeds 0 to `seeds` - 1 of each trial, trained on `clips`, among records by identity."""
    # One fingerprint for all trials with noise: hashing it takes as long as a small training.
    trainings = {trial.training.noise: trial.training for trial in trials}
    fingerprints = {noise: clips.fingerprint_for(training) for noise, training in trainings.items()}
    data = {trial: fingerprints[trial.training.noise] for trial in trials}
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
    stored: StoredTrials, clips: ClipSet, folder: RecordFolder, costs: Mapping[Trial, Complexity], retry_failed: bool
) -> Callable[[TrainingJob, JobOutcome], None]:
    """Return a function that writes the records of a job's outcome to `folder` and adds them to `stored`.

    Settled seeds keep their records: such a seed was trained again only because its neighbours were.
    """
    settled = {trial: set(stored.settled(trial, retry_failed)) for trial in stored.data}
    labelled = {split: _labelled(clips, split) for split in ("validation", "test")}
    environments: dict[str, Environment] = {}  # Nearly all of thousands of outcomes have the same one: hold it once.

    def write(job: TrainingJob, outcome: JobOutcome) -> None:
        trial, env = job.trial, outcome.environment
        about = {
            "trial": trial,
            "dataset": clips.dataset,
            "fold": clips.fold,
            "corpus": clips.corpus,
            "data_fingerprint": stored.data[trial],
            "environment": env and environments.setdefault(env.model_dump_json(), env),
            "finished_at": now(),
        }
        for stack in outcome.stacks:
            for network in [network for network in stack.networks if network.seed not in settled[trial]]:
                record = _trial_record(network, stack, clips, labelled, about | {"complexity": costs[trial]})
                folder.write(record)
                stored.found[trial][network.seed] = record
                stored.failed[trial].pop(network.seed, None)
        for failure in [failure for failure in outcome.failures if failure.seed not in settled[trial]]:
            failed = _failure_record(failure, stored.failed[trial].get(failure.seed), about)
            folder.write(failed)
            stored.failed[trial][failure.seed] = failed

    return write


def _labelled(clips: ClipSet, split: str) -> dict[str, list]:
    """Return the fields that all predictions of a split share."""
    part = clips.split(split)
    return {name: getattr(clips, name)[part].tolist() for name in ("names", "speakers", "labels")}


def _trial_record(
    network: TrainedNetwork,
    stack: TrainedStack,
    clips: ClipSet,
    labelled: Mapping[str, dict[str, list]],
    about: Mapping[str, Any],
) -> TrialRecord:
    def predictions(split: str, logits: Tensor) -> Predictions:
        return Predictions(**labelled[split], logits=logits.tolist())

    return TrialRecord(
        **about,
        seed=network.seed,
        stack=list(stack.seeds),
        kernels=network.kernels,
        train_clips=clips.split("train").stop,
        left_out_clips=len(clips.left_out),
        train_loss=network.curves.train_loss,
        validation_loss=network.curves.validation_loss,
        validation_accuracy=network.curves.validation_accuracy,
        elapsed_seconds=[significant(seconds) for seconds in stack.elapsed[: len(network.curves.train_loss)]],
        kept_epoch=network.kept_epoch,
        validation=predictions("validation", network.validation_logits),
        test=predictions("test", network.test_logits),
    )


def _failure_record(failure: Failure, before: FailureRecord | None, about: Mapping[str, Any]) -> FailureRecord:
    fields = {**vars(failure), "stack": list(failure.stack)}
    return FailureRecord(**about, **fields, attempt=before.attempt + 1 if before else 1)


def now() -> str:
    """Return the time for records: UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
