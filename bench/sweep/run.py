"""Trials to records: missing ones are trained, several stacks at once, and all are timed in one interleaved run."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.counting import profile
from bench.counting.profile import Complexity
from bench.executors.base import Executor
from bench.executors.events import OnEvent, Planned, PlannedTrial
from bench.executors.jobs import Failure, JobOutcome, TrainingJob
from bench.executors.threads import Threads
from bench.grid import check_seeds
from bench.records import FailureRecord, RecordFolder, TimingRecord, TrialRecord, failures
from bench.sweep import schedule, store
from bench.sweep.epoch_time import epoch_times
from bench.sweep.store import StoredTrials
from melcnn.config import Trial
from melcnn.data.clips import ClipSet, Fold
from melcnn.errors import Failed
from melcnn.model import MelCNN, isolated_random_numbers
from melcnn.training import TrainedNetwork

log = logging.getLogger(__name__)

# For each word: with fewer, one clip more or less right moves the accuracy of a word by a fifth or more.
FEW_VALIDATION_CLIPS = 5


def ignore(event: object) -> None:
    """Ignore an event."""


@dataclass(frozen=True)
class SweepResult:
    """The outcome of a sweep.

    Attributes:
        trials: records in the order of the plan, seeds rising.
        timing: the timing run; None if it failed.
        failures: of the trials without a record.
    """

    trials: list[TrialRecord]
    timing: TimingRecord | None
    failures: list[FailureRecord]


def sweep(
    trials: Sequence[Trial],
    seeds: int,
    clips: ClipSet,
    folder: RecordFolder,
    executor: Executor,
    on_event: OnEvent = ignore,
    retry_failed: bool = False,
    kernels: str | None = None,
) -> SweepResult:
    """Train and time the trials that `folder` lacks, for seeds 0 to `seeds` - 1, and return all of them.

    Args:
        retry_failed: train again what failed before.
        kernels: the kernels that train and are timed, "torch" or None for the faster.

    Raises:
        Failed: if no trial succeeded.
    """
    with folder.locked():
        found, failed = train_missing(trials, seeds, clips, folder, executor, on_event, retry_failed, kernels)
        if not found:
            raise failures.as_error(failed, folder.path)
        # A configuration that gave no network has no epoch time either: it would fail again.
        timed = list(dict.fromkeys(record.trial for record in found))
        return SweepResult(found, epoch_times(timed, clips, folder, executor, on_event, kernels), failed)


def sweep_for_study(
    trials: Sequence[Trial],
    seeds: int,
    clips: ClipSet,
    folder: RecordFolder,
    executor: Executor,
    on_event: OnEvent = ignore,
    retry_failed: bool = False,
    kernels: str | None = None,
) -> tuple[SweepResult, TimingRecord | None]:
    """Sweep, and time the epochs by torch's kernels too: the study's claim about time is about these."""
    with folder.locked():
        result = sweep(trials, seeds, clips, folder, executor, on_event, retry_failed, kernels)
        if result.timing and result.timing.kernels == "torch":
            return result, result.timing
        timed = list(dict.fromkeys(record.trial for record in result.trials))
        return result, epoch_times(timed, clips, folder, executor, on_event, "torch")


def train_missing(
    trials: Sequence[Trial],
    seeds: int,
    clips: ClipSet,
    folder: RecordFolder,
    executor: Executor,
    on_event: OnEvent = ignore,
    retry_failed: bool = False,
    kernels: str | None = None,
) -> tuple[list[TrialRecord], list[FailureRecord]]:
    """Train the trials that `folder` lacks, as `sweep` does, and return all records and the failures among them.

    Records are written stack by stack, so a kill loses at most the stacks in flight.
    """
    check_seeds(seeds)
    _warn_of_few(trials, clips)
    with folder.locked():
        folder.prepare()
        stored = store.find_stored(trials, seeds, clips, folder.trials(), folder.failures())
        settled = {trial: stored.settled(trial, retry_failed) for trial in trials}
        if count := sum(map(len, stored.found.values())):
            present = f"{count} of {len(trials) * seeds} trials are in {folder.path} already"
            log.info(f"{_prefix(clips)}{present} and are not run again")
        train_clips = clips.split("train").stop
        again = stored.failed.__getitem__
        plan = schedule.plan_stacks(trials, seeds, train_clips, settled.__getitem__, executor.capacity, again)
        if plan.stacks:
            log.info(f"{_prefix(clips)}{plan.describe()}")
        costs = schedule.by_network([trial for trial, _ in plan.stacks], lambda trial: _count(trial, clips))
        # All records of a configuration are by the same kernels, even if others would be faster now.
        used = {trial: record.kernels for trial, by_seed in stored.found.items() for record in by_seed.values()}
        on_event(Planned(tuple(planned(trial, seeds, {clips.fold: stored}, retry_failed) for trial in trials)))
        write = store.record_writer(stored, clips, folder, costs, retry_failed)
        schedule.train(plan, clips, executor, on_event, write, lambda trial: used.get(trial, kernels))
    # A stack that was cut short may have held more seeds than are asked for now.
    pairs = [(trial, seed) for trial in trials for seed in range(seeds)]
    return (
        [stored.found[trial][seed] for trial, seed in pairs if seed in stored.found[trial]],
        [stored.failed[trial][seed] for trial, seed in pairs if seed in stored.failed[trial]],
    )


def planned(trial: Trial, seeds: int, stored: Mapping[Fold | None, StoredTrials], retry_failed: bool) -> PlannedTrial:
    """Return the state of a configuration before training, from the stored records of each fold."""
    finished = {
        (fold, seed): record.validation.accuracy
        for fold, own in stored.items()
        for seed, record in own.found[trial].items()
    }
    given_up = 0 if retry_failed else sum(len(own.failed[trial]) for own in stored.values())
    return PlannedTrial(trial, len(stored) * seeds - given_up, finished)


def train_best(
    trial: Trial, seeds: int, clips: ClipSet, device: str, on_event: OnEvent = ignore, kernels: str | None = None
) -> tuple[list[TrainedNetwork], TrainedNetwork, list[Failure]]:
    """Train seeds 0 to `seeds` - 1 of one configuration and choose the best by validation.

    Returns:
        all networks; the one with the highest validation accuracy, among equals the lowest validation loss; failures.

    Raises:
        Failed: if all of them failed.
    """
    check_seeds(seeds)
    _warn_of_few([trial], clips, choosing_seeds=seeds > 1)
    networks: list[TrainedNetwork] = []
    failed: list[Failure] = []

    def keep(job: TrainingJob, outcome: JobOutcome) -> None:
        networks.extend(outcome.networks)
        failed.extend(outcome.failures)

    executor = Threads(device)
    plan = schedule.plan_stacks([trial], seeds, clips.split("train").stop, lambda trial: {}, executor.capacity)
    on_event(Planned((PlannedTrial(trial, seeds, {}),)))
    schedule.train(plan, clips, executor, on_event, keep, lambda trial: kernels)
    if not networks:
        raise Failed(f"seed {failed[0].seed}: {failed[0].message}" + " (and so all others)" * (len(failed) > 1))
    networks.sort(key=lambda network: network.seed)

    def rank(network: TrainedNetwork) -> tuple[float, float]:
        return network.validation_accuracy, -network.curves.validation_loss[network.kept_epoch - 1]

    return networks, max(networks, key=rank), failed


def _warn_of_few(trials: Sequence[Trial], clips: ClipSet, choosing_seeds: bool = False) -> None:
    part = clips.split("validation")
    chosen = choosing_seeds or any(trial.training.keep == "best" for trial in trials)
    if chosen and (count := part.stop - part.start) < FEW_VALIDATION_CLIPS * len(clips.words):
        log.warning(
            f"{_prefix(clips)}only {count} validation clips: which epoch and which seed is kept rests on these few; "
            "add recordings"
        )


def _prefix(clips: ClipSet) -> str:
    """Return what a notice about a fold begins with."""
    return f"{clips.fold}: " if clips.fold else ""


def _count(trial: Trial, clips: ClipSet) -> Complexity:
    frames = clips.waveforms.shape[1] // trial.front_end.hop_length + 1
    with isolated_random_numbers():
        network = MelCNN.of(trial)
    return profile.count(network, (1, trial.front_end.n_mels, frames))
