"""Training in this process: on the CPU a stack on each core, on CUDA one stack after another.

All executors train each of several stacks on one core, so the numbers do not depend on where that is.
"""

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from bench.executors import thread_pool
from bench.executors.base import Capacity, report_outcome
from bench.executors.events import EpochDone, OnEvent, Stage, Started
from bench.executors.jobs import JobOutcome, TrainFunction, TrainingJob, train_job
from bench.system import environment, monitor
from melcnn.config import FrontEnd
from melcnn.data.clips import ClipSet
from melcnn.errors import Failed
from melcnn.features import Features, extract
from melcnn.training import Epoch

T = TypeVar("T")

# The stage in which an interruption waits for the jobs in training.
ENDING = Stage("ending what is in training")


class Threads:
    """The executor of this process."""

    def __init__(self, device: str, train: TrainFunction = train_job):
        self.device, self.train = device, train

    @property
    def capacity(self) -> Capacity:
        slots = torch.get_num_threads() if self.device == "cpu" else 1
        return Capacity(self.device, slots, monitor.free_bytes(self.device) // slots)

    def run(self, jobs: Sequence[TrainingJob], at_once: int, clips: ClipSet, on_event: OnEvent) -> None:
        features = _SharedFeatures(clips, self.device, [job.trial.front_end for job in jobs])
        env = environment.collect(self.device)

        def train(job: TrainingJob, check: thread_pool.Check) -> JobOutcome:
            def on_epoch(seeds: Sequence[int], epoch: Epoch) -> None:
                on_event(EpochDone(job, tuple(seeds), epoch))
                if any(epoch.training) and epoch.number < job.trial.training.epochs:
                    check()

            @contextmanager
            def opened(front_end: FrontEnd) -> Iterator[Features]:
                with features.of(front_end) as made:
                    check()  # Extracting them takes as long as epochs do.
                    yield made

            on_event(Started(job))
            return self.train(job, opened, on_epoch, env)

        def on_result(number: int, outcome: JobOutcome) -> None:
            report_outcome(jobs[number], outcome, on_event)
            if outcome.device_lost:
                raise Failed(
                    f"the device answers no more ({outcome.device_lost}): what is finished is kept, and the same "
                    "command goes on (a sweep with --jobs 1 finds out whose fault it was)"
                )

        waiting = [functools.partial(train, job) for job in jobs]
        thread_pool.run(waiting, at_once, on_result, lambda: on_event(ENDING))

    def run_alone(self, function: Callable[..., T], *arguments: object) -> T:
        return function(*arguments)


class _SharedFeatures:
    """The features of each front-end, made when first asked for and freed after their last use."""

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
                made = self.made[front_end]
            yield made
        finally:
            with self.locks[front_end]:
                self.left[front_end] -= 1
                if not self.left[front_end]:
                    self.made.pop(front_end, None)
