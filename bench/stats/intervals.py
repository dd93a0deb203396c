"""Intervals that tables and verdicts rest on."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from scipy.special import bdtr, betaincinv, stdtrit

# Seeds that show a spread: the interval of two is up to 12.7 standard errors wide.
FEWEST_SEEDS = 3


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None]:
    """Return the mean and the half-width of its Student's t interval, which is None for a single value.

    half-width = t(1 - (1 - confidence) / 2; n - 1) * s / sqrt(n), s with n - 1 in the denominator.
    """
    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return mean, None
    quantile = float(stdtrit(n - 1, 0.5 + confidence / 2))
    return mean, quantile * float(np.std(values, ddof=1)) / math.sqrt(n)


def accuracy_over_seeds(
    accuracies: Sequence[float], clips: int, confidence: float = 0.95
) -> tuple[float, float | None]:
    """Return the mean accuracy of several seeds on the same clips, and the half-width of its interval.

    The wider of Student's t interval over seeds and the exact binomial (Clopper-Pearson) one of all predictions.
    Student's alone is far too short where networks hardly err: with 0.3 errors a seed in 187 clips it covers the truth
    in 58, 77 and 95% of cases at 3, 5 and 10 seeds. None for fewer than `FEWEST_SEEDS` and for seeds that all agree:
    these do not show how much trainings differ.

    Args:
        accuracies: one a seed, each of `clips` clips.
    """
    mean, half = mean_interval(accuracies, confidence)
    if half is None or len(accuracies) < FEWEST_SEEDS or len(set(accuracies)) == 1:
        return mean, None
    low, high = _clopper_pearson(round(sum(accuracies) * clips), len(accuracies) * clips, confidence)
    return mean, max(half, mean - low, high - mean)


def _clopper_pearson(right: float, number: float, confidence: float) -> tuple[float, float]:
    tail, wrong = (1 - confidence) / 2, number - right
    low = float(betaincinv(right, wrong + 1, tail)) if right > 0 else 0.0
    high = float(betaincinv(right + 1, wrong, 1 - tail)) if wrong > 0 else 1.0
    return low, high


def prediction_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None]:
    """Return the mean and the half-width of the interval for one more value, which is None for a single value.

    half-width = t(1 - (1 - confidence) / 2; n - 1) * s * sqrt(1 + 1 / n), s with n - 1 in the denominator (for normal
    values; Hahn and Meeker, Statistical Intervals, 1991).
    """
    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return mean, None
    return mean, float(stdtrit(n - 1, 0.5 + confidence / 2)) * float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / n)


def accuracy_interval(
    correct: Sequence[bool], speakers: Sequence[str], confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of an accuracy whose clips are clustered by speaker: (low, high).

    Korn and Graubard (Survey Methodology 24, 1998): the exact binomial (Clopper-Pearson) interval for as many
    independent clips as carry the same information, n_eff = p (1 - p) / v, with v the variance of the ratio
    estimator over speakers, v = k / (k - 1) * sum((y_i - p n_i)^2) / n^2 for y_i right of n_i clips of the
    k speakers, times (t(n - 1) / t(k - 1))^2 for estimating v from k speakers only. Without any error (or
    any success) there is no estimate of v, and each speaker counts as one clip. A single speaker gives (0, 1).
    """
    names, index = np.unique(np.asarray(speakers), return_inverse=True)
    n, k = len(correct), len(names)
    if k < 2:
        return 0.0, 1.0
    p = float(np.mean(correct))
    residuals = np.bincount(index, np.asarray(correct, float) - p)
    variance = k / (k - 1) * float(np.sum(residuals**2)) / n**2
    return effective_interval(p, n, k, variance, k - 1, confidence)


def effective_interval(
    p: float, n: int, k: int, variance: float, freedom: float, confidence: float
) -> tuple[float, float]:
    """Return Korn and Graubard's interval of an accuracy p of n predictions for k speakers: (low, high).

    Args:
        freedom: the degrees of freedom of `variance`.
    """
    tail = (1 - confidence) / 2
    if p in (0.0, 1.0):
        effective = float(k)
    else:
        effective = p * (1 - p) / variance if variance else float(n)
        effective = min(n, effective * float(stdtrit(n - 1, 1 - tail) / stdtrit(freedom, 1 - tail)) ** 2)
    return _clopper_pearson(p * effective, effective, confidence)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the median and its distribution-free interval: (median, low, high).

    The r-th smallest and r-th largest value enclose the median unless fewer than r of n values fall on one
    side of it, which a fair coin decides: r is the largest with 2 P(Binomial(n, 1/2) < r) <= 1 - confidence.
    Fewer than 6 values hold no 95% interval: low and high are then infinite.
    """
    ordered = np.sort(np.asarray(values, float))
    n = len(ordered)
    if not n:
        raise ValueError("no values have no median")
    # bdtr(k, n, p) is P(Binomial(n, p) <= k), so the ranks that will do are as many as terms pass.
    rank = int(np.sum(2 * bdtr(np.arange(n // 2), n, 0.5) <= 1 - confidence))
    low, high = (float(ordered[rank - 1]), float(ordered[n - rank])) if rank else (-math.inf, math.inf)
    return float(np.median(ordered)), low, high


def midmean(values: Sequence[float]) -> float:
    """Return the mean of the middle half: as robust to outliers as timing needs, and less noisy than a median."""
    ordered = np.sort(np.asarray(values, float))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def difference_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return mean(b) - mean(a) of independent values with its interval by Welch's t: (difference, low, high).

    Degrees of freedom by Welch and Satterthwaite (Biometrika 34, 1947). With fewer than two values of either, low and
    high are infinite.
    """
    difference = float(np.mean(b) - np.mean(a))
    if min(len(a), len(b)) < 2:
        return difference, -math.inf, math.inf
    parts = [float(np.var(x, ddof=1)) / len(x) for x in (a, b)]
    if not sum(parts):
        return difference, difference, difference
    freedom = sum(parts) ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True))
    half = float(stdtrit(freedom, 0.5 + confidence / 2)) * math.sqrt(sum(parts))
    return difference, difference - half, difference + half


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p values for multiple tests: of those up to 0.05, all are true effects except once in 20 tries.

    Holm (Scandinavian Journal of Statistics 6, 1979): the smallest of m times m, the next times m - 1 and so on, none
    below the one before it, none above 1.
    """
    order = np.argsort(p, kind="stable")
    raised = np.minimum(1, np.asarray(p, float)[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(raised)
    return corrected.tolist()


Number = TypeVar("Number", float, float | None)


def significant(value: Number) -> Number:
    """Round to six significant digits: no clock is more precise, and more would be noise in a file."""
    return None if value is None else float(f"{value:.6g}")
