"""Plan which seeds are trained side by side and how many stacks at once, and train the stacks."""

import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.executors.base import Capacity, Executor
from bench.executors.events import Event, Finished, OnEvent
from bench.executors.jobs import JobOutcome, TrainingJob
from bench.records import FailureRecord, TrialRecord
from melcnn.config import Training, Trial
from melcnn.data.clips import ClipSet
from melcnn.steps import bytes_to_train

T = TypeVar("T")

# The most seeds in a stack. More would lose more to a kill, and hardly save any time per seed.
MAX_STACK = {"cpu": 16, "cuda": 64}
# The fewest stacks for each core, or GPU of several, so that none is idle for long.
STACKS_PER_SLOT = 2
# The share of the free memory that stacks may fill.
MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class StackPlan:
    """The stacks to train.

    Attributes:
        stacks: configurations and seeds, in the order in which they start.
        at_once: stacks in training at the same time.
        bytes: the most memory of these together.
    """

    stacks: list[tuple[Trial, list[int]]]
    at_once: int
    bytes: int

    def describe(self) -> str:
        """Return the plan in one line."""
        networks, most = sum(len(seeds) for _, seeds in self.stacks), max(len(seeds) for _, seeds in self.stacks)
        several = f"{len(self.stacks)} stacks of at most {most}" if len(self.stacks) > 1 else "one stack"
        together = f", {self.at_once} at a time" if self.at_once > 1 else ""
        return f"training {networks} networks in {several}{together} (about {self.bytes / 1e9:.2g} GB)"


def plan_stacks(
    trials: Sequence[Trial],
    seeds: int,
    clips: int,
    present: Callable[[Trial], Mapping[int, TrialRecord | FailureRecord]],
    capacity: Capacity,
    again: Callable[[Trial], Collection[int]] = lambda trial: (),
) -> StackPlan:
    """Plan the stacks that give each trial its missing seeds of 0 to `seeds` - 1.

    Stacks fit into the memory and are small enough that every core has work. Present records change neither the stacks
    of missing seeds nor how many run at once, so that a sweep that was cut short goes on to the same numbers.

    Args:
        clips: training clips.
        present: the records of a trial, by seed.
        again: the seeds of a trial that are missing because they failed.
    """
    slots = capacity.slots
    evenly = math.ceil(len(trials) * seeds / (slots * STACKS_PER_SLOT)) if slots > 1 else seeds
    bytes_of = by_network(trials, lambda trial: bytes_to_train(trial, clips))
    stacks: list[tuple[Trial, list[int]]] = []
    in_all = 0
    for trial in trials:
        fitting = int(capacity.free_bytes * MEMORY_SHARE // bytes_of[trial])
        most = max(1, min(MAX_STACK[capacity.device], evenly, fitting))
        in_all += math.ceil(seeds / most)
        stacks += [(trial, stack) for stack in missing_stacks(seeds, most, present(trial), again(trial))]
    # Front-ends in the order of the plan, so that few are in memory at once; within one the longest training, the one
    # with the most weights, first, so that all cores end at nearly the same time.
    order = {trial.front_end: number for number, trial in reversed(list(enumerate(trials)))}
    stacks.sort(key=lambda pair: (order[pair[0].front_end], -bytes_of[pair[0]] * len(pair[1])))
    sizes = sorted((bytes_of[trial] * len(stack) for trial, stack in stacks), reverse=True)
    at_once = min(slots, in_all)
    return StackPlan(stacks, at_once, sum(sizes[:at_once]))


def by_network(trials: Sequence[Trial], function: Callable[[Trial], T]) -> dict[Trial, T]:
    """Return `function` of each trial, called once for all trials with the same network and batch size."""
    alike = {t: t.model_copy(update={"training": Training(batch_size=t.training.batch_size)}) for t in trials}
    results = {one: function(one) for one in dict.fromkeys(alike.values())}
    return {trial: results[one] for trial, one in alike.items()}


def missing_stacks(
    seeds: int, most: int, present: Mapping[int, TrialRecord | FailureRecord], again: Collection[int] = ()
) -> list[list[int]]:
    """Return stacks of at most `most` seeds that give the missing ones of seeds 0 to `seeds` - 1.

    Arithmetic may depend on the stack in its last bits, so a seed whose stack was cut short while its records were
    written is trained in that same stack again.

    Args:
        again: seeds that are missing because they failed, which cuts no writing short.
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
    plan: StackPlan,
    clips: ClipSet,
    executor: Executor,
    on_event: OnEvent,
    store: Callable[[TrainingJob, JobOutcome], None],
    kernels: Callable[[Trial], str | None] = lambda trial: None,
) -> None:
    """Train the stacks of a plan.

    Args:
        on_event: gets every event of the executor, one at a time; `Finished` once the outcome is stored.
        store: called with the outcome of each job as it ends, one at a time.
        kernels: the kernels that train a trial; None: the faster.
    """
    lock = threading.Lock()

    def handle(event: Event) -> None:
        if isinstance(event, Finished):
            store(event.job, event.outcome)
        with lock:
            on_event(event)

    if jobs := [TrainingJob(trial, tuple(seeds), kernels(trial), clips.fold) for trial, seeds in plan.stacks]:
        executor.run(jobs, plan.at_once, clips, handle)
