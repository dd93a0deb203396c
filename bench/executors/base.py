"""The protocol of executors: the capacity to train in, the jobs to do, and the events that they emit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from bench.executors.events import Finished, OnEvent
from bench.executors.jobs import JobOutcome, TrainingJob
from melcnn.data.clips import ClipSet

T = TypeVar("T")


@dataclass(frozen=True)
class Capacity:
    """The capacity of an executor.

    Attributes:
        device: "cpu" or "cuda".
        slots: stacks at once, each on a core or a GPU of its own.
        free_bytes: free memory for each of them.
    """

    device: str
    slots: int
    free_bytes: int


class Executor(Protocol):
    """Trains jobs somewhere."""

    @property
    def capacity(self) -> Capacity: ...

    def run(self, jobs: Sequence[TrainingJob], at_once: int, clips: ClipSet, on_event: OnEvent) -> None:
        """Train all jobs, started in their order, at most `at_once` of them at a time.

        `on_event` gets `Started`, `EpochDone` and `Finished` from any thread, one `Finished` at a time, and a `Stage`
        when an interruption ends the jobs in training. An exception of `on_event`, an `InputError` of a job, or an
        interruption ends all jobs and is raised; jobs that have ended by then are still reported.
        """

    def run_alone(self, function: Callable[..., T], *arguments: object) -> T:
        """Return `function(*arguments)`, run on a device that nothing else uses meanwhile; both can be pickled."""


def report_outcome(job: TrainingJob, outcome: JobOutcome, on_event: OnEvent) -> tuple[int, ...]:
    """Emit `Finished` for the seeds that an outcome settles; return the others, which lost their device."""
    done = outcome.settled(job) if outcome.device_lost else job.seeds
    if done:
        on_event(Finished(replace(job, seeds=done), outcome))
    return tuple(seed for seed in job.seeds if seed not in done)
