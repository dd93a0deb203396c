import csv
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from bench.stats import noninferiority
from bench.stats.clustered import summarise
from bench.stats.noninferiority import Candidate, pareto, recommend
from bench.studies.simulation import Scenario, draw, level, main, scenarios, simulate

SPEAKERS = np.repeat(np.arange(400), 4)


def candidate(name, cost, wrong, seeds=3):
    """Wrong on these clips, whatever the seed."""
    correct = np.ones((seeds, len(SPEAKERS)))
    correct[:, list(wrong)] = 0
    return Candidate(name, cost, correct)


def test_the_front():
    # b dominates c (cheaper and better) and d (as good and cheaper); e is the cheapest; f equals b.
    costs, accuracies = [9, 5, 6, 7, 1, 5], [0.99, 0.98, 0.97, 0.98, 0.5, 0.98]
    assert pareto(costs, accuracies) == [True, True, False, False, True, True]
    assert pareto([], []) == [] and pareto([1, 1], [0.5, 0.6]) == [False, True]


def test_the_cheapest_of_equals():
    found = recommend([candidate("large", 1000, [1, 50]), candidate("small", 10, [1, 90])], SPEAKERS)
    assert found.chosen.candidate.name == "small" and found.best.candidate.name == "small"  # of equal ones, the cheaper
    assert [s.accepted for s in found.results] == [True, True] and not any(s.told_from_best for s in found.results)
    assert found.describe() == (
        "Recommended: small (10). It has the best accuracy and the lowest cost (1600 clips of 400 speakers, 3 seeds)."
    )


def test_the_more_accurate_of_equally_cheap_ones():
    a, b = candidate("a", 10, [1, 50]), candidate("b", 10, [50])
    assert recommend([a, b], SPEAKERS).chosen.candidate is recommend([b, a], SPEAKERS).chosen.candidate is b


def test_a_worse_one_is_told_and_not_chosen():
    # 40 of 1600 clips are 2.5 points. Over 400 speakers the variance is 400 / 399 (40 - 40^2 / 400) = 36.1 clips, and
    # z = 40 / 6 = 6.7.
    found = recommend([candidate("large", 1000, []), candidate("small", 10, range(0, 160, 4))], SPEAKERS)
    assert found.chosen.candidate.name == "large"
    large, small = found.results
    assert small.told_from_best and not small.accepted and small.difference == -0.025
    # One other, so the bound is Tango's at the level 0.05, t = 1.65: 40 + x clips behind, each of the x more bringing
    # the variance u = 37.1 / 41 = 0.905; x = 1.65 sqrt(36.1 + 0.905 x) = 11.2.
    assert small.at_least == pytest.approx(-(40 + 11.2) / 1600, rel=0.01)
    assert large.at_least == 0 and not large.told_from_best


def test_within_the_margin():
    # 3 of 1600 clips worse, 0.19 points; at the margin 8 are expected, of which sqrt(8) = 2.8 is the standard error:
    # (8 - 3) / 2.8 = 1.77 > 1.65.
    found = recommend([candidate("large", 1_010_432, []), candidate("small", 130_112, [0, 4, 8])], SPEAKERS)
    assert found.describe("MACs") == (
        "Recommended: small (130,112 MACs). It is within 0.5 points of the best, large: difference -0.19 points, "
        "at least -0.47 with 95% confidence (1600 clips of 400 speakers, 3 seeds)."
    )
    # One clip more, and (8 - 4) / 2.8 = 1.4 is not enough; with a larger margin it is.
    both = [candidate("large", 1_010_432, []), candidate("small", 130_112, [0, 4, 8, 12])]
    assert recommend(both, SPEAKERS).chosen.candidate.name == "large"
    assert recommend(both, SPEAKERS, margin=0.01).chosen.candidate.name == "small"
    assert recommend(both, SPEAKERS, confidence=0.8).chosen.candidate.name == "small"


