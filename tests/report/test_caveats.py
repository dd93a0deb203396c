"""Each thing that may be missing or doubtful in records is said, in a sentence; and nothing where nothing is."""

import math

import pytest

from bench.report.caveats import caveats
from bench.report.findings import timing_of
from melcnn.data.clips import Fold
from tests.helpers.configurations import plain
from tests.helpers.records import ENVIRONMENT, diverged, failure_record, folds, heard, network, timing_record

TRIALS = [plain(groups=groups) for groups in (1, 2, 4, 8, 16)]
ONE, TWO, FOUR = TRIALS[:3]


def said(*groups, timings=None, crossings=(), failures=()):
    """What is said of configurations' records; timed together, where no timings are given."""
    if timings is None:
        timings = [timing_record(*(group[0].trial for group in groups))]
    return caveats(groups, crossings, timing_of(groups, timings), failures)


def crossed(trial, *seeds, **changes):
    return [record for seed in seeds or (0, 1) for record in folds(trial, seed, **changes)]


def seeds(trial, *numbers, **changes):
    return [network(trial, seed, **changes) for seed in numbers or (0, 1)]


def test_of_whole_records_nothing_is_said():
    assert said(seeds(ONE), seeds(TWO)) == []


def test_no_records_of_the_own_splits():
    (line,) = said(crossings=[crossed(ONE), crossed(TWO)], timings=[])
    assert line.startswith("no records of the data set's own splits: all that is shown is of the cross-validation")


def test_seeds():
    (one,) = said([network(ONE, 3)], [network(TWO, 3)])
    assert one.startswith("a single seed: no intervals") and "--seeds" in one
    (lacking,) = said(seeds(ONE, 0, 1, 2), seeds(TWO, 0, 2), seeds(FOUR, 5))
    # Of the seeds 0, 1, 2 and 5.
    assert lacking == (
        "not all seeds are there: groups=1 lacks 1 of 4, groups=2 lacks 2 of 4, groups=4 lacks 3 of 4; the same sweep "
        "again trains what is missing"
    )


def test_more_than_four_are_counted():
    (line,) = said([diverged(ONE, seed) for seed in (1, 2, 3, 4, 5)])
    named = ", ".join(f"groups=1 seed {seed}" for seed in (1, 2, 3, 4))
    assert line.startswith(f"losses that are no number (diverged): {named} and 1 more; ")


def test_losses_that_are_no_number():
    (line,) = said([network(ONE), diverged(ONE, 1)], seeds(TWO))
    assert line == "losses that are no number (diverged): groups=1 seed 1; its accuracies count in the means"
    (both,) = said([diverged(ONE, 0), diverged(ONE, 1)], seeds(TWO))
    assert "groups=1 seed 0, groups=1 seed 1; their accuracies" in both


def test_epoch_times():
    (none,) = said(seeds(ONE), seeds(TWO), timings=[])
    assert none.startswith("no epoch times: these records hold no timing run")
    # A run of networks that are not here is as good as none.
    assert said(seeds(ONE), seeds(TWO), timings=[timing_record(FOUR)]) == [none]
    assert said(seeds(ONE), seeds(TWO), timings=[timing_record(TWO)]) == ["no epoch times of groups=1"]
    (several,) = said(seeds(ONE), seeds(TWO), timings=[timing_record(ONE), timing_record(TWO)])
    assert several.startswith("epoch times are of several timing runs: compare only those of one run")
    # One that has all of them, and more, will do.
    assert not said(seeds(ONE), seeds(TWO), timings=[timing_record(ONE), timing_record(*TRIALS)])


def test_epoch_times_on_different_devices():
    elsewhere = ENVIRONMENT.model_copy(update={"device": "Some GPU"})
    _, line = said(seeds(ONE), seeds(TWO), timings=[timing_record(ONE), timing_record(TWO, environment=elsewhere)])
    assert line.startswith("epoch times were taken on different devices: ") and "Some GPU" in line


def test_a_timing_that_no_epoch_time_is_of_says_nothing():
    elsewhere = ENVIRONMENT.model_copy(update={"device": "Some GPU"})
    old = timing_record(ONE, environment=elsewhere, finished_at="2025-01-01")
    assert not said(seeds(ONE), seeds(TWO), timings=[timing_record(ONE, TWO), old])
    # That one is missing does not hide that the others are of two runs.
    lines = said(seeds(ONE), seeds(TWO), seeds(FOUR), timings=[timing_record(ONE), timing_record(TWO)])
    assert lines[0] == "no epoch times of groups=4" and lines[1].startswith("epoch times are of several timing runs")


