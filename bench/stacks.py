"""Which seeds are trained side by side, how many stacks at once, and their training."""

import functools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from bench import in_flight, machine
from bench.records import TrialRecord
from melcnn.config import FrontEnd, Trial
from melcnn.data.clips import ClipSet
from melcnn.features import Features, extract
from melcnn.steps import bytes_to_train
from melcnn.training import Epoch, Run, fit

# Seeds in a stack at the most. More would lose more to a kill; the time a seed hardly falls any more.
MOST_IN_A_STACK = {"cpu": 16, "cuda": 64}
# On the CPU at least so many stacks for each core, so that no core is left without one for long.
STACKS_PER_CORE = 2
# The share of the memory that is free now which stacks may fill.
MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class Standing:
    """A configuration before training begins: the networks wanted of it, and the validation accuracies (NaN without
    validation clips) of those that are finished already, by fold ("" where there are none) and seed."""

    trial: Trial
    networks: int
    finished: Mapping[tuple[str, int], float]


@dataclass(frozen=True)
class Status:
    """Where a stack is: epochs done, and the best validation accuracies so far, by seed (NaN without validation clips).

    ended: it is trained and its results are kept; the accuracies are those of what is kept. fold: as `Standing` says.
    """

    trial: Trial
    seeds: tuple[int, ...]
    epoch: int
    accuracies: tuple[float, ...]
    ended: bool = False
    fold: str = ""


@dataclass(frozen=True)
class Listener:
    """Whom a sweep tells what it does, one call at a time but from several threads.

    note hears one-line notices; begin, all configurations before any is trained; status, each stack as it begins, after
    every epoch and as it ends; stage, what is done instead of training.
    """

    note: Callable[[str], None] = lambda text: None
    begin: Callable[[Sequence[Standing]], None] = lambda standings: None
    status: Callable[[Status], None] = lambda status: None
    stage: Callable[[str], None] = lambda text: None


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


@dataclass(frozen=True)
class Trained:
    """A stack's runs, and the seconds from the beginning of its training to the end of each epoch."""

    runs: list[Run]
    elapsed: list[float]


def plan(
    trials: Sequence[Trial],
    seeds: int,
    clips: int,
    present: Callable[[Trial], Mapping[int, TrialRecord]],
    device: str,
    free_bytes: int | None = None,
) -> Plan:
    """Stacks that give the missing ones of seeds 0 to `seeds` - 1 of each trial, by what is `present` of it: no larger
    than fits into the memory (`free_bytes`: what is free now, unless given), nor so large that a core has no work.

    clips: for training. What is present changes neither a stack of what is missing nor how many run at once, so that a
    sweep that was cut short goes on to the same numbers.
    """
    cores = torch.get_num_threads() if device == "cpu" else 1
    free = machine.free_bytes(device) if free_bytes is None else free_bytes
    evenly = math.ceil(len(trials) * seeds / (cores * STACKS_PER_CORE)) if cores > 1 else seeds
    bytes_of = {trial: bytes_to_train(trial, clips) for trial in trials}
    stacks: list[tuple[Trial, list[int]]] = []
    in_all = 0
    for trial in trials:
        fitting = int(free * MEMORY_SHARE / cores // bytes_of[trial])
        most = max(1, min(MOST_IN_A_STACK[device], evenly, fitting))
        in_all += math.ceil(seeds / most)
        stacks += [(trial, stack) for stack in stacks_to_train(seeds, most, present(trial))]
    # The front-ends in the order of the plan, so that few are in memory at once; within one the longest training, of
    # the most weights, first, so that all cores end at nearly the same time.
    order = list(dict.fromkeys(trial.front_end for trial in trials))
    stacks.sort(key=lambda pair: (order.index(pair[0].front_end), -bytes_of[pair[0]] * len(pair[1])))
    sizes = sorted((bytes_of[trial] * len(stack) for trial, stack in stacks), reverse=True)
    at_once = min(cores, in_all)
    return Plan(stacks, at_once, sum(sizes[:at_once]))


def stacks_to_train(seeds: int, most: int, present: Mapping[int, TrialRecord]) -> list[list[int]]:
    """Stacks of at most `most` seeds that give the missing ones of seeds 0 to `seeds` - 1.

    Arithmetic may depend on the stack in its last bits, so a seed that was planned in a stack whose writing was cut
    short is trained in that same stack again.
    """
    missing = {seed for seed in range(seeds) if seed not in present}
    cut_short = [list(s) for s in sorted({tuple(r.stack) for r in present.values()}) if set(s) & missing]
    missing -= {seed for stack in cut_short for seed in stack}
    # Stacks of nearly equal size, so that none is left with a single seed.
    count = math.ceil(seeds / most)
    whole = [range(i * seeds // count, (i + 1) * seeds // count) for i in range(count)]
    rest = [[seed for seed in stack if seed in missing] for stack in whole]
    return cut_short + [stack for stack in rest if stack]


def train(
    plan: Plan,
    clips: ClipSet,
    device: str,
    listener: Listener,
    keep: Callable[[Trial, list[int], Trained], None],
    kernels: Callable[[Trial], str | None] = lambda trial: None,
    now: Callable[[], float] = time.perf_counter,
) -> None:
    """Trains the plan's stacks; keep hears of each as it ends, one at a time. kernels: whose convolutions train a
    trial; None: the faster.

    Of several stacks at once an interruption loses those that have not done their last epoch, and no others.
    """
    lock = threading.Lock()

    def tell(index: int, epoch: int, accuracies: Sequence[float], ended: bool = False) -> None:
        trial, stack = plan.stacks[index]
        with lock:
            listener.status(Status(trial, tuple(stack), epoch, tuple(accuracies), ended))

    def ending() -> None:
        with lock:
            listener.stage("ending: the epochs in flight are waited for")

    features = _Features(clips, device, [trial.front_end for trial, _ in plan.stacks])

    def job(index: int, check: in_flight.Check) -> Trained:
        trial, stack = plan.stacks[index]
        tell(index, 0, [math.nan] * len(stack))
        with features.of(trial.front_end) as x:
            start, elapsed = now(), []

            def on_epoch(epoch: Epoch) -> None:
                elapsed.append(now() - start)
                tell(index, epoch.number, [math.nan if best is None else best for best in epoch.best_accuracy])
                if any(epoch.training) and epoch.number < trial.training.epochs:
                    check()

            runs = fit(trial, x, stack, on_epoch, kernels(trial))
        return Trained(runs, elapsed)

    def take(index: int, trained: Trained) -> None:
        keep(*plan.stacks[index], trained)
        tell(index, len(trained.elapsed), [run.validation_accuracy for run in trained.runs], ended=True)

    jobs = [functools.partial(job, index) for index in range(len(plan.stacks))]
    in_flight.run(jobs, plan.at_once, take, ending)


class _Features:
    """The features of each front-end, made when they are first asked for and let go when the last has used them."""

    def __init__(self, clips: ClipSet, device: str, wanted: Sequence[FrontEnd]):
        self.clips, self.device = clips, device
        self.left = Counter(wanted)
        self.made: dict[FrontEnd, Features] = {}
        self.locks = {front_end: threading.Lock() for front_end in wanted}

    @contextmanager
    def of(self, front_end: FrontEnd) -> Iterator[Features]:
        with self.locks[front_end]:
            if front_end not in self.made:
                self.made[front_end] = extract(self.clips, front_end, self.device)
            found = self.made[front_end]
        yield found
        with self.locks[front_end]:
            self.left[front_end] -= 1
            if not self.left[front_end]:
                del self.made[front_end]
