"""Jobs for workers that may die: what a dead one had in hand is done again, and failed if it kills every worker."""

import functools
import threading
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from bench.executors import Audience
from bench.jobs import Failure, Job, Outcome
from bench.naming import names
from bench.records import FailureKind
from melcnn.config import Trial
from melcnn.training import Epoch, Run

# Between two looks at whether an interruption came.
WAIT_SECONDS = 0.5
# After one: before what came of a job may stand epochs of it that nobody has heard of yet.
LAST_LOOKS = 10


@dataclass(frozen=True)
class Heard:
    """An epoch of a job, and the seeds that it trains side by side."""

    stack: tuple[int, ...]
    epoch: Epoch


@dataclass(frozen=True)
class Lost:
    """The worker of a job died. why: as after "its worker"."""

    kind: FailureKind
    why: str


class Pool(Protocol):
    """Workers, to be used by one thread.

    most: jobs that it takes at once; slots: how many of these are in training, the first ones first. tries: how often
    a job may lose its worker.
    """

    tries: int

    @property
    def most(self) -> int: ...

    @property
    def slots(self) -> int: ...

    def begin(self, job: Job) -> Hashable:
        """Takes a job; what names it from here on."""

    def wait(self, seconds: float) -> Sequence[tuple[Hashable, Heard | Outcome | Lost | Exception]]:
        """What happened to which job, at the latest after so many seconds. An `Outcome` or a `Lost` is a job's last;
        an `Exception` ends all jobs."""

    def end(self) -> None:
        """Ends what is still in training, and leaves nothing of it."""


def dispatch(jobs: Sequence[Job], pool: Pool, audience: Audience) -> None:
    """Does all jobs, as `bench.executors.Executor.run` says."""
    ended = threading.Event()
    with ThreadPoolExecutor(1) as other:
        # An interruption reaches this thread alone, and breaks off nothing that is being taken. It must find a thread
        # that has been started: the pool does not wait for others.
        other.submit(int).result()
        try:
            other.submit(_all, jobs, pool, audience, ended).result()
        except BaseException:
            ended.set()
            audience.ending()
            raise


def _all(jobs: Sequence[Job], pool: Pool, audience: Audience, ended: threading.Event) -> None:
    waiting = deque((job, 0) for job in jobs)
    going: dict[Hashable, tuple[Job, int]] = {}
    begun: set[Hashable] = set()
    named = functools.cache(lambda: names([job.trial for job in jobs]))
    try:
        while (waiting or going) and not ended.is_set():
            while waiting and len(going) < pool.most:
                job, deaths = waiting.popleft()
                going[pool.begin(job)] = job, deaths
            for key in [key for key in islice(going, pool.slots) if key not in begun]:
                begun.add(key)
                audience.began(going[key][0])
            # What has ended is taken before an error ends the rest.
            for key, event in sorted(pool.wait(WAIT_SECONDS), key=lambda each: isinstance(each[1], Exception)):
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, Heard):
                    audience.epoch(going[key][0], event.stack, event.epoch)
                    continue
                job, deaths = going.pop(key)
                begun.discard(key)
                if isinstance(event, Lost):
                    again = _again(job, deaths + 1, event, pool.tries)
                    todo = "it is tried again" if again else "it failed"
                    audience.note(f"{_name(job, named())}: its worker {event.why}; {todo}")
                    waiting.extendleft(reversed(again))
                    event = None if again else _failed(job, event, deaths + 1)
                if event:
                    audience.take(job, event)
        for _ in range(LAST_LOOKS):
            for key, event in pool.wait(0) if going else []:
                if isinstance(event, Outcome):
                    audience.take(going.pop(key)[0], event)
    finally:
        pool.end()


def _again(job: Job, deaths: int, lost: Lost, tries: int) -> list[tuple[Job, int]]:
    """What is tried next after so many deaths: the same, which may have had no part in it; then halves, each once, of
    which one may go well; of a single seed nothing."""
    too_large = lost.kind == "out of memory" and len(job.seeds) > 1
    if deaths < tries and not too_large:
        return [(job, deaths)]
    half = len(job.seeds) // 2
    return [(replace(job, seeds=seeds), tries - 1) for seeds in (job.seeds[:half], job.seeds[half:]) if half]


def _failed(job: Job, lost: Lost, deaths: int) -> Outcome:
    message = f"its worker {lost.why}" + (f", {deaths} times" if deaths > 1 else "")
    return Outcome([], [Failure(seed, job.seeds, lost.kind, message) for seed in job.seeds])


def _name(job: Job, named: Mapping[Trial, str]) -> str:
    seeds = f"seeds {job.seeds[0]} to {job.seeds[-1]}" if len(job.seeds) > 1 else f"seed {job.seeds[0]}"
    return f"{named[job.trial]} {seeds}"


def sent(outcome: Outcome) -> Outcome:
    """What a worker sends of an outcome: networks stay where they were trained."""

    def without_network(run: Run) -> Run:
        return replace(run, network=None)

    return replace(
        outcome,
        trained=[replace(each, runs=[without_network(run) for run in each.runs]) for each in outcome.trained],
    )
