"""Timing callables side by side: warm-up, interleaved rounds, a stopping rule with reasons. Knows no model.

A round calls every candidate once, in random order, so that a drifting machine hits all alike. Rounds are
the unit of all statistics: what two candidates took in one round belongs together.
"""

import gc
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

from bench.stats.intervals import median_interval
from bench.timing.clocks import HostClock, Reading
from melcnn.errors import Failed, InputError, first_line
from melcnn.scheduling import DISTURBED

# Warm-up ends with a round in which no candidate beats its fastest call so far by this much: caches, kernel
# choices and clock rates that still settle show larger steps.
STEADY = 0.05
WARM_UP_SECONDS = 0.1  # at the least: processors need about that long to raise their clock rate
MOST_WARM_UP_ROUNDS = 200

# A sample holds so many calls that reading the clock is at most this share of it.
LARGEST_OVERHEAD = 0.01


@dataclass
class Series:
    """The times of one candidate, seconds a call; entry i of each list is round i.

    Attributes:
        calls: calls in one sample.
        cold_seconds: its very first call.
        device_seconds: empty without a device clock.
    """

    calls: int = 1
    cold_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    device_seconds: list[float] = field(default_factory=list)


@dataclass
class InterleavedRun:
    """The times of candidates that were called in turn.

    Attributes:
        unmet: what the stopping rule missed when a cap ended the run, by candidate ("": by all).
        steady: warm-up saw the candidates settle.
        overhead_seconds: what reading the clock adds to a sample.
    """

    series: dict[str, Series]
    overhead_seconds: float = 0.0
    steady: bool = True
    unmet: dict[str, str] = field(default_factory=dict)


class CandidateFailed(Failed):
    """A candidate raised; the text names candidate, round and error.

    Attributes:
        run: all measurements until then.
    """

    def __init__(self, name: str, number: int, error: Exception, run: InterleavedRun):
        self.run = run
        where = f"in round {number}" if number else "while it warmed up"
        super().__init__(f"{name} raised {where} {first_line(error)}")


def median_widths(series: Mapping[str, Series]) -> dict[str, float]:
    """Return the precision of each candidate's median: the relative half-width of its 95% interval."""
    found = {}
    for name, one in series.items():
        median, low, high = median_interval(one.seconds)
        found[name] = (high - low) / 2 / median if median else 0.0
    return found


@dataclass(frozen=True)
class Rule:
    """The stopping rule `precise`: measure until every figure is known well enough.

    Attributes:
        precision: the wanted relative half-width of each figure's 95% interval.
        figures: computes those half-widths.
        min_rounds, min_seconds: the rule is not met before, whatever the interval; a few samples that happen to lie
            together look precise.
        max_rounds, max_seconds: the caps; a run that meets one says what it lacks.
    """

    precision: float = 0.02
    min_rounds: int = 9
    min_seconds: float = 0.3
    max_rounds: int = 5_000
    max_seconds: float = 10.0
    figures: Callable[[Mapping[str, Series]], Mapping[str, float]] = median_widths
    name: str = "precise"

    def unmet(self, series: Mapping[str, Series], rounds: int, elapsed: float) -> dict[str, str]:
        """Return the conditions that are not met yet, by candidate ("" for all); empty if the run may stop."""
        reasons = []
        if rounds < self.min_rounds:
            reasons.append(f"{rounds} of at least {self.min_rounds} rounds")
        if elapsed < self.min_seconds:
            reasons.append(f"{elapsed:.2g} of at least {self.min_seconds:g} s")
        if reasons:
            return {"": ", ".join(reasons)}  # An interval of too few rounds would mean nothing.
        return {
            name: f"known to ±{width:.1%}, wanted ±{self.precision:.1%}"
            for name, width in self.figures(series).items()
            if width > self.precision
        }

    def capped(self, rounds: int, elapsed: float) -> bool:
        return rounds >= self.max_rounds or elapsed >= self.max_seconds