def test_no_clock_decides_which_run_an_epoch_time_is_of():
    elsewhere = ENVIRONMENT.model_copy(update={"device": "Some GPU"})
    long, short = timing_record(ONE), timing_record(ONE, seconds=(9.0,), finished_at="2030-01-01")
    other = timing_record(ONE, environment=elsewhere, finished_at="2030-01-01")
    for runs, expected in (([long, short], long), ([short, long], long), ([long, other], long), ([other, long], long)):
        assert timing_of([seeds(ONE)], runs) == {ONE.canonical(): expected}


def test_epoch_times_are_of_the_kernels_that_trained():
    melbenchs = timing_record(ONE, TWO, kernels="melcnn", finished_at="2026-03-01")  # later, and of others
    assert not said(seeds(ONE), seeds(TWO), timings=[melbenchs, timing_record(ONE, TWO)])
    (line,) = said(seeds(ONE), seeds(TWO), timings=[melbenchs])
    assert line == "epoch times are by other kernels than the training was: groups=1 (melcnn), groups=2 (melcnn)"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"environment": ENVIRONMENT.model_copy(update={"device": "~ Some GPU"})},
            f"trained on different devices: {ENVIRONMENT.device}, ~ Some GPU; accuracies may differ",
        ),
        ({"kernels": "melcnn"}, "trained by different kernels: melcnn, torch; accuracies may differ"),
        (
            {"environment": ENVIRONMENT.model_copy(update={"packages": {"torch": "99"}})},
            f"trained with different versions of torch: {ENVIRONMENT.packages['torch']}, 99; accuracies may differ",
        ),
        ({"left_out_clips": 3}, "3 files gave no clip and were left out"),
    ],
)
def test_what_differs_between_records(changes, line):
    (found,) = said(seeds(ONE), [network(TWO), network(TWO, 1, **changes)])
    assert found.startswith(line)


def test_unknown_speakers():
    # Who is not told from others is named as the clip.
    test = heard(20, of="test")
    (line,) = said(seeds(ONE, test=test.model_copy(update={"speakers": test.names})))
    assert line.startswith("not all speakers are known: one may be in two splits or folds")
    # Nor is one of them alone.
    one = test.model_copy(update={"speakers": [test.names[0], *test.speakers[1:]]})
    assert said(seeds(ONE, test=one)) == [line]
    assert said(seeds(ONE), crossings=[[r.model_copy(update={"test": one}) for r in crossed(ONE)]]) == [line]


def test_cross_validation_that_is_unfinished():
    # Of two seeds the second lacks two folds; of two configurations one has one seed only.
    begun = said(seeds(ONE), crossings=[crossed(ONE)[:8], crossed(TWO, 0), crossed(FOUR)])
    assert begun == [
        "cross-validation is unfinished for groups=1, groups=2: seeds that a fold lacks are left out, and "
        "configurations without any ('melbench recommend' goes on)"
    ]
    # What failed is not to come.
    failures = [failure_record(1, ONE, fold=Fold(fold, 5)) for fold in (3, 4)]
    failed, *rest = said(seeds(ONE), crossings=[crossed(ONE)[:8], crossed(FOUR)], failures=failures)
    assert failed.startswith("failed: groups=1 seed") and not rest
    (single,) = said(seeds(ONE), crossings=[crossed(ONE, 0), crossed(TWO, 0)])
    assert single.startswith("cross-validated by a single seed: no intervals")


def test_folds_are_looked_at_too():
    elsewhere = ENVIRONMENT.model_copy(update={"device": "~ Some GPU"})
    lines = said(seeds(ONE), crossings=[crossed(ONE, environment=elsewhere, kernels="melcnn")])
    assert [line.partition(":")[0] for line in lines] == [
        "trained on different devices",
        "trained by different kernels",
    ]
    records = crossed(ONE)
    records[3] = records[3].model_copy(update={"train_loss": [math.inf]})
    (line,) = said(seeds(ONE), crossings=[records])
    assert line.startswith("losses that are no number (diverged): groups=1 seed 0 of fold 4; its accuracies")
