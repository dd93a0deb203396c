"""Where stacks are trained, behind one small interface: in this process, in others, on a cluster.

All of them train each of several stacks on one core, so that it makes no difference to the numbers where that is.
"""

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch

from bench.executors import thread_pool
from bench.executors.jobs import Job, Outcome, Work, do
from bench.system import environment, monitor
from melcnn.config import FrontEnd
from melcnn.data.clips import ClipSet
from melcnn.errors import Failed
from melcnn.features import Features, extract
from melcnn.training import Epoch

T = TypeVar("T")


@dataclass(frozen=True)
class Room:
    """What there is to train in. slots: stacks at once, each on a core or a GPU that no other one uses. free_bytes: of
    the memory, for each of them."""

    device: str
    slots: int
    free_bytes: int


@dataclass(frozen=True)
class Audience:
    """Whom an executor tells what happens, from any thread, one call at a time: take, what came of a job; began, that
    one begins; epoch, how far one is, after each epoch or now and then; note, a notice; ending, that an interruption
    ends what is in training."""

    take: Callable[[Job, Outcome], None]
    began: Callable[[Job], None] = lambda job: None
    epoch: Callable[[Job, Sequence[int], Epoch], None] = lambda job, stack, epoch: None
    note: Callable[[str], None] = lambda text: None
    ending: Callable[[], None] = lambda: None

    def settle(self, job: Job, outcome: Outcome) -> tuple[int, ...]:
        """Has taken what came of a job; the seeds of which nothing did, because the device was lost."""
        done = outcome.settled(job) if outcome.device_lost else job.seeds
        if done:
            self.take(replace(job, seeds=done), outcome)
        return tuple(seed for seed in job.seeds if seed not in done)


class Executor(Protocol):
    """Trains jobs somewhere."""

    @property
    def room(self) -> Room: ...

    def run(self, waiting: Sequence[Job], at_once: int, clips: ClipSet, audience: Audience) -> None:
        """Does all jobs, begun in their order, at most `at_once` of them at a time, and tells `audience`.

        What `audience` raises, an `InputError` of a job, or an interruption ends all jobs and is raised; what has ended
        by then is taken.
        """

    def alone(self, function: Callable[..., T], *arguments: object) -> T:
        """`function(*arguments)`, on a device that nobody shares meanwhile; both can be pickled."""


class Threads:
    """In this process: on the CPU a stack on each core, on CUDA one after another."""

    def __init__(self, device: str, work: Work = do):
        self.device, self.work = device, work

    @property
    def room(self) -> Room:
        slots = torch.get_num_threads() if self.device == "cpu" else 1
        return Room(self.device, slots, monitor.free_bytes(self.device) // slots)

    def run(self, waiting: Sequence[Job], at_once: int, clips: ClipSet, audience: Audience) -> None:
        features = _Features(clips, self.device, [job.trial.front_end for job in waiting])
        env = environment.collect(self.device)

        def train(job: Job, check: thread_pool.Check) -> Outcome:
            def hear(stack: Sequence[int], epoch: Epoch) -> None:
                audience.epoch(job, stack, epoch)
                if any(epoch.training) and epoch.number < job.trial.training.epochs:
                    check()

            @contextmanager
            def of(front_end: FrontEnd) -> Iterator[Features]:
                with features.of(front_end) as found:
                    check()  # making them takes as long as epochs do
                    yield found

            audience.began(job)
            return self.work(job, of, hear, env)

        def take(number: int, outcome: Outcome) -> None:
            audience.settle(waiting[number], outcome)
            if outcome.device_lost:
                raise Failed(
                    f"the device answers no more ({outcome.device_lost}): what is finished is kept, and the same "
                    "command goes on (a sweep with --jobs 1 finds out whose fault it was)"
                )

        thread_pool.run([functools.partial(train, job) for job in waiting], at_once, take, audience.ending)

    def alone(self, function: Callable[..., T], *arguments: object) -> T:
        return function(*arguments)


class _Features:
    """The features of each front-end, made when they are first asked for and let go when the last has used them."""

    def __init__(self, clips: ClipSet, device: str, wanted: Sequence[FrontEnd]):
        self.clips, self.device = clips, device
        self.left = Counter(wanted)
        self.made: dict[FrontEnd, Features] = {}
        self.locks = {front_end: threading.Lock() for front_end in wanted}

    @contextmanager
    def of(self, front_end: FrontEnd) -> Iterator[Features]:
        try:
            with self.locks[front_end]:
                if front_end not in self.made:
                    self.made[front_end] = extract(self.clips, front_end, self.device)
                found = self.made[front_end]
            yield found
        finally:
            with self.locks[front_end]:
                self.left[front_end] -= 1
                if not self.left[front_end]:
                    self.made.pop(front_end, None)
