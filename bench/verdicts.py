"""FASTER, SLOWER, SAME or UNCLEAR: the decision, from the interval of a ratio of times.

Times are compared as logarithms of ratios taken within rounds, where a machine that drifts has hit both alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.statistics import difference_interval, median_interval
from bench.timing import Series

# The smallest effect of interest: a ratio within 1 / 1.02 to 1.02 is the same speed.
EFFECT = 0.02

FASTER, SLOWER, SAME, UNCLEAR = "FASTER", "SLOWER", "SAME", "UNCLEAR"

# Processes differ by more than their rounds do: where memory lies, which kernels were chosen.
FEWEST_LAUNCHES = 5

# A round in which a thread waited for a core for longer than this share of the call was disturbed by
# another process. Such rounds are left out while enough others remain.
DISTURBED = 0.01
FEWEST_UNDISTURBED = 20


@dataclass(frozen=True)
class Comparison:
    """How long B takes for each second of A: the ratio with its 95% interval, and what is decided."""

    ratio: float
    low: float
    high: float
    verdict: str


def decide(low: float, high: float, effect: float = EFFECT) -> str:
    """What the interval (low, high) of the ratio time of B / time of A says.

    SLOWER: all of it is above 1 + effect. FASTER: all of it is below 1 / (1 + effect). SAME: all of it lies
    between the two. UNCLEAR: none of these. So SLOWER is not said of a slowdown that may be smaller than `effect`.
    """
    most = 1 + effect
    if low > most:
        return SLOWER
    if high < 1 / most:
        return FASTER
    return SAME if low >= 1 / most and high <= most else UNCLEAR


def compare_rounds(a: Series, b: Series, effect: float = EFFECT) -> Comparison:
    """B against A in one interleaved run: the median over rounds of the ratio within a round, with an interval
    that assumes no distribution."""
    median, low, high = median_interval(log_ratios(a, b))
    return _comparison(median, low, high, effect)


def compare_launches(a: Sequence[float], b: Sequence[float], effect: float = EFFECT) -> Comparison:
    """B against A, each given as one logarithm a process launch (`log_ratios` to a reference, their median).

    Launches are independent, rounds within one are not: the interval is Student's t over launches (Welch's).
    With fewer than `FEWEST_LAUNCHES` of either the verdict is UNCLEAR.
    """
    difference, low, high = difference_interval(a, b)
    found = _comparison(difference, low, high, effect)
    if min(len(a), len(b)) < FEWEST_LAUNCHES:
        return Comparison(found.ratio, found.low, found.high, UNCLEAR)
    return found


def log_ratios(a: Series, b: Series) -> list[float]:
    """log(time of B / time of A), round by round, without disturbed rounds if enough others remain."""
    times_a, times_b = np.asarray(a.seconds), np.asarray(b.seconds)
    if not times_a.all() or not times_b.all():
        raise ValueError("a time of zero has no ratio: the clock is too coarse for these calls")
    calm = ~(disturbed(a) | disturbed(b))
    if calm.sum() >= FEWEST_UNDISTURBED:
        times_a, times_b = times_a[calm], times_b[calm]
    return np.log(times_b / times_a).tolist()


def disturbed(one: Series) -> np.ndarray:
    """Which rounds another process disturbed."""
    return np.asarray(one.waited) > DISTURBED * np.asarray(one.seconds)


def ratio_precision(name: str, others: Sequence[str]):
    """For a `timing.Rule`: how precisely the ratio of each of `others` to `name` is known."""

    def figures(series: Mapping[str, Series]) -> dict[str, float]:
        found = {}
        for other in others:
            _, low, high = median_interval(log_ratios(series[name], series[other]))
            found[other] = math.expm1((high - low) / 2) if math.isfinite(high) else math.inf
        return found

    return figures


def _comparison(middle: float, low: float, high: float, effect: float) -> Comparison:
    ratio, low, high = (math.exp(value) if value < math.inf else math.inf for value in (middle, low, high))
    return Comparison(ratio, low, high, decide(low, high, effect))
