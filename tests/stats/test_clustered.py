import math

import numpy as np
import pytest
from scipy.stats import beta, norm, t

from bench.stats.clustered import crossed_interval, differences, paired_interval, summarise
from bench.stats.intervals import accuracy_interval, holm

rng = np.random.default_rng(0)


def test_holm_by_hand():
    # Smallest first: 0.01 x 4, 0.02 x 3, 0.03 x 2 (not below 0.06), 0.9 x 1.
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    # Of the largest nothing can be more than 1, and of none there is none.
    assert holm([0.5, 0.6]) == [1.0, 1.0] and holm([]) == []


def test_holms_values_never_fall():
    # 4 x 0.005, 3 x 0.01, 2 x 0.03 = 0.06 and 1 x 0.04, which is raised to the 0.06 before it.
    assert holm([0.04, 0.005, 0.03, 0.01]) == pytest.approx([0.06, 0.02, 0.06, 0.03])


def test_what_is_kept_of_predictions():
    # Speakers a (two clips) and b (one). Clips right by speaker: seed 1: 2, 0; seed 2: 1, 1. Means 1.5, 0.5; the
    # variances over seeds 0.5 and 0.5, so noise = 1 / 9. Both seeds have 2 right: they vary less than that, and the
    # inflation is never less than 1.
    found = summarise([np.array([[1, 0, 1], [0, 1, 1]])], list("aba"))
    assert found.right.tolist() == [[1.5, 0.5]] and found.clips.tolist() == [2, 1]
    assert found.noise.tolist() == [1 / 9] and found.inflation == 1 and found.freedom == 1
    # Seed 1 has 3 right and seed 2 none: variance 4.5, by speaker 2 and 0.5, which is an inflation of 4.5 / 2.5.
    assert summarise([np.array([[1, 1, 1], [0, 0, 0]])], list("aba")).inflation == pytest.approx(1.8)
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(seeds, 3\)"):
        summarise([np.ones(3)], list("aba"))
    with pytest.raises(ValueError, match="single speaker"):
        differences(summarise([np.ones((2, 3))], list("aaa")))


def simulated(seeds, speakers=150, clips=4, errors=0.05):
    """Independent configurations; half of the errors are shared by all seeds of one."""
    n = speakers * clips
    always = rng.random(n) < errors / 2
    return (rng.random((seeds, n)) > errors / 2) & ~always, np.repeat(np.arange(speakers), clips)


def pigeonhole(a, b, speakers, draws):
    """Owen's bootstrap: speakers, the same for both, and seeds of each, all with replacement: (draws,) differences."""
    k = speakers.max() + 1
    sums = [np.stack([np.bincount(speakers, row, k) for row in matrix]) for matrix in (a, b)]
    clips = np.bincount(speakers)
    found = []
    for _ in range(draws):
        weights = rng.multinomial(k, np.full(k, 1 / k))
        means = [one[rng.integers(0, len(one), len(one))].mean(0) for one in sums]
        found.append((weights * (means[1] - means[0])).sum() / (weights * clips).sum())
    return np.array(found)


def test_the_variance_is_the_pigeonhole_bootstraps():
    # The bootstrap's variance in expectation (Owen, theorem 2), k large: over speakers, plus (S - 1) / S of the seeds'
    # variance s^2 / S of each. Here s^2 comes from the matrices themselves.
    (a, speakers), (b, _) = simulated(8), simulated(8)
    drawn = float(pigeonhole(a, b, speakers, 4000).var())
    over_speakers = differences(summarise([a, b], speakers)).variance[0, 1] / a.shape[1] ** 2
    over_seeds = sum(float(one.mean(1).var()) / len(one) for one in (a, b))
    # 4000 draws know a variance to 2.2%.
    assert drawn == pytest.approx(over_speakers + over_seeds, rel=0.09)


def test_a_paired_interval_by_hand():
    # 1000 speakers, one clip each; b misses 30 that a hears, a 10 that b hears; both seeds alike, so no noise. Without
    # the score test's restriction this is McNemar's. d = -0.02; variance k / (k - 1) (40 - 20^2 / 1000) = 39.64 clips.
    a, b = np.ones((2, 1000)), np.ones((2, 1000))
    b[:, :30] = a[:, 30:40] = 0
    difference, low, high = paired_interval(a, b, range(1000))
    assert difference == pytest.approx(-0.02)
    # Wald's is -0.02 +- 1.962 sqrt(39.64) / 1000 = (-0.0324, -0.0076); Tango's reaches a bit further down, as
    # larger differences come with more discordant clips.
    assert -0.0345 < low < -0.0324 and high == pytest.approx(-0.0076, abs=4e-4)
    # The other way round it is the same interval.
    assert paired_interval(b, a, range(1000)) == pytest.approx((0.02, -high, -low), abs=1e-8)