def fixed(rounds: int, max_seconds: float = math.inf) -> Rule:
    """Return the stopping rule `fixed`: a number of rounds, whatever they measure."""
    return Rule(math.inf, rounds, 0.0, rounds, max_seconds, lambda series: {}, "fixed")


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    rule: Rule,
    clock: HostClock,
    seed: int = 0,
    watch: Callable[[str], AbstractContextManager] = nullcontext,
    singly: bool = False,
    blocks: Sequence[Sequence[str]] = (),
) -> InterleavedRun:
    """Time `candidates` in interleaved rounds, in an order drawn by `seed`, until `rule` is met or its time is over.

    Each candidate's first call is kept apart as cold, then all are called until they are steady. Garbage is
    collected before the rounds and not during them.

    Args:
        watch: a context for each candidate's cold call, which is when memory is first allocated.
        singly: each sample is one call, however short, as percentiles need.
        blocks: candidates that are compared with each other, which a round calls next to each other (default: all).

    Raises:
        InputError: the time allowed has no room for the rule's fewest rounds.
        Failed: it has none because other processes hold up this machine.
        CandidateFailed: a candidate raises.
    """
    blocks = blocks or [list(candidates)]
    order = random.Random(seed)
    run = InterleavedRun({name: Series() for name in candidates})
    cold: dict[str, Reading] = {}
    for name in order.sample(list(candidates), len(candidates)):  # Whoever comes first also starts the libraries.
        with watch(name):
            cold[name] = _attempt(clock, name, candidates[name], 1, 0, run)
            run.series[name].cold_seconds = cold[name].host
    run.overhead_seconds = clock.overhead()
    with _no_garbage_collection():
        fastest = _warm_up(candidates, rule, clock, order, run, cold)
        for name, one in run.series.items():
            own = max(fastest[name].host - run.overhead_seconds, 1e-9)
            one.calls = 1 if singly else math.ceil(run.overhead_seconds / LARGEST_OVERHEAD / own) or 1
        seconds = sum(fastest[name].host * one.calls for name, one in run.series.items())
        _check_room(rule, seconds, any(one.waited > DISTURBED * one.host for one in fastest.values()))
        start, rounds, next_look = clock.now(), 0, 0
        while True:
            rounds += 1
            for name in _shuffled(blocks, order):
                one = run.series[name]
                reading = _attempt(clock, name, candidates[name], one.calls, rounds, run)
                one.seconds.append(reading.host)
                one.waited.append(reading.waited)
                if reading.device is not None:
                    one.device_seconds.append(reading.device)
            elapsed = clock.now() - start
            capped = rule.capped(rounds, elapsed)
            # Looks at ever larger distances: each costs time, and each is a chance to stop on a lucky streak.
            if capped or rounds >= max(next_look, rule.min_rounds):
                run.unmet = rule.unmet(run.series, rounds, elapsed)
                next_look = rounds + max(1, rounds // 8)
                if capped or not run.unmet:
                    return run


def rounds(
    candidates: Mapping[str, Callable[[int], object]],
    number: int,
    clock: HostClock,
    progress: Callable[[str], None] = lambda text: None,
    seed: int = 0,
) -> dict[str, Series]:
    """Call each candidate once in each of `number` rounds, in random order, with the round's number from 0.

    For calls of minutes, whose beginning is a part of them: nothing is warmed up.

    Args:
        progress: gets a text before each call.
    """
    order = random.Random(seed)
    series = {name: Series() for name in candidates}
    for index in range(number):
        for name in order.sample(list(candidates), len(candidates)):
            progress(f"round {index + 1} of {number}: {name}")
            reading = clock.read(partial(candidates[name], index))
            series[name].seconds.append(reading.host)
            series[name].waited.append(reading.waited)
    return series


def _warm_up(
    candidates: Mapping[str, Callable[[], object]],
    rule: Rule,
    clock: HostClock,
    order: random.Random,
    run: InterleavedRun,
    cold: Mapping[str, Reading],
) -> dict[str, Reading]:
    """Call all until steady, or until the time allowed is over; return the reading of each one's fastest call."""
    fastest = dict(cold)
    start = clock.now()
    number = 0
    while True:
        number += 1
        settled = True
        for name in order.sample(list(candidates), len(candidates)):
            reading = _attempt(clock, name, candidates[name], 1, 0, run)
            settled &= reading.host > fastest[name].host * (1 - STEADY)
            fastest[name] = min(fastest[name], reading, key=lambda one: one.host)
        elapsed = clock.now() - start
        long_enough = elapsed >= WARM_UP_SECONDS
        run.steady = settled and long_enough
        if run.steady or elapsed >= rule.max_seconds or (long_enough and number >= MOST_WARM_UP_ROUNDS):
            return fastest


def _shuffled(blocks: Sequence[Sequence[str]], order: random.Random) -> list[str]:
    """Return the blocks in random order, each in random order."""
    return [name for block in order.sample(blocks, len(blocks)) for name in order.sample(block, len(block))]


def _check_room(rule: Rule, seconds: float, busy: bool) -> None:
    if seconds * rule.min_rounds > rule.max_seconds:
        what = f"the time allowed, {rule.max_seconds:g} s, has no room for {rule.min_rounds} rounds of {seconds:.2g} s"
        todo = f"allow {math.ceil(seconds * rule.min_rounds * 1.5)} s or more"
        if busy:
            raise Failed(f"{what} while other processes hold up this machine: stop them, or {todo}")
        raise InputError(f"{what}: {todo}, or time less")


def _attempt(
    clock: HostClock, name: str, call: Callable[[], object], calls: int, number: int, run: InterleavedRun
) -> Reading:
    try:
        return clock.read(call, calls)
    except Exception as error:
        # A round that was cut short is left out: entry i of every list stays of round i.
        for one in run.series.values():
            del one.seconds[max(number - 1, 0) :], one.waited[max(number - 1, 0) :]
            del one.device_seconds[max(number - 1, 0) :]
        raise CandidateFailed(name, number, error, run) from error


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
