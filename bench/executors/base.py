"""The protocol of executors: the room to train in, the jobs to do, and who hears of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from bench.executors.jobs import JobOutcome, TrainingJob
from melcnn.data.clips import ClipSet
from melcnn.training import Epoch

T = TypeVar("T")


@dataclass(frozen=True)
class Capacity:
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

    take: Callable[[TrainingJob, JobOutcome], None]
    began: Callable[[TrainingJob], None] = lambda job: None
    epoch: Callable[[TrainingJob, Sequence[int], Epoch], None] = lambda job, stack, epoch: None
    note: Callable[[str], None] = lambda text: None
    ending: Callable[[], None] = lambda: None

    def settle(self, job: TrainingJob, outcome: JobOutcome) -> tuple[int, ...]:
        """Has taken what came of a job; the seeds of which nothing did, because the device was lost."""
        done = outcome.settled(job) if outcome.device_lost else job.seeds
        if done:
            self.take(replace(job, seeds=done), outcome)
        return tuple(seed for seed in job.seeds if seed not in done)


class Executor(Protocol):
    """Trains jobs somewhere."""

    @property
    def room(self) -> Capacity: ...

    def run(self, waiting: Sequence[TrainingJob], at_once: int, clips: ClipSet, audience: Audience) -> None:
        """Does all jobs, begun in their order, at most `at_once` of them at a time, and tells `audience`.

        What `audience` raises, an `InputError` of a job, or an interruption ends all jobs and is raised; what has ended
        by then is taken.
        """

    def alone(self, function: Callable[..., T], *arguments: object) -> T:
        """`function(*arguments)`, on a device that nobody shares meanwhile; both can be pickled."""
