"""The first screen's answer: what to take, how sure that is, what it rests on, and what to do next."""

import numpy as np
import pytest

from bench.report.findings import find
from bench.report.headline import headline
from bench.stats.clustered import crossed_interval
from melcnn import configure
from tests.helpers.records import chapter, folds, heard, network, timing_record

ONE, FOUR = (configure(groups=groups, recipe="default") for groups in (1, 4))


def two(seeds=2):
    """The networks of two configurations, which recognise everything."""
    return [network(trial, seed) for trial in (ONE, FOUR) for seed in range(seeds)]


def tiles(found):
    return {tile.name: (tile.value, tile.detail) for tile in headline(found).tiles}


def test_the_answer_by_cross_validation():
    # Of 5 folds of 100 clips, all are recognised but 50 of groups=1: 450 of 500, by each of two seeds. Of groups=4 the
    # test split's second clip is wrong for one of two networks: 39 of 40.
    trials = [network(FOUR, 0), network(FOUR, 1, wrong_in_test=[1]), network(ONE, 0), network(ONE, 1)]
    crossed = [
        fold for seed in (0, 1) for t, wrong in ((ONE, range(50)), (FOUR, ())) for fold in folds(t, seed, wrong, 100)
    ]
    found = find(chapter(trials, crossed, [timing_record(ONE, FOUR, seconds=(0.5, 0.25, 0.75))]))
    one = headline(found)
    assert one.verdict == "Recommended: groups=4" and "Decided by out-of-fold predictions" in one.evidence
    assert one.sure.startswith("95% sure: no other is more accurate by more than 0.5 points (500 out-of-fold clips of ")
    # A fourth of the parameters and MACs of groups=1, 16,000 and 1,000,000 (tests/records.py).
    told = tiles(found)
    assert told["parameters"] == ("4,000", "")
    assert told["MACs of one clip"] == ("250,000", "the dearest takes 4.0 times as many")
    assert told["out-of-fold accuracy"][0] == "1.0000"
    correct = np.ones((2, 20))
    correct[1, 1] = 0
    low, high = crossed_interval(correct, [str(clip) for clip in range(20)])
    assert told["test accuracy"] == ("0.9750", f"{low:.4f} to {high:.4f} (95%)")
    assert told["epoch time"] == ("0.5 s", "")
    assert one.intervals == "95% intervals for other speakers and other trainings like these."
    assert one.commands == ["melbench train groups=4 -o network.safetensors"]


def test_the_answer_by_validation_alone():
    found = find(chapter(two()))
    one = headline(found)
    assert one.verdict == "Recommended: groups=4" and "'melbench recommend' cross-validates" in one.evidence
    assert one.intervals == "95% intervals for other speakers and other trainings like these."
    assert "epoch time" not in tiles(found)  # nobody took any


def test_without_a_clear_winner_the_best_found_is_shown_and_what_decides():
    # One clip of 20 is five points, ten times the margin.
    records = [network(trial, seed, wrong) for trial, wrong in ((ONE, ()), (FOUR, (0,))) for seed in (0, 1)]
    found = find(chapter(records))
    one = headline(found)
    assert one.verdict == "No clear winner; best so far: groups=1"
    assert one.sure == (
        "Not sure: no configuration is shown to be within 0.5 points of the best (20 validation clips of 20 speakers, "
        "2 seeds)."
    )
    assert tiles(found)["MACs of one clip"] == ("1,000,000", "")  # nobody's takes more
    assert one.next_step == "To decide by cross-validation:"
    assert one.commands == ["melbench recommend groups=1,4 --kernels torch --seeds 2"]
    crossed = [
        fold for seed in (0, 1) for t, wrong in ((ONE, range(4)), (FOUR, range(3))) for fold in folds(t, seed, wrong)
    ]
    by_folds = find(chapter(records, crossed))
    # Cross-validated already: more seeds, as many as should do, or none.
    more, one = by_folds.decided.more_seeds, headline(by_folds)
    assert [f"--seeds {2 + (more or 0)}" in command for command in one.commands] == [True] * bool(more)
    assert one.next_step.startswith(f"To decide, train about {more} more" if more else "More seeds alone do not help")


def test_one_seed_has_no_intervals():
    found = find(chapter(two(seeds=1)))
    assert tiles(found)["test accuracy"] == ("1.0000", "") and headline(found).intervals == ""


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([network(ONE)], "There is one configuration"),
        ([network(ONE), network(FOUR, validation=heard(20, of="other"))], "validated on different clips"),
        ([network(ONE, validation=heard(0)), network(FOUR, validation=heard(0))], "There are no validation clips"),
        (folds(ONE), "A single configuration was cross-validated"),
        ([*folds(ONE), *folds(FOUR)[:4]], "The cross-validation is unfinished"),
    ],
)
def test_without_a_choice_there_is_no_recommendation(records, why):
    own = [record for record in records if not record.fold]
    one = headline(find(chapter(own, [record for record in records if record.fold])))
    assert (one.verdict, one.tiles) == ("No recommendation", ()) and why in one.sure
