"""Axes to trials to records: what is missing is trained, several stacks at once, and timed in one interleaved run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.counting import profile
from bench.counting.profile import Complexity
from bench.executors.base import Executor
from bench.executors.jobs import Failure, JobOutcome, TrainingJob
from bench.executors.threads import Threads
from bench.grid import check_seeds
from bench.records import FailureRecord, RecordFolder, TimingRecord, TrialRecord, failures
from bench.sweep import schedule, store
from bench.sweep.epoch_time import _timing
from bench.sweep.events import Listener, Standing
from bench.sweep.store import StoredTrials
from melcnn.config import Trial
from melcnn.data.clips import ClipSet
from melcnn.errors import Failed
from melcnn.model import MelCNN, drawing
from melcnn.training import TrainedNetwork

# A word: with fewer, one clip more or less right moves its accuracy by a fifth or more.
FEW_VALIDATION_CLIPS = 5


@dataclass(frozen=True)
class Result:
    """The records of a sweep, trials in the order of the plan and seeds rising, and their timing run, None where it
    failed. failures: of the trials that there are no records of."""

    trials: list[TrialRecord]
    timing: TimingRecord | None
    failures: list[FailureRecord]


def sweep(
    trials: Sequence[Trial],
    seeds: int,
    clips: ClipSet,
    folder: RecordFolder,
    where: str | Executor,
    listener: Listener,
    retry_failed: bool = False,
) -> Result:
    """Trains and times what `folder` does not hold yet, for seeds 0 to `seeds` - 1, and returns all of it.

    where: a device of this process, or an executor. What failed before is trained again if `retry_failed`. Raises
    `Failed` if nothing at all succeeded.
    """
    executor = Threads(where) if isinstance(where, str) else where
    with folder.locked():
        found, failed = train_missing(trials, seeds, clips, folder, executor, listener, retry_failed)
        if not found:
            raise failures.as_error(failed, folder.path)
        # What gave no network has no time either: it would fail again.
        timed = list(dict.fromkeys(record.trial for record in found))
        return Result(found, _timing(timed, clips.split("train").stop, folder, executor, listener), failed)


def train_missing(
    trials: Sequence[Trial],
    seeds: int,
    clips: ClipSet,
    folder: RecordFolder,
    where: str | Executor,
    listener: Listener,
    retry_failed: bool = False,
) -> tuple[list[TrialRecord], list[FailureRecord]]:
    """The records of seeds 0 to `seeds` - 1 of each trial, and of the failures among them; what `folder` does not hold
    yet is trained, as in `sweep`.

    Records are written stack by stack, so that a kill loses at most the stacks in flight.
    """
    executor = Threads(where) if isinstance(where, str) else where
    check_seeds(seeds)
    _warn_of_few(trials, clips, listener.note)
    with folder.locked():
        folder.prepare()
        held = store.find_stored(trials, seeds, clips, folder.trials(), folder.failures())
        settled = {trial: held.settled(trial, retry_failed) for trial in trials}
        if count := sum(map(len, held.found.values())):
            listener.note(f"{count} of {len(trials) * seeds} trials are in {folder.path} already and are not run again")
        train_clips = clips.split("train").stop
        again = held.failed.__getitem__
        planned = schedule.plan_stacks(trials, seeds, train_clips, settled.__getitem__, executor.room, again)
        if planned.stacks:
            listener.note(planned.describe())
        costs = schedule.by_network([trial for trial, _ in planned.stacks], lambda trial: _count(trial, clips))
        # A configuration's records are all by the same kernels, whatever would be faster now.
        used = {trial: record.kernels for trial, by_seed in held.found.items() for record in by_seed.values()}
        listener.begin([standing(trial, seeds, {"": held}, retry_failed) for trial in trials])
        keep = store.record_writer(held, clips, folder, costs, retry_failed)
        schedule.train(planned, clips, executor, listener, keep, used.get)
    found, failed = (
        [by_trial[trial][seed] for trial in trials for seed in range(seeds) if seed in by_trial[trial]]
        for by_trial in (held.found, held.failed)
    )
    return found, failed


def standing(trial: Trial, seeds: int, held: Mapping[str, StoredTrials], retry_failed: bool) -> Standing:
    """Where a configuration stands before training, by what is held of each fold."""
    finished = {
        (fold, seed): record.validation.accuracy
        for fold, own in held.items()
        for seed, record in own.found[trial].items()
    }
    given_up = 0 if retry_failed else sum(len(own.failed[trial]) for own in held.values())
    return Standing(trial, len(held) * seeds - given_up, finished)


def train_best(
    trial: Trial, seeds: int, clips: ClipSet, device: str, listener: Listener
) -> tuple[list[TrainedNetwork], TrainedNetwork, list[Failure]]:
    """Trains seeds 0 to `seeds` - 1 of one configuration; all runs, the one that validation likes best (of equal
    accuracies, the one of lowest loss), and what failed. Raises `Failed` if all of them did."""
    check_seeds(seeds)
    _warn_of_few([trial], clips, listener.note, choosing_seeds=seeds > 1)
    runs: list[TrainedNetwork] = []
    failed: list[Failure] = []

    def keep(job: TrainingJob, outcome: JobOutcome) -> None:
        runs.extend(run for trained in outcome.trained for run in trained.runs)
        failed.extend(outcome.failures)

    executor = Threads(device)
    planned = schedule.plan_stacks([trial], seeds, clips.split("train").stop, lambda trial: {}, executor.room)
    listener.begin([Standing(trial, seeds, {})])
    schedule.train(planned, clips, executor, listener, keep)
    if not runs:
        raise Failed(f"seed {failed[0].seed}: {failed[0].message}" + " (and so all others)" * (len(failed) > 1))
    runs.sort(key=lambda run: run.seed)

    def rank(run: TrainedNetwork) -> tuple[float, float]:
        return run.validation_accuracy, -run.curves.validation_loss[run.kept_epoch - 1]

    return runs, max(runs, key=rank), failed


def _warn_of_few(
    trials: Sequence[Trial], clips: ClipSet, note: Callable[[str], None], choosing_seeds: bool = False
) -> None:
    part = clips.split("validation")
    chosen = choosing_seeds or any(trial.training.keep == "best" for trial in trials)
    if chosen and (count := part.stop - part.start) < FEW_VALIDATION_CLIPS * len(clips.words):
        note(f"only {count} validation clips: which epoch and which seed is kept rests on these few; add recordings")


def _count(trial: Trial, clips: ClipSet) -> Complexity:
    frames = clips.waveforms.shape[1] // trial.front_end.hop_length + 1
    with drawing():
        network = MelCNN.of(trial)
    return profile.count(network, (1, trial.front_end.n_mels, frames))