def test_nothing_heard_differently_is_no_certainty():
    # No discordant clip of n = 1000: u = 1, b = c = 0, so M = n x margin are expected under it: z = M / sqrt(M), which
    # is 1.962 (t with 999 degrees of freedom) at M = 3.85; so the interval is (-0.00385, 0.00385).
    both = np.ones((3, 1000))
    expected = t.ppf(0.975, 999) ** 2 / 1000
    assert paired_interval(both, both, range(1000)) == pytest.approx((0, -expected, expected), rel=1e-3)


def test_one_seed_tells_nothing_of_other_seeds():
    (a, speakers), (b, _) = simulated(1), simulated(3)
    difference, low, high = paired_interval(a, b, speakers)
    assert math.isfinite(difference) and (low, high) == (-math.inf, math.inf)
    assert crossed_interval(a, speakers) is None


def test_more_seeds_and_more_speakers_make_it_narrower():
    def width(seeds, speakers):
        (a, names), (b, _) = simulated(seeds, speakers), simulated(seeds, speakers)
        _, low, high = paired_interval(a, b, names)
        return high - low

    assert width(20, 150) < 0.9 * width(2, 150) and width(5, 600) < 0.7 * width(5, 150)


def test_an_accuracys_interval_is_that_of_one_seed_where_seeds_agree():
    one, speakers = simulated(1)
    low, high = crossed_interval(np.repeat(one, 3, axis=0), speakers)
    # But for t(1799) in the place of t(599): 1.9613 and 1.9639 as against t(149), 1.976.
    assert (low, high) == pytest.approx(accuracy_interval(one[0].tolist(), speakers), abs=2e-4)
    # Without an error each of 150 speakers counts as one clip, as for one seed.
    low, high = crossed_interval(np.ones((3, 600)), np.repeat(range(150), 4))
    assert (low, high) == (pytest.approx(beta.ppf(0.025, 150, 1)), 1.0)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Seeds and speakers that differ, three seeds (400 draws: 95% give or take 2.2)."""
    held = np.zeros(2)
    for _ in range(400):
        level = norm.ppf(0.95) * math.sqrt(1 + 0.5**2 + 0.1**2)  # probit, so that the mean accuracy is 0.95
        speakers = np.repeat(np.arange(150), 4)
        of_speaker = 0.5 * rng.standard_normal(150)[speakers]
        a, b = (
            level + of_speaker + 0.1 * rng.standard_normal((3, 1)) + rng.standard_normal((3, 600)) > 0 for _ in "ab"
        )
        _, low, high = paired_interval(a, b, speakers)
        held[0] += low <= 0 <= high
        low, high = crossed_interval(a, speakers)
        held[1] += low <= 0.95 <= high
    assert (held / 400 > 0.93).all() and (held / 400 < 0.995).all()


def test_whole_trainings_that_differ_widen_an_interval():
    # Six seeds on six speakers of five clips: three seeds are right on 4, 4, 4, 5, 5, 5 clips of them, three on two
    # fewer of each; the means are 3, 3, 3, 4, 4, 4.
    right = np.array([[4, 4, 4, 5, 5, 5], [2, 2, 2, 3, 3, 3]] * 3)
    correct = np.array([[clip < n for n in seed for clip in range(5)] for seed in right], float)
    speakers = [f"s{n}" for n in range(6) for _ in range(5)]
    # p = 21 / 30. Over speakers: 6 / 5 x sum((y - 3.5)^2) = 6 / 5 x 6 x 0.25 = 1.8, which is less than with one clip
    # more, 2.8 (and that is less than 30 p (1 - p) = 6.3).
    p, over_speakers = 0.7, 2.8 / 30**2
    # Of a seed on a speaker: the variance of (4, 2, 4, 2, 4, 2) is 1.2, six times: 7.2 / 30^2. Of the seeds' sums 27
    # and 15: 43.2, six times as much. Trainings add (6 - 1) times the noise of six seeds, with 5 degrees of freedom.
    noise = 7.2 / 30**2 / 6
    variance = over_speakers + 5 * noise
    freedom = variance**2 / (over_speakers**2 / 5 + (6 * noise) ** 2 / 5)
    effective = p * (1 - p) / variance * (t.ppf(0.975, 179) / t.ppf(0.975, freedom)) ** 2
    low = beta.ppf(0.025, p * effective, (1 - p) * effective + 1)
    high = beta.ppf(0.975, p * effective + 1, (1 - p) * effective)
    assert 0.2 < low < high < 0.98
    assert crossed_interval(correct, speakers) == pytest.approx((low, high))


def by_speaker(*seeds):
    """Predictions `(seeds, clips)` of speakers a (two clips), b and c (one each), from the clips right by speaker."""
    return np.array([[*([1] * a + [0] * (2 - a)), b, c] for a, b, c in seeds])


A, B = by_speaker((2, 1, 1), (1, 1, 0)), by_speaker((2, 1, 1), (0, 0, 1))


def test_differences_by_hand():
    # Variances over seeds by speaker: A 0.5, 0, 0.5, together 1; B 2, 0.5, 0, together 2.5. Those of the sums: A 4, 2:
    # 2; B 4, 1: 4.5. The inflation is the mean of 2 / 1 and 4.5 / 2.5, each of one degree of freedom: 1.9.
    found = summarise([A, B], list("aabc"))
    assert found.inflation == pytest.approx(1.9) and found.freedom == 2
    assert found.noise.tolist() == pytest.approx([1 / 16, 2.5 / 16])
    # Means A 1.5, 1, 0.5 and B 1, 0.5, 1: A less B is 0.5, 0.5, -0.5, of four clips 0.125 each. Over speakers
    # 3 / 2 x ((0.5 - 0.25)^2 + (0.5 - 0.125)^2 + (-0.5 - 0.125)^2) = 0.890625.
    apart = differences(found)
    assert apart.difference[0, 1] == pytest.approx(0.125) == -apart.difference[1, 0]
    assert apart.variance[0, 1] == pytest.approx(0.890625)
    assert (apart.ahead[0, 1], apart.behind[0, 1]) == (1.0, 0.5) == (apart.behind[1, 0], apart.ahead[1, 0])
    # Noise of the means in clips: 1 / 2 + 2.5 / 2 = 1.75, of which trainings add 1.9 - 1 times as much.
    assert apart.training[0, 1] == pytest.approx(0.9 * 1.75) and apart.seeds[0, 1] == pytest.approx(1.9 * 1.75)
    # With four seeds each it is half, and the variance over speakers loses what it had of the noise.
    more = differences(found, np.array([4.0, 4.0]))
    assert more.training[0, 1] == pytest.approx(0.9 * 0.875)
    assert more.variance[0, 1] == pytest.approx(0.890625 - 1.75 + 0.875)
    never_below = differences(found, np.array([math.inf, math.inf]))
    assert never_below.variance[0, 1] == 0.0 == never_below.training[0, 1]


def test_the_score_test_by_hand():
    apart = differences(summarise([A, B], list("aabc")))
    # No margin: nothing but the observed variance, of at least a clip. Satterthwaite's freedom of 1 over 2 degrees (3
    # speakers) and 3.325 over 2 (seeds).
    total = 1 + 1.575
    freedom = total**2 / (1 / 2 + 3.325**2 / 2)
    assert apart.p(0.0)[0, 1] == pytest.approx(t.cdf(-0.5 / math.sqrt(total), freedom))
    # A margin of 0.25 is a clip. A discordant clip brings u = (0.890625 + 1) / (1.5 + 1) = 0.75625; b, c and M in it:
    b, c, m = 0.5 / 0.75625, 1 / 0.75625, 1 / 0.75625
    x = b + c - 2 * m
    discordant = (x + math.sqrt(x**2 + 8 * c * m)) / 2 + m
    over_speakers = 0.890625 + (discordant - b - c) * 0.75625**2
    total = over_speakers + 1.575
    freedom = total**2 / (over_speakers**2 / 2 + 3.325**2 / 2)
    assert apart.p(0.25)[0, 1] == pytest.approx(t.cdf(-1.5 / math.sqrt(total), freedom))
    # The lower bound is the margin at which p is the level.
    bound = apart.least(0.1)[0, 1]
    assert apart.p(-bound)[0, 1] == pytest.approx(0.1, abs=1e-6)


def test_the_inflation_weighs_by_degrees_of_freedom():
    # Three seeds of A: sums 4, 2, 0 vary by 4; by speaker 1 + 1/3 + 1/3. Two of B: 4.5 to 2.5.
    three = by_speaker((2, 1, 1), (1, 1, 0), (0, 0, 0))
    assert summarise([three, B], list("aabc")).inflation == pytest.approx((2 * 4 / (1 + 2 / 3) + 4.5 / 2.5) / 3)


def test_one_speaker_and_other_shapes():
    assert crossed_interval(A, ["a"] * 4) == (0.0, 1.0)
    with pytest.raises(ValueError, match="a single speaker says nothing"):
        differences(summarise([A, B], ["a"] * 4))
    assert differences(summarise([A, B], list("aabb"))).speakers == 2
    many = np.ones((2, 400))
    many[0, :40] = many[1, 20:60] = many[:, 200:240] = 0
    low, high = crossed_interval(many, [*"ab"] * 200)  # Two are few, and enough.
    assert 0 < low < 0.8 < high < 1
    for wrong in (A[0], A[:0], A[:, :3]):
        with pytest.raises(ValueError, match=r"expected \(seeds, 4\)"):
            summarise([wrong], list("aabc"))
