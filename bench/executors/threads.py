"""Where stacks are trained, behind one small interface: in this process, in others, on a cluster.

All of them train each of several stacks on one core, so that it makes no difference to the numbers where that is.
"""

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from bench.executors import thread_pool
from bench.executors.base import Audience, Capacity, T
from bench.executors.jobs import JobOutcome, TrainFunction, TrainingJob, train_job
from bench.system import environment, monitor
from melcnn.config import FrontEnd
from melcnn.data.clips import ClipSet
from melcnn.errors import Failed
from melcnn.features import Features, extract
from melcnn.training import Epoch


class Threads:
    """In this process: on the CPU a stack on each core, on CUDA one after another."""

    def __init__(self, device: str, work: TrainFunction = train_job):
        self.device, self.work = device, work

    @property
    def room(self) -> Capacity:
        slots = torch.get_num_threads() if self.device == "cpu" else 1
        return Capacity(self.device, slots, monitor.free_bytes(self.device) // slots)

    def run(self, waiting: Sequence[TrainingJob], at_once: int, clips: ClipSet, audience: Audience) -> None:
        features = _Features(clips, self.device, [job.trial.front_end for job in waiting])
        env = environment.collect(self.device)

        def train(job: TrainingJob, check: thread_pool.Check) -> JobOutcome:
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

        def take(number: int, outcome: JobOutcome) -> None:
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
