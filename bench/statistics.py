"""Intervals that tables and verdicts rest on."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit


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
