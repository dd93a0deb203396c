import math

import numpy as np
import pytest
from scipy.stats import beta

from bench.stats.intervals import (
    accuracy_interval,
    accuracy_over_seeds,
    difference_interval,
    holm,
    mean_interval,
    median_interval,
    midmean,
    prediction_interval,
    significant,
)


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


def test_few_speakers_count_less_for_what_they_do_not_tell():
    # Four speakers of five clips, right on 5, 4, 3 and 2: p = 14 / 20, residuals 1.5, 0.5, -0.5, -1.5,
    # v = 4 / 3 x 5 / 400. t(0.975; 19) = 2.09302, t(0.975; 3) = 3.18245: 0.21 / v x 0.43254 = 5.45 clips.
    right = [clip < n for n in (5, 4, 3, 2) for clip in range(5)]
    p, effective = 0.7, 0.21 / (4 / 3 * 5 / 400) * (2.09302 / 3.18245) ** 2
    low = beta.ppf(0.025, p * effective, (1 - p) * effective + 1)
    high = beta.ppf(0.975, p * effective + 1, (1 - p) * effective)
    found = accuracy_interval(right, [n for n in "abcd" for _ in range(5)])
    assert found == pytest.approx((low, high), rel=1e-5)


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


def test_the_median_and_its_interval():
    # Nine values: at most one of a fair coin's nine tosses falls on one side with probability 2 x 10 / 512 = 3.9%,
    # at most two with 2 x 46 / 512 = 18%; so the second smallest and the second largest.
    assert median_interval([9, 1, 8, 2, 7, 3, 6, 4, 5]) == (5, 2, 8)
    # Six: none on one side, 2 / 64 = 3.1%. Five: 2 / 32 = 6.2%, too much.
    assert median_interval(range(6)) == (2.5, 0, 5)
    assert median_interval(range(5)) == (2, -math.inf, math.inf)
    with pytest.raises(ValueError, match="no values"):
        median_interval([])


def test_the_interval_of_the_median_holds_it_as_often_as_it_says():
    # Exponential values have the median log 2. For n = 20 the interval from the 6th to the 15th holds it with
    # probability 1 - 2 P(Binomial(20, 1/2) <= 5) = 95.9%; 1000 tries spread by 0.6%.
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        _, low, high = median_interval(rng.exponential(size=20))
        held += low <= math.log(2) <= high
    assert held / 1000 == pytest.approx(0.959, abs=0.02)


def test_the_difference_of_means_by_welch():
    # Variances 1 and 4 of three values each: se = sqrt(1/3 + 4/3) = 1.291; degrees of freedom
    # (5/3)^2 / ((1/3)^2 / 2 + (4/3)^2 / 2) = 2.941, whose t is 3.220.
    difference, low, high = difference_interval([1, 2, 3], [3, 5, 7])
    assert difference == 3 and (high - low) / 2 == pytest.approx(1.29099 * 3.2204, rel=1e-3)
    assert difference_interval([1], [2, 3]) == (1.5, -math.inf, math.inf)
    assert difference_interval([1, 1], [3, 3]) == (2, 2, 2)


def test_the_midmean_is_of_the_middle_half():
    assert midmean([100, 1, 2, 3, 4, 5, 6, -100]) == (2 + 3 + 4 + 5) / 4
    assert midmean([1, 2, 6]) == 3 and midmean([7]) == 7


def test_significant_digits():
    assert [significant(value) for value in (1.23456789e-5, 123456789.0, None)] == [1.23457e-5, 123457000.0, None]


def test_the_prediction_interval_by_hand():
    # mean 3, s = sqrt(10 / 4), n = 5; t(0.975; 4) = 2.776445 and t(0.95; 4) = 2.131847 (any t table)
    mean, half = prediction_interval([1, 2, 3, 4, 5])
    assert mean == 3 and half == pytest.approx(2.776445 * math.sqrt(2.5) * math.sqrt(1.2), rel=1e-6)
    assert prediction_interval([1, 2, 3, 4, 5], 0.9)[1] == pytest.approx(2.131847 * math.sqrt(2.5 * 1.2), rel=1e-6)
    assert prediction_interval([0.5]) == (0.5, None)


def test_the_prediction_interval_holds_one_more_as_often_as_it_says():
    # 4000 tries at 95% spread by 0.34%.
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4000, 6))
    held = 0
    for *values, one_more in draws:
        mean, half = prediction_interval(values)
        held += abs(one_more - mean) <= half
    assert held / 4000 == pytest.approx(0.95, abs=0.015)


def test_the_interval_over_seeds_by_hand():
    # Student's is the wider: s = 0.1, so t(0.975; 2) x 0.1 / sqrt(3).
    mean, half = accuracy_over_seeds([0.7, 0.8, 0.9], 100)
    assert (mean, half) == (pytest.approx(0.8), pytest.approx(4.302653 * 0.1 / math.sqrt(3)))
    # The exact binomial is the wider: 61 right among 3 x 21 = 63, whose low end lies further from 61 / 63.
    mean, half = accuracy_over_seeds([20 / 21, 20 / 21, 1.0], 21)
    assert half == pytest.approx(61 / 63 - beta.ppf(0.025, 61, 3))
    # Two seeds, or seeds that agree, do not show how much trainings differ.
    for accuracies in ([0.5], [0.9, 0.8], [1.0] * 5, [0.9] * 3):
        assert accuracy_over_seeds(accuracies, 20) == (pytest.approx(np.mean(accuracies)), None)


@pytest.mark.parametrize(("errors", "clips"), [(0.05, 187), (0.3, 187), (3.0, 187), (8.0, 824)])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_over_seeds_is_rarely_wrong(errors, clips, seeds):
    rng = np.random.default_rng(0)
    wrong = rng.binomial(clips, errors / clips, (1000, seeds))
    found = [accuracy_over_seeds((1 - row / clips).tolist(), clips) for row in wrong]
    missed = np.mean([half is not None and abs(1 - errors / clips - mean) > half for mean, half in found])
    assert missed <= 0.05


def test_the_least_that_holds_an_interval():
    # s = sqrt(0.5), t(0.975; 1) = 12.7062: the mean's is t s / sqrt(2), one more value's t s sqrt(1 + 1 / 2).
    assert mean_interval([1.0, 2.0]) == (1.5, pytest.approx(12.7062 * 0.5, rel=1e-4))
    assert prediction_interval([1.0, 2.0]) == (1.5, pytest.approx(12.7062 * 0.75**0.5, rel=1e-4))
    assert mean_interval([1.0])[1] is None and prediction_interval([1.0])[1] is None
    low, high = accuracy_interval([True, False], ["a", "b"])
    assert 0 < low < 0.5 < high < 1


def test_all_right_or_all_wrong_of_few_seeds():
    # Three seeds, of which one is wrong once in 10: 29 of 30; all wrong but one: 1 of 30, mirrored.
    one, other = accuracy_over_seeds([1.0, 1.0, 0.9], 10), accuracy_over_seeds([0.0, 0.0, 0.1], 10)
    assert one[0] == pytest.approx(1 - other[0]) and one[1] == pytest.approx(other[1])


def test_holm_by_hand():
    # 3 x 0.01, then 2 x 0.02 = 0.04, then 1 x 0.03, which may not be below the one before: 0.04; none is above 1.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
