"""Intervals that tables and verdicts rest on."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import betaincinv, stdtrit


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None]:
    """The mean and the half-width of Student's t interval of it; no half-width for a single value.

    half-width = t(1 - (1 - confidence) / 2; n - 1) * s / sqrt(n), s with n - 1 in the denominator.
    """
    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return mean, None
    quantile = float(stdtrit(n - 1, 0.5 + confidence / 2))
    return mean, quantile * float(np.std(values, ddof=1)) / math.sqrt(n)


def accuracy_interval(
    correct: Sequence[bool], speakers: Sequence[str], confidence: float = 0.95
) -> tuple[float, float]:
    """The interval of an accuracy over clips of which those of one speaker are not independent: (low, high).

    Korn and Graubard (Survey Methodology 24, 1998): the exact binomial (Clopper-Pearson) interval for as many
    independent clips as carry the same information, n_eff = p (1 - p) / v, with v the variance of the ratio
    estimator over speakers, v = k / (k - 1) * sum((y_i - p n_i)^2) / n^2 for y_i right of n_i clips of the
    k speakers, times (t(n - 1) / t(k - 1))^2 for knowing v from k speakers only. Without any error (or
    without any success) the data hold no v, and each speaker counts as one clip. A single speaker gives
    (0, 1): nothing is known of others.
    """
    names, index = np.unique(np.asarray(speakers), return_inverse=True)
    n, k = len(correct), len(names)
    if k < 2:
        return 0.0, 1.0
    p = float(np.mean(correct))
    tail = (1 - confidence) / 2
    if p in (0.0, 1.0):
        effective = float(k)
    else:
        residuals = np.bincount(index, np.asarray(correct, float) - p)
        variance = k / (k - 1) * float(np.sum(residuals**2)) / n**2
        effective = p * (1 - p) / variance if variance else float(n)
        effective = min(n, effective * float(stdtrit(n - 1, 1 - tail) / stdtrit(k - 1, 1 - tail)) ** 2)
    right, wrong = p * effective, (1 - p) * effective
    low = float(betaincinv(right, wrong + 1, tail)) if right > 0 else 0.0
    high = float(betaincinv(right + 1, wrong, 1 - tail)) if wrong > 0 else 1.0
    return low, high
