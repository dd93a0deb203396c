import math
import random

import pytest

from bench.timing.timer import Series
from bench.timing.verdicts import (
    compare_launches,
    compare_pairs,
    decide,
    disturbed,
    log_ratios,
    pair_precision,
    ratio_precision,
    seconds_of_a,
)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.021, 1.05, "SLOWER"),
        (1.019, 1.05, "UNCLEAR"),  # may be a slowdown of less than 2%
        (0.90, 0.979, "FASTER"),  # 1 / 1.02 = 0.9804
        (0.90, 0.981, "UNCLEAR"),
        (0.981, 1.02, "SAME"),
        (0.97, 1.03, "UNCLEAR"),  # too wide to say
        (-math.inf, math.inf, "UNCLEAR"),
    ],
)
def test_the_decision(low, high, verdict):
    assert decide(low, high, 0.02) == verdict


def test_the_decision_is_the_other_way_round_with_a_and_b():
    mirror = {"SLOWER": "FASTER", "FASTER": "SLOWER", "SAME": "SAME", "UNCLEAR": "UNCLEAR"}
    for low, high in ((1.03, 1.1), (0.99, 1.01), (0.9, 1.1), (0.8, 0.9)):
        assert decide(1 / high, 1 / low) == mirror[decide(low, high)]


def test_rounds_are_compared_within_themselves():
    # B takes 1.05 times A in every round, while rounds differ tenfold.
    rng = random.Random(0)
    a = [rng.uniform(1, 10) for _ in range(40)]
    slower = Series(seconds=[1.05 * t for t in a], waited=[0] * 40)
    found = compare_pairs([(Series(seconds=a, waited=[0] * 40), slower)] * 2)
    assert found.verdict == "SLOWER"
    assert (found.ratio, found.low, found.high) == pytest.approx((1.05, 1.05, 1.05))


def test_disturbed_rounds_are_left_out_if_enough_others_remain():
    # A thread waited for 1.5% of the call in the second half of the rounds, in which B seems twice as slow.
    def pair(n):
        a = Series(seconds=[1.0] * 2 * n, waited=[0.0] * 2 * n)
        return a, Series(seconds=[1.0] * n + [2.0] * n, waited=[0.0] * n + [0.03] * n)

    a, b = pair(20)
    assert disturbed(b).tolist() == [False] * 20 + [True] * 20
    assert log_ratios([(a, b)]) == [0.0] * 20
    assert len(log_ratios([pair(19)])) == 38


def test_launches_are_compared_by_their_means():
    # Welch's t by hand: logs of A 0.00 0.01 0.02 0.03 0.04, of B all 0.1 more: s^2 = 0.00025, se = sqrt(2 x
    # 0.00025 / 5) = 0.01, 8 degrees of freedom, t = 2.306: 0.1 +- 0.02306.
    a = [0.00, 0.01, 0.02, 0.03, 0.04]
    b = [0.1 + value for value in a]
    found = compare_launches(a, b)
    assert found.verdict == "SLOWER"
    assert [math.log(v) for v in (found.ratio, found.low, found.high)] == pytest.approx(
        [0.1, 0.07694, 0.12306], abs=1e-5
    )
    assert compare_launches(b, a).verdict == "FASTER"
    assert compare_launches(a, a).verdict == "UNCLEAR"  # +-2.3% is too wide for SAME
    assert compare_launches([v / 4 for v in a], [v / 4 for v in a]).verdict == "SAME"


def test_few_launches_decide_nothing():
    assert compare_launches([0.0] * 4, [0.5] * 5).verdict == "UNCLEAR"
    assert compare_launches([0.0], [0.5]).verdict == "UNCLEAR"
    assert compare_launches([0.0] * 5, [0.5] * 5).verdict == "SLOWER"


def test_a_time_of_zero_has_no_ratio():
    with pytest.raises(ValueError, match="clock is too coarse"):
        log_ratios([(Series(seconds=[1.0], waited=[0]), Series(seconds=[0.0], waited=[0]))])


