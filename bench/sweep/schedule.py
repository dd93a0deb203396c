"""Which seeds are trained side by side, how many stacks at once, and what is told of their training."""

import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.executors.base import Audience, Capacity, Executor
from bench.executors.jobs import JobOutcome, TrainingJob
from bench.records import FailureRecord, TrialRecord
from bench.sweep.events import Listener, Status
from melcnn.config import Training, Trial
from melcnn.data.clips import ClipSet
from melcnn.steps import bytes_to_train
from melcnn.training import Epoch

T = TypeVar("T")

# Seeds in a stack at the most. More would lose more to a kill; the time a seed hardly falls any more.
MOST_IN_A_STACK = {"cpu": 16, "cuda": 64}
# At least so many stacks for each core, or GPU of several, so that none is left without one for long.
STACKS_PER_CORE = 2
# The share of the free memory which stacks may fill.
MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class Plan:
    """The stacks to train, in the order in which they are begun; bytes: of all that are in training at once."""

    stacks: list[tuple[Trial, list[int]]]
    at_once: int
    bytes: int

    def describe(self) -> str:
        networks, most = sum(len(seeds) for _, seeds in self.stacks), max(len(seeds) for _, seeds in self.stacks)
        several = f"{len(self.stacks)} stacks of at most {most}" if len(self.stacks) > 1 else "one stack"
        together = f", {self.at_once} at a time" if self.at_once > 1 else ""
        return f"training {networks} networks in {several}{together} (about {self.bytes / 1e9:.2g} GB)"


def plan_stacks(
    trials: Sequence[Trial],
    seeds: int,
    clips: int,
    present: Callable[[Trial], Mapping[int, TrialRecord | FailureRecord]],
    room: Capacity,
    again: Callable[[Trial], Collection[int]] = lambda trial: (),
) -> Plan:
    """Stacks that give the missing ones of seeds 0 to `seeds` - 1 of each trial, by what is `present` of it: no larger
    than fits into the memory, nor so large that a core has no work. again: seeds that failed and are missing for that.

    clips: for training. What is present changes neither a stack of what is missing nor how many run at once, so that a
    sweep that was cut short goes on to the same numbers.
    """
    evenly = math.ceil(len(trials) * seeds / (room.slots * STACKS_PER_CORE)) if room.slots > 1 else seeds
    bytes_of = by_network(trials, lambda trial: bytes_to_train(trial, clips))
    stacks: list[tuple[Trial, list[int]]] = []
    in_all = 0
    for trial in trials:
        fitting = int(room.free_bytes * MEMORY_SHARE // bytes_of[trial])
        most = max(1, min(MOST_IN_A_STACK[room.device], evenly, fitting))
        in_all += math.ceil(seeds / most)
        stacks += [(trial, stack) for stack in missing_stacks(seeds, most, present(trial), again(trial))]
    # The front-ends in the order of the plan, so that few are in memory at once; within one the longest training, of
    # the most weights, first, so that all cores end at nearly the same time.
    order = {trial.front_end: number for number, trial in reversed(list(enumerate(trials)))}
    stacks.sort(key=lambda pair: (order[pair[0].front_end], -bytes_of[pair[0]] * len(pair[1])))
    sizes = sorted((bytes_of[trial] * len(stack) for trial, stack in stacks), reverse=True)
    at_once = min(room.slots, in_all)
    return Plan(stacks, at_once, sum(sizes[:at_once]))


def by_network(trials: Sequence[Trial], ask: Callable[[Trial], T]) -> dict[Trial, T]:
    """What `ask` says of each trial; it is asked once for all whose networks and batches are alike."""
    alike = {t: t.model_copy(update={"training": Training(batch_size=t.training.batch_size)}) for t in trials}
    told = {one: ask(one) for one in dict.fromkeys(alike.values())}
    return {trial: told[one] for trial, one in alike.items()}


def missing_stacks(
    seeds: int, most: int, present: Mapping[int, TrialRecord | FailureRecord], again: Collection[int] = ()
) -> list[list[int]]:
    """Stacks of at most `most` seeds that give the missing ones of seeds 0 to `seeds` - 1.

    Arithmetic may depend on the stack in its last bits, so a seed that was planned in a stack whose writing was cut
    short is trained in that same stack again. again: seeds that are missing because they failed; that cut no writing
    short.
    """
    missing = {seed for seed in range(seeds) if seed not in present}
    unwritten = missing.difference(again)
    cut_short = [list(s) for s in sorted({tuple(r.stack) for r in present.values()}) if set(s) & unwritten]
    missing -= {seed for stack in cut_short for seed in stack}
    # Stacks of nearly equal size, so that none is left with a single seed.
    count = math.ceil(seeds / most)
    whole = [range(i * seeds // count, (i + 1) * seeds // count) for i in range(count)]
    rest = [[seed for seed in stack if seed in missing] for stack in whole]
    return cut_short + [stack for stack in rest if stack]


def train(
    plan: Plan,
    clips: ClipSet,
    executor: Executor,
    listener: Listener,
    keep: Callable[[TrainingJob, JobOutcome], None],
    kernels: Callable[[Trial], str | None] = lambda trial: None,
) -> None:
    """Trains the plan's stacks; keep hears what came of each as it ends, one at a time. kernels: whose convolutions
    train a trial; None: the faster.

    Of several stacks at once an interruption loses those that have not done their last epoch, and no others.
    """
    lock = threading.Lock()

    def tell(status: Status) -> None:
        with lock:
            listener.status(status)

    def began(job: TrainingJob) -> None:
        tell(Status(job.trial, job.seeds, 0, (math.nan,) * len(job.seeds)))

    def epoch(job: TrainingJob, stack: Sequence[int], epoch: Epoch) -> None:
        best = (math.nan if best is None else best for best in epoch.best_accuracy)
        tell(Status(job.trial, tuple(stack), epoch.number, tuple(best)))

    def take(job: TrainingJob, outcome: JobOutcome) -> None:
        keep(job, outcome)
        found = {run.seed: run.validation_accuracy for trained in outcome.trained for run in trained.runs}
        epochs = max((len(trained.elapsed) for trained in outcome.trained), default=0)
        accuracies = tuple(found.get(seed, math.nan) for seed in job.seeds)
        failed = tuple(failure.seed for failure in outcome.failures)
        tell(Status(job.trial, job.seeds, epochs, accuracies, ended=True, failed=failed))

    def note(text: str) -> None:
        with lock:
            listener.note(text)

    def ending() -> None:
        with lock:
            listener.stage("ending what is in training")

    if jobs := [TrainingJob(trial, tuple(seeds), kernels(trial)) for trial, seeds in plan.stacks]:
        executor.run(jobs, plan.at_once, clips, Audience(take, began, epoch, note, ending))
