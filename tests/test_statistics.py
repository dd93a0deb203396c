import math

import pytest

from bench.statistics import mean_interval


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
