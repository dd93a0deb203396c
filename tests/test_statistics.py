import math

import numpy as np
import pytest
from scipy.stats import beta

from bench.statistics import accuracy_interval, mean_interval


def test_students_interval_by_hand():
    # mean 3, s = sqrt(10 / 4); t(0.975; 4) = 2.776445 (any t table)
    mean, half = mean_interval([1, 2, 3, 4, 5])
    assert mean == 3 and half == pytest.approx(2.776445 * math.sqrt(2.5) / math.sqrt(5), rel=1e-6)
    # two values: t(0.975; 1) = 12.7062; s = |a - b| / sqrt(2)
    assert mean_interval([0.0, 1.0])[1] == pytest.approx(12.7062 * math.sqrt(0.5) / math.sqrt(2), rel=1e-5)
    assert mean_interval([1, 2, 3, 4, 5], confidence=0.9)[1] == pytest.approx(2.131847 * math.sqrt(0.5), rel=1e-6)


def test_one_value_has_no_interval_and_equal_values_an_empty_one():
    assert mean_interval([0.5]) == (0.5, None)
    assert mean_interval([0.5, 0.5, 0.5]) == (0.5, 0.0)


def test_accuracy_interval_of_independent_clips_is_clopper_pearson():
    # Every clip of its own speaker, 8 of 10 right: v = 10/9 * (8 * 0.2^2 + 2 * 0.8^2) / 100 = p (1 - p) / 9,
    # so n_eff = 9, and the t ratio is 1. Clopper-Pearson for 7.2 of 9, by the beta distribution:
    correct = [True] * 8 + [False] * 2
    low, high = accuracy_interval(correct, list("abcdefghij"))
    assert low == pytest.approx(beta.ppf(0.025, 7.2, 9 - 7.2 + 1)) and high == pytest.approx(beta.ppf(0.975, 8.2, 1.8))


def test_clips_of_one_speaker_count_less():
    # The same clips by 5 speakers of whom one is always misheard: wider than by 10 speakers, one clip each.
    correct = [True] * 8 + [False] * 2
    narrow = accuracy_interval(correct, list("abcdefghij"))
    wide = accuracy_interval(correct, list("aabbccddee"))
    assert wide[0] < narrow[0] and wide[1] > narrow[1]
    # Which clips are whose matters, not only how many speakers there are.
    assert accuracy_interval(correct, list("abcdeabcde")) != wide


def test_no_error_and_one_speaker():
    # 20 speakers without an error: the lower end solves p^20 = 0.025
    low, high = accuracy_interval([True] * 60, [str(i // 3) for i in range(60)])
    assert low == pytest.approx(0.025 ** (1 / 20)) and high == 1.0
    assert accuracy_interval([True] * 9 + [False], ["one"] * 10) == (0.0, 1.0)


def test_the_interval_covers_as_often_as_it_says():
    """Simulated speakers whose own accuracies differ: nominal 95%, never less than 92% (2000 draws, seed fixed)."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        rates = rng.beta(9, 1, 60)  # mean 0.9
        speakers = np.repeat(np.arange(60), 4)
        low, high = accuracy_interval((rng.random(240) < rates[speakers]).tolist(), speakers)
        covered += low <= 0.9 <= high
    assert 0.92 < covered / 2000 < 0.98