def test_the_best_beside_a_cheaper_one_that_is_clearly_worse():
    # 80 of 1600 clips are five points, ten times the margin.
    found = recommend([candidate("large", 20, []), candidate("small", 10, range(80))], SPEAKERS)
    assert found.describe() == (
        "Recommended: large (20). It has the best accuracy, and no cheaper one is shown to be within 0.5 points of the "
        "best (1600 clips of 400 speakers, 3 seeds)."
    )


def test_a_single_candidate():
    found = recommend([candidate("only", 5, [7], seeds=1)], SPEAKERS)
    assert found.chosen is found.best and not found.best.told_from_best and found.more_seeds is None
    assert (
        found.describe("MACs")
        == "Recommended: only (5 MACs). It is the only candidate (1600 clips of 400 speakers, 1 seed)."
    )
    with pytest.raises(ValueError, match="no candidates"):
        recommend([], SPEAKERS)


def test_one_seed_cannot_tell():
    found = recommend([candidate("a", 5, [7], seeds=1), candidate("b", 6, [7], seeds=3)], SPEAKERS)
    assert found.chosen is None and found.more_seeds == 1 and found.results[1].at_least == -np.inf
    assert found.describe() == (
        "No clear winner: no candidate is shown to be within 0.5 points of the best (1600 clips of 400 speakers, 1 to "
        "3 seeds). Next: train at least 1 more seed of each: one seed does not show how much trainings differ."
    )
    assert found.describe(next_step="melbench recommend groups").endswith(" Next: melbench recommend groups.")


def test_more_seeds_help_where_seeds_are_the_noise():
    # Errors anew in each seed: 32 of 1600, so a difference of two candidates with S seeds has a standard error of
    # sqrt(2 x 32 / S) clips; the margin is 8. Two seeds: 5.7. For 8 / 1.65 it takes S = 2.7 were they found equal.
    rng = np.random.default_rng(1)
    a, b = (Candidate(name, cost, rng.random((2, len(SPEAKERS))) > 0.02) for name, cost in (("a", 1), ("b", 2)))
    found = recommend([a, b], SPEAKERS, margin=0.003)
    assert found.chosen is None and 1 <= found.more_seeds <= 30
    assert f"about {found.more_seeds} more seed" in found.describe()
    # And with so many more seeds it can be told, in most cases: here with four times as many for certain.
    many = [replace(c, correct=rng.random((4 * (2 + found.more_seeds), len(SPEAKERS))) > 0.02) for c in (a, b)]
    assert recommend(many, SPEAKERS, margin=0.003).chosen is not None


def test_more_seeds_do_not_help_where_speakers_are_the_noise():
    # 40 clips each that only the other one hears, in every seed: sqrt(80) = 8.9 clips, and the margin is 8.
    found = recommend([candidate("a", 1, range(0, 160, 4)), candidate("b", 2, range(160, 320, 4))], SPEAKERS)
    assert found.chosen is None and found.more_seeds is None
    assert found.describe().endswith(
        "Next: test more speakers or accept a larger margin; more seeds alone do not help."
    )


def test_the_same_again():
    scenario = scenarios()[0]
    correct, speakers = draw(
        scenario, [level(a, scenario.effects) for a in scenario.accuracies], np.random.default_rng(3)
    )
    candidates = [Candidate(str(i), i, matrix) for i, matrix in enumerate(correct)]
    once, again = (recommend(candidates, speakers) for _ in range(2))
    assert [s.at_least for s in once.results] == [s.at_least for s in again.results]
    assert once.describe() == again.describe()


def test_simulated_accuracies_are_what_they_are_said_to_be():
    # 20 x 3 seeds x 1500 clips at 0.98, whose clips of one speaker and seeds are alike: known to about 0.002.
    scenario = Scenario("", [0.98], [3])
    start, rng = level(0.98, scenario.effects), np.random.default_rng(0)
    assert np.mean([draw(scenario, [start], rng)[0][0].mean() for _ in range(20)]) == pytest.approx(0.98, abs=0.003)


@pytest.mark.parametrize("name", ["two, one beyond", "four beyond", "0.998, four beyond"])
def test_hardly_ever_wrong(name):
    # 100 tries at 5%: 11 or more are wrong by chance once in 90 times; the whole simulation has more.
    scenario = next(s for s in scenarios() if s.name == name and s.seeds[0] == 3)
    found = simulate(scenario, 100)
    assert found["wrong"] <= 0.1 and found["difference_covered"] > 0.9
    assert found["cheapest_acceptable"] > 0.6


