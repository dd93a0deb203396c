"""Jobs for workers that may die: a job that loses its worker is tried again, and fails if it kills every worker."""

import functools
import logging
import threading
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from bench.executors.base import report_outcome
from bench.executors.events import EpochDone, Finished, OnEvent, Started
from bench.executors.jobs import MAX_LOG_CHARACTERS, Failure, JobOutcome, TrainingJob
from bench.executors.thread_pool import wait_for
from bench.executors.threads import ENDING
from bench.records import FailureKind
from melcnn.config import Trial, short_names

log = logging.getLogger(__name__)

# Seconds between two looks for an interruption.
WAIT_SECONDS = 0.5
# Looks after an interruption: epochs that were not read yet may stand before a job's outcome.
LAST_LOOKS = 10


@dataclass(frozen=True)
class Lost:
    """The worker of a job died.

    Attributes:
        why: the reason, after "its worker".
        where: the machine, if it is known.
    """

    kind: FailureKind
    why: str
    where: str = ""

    def __str__(self) -> str:
        return f"its worker{f' on {self.where}' if self.where else ''} {self.why}"


PoolEvent = EpochDone | JobOutcome | Lost | Exception


class Pool(Protocol):
    """Workers, used from one thread.

    Attributes:
        tries: how often a job may lose its worker.
        most: jobs that the pool takes at once.
        slots: how many of these are in training, the oldest first.
    """

    tries: int

    @property
    def most(self) -> int: ...

    @property
    def slots(self) -> int: ...

    def begin(self, job: TrainingJob) -> Hashable:
        """Take a job and return the key that names it from here on."""

    def wait(self, seconds: float) -> Sequence[tuple[Hashable, PoolEvent]]:
        """Return the events of jobs, by key, after at most so many seconds (a few more to learn of a loss).

        A `JobOutcome` or a `Lost` is a job's last event; an `Exception` ends all jobs.
        """

    def end(self) -> None:
        """End the jobs in training and leave nothing of them."""


def dispatch(jobs: Sequence[TrainingJob], pool: Pool, on_event: OnEvent) -> None:
    """Train all jobs on a pool, as `bench.executors.base.Executor.run` describes."""
    ended = threading.Event()
    with ThreadPoolExecutor(1) as other:
        # An interruption reaches this thread alone and breaks off no record that is being stored. It must find a thread
        # that has been started: the pool does not wait for others.
        other.submit(int).result()
        try:
            wait_for([other.submit(_train_all, jobs, pool, on_event, ended)])
        except BaseException:
            ended.set()
            on_event(ENDING)
            raise


@dataclass(frozen=True)
class _Try:
    """A job in hand.

    Attributes:
        deaths: of its workers, as far as they count against it.
        losses: how each earlier try ended, of it and of the job that it is a part of.
    """

    job: TrainingJob
    deaths: int = 0
    losses: tuple[str, ...] = ()


def _train_all(jobs: Sequence[TrainingJob], pool: Pool, on_event: OnEvent, ended: threading.Event) -> None:
    waiting = deque(map(_Try, jobs))
    going: dict[Hashable, _Try] = {}
    epochs: dict[Hashable, int] = {}  # the last epoch reported
    started: set[Hashable] = set()
    named = functools.cache(lambda: short_names([job.trial for job in jobs]))

    def start(key: Hashable) -> None:
        if key not in started:
            started.add(key)
            on_event(Started(going[key].job))

    try:
        while (waiting or going) and not ended.is_set():
            while waiting and len(going) < pool.most:
                one = waiting.popleft()
                going[pool.begin(one.job)] = one
            for key in islice(going, pool.slots):
                start(key)
            # Outcomes are reported before an error ends the rest.
            for key, event in sorted(pool.wait(WAIT_SECONDS), key=lambda each: isinstance(each[1], Exception)):
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, EpochDone):
                    start(key)  # More may be in training than `slots` says.
                    epochs[key] = event.epoch.number
                    on_event(event)
                    continue
                one, epoch = going.pop(key), epochs.pop(key, 0)
                started.discard(key)
                if isinstance(event, JobOutcome):
                    rest = report_outcome(one.job, event, on_event)
                    if not rest:
                        continue
                    # Any one of the seeds that were trained side by side may be to blame, or none.
                    one = replace(one, job=replace(one.job, seeds=rest))
                    event = Lost("error", f"lost its device ({event.device_lost})", event.where)
                one = replace(one, deaths=one.deaths + 1, losses=(*one.losses, _described(one, event, epoch)))
                again = _next_tries(one, event, pool.tries)
                todo = "it is tried again" if again else "it failed"
                log.warning(f"{_name(one.job, named())}: {event}; {todo}")
                waiting.extendleft(reversed(again))
                if not again:
                    on_event(Finished(one.job, _failed(one, event, epoch)))
        for _ in range(LAST_LOOKS):
            for key, event in pool.wait(0) if going else []:
                if isinstance(event, JobOutcome):
                    report_outcome(going.pop(key).job, event, on_event)
    finally:
        pool.end()


def _next_tries(one: _Try, lost: Lost, tries: int) -> list[_Try]:
    """Return the jobs to try next: the same job, which may have had no part in the loss; then its halves, each once, as
    one of them may go well; nothing for a single seed."""
    seeds = one.job.seeds
    too_large = lost.kind == "out of memory" and len(seeds) > 1
    if one.deaths < tries and not too_large:
        return [one]
    half = len(seeds) // 2
    return [_Try(replace(one.job, seeds=part), tries - 1, one.losses) for part in (seeds[:half], seeds[half:]) if half]


def _described(one: _Try, lost: Lost, epoch: int) -> str:
    after = f"after epoch {epoch}" if epoch else "before its first epoch was reported"
    return f"try {len(one.losses) + 1}, {_seeds(one.job)}: {lost}, {after}"


def _failed(one: _Try, lost: Lost, epoch: int) -> JobOutcome:
    """Return the outcome of a last try, which was reported up to `epoch`."""
    times = len(one.losses)
    # Several tries may have been on different machines, which the log names.
    message = f"{replace(lost, where='')}, {times} times" if times > 1 else str(lost)
    job, text = one.job, "\n".join(one.losses)[-MAX_LOG_CHARACTERS:]
    return JobOutcome([], [Failure(seed, job.seeds, lost.kind, message, text, epoch) for seed in job.seeds])


def _name(job: TrainingJob, named: Mapping[Trial, str]) -> str:
    return f"{named[job.trial]} {_seeds(job)}"


def _seeds(job: TrainingJob) -> str:
    return f"seeds {job.seeds[0]} to {job.seeds[-1]}" if len(job.seeds) > 1 else f"seed {job.seeds[0]}"