def test_how_precisely_a_ratio_is_known():
    def pair(n):
        return Series(seconds=[1.0] * n, waited=[0] * n), Series(seconds=[3.0, 3.3] * (n // 2), waited=[0] * n)

    # Half of the rounds each: the interval of the median has both, 3 and 3.3: sqrt(1.1) - 1.
    assert ratio_precision([pair(30)]) == pytest.approx(1.1**0.5 - 1)
    assert ratio_precision([pair(4)]) == math.inf


def test_pairs_of_builds_are_the_observations():
    # Three pairs whose rounds all agree: logs of the ratios 0.01, 0.02 and 0.03, s = 0.01, t(0.975; 2) = 4.30265, so
    # 0.02 +- 4.30265 x 0.01 / sqrt(3), however many rounds there are.
    pairs = [
        (Series(seconds=[1.0] * 50, waited=[0] * 50), Series(seconds=[math.exp(log)] * 50, waited=[0] * 50))
        for log in (0.01, 0.02, 0.03)
    ]
    found, half = compare_pairs(pairs), 4.30265 * 0.01 / 3**0.5
    assert [math.log(v) for v in (found.ratio, found.low, found.high)] == pytest.approx(
        [0.02, 0.02 - half, 0.02 + half], abs=1e-5
    )
    assert pair_precision(pairs) == pytest.approx(math.expm1(half), abs=1e-5)
    assert compare_pairs(pairs[:1]).verdict == "UNCLEAR" and pair_precision(pairs[:1]) == math.inf


def test_pairs_of_one_round_count_as_one():
    # B1 / A1 is 1.01 and B2 / A2 is 1 / 1.01 in every round.
    def series(seconds):
        return Series(seconds=[seconds] * 9, waited=[0.0] * 9)

    pairs = [(series(1.0), series(1.01)), (series(2.02), series(2.0))]
    assert log_ratios(pairs) == pytest.approx([0.0] * 9)
    # A round that disturbs one of the four is left out for all.
    many = [
        (Series(seconds=[1.0] * 40, waited=[0.0] * 40), Series(seconds=[1.0] * 40, waited=[0.0] * 40)) for _ in "12"
    ]
    many[1][0].waited[:20] = [0.5] * 20
    assert len(log_ratios(many)) == 20


def test_equal_works_are_rarely_called_different_and_covered_as_often_as_it_says():
    # 400 comparisons of 20 pairs of builds, which differ by 0.5% each, in rounds of 3% noise that lasts: half of each
    # round's is the last one's. A pair's midmean has an error of some 1%, so the half-width is 2.09 x 1% / sqrt(20).
    rng = random.Random(1)

    def noisy(factor=1.0):
        speed, noise, seconds = factor * math.exp(rng.gauss(0, 0.005)), 0.0, []
        for _ in range(30):
            noise = 0.5 * noise + rng.gauss(0, 0.026)
            seconds.append(speed * math.exp(noise))
        return Series(seconds=seconds, waited=[0.0] * 30)

    equal = [compare_pairs([(noisy(), noisy()) for _ in range(20)]) for _ in range(400)]
    assert not {"FASTER", "SLOWER"} & {one.verdict for one in equal}
    below, above = sum(one.high < 1 for one in equal), sum(one.low > 1 for one in equal)
    # 5% of 400 miss, give or take twice sqrt(400 x 0.05 x 0.95) = 4.4; as many to either side.
    assert 11 <= below + above <= 29 and abs(below - above) <= 10
    slower = [compare_pairs([(noisy(), noisy(1.05)) for _ in range(20)]).verdict for _ in range(100)]
    assert "FASTER" not in slower and "SAME" not in slower and slower.count("SLOWER") > 90


def test_the_times_shown_are_of_the_rounds_that_count():
    # Two pairs. In the first A takes 1 s, but 5 s in the 20 rounds in which B was disturbed; in the second 4 s. The
    # geometric mean is 2 s.
    waited = [0.0] * 20 + [0.5] * 20
    slow_late = Series(seconds=[1.0] * 20 + [5.0] * 20, waited=[0.0] * 40)
    disturbed_pair = slow_late, Series(seconds=[2.0] * 40, waited=waited)
    calm_pair = Series(seconds=[4.0] * 40, waited=[0.0] * 40), Series(seconds=[8.0] * 40, waited=[0.0] * 40)
    assert seconds_of_a([disturbed_pair, calm_pair]) == pytest.approx(2.0)
    assert compare_pairs([disturbed_pair, calm_pair]).ratio == pytest.approx(2.0)


def test_an_interval_that_ends_at_the_border():
    # SLOWER and FASTER need all of the interval beyond; SAME takes the border in.
    assert decide(1.02, 1.1) == "UNCLEAR" and decide(1.0200001, 1.1) == "SLOWER"
    assert decide(0.9, 1 / 1.02) == "UNCLEAR" and decide(0.9, 0.98) == "FASTER"
    assert decide(1 / 1.02, 1.02) == "SAME" and decide(0.98, 1.02) == "UNCLEAR"


def test_a_round_is_disturbed_beyond_a_hundredth():
    # 1% of 2 s is 0.02 s: as much is none, more is.
    series = Series(seconds=[2.0, 2.0, 0.5], waited=[0.02, 0.021, 0.006])
    assert disturbed(series).tolist() == [False, True, True]
