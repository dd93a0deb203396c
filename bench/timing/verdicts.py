"""FASTER, SLOWER, SAME or UNCLEAR: the decision, from the interval of a ratio of times.

Times are compared as logarithms of ratios taken within rounds, where a machine that drifts has hit both alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.stats.intervals import difference_interval, mean_interval, median_interval, midmean
from bench.timing.timer import Series
from melcnn.scheduling import DISTURBED

# The smallest effect of interest: a ratio within 1 / 1.02 to 1.02 is the same speed.
EFFECT = 0.02

FASTER, SLOWER, SAME, UNCLEAR = "FASTER", "SLOWER", "SAME", "UNCLEAR"

# Processes differ by more than their rounds do: where memory lies, which kernels were chosen.
FEWEST_LAUNCHES = 5

# Rounds that another process disturbed are left out while enough others remain.
FEWEST_UNDISTURBED = 20
# Beyond this share of disturbed rounds the machine was busy. What others compute beside us then slows different
# work by different amounts, for minutes at a time: a ratio to reference work was seen to move by 6%.
BUSY = 0.10


@dataclass(frozen=True)
class Comparison:
    """The time that B takes for each second of A: the ratio with its 95% interval, and the verdict."""

    ratio: float
    low: float
    high: float
    verdict: str


def decide(low: float, high: float, effect: float = EFFECT) -> str:
    """Return the verdict from the interval (low, high) of the ratio time of B / time of A.

    SLOWER: all of it is above 1 + effect. FASTER: all of it is below 1 / (1 + effect). SAME: all of it lies between the
    two. UNCLEAR: none of these. So a slowdown that may be smaller than `effect` is not called SLOWER.
    """
    most = 1 + effect
    if low > most:
        return SLOWER
    if high < 1 / most:
        return FASTER
    return SAME if low >= 1 / most and high <= most else UNCLEAR


# A and B in one run, and where a run holds several of each, A and B each time.
Pair = tuple[Series, Series]


def compare_pairs(pairs: Sequence[Pair], effect: float = EFFECT) -> Comparison:
    """Compare B with A, built several times each: every pair of builds is one observation, with Student's t over them.

    Rounds are no independent observations: those of one build share its place in memory, and rounds in a row share what
    else the machine does.
    """
    middle, half = mean_interval(_log_ratios_by_pair(pairs))
    half = math.inf if half is None else half
    return _comparison(middle, middle - half, middle + half, effect)


def pair_precision(pairs: Sequence[Pair]) -> float:
    """Return the relative half-width of the interval of `compare_pairs`."""
    half = mean_interval(_log_ratios_by_pair(pairs))[1]
    return math.inf if half is None else math.expm1(half)


def _log_ratios_by_pair(pairs: Sequence[Pair]) -> list[float]:
    return [midmean(log_ratios([pair])) for pair in pairs]


def compare_launches(a: Sequence[float], b: Sequence[float], effect: float = EFFECT) -> Comparison:
    """Compare B with A, each given as one logarithm a process launch (`Samples.log_to_reference`).

    Launches are independent, rounds within one are not: the interval is Student's t over launches (Welch's).
    With fewer than `FEWEST_LAUNCHES` of either the verdict is UNCLEAR.
    """
    difference, low, high = difference_interval(a, b)
    found = _comparison(difference, low, high, effect)
    if min(len(a), len(b)) < FEWEST_LAUNCHES:
        return Comparison(found.ratio, found.low, found.high, UNCLEAR)
    return found


def log_ratios(pairs: Sequence[Pair]) -> list[float]:
    """Return log(time of B / time of A) a round, the mean over pairs, without disturbed rounds if enough remain."""
    times = _counted(pairs)
    return np.log(times[:, 1] / times[:, 0]).mean(0).tolist()


def seconds_of_a(pairs: Sequence[Pair]) -> float:
    """Return the time of A in the rounds that `compare_pairs` counts: the geometric mean over pairs of their midmeans.

    Times the ratio it is the time of B that the comparison rests on.
    """
    return math.exp(float(np.mean([midmean(np.log(_counted([pair])[0, 0]).tolist()) for pair in pairs])))


def _counted(pairs: Sequence[Pair]) -> np.ndarray:
    """Return seconds `(pairs, 2, rounds)`, without the rounds that other processes disturbed if enough remain."""
    calm = ~np.any([disturbed(one) for pair in pairs for one in pair], axis=0)
    times = np.array([[one.seconds for one in pair] for pair in pairs])
    if not times.all():
        raise ValueError("a time of zero has no ratio: the clock is too coarse for these calls")
    return times[..., calm] if calm.sum() >= FEWEST_UNDISTURBED else times


def disturbed(one: Series) -> np.ndarray:
    """Return for each round whether another process disturbed it."""
    return np.asarray(one.waited) > DISTURBED * np.asarray(one.seconds)


def ratio_precision(pairs: Sequence[Pair]) -> float:
    """Return the precision of the ratio: the half-width of its 95% interval, relative to it."""
    _, low, high = median_interval(log_ratios(pairs))
    return math.expm1((high - low) / 2) if math.isfinite(high) else math.inf


def _comparison(middle: float, low: float, high: float, effect: float) -> Comparison:
    ratio, low, high = (math.exp(value) if value < math.inf else math.inf for value in (middle, low, high))
    return Comparison(ratio, low, high, decide(low, high, effect))
