"""Jobs for workers that may die: what a dead one had in hand is done again, and failed if it kills every worker."""

import functools
import threading
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from bench.executors.base import Audience
from bench.executors.jobs import LONGEST_LOG, Failure, JobOutcome, TrainingJob
from bench.records import FailureKind
from melcnn.config import Trial, short_names
from melcnn.training import Epoch, TrainedNetwork

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
    """The worker of a job died. why: as after "its worker". where: the machine, if that is known."""

    kind: FailureKind
    why: str
    where: str = ""

    @property
    def told(self) -> str:
        return f"its worker{f' on {self.where}' if self.where else ''} {self.why}"


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

    def begin(self, job: TrainingJob) -> Hashable:
        """Takes a job; what names it from here on."""

    def wait(self, seconds: float) -> Sequence[tuple[Hashable, Heard | JobOutcome | Lost | Exception]]:
        """What happened to which job, at the latest after so many seconds, or a few more for what is known of a loss.
        An `Outcome` or a `Lost` is a job's last; an `Exception` ends all jobs."""

    def end(self) -> None:
        """Ends what is still in training, and leaves nothing of it."""


def dispatch(jobs: Sequence[TrainingJob], pool: Pool, audience: Audience) -> None:
    """Does all jobs, as `bench.executors.threads.Executor.run` says."""
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


@dataclass(frozen=True)
class _Try:
    """A job in hand. deaths: of its workers, as far as they count against it; lost: how every try ended before, of it
    and of what it is a part of."""

    job: TrainingJob
    deaths: int = 0
    lost: tuple[str, ...] = ()


def _all(jobs: Sequence[TrainingJob], pool: Pool, audience: Audience, ended: threading.Event) -> None:
    waiting = deque(map(_Try, jobs))
    going: dict[Hashable, _Try] = {}
    epochs: dict[Hashable, int] = {}  # The last one that was heard of.
    begun: set[Hashable] = set()
    named = functools.cache(lambda: short_names([job.trial for job in jobs]))

    def begin(key: Hashable) -> None:
        if key not in begun:
            begun.add(key)
            audience.began(going[key].job)

    try:
        while (waiting or going) and not ended.is_set():
            while waiting and len(going) < pool.most:
                one = waiting.popleft()
                going[pool.begin(one.job)] = one
            for key in islice(going, pool.slots):
                begin(key)
            # What has ended is taken before an error ends the rest.
            for key, event in sorted(pool.wait(WAIT_SECONDS), key=lambda each: isinstance(each[1], Exception)):
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, Heard):
                    begin(key)  # More may be in training than was known.
                    epochs[key] = event.epoch.number
                    audience.epoch(going[key].job, event.stack, event.epoch)
                    continue
                one, epoch = going.pop(key), epochs.pop(key, 0)
                begun.discard(key)
                if isinstance(event, JobOutcome):
                    rest = audience.settle(one.job, event)
                    if not rest:
                        continue
                    # Of those that were trained side by side one may be to blame, or none.
                    one = replace(one, job=replace(one.job, seeds=rest))
                    event = Lost("error", f"lost its device ({event.device_lost})", event.where)
                one = replace(one, deaths=one.deaths + 1, lost=(*one.lost, _told(one, event, epoch)))
                again = _again(one, event, pool.tries)
                todo = "it is tried again" if again else "it failed"
                audience.note(f"{_name(one.job, named())}: {event.told}; {todo}")
                waiting.extendleft(reversed(again))
                if not again:
                    audience.take(one.job, _failed(one, event, epoch))
        for _ in range(LAST_LOOKS):
            for key, event in pool.wait(0) if going else []:
                if isinstance(event, JobOutcome):
                    audience.settle(going.pop(key).job, event)
    finally:
        pool.end()


def _again(one: _Try, lost: Lost, tries: int) -> list[_Try]:
    """What is tried next: the same, which may have had no part in it; then halves, each once, of which one may go well;
    of a single seed nothing."""
    seeds = one.job.seeds
    too_large = lost.kind == "out of memory" and len(seeds) > 1
    if one.deaths < tries and not too_large:
        return [one]
    half = len(seeds) // 2
    return [_Try(replace(one.job, seeds=part), tries - 1, one.lost) for part in (seeds[:half], seeds[half:]) if half]


def _told(one: _Try, lost: Lost, epoch: int) -> str:
    heard = f"after epoch {epoch}" if epoch else "before an epoch of it was heard of"
    return f"try {len(one.lost) + 1}, {_seeds(one.job)}: {lost.told}, {heard}"


def _failed(one: _Try, lost: Lost, epoch: int) -> JobOutcome:
    """Of a try that was the last one. epoch: the last one of it that was heard of."""
    times = len(one.lost)
    # Of several tries each may have been on another machine, as the log tells.
    message = f"{replace(lost, where='').told}, {times} times" if times > 1 else lost.told
    job, log = one.job, "\n".join(one.lost)[-LONGEST_LOG:]
    return JobOutcome([], [Failure(seed, job.seeds, lost.kind, message, log, epoch) for seed in job.seeds])


def _name(job: TrainingJob, named: Mapping[Trial, str]) -> str:
    return f"{named[job.trial]} {_seeds(job)}"


def _seeds(job: TrainingJob) -> str:
    return f"seeds {job.seeds[0]} to {job.seeds[-1]}" if len(job.seeds) > 1 else f"seed {job.seeds[0]}"


def sent(outcome: JobOutcome) -> JobOutcome:
    """What a worker sends of an outcome: networks stay where they were trained."""

    def without_network(run: TrainedNetwork) -> TrainedNetwork:
        return replace(run, network=None)

    return replace(
        outcome,
        trained=[replace(each, runs=[without_network(run) for run in each.runs]) for each in outcome.trained],
    )