def test_the_command_writes_what_it_prints(tmp_path, capsys):
    main(tmp_path / "simulation.csv", tries=1)
    with (tmp_path / "simulation.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    assert len(written) == len(printed) == len(scenarios())
    assert [row["scenario"] for row in written] == [line.split("|")[1].strip() for line in printed]


def test_those_that_are_left_are_tested_against_fewer():
    # Dunnett's step-down. Of two independent tests at a joint 5% each has 1 - sqrt(0.95) = 2.53%. The first passes with
    # 0.1%; the second, left alone, has the whole 5% and passes with 4%, which one step would not let it.
    draws = np.random.default_rng(0).standard_normal((100_000, 3))
    p = np.array([[0.0, 0.0, 0.0], [0.001, 0.0, 0.0], [0.04, 0.0, 0.0]])

    def accepted(p):
        return noninferiority._accepted(SimpleNamespace(p=lambda margin: p), lambda j: draws, 0.005, 0.05).tolist()

    assert accepted(p) == [True, True, True]
    # Where none passes the first step, none is left to a second.
    assert accepted(np.where(p == 0.001, 0.04, p)) == [True, False, False]
    assert accepted(np.where(p == 0.04, 0.06, p)) == [True, True, False]


def test_chance_has_the_covariance_of_speakers_and_trainings():
    # Clips right by five speakers of one clip each, two seeds: means less the accuracy are the residuals.
    one = np.array([[1, 1, 1, 0, 1], [0, 1, 0, 0, 0]])
    two = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 0, 0]])
    three = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 1, 0]])
    found = summarise([one, two, three], range(5))
    means = np.array([each.mean(0) for each in (one, two, three)])
    residuals = means - means.mean(1, keepdims=True)
    # Noise of the mean of two seeds, in clips; trainings add what the inflation says beyond it.
    noise = [each.var(0, ddof=1).sum() / 2 for each in (one, two, three)]
    # Sums 4, 1: 4.5 to 3 x 0.5; 3, 1: 2 to 2 x 0.5; 5, 2: 4.5 to 3 x 0.5.
    assert found.inflation == pytest.approx((3 + 2 + 3) / 3)
    covariance = residuals @ residuals.T + np.diag([(found.inflation - 1) * each for each in noise])
    apart = np.array([[-1, 1, 0], [-1, 0, 1]])  # the others less the first
    expected = apart @ covariance @ apart.T
    moved = noninferiority._by_chance(found)(0)
    assert (moved[:, 0] == 0).all()
    assert moved[:, 1:].std(0) == pytest.approx([1, 1], abs=0.03)
    correlation = expected[0, 1] / np.sqrt(expected[0, 0] * expected[1, 1])
    assert np.corrcoef(moved[:, 1], moved[:, 2])[0, 1] == pytest.approx(correlation, abs=0.03)


@pytest.mark.parametrize(("needed", "says"), [(1, 1), (2, 2), (7, 7), (8, 8), (512, 512), (5000, None)])
def test_how_many_more_seeds(monkeypatch, needed, says):
    monkeypatch.setattr(noninferiority, "differences", lambda found, seeds: seeds)
    monkeypatch.setattr(noninferiority, "_accepted", lambda seeds, *rest: seeds >= 3 + needed)
    found = SimpleNamespace(noise=np.zeros(2), seeds=np.array([3.0, 3.0]))
    assert noninferiority._more_seeds(found, None, 0.005, 0.05) == says
    # One seed of any tells nothing of how they differ; and if no number is enough, none is.
    unknown = SimpleNamespace(noise=np.array([0.0, np.nan]), seeds=found.seeds)
    assert noninferiority._more_seeds(unknown, None, 0.005, 0.05) == 1
    monkeypatch.setattr(noninferiority, "_accepted", lambda seeds, *rest: np.zeros(2, bool))
    assert noninferiority._more_seeds(found, None, 0.005, 0.05) is None
