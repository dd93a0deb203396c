"""Where a sweep stands, in rows and words. An epoch of a stack of two networks counts as two."""

import io
import math

import pytest
from rich.console import Console

from bench.cli.board import Board, view
from bench.executors.events import EpochDone, Finished, Planned, PlannedTrial, Started
from bench.executors.jobs import Failure, JobOutcome, TrainedStack, TrainingJob
from melcnn.data.clips import Fold
from melcnn.training import Epoch
from tests.helpers.configurations import plain
from tests.helpers.stand_ins import run_of

TRIALS = [plain(groups=groups, epochs=10) for groups in (1, 2, 4)]


def board(finished=(0, 0, 0), networks=4, trials=TRIALS):
    """At 100 seconds, each configuration with as many finished networks, of accuracy 0.9."""
    return planned_board(
        [(t, networks, {(None, s): 0.9 for s in range(n)}) for t, n in zip(trials, finished, strict=False)], 100.0
    )


def planned_board(rows, now):
    return Board(Planned(tuple(PlannedTrial(*row) for row in rows)), now)


def told(trial, seeds, epoch, accuracies, ended=False, fold=None):
    """The event of a stack that starts (epoch 0), has done an epoch, or ends."""
    job = TrainingJob(trial, tuple(seeds), fold=fold)
    if ended:
        networks = [run_of(seed, accuracy=accuracy) for seed, accuracy in zip(seeds, accuracies, strict=True)]
        return Finished(job, JobOutcome([TrainedStack(job.seeds, networks, [])], []))
    best = [None if math.isnan(accuracy) else accuracy for accuracy in accuracies]
    return EpochDone(job, job.seeds, Epoch(epoch, best, [True] * len(best))) if epoch else Started(job)


def lines(board, width=80, most=24, stage=""):
    out = io.StringIO()
    Console(file=out, width=width).print(view(board, width, most, stage))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_rows():
    now = board((4, 1, 0))
    now.update(told(TRIALS[1], [1], 3, [0.7]), 110.0)
    now.update(told(TRIALS[1], [2, 3], 5, [0.8, 0.9]), 120.0)
    # In training (0.7 + 0.8 + 0.9) / 3. Epochs of this run 1 x 3 + 2 x 5 = 13 in 20 s; of 3 x 4 x 10 there are
    # 120 - 50 - 13 = 57 left: 57 x 20 / 13 = 87.7 s. The bar is (50 + 13) / 120 of 24 long: 12.6, in halves 12.5.
    assert lines(now) == [
        "configuration networks val accuracy state     epoch so far",
        "groups=1           4/4       0.9000 finished",
        "groups=2           1/4       0.9000 training 3-5/10 0.8000",
        "groups=4           0/4              waiting",
        "━" * 12 + "╸" + " " * 11 + " 5 of 12 networks, about 88 s left",
    ]
    now.update(told(TRIALS[1], [2, 3], 10, [0.95, 0.85], ended=True), 130.0)
    # (0.9 + 0.95 + 0.85) / 3; those in training are stated apart.
    assert lines(now)[2] == "groups=2           3/4       0.9000 training  3/10 0.7000"


def test_what_all_have_in_common_is_not_said():
    two = [plain(groups=groups, channels=16, epochs=7) for groups in (1, 2)]
    assert [row.name for row in board(trials=two).rows.values()] == ["groups=1", "groups=2"]
    assert [row.name for row in board(trials=two[:1]).rows.values()] == ["channels=16 epochs=7"]


def test_a_stack_before_its_first_epoch_is_in_training_and_says_no_accuracy():
    now = board()
    now.update(told(TRIALS[0], [0, 1], 0, [math.nan] * 2), 101.0)
    assert lines(now)[1] == "groups=1           0/4 training  0/10"
    now.update(told(TRIALS[0], [2, 3], 1, [0.5, 0.6]), 102.0)
    assert lines(now)[1] == "groups=1           0/4 training 0-1/10 0.5500"


def test_the_time_left_counts_the_work_of_this_run_alone():
    now = board((4, 3, 0))
    assert now.left() == ""  # nothing is known yet
    # 2 networks x 5 epochs in 300 s; 10 networks' epochs were done before: 12 x 10 - 70 - 10 = 40 left, 1200 s.
    now.update(told(TRIALS[2], [0, 1], 5, [0.5] * 2), 400.0)
    assert now.left() == "about 20 min left"
    # 5 networks x 10 epochs in 50,000 s; the last ones of 3 x 4 x 10 are 120 - 70 - 20 = 30: 75,000 s are 20.8 h.
    now.update(told(TRIALS[2], [0, 1], 10, [0.5] * 2, ended=True), 50_100.0)
    assert now.left() == "about 20.8 h left"
    now.update(told(TRIALS[1], [3], 10, [0.5], ended=True), 50_200.0)
    now.update(told(TRIALS[2], [2, 3], 10, [0.5] * 2, ended=True), 50_300.0)
    assert now.left() == "" and now.epochs_done == now.epochs == 120


def test_early_stopping_leaves_less_to_do():
    now = board((0,), networks=2, trials=TRIALS[:1])
    # One network of two stopped after 4 of 10 epochs and 20 s; the other one will take as long.
    now.update(told(TRIALS[0], [0], 4, [0.5]), 119.0)
    now.update(told(TRIALS[0], [0], 4, [0.5], ended=True), 120.0)
    assert now.left() == "about 20 s left" and lines(now)[1].split()[1:] == ["1/2", "0.5000", "waiting"]


def test_a_stack_that_is_trained_again_counts_what_was_missing():
    now = planned_board([(TRIALS[0], 3, {(None, 1): 0.9})], 0.0)
    now.update(told(TRIALS[0], [0, 1, 2], 5, [0.5] * 3), 10.0)
    # Seeds 0 and 2, 5 epochs each, beside seed 1's 10 of before; as much is left.
    assert now.epochs_done == 10 + 2 * 5 and now.left() == "about 10 s left"
    now.update(told(TRIALS[0], [0, 1, 2], 10, [0.6, 0.6, 0.6], ended=True), 20.0)
    # Seed 1's record is the one of before: (0.6 + 0.9 + 0.6) / 3.
    assert lines(now)[1].split()[1:] == ["3/3", "0.7000", "finished"]


def test_folds_are_networks_of_one_sweep():
    before = {(Fold(fold, 5), seed): math.nan for fold in (0, 1) for seed in (0, 1)}
    now = planned_board([(trial, 10, before) for trial in TRIALS[:2]], 0.0)
    now.update(told(TRIALS[0], [0, 1], 10, [math.nan] * 2, ended=True, fold=Fold(2, 5)), 30.0)
    # 20 epochs in 30 s; 2 x 10 networks, less 8 of before and 2, are 10 x 10 epochs: 150 s. Nothing was validated.
    assert lines(now)[:3] == [
        "configuration networks state",
        "groups=1          6/10 waiting",
        "groups=2          4/10 waiting",
    ]
    assert lines(now)[3].endswith(" 10 of 20 networks, fold 3 of 5, about 2 min left")
    line = now.line(told(TRIALS[0], [0, 1], 10, [math.nan] * 2, ended=True, fold=Fold(2, 5)))
    assert line == "fold 3 of 5, groups=1 seeds 0 to 1: trained; about 2 min left"


MANY = [plain(n_mels=n_mels, groups=groups) for n_mels in range(16, 81, 16) for groups in (1, 2, 4, 8, 16)]


@pytest.mark.parametrize("most", range(1, 31))
def test_more_configurations_than_lines(most):
    now = board([1] * 12 + [0] * 13, networks=1, trials=MANY)
    for training in (MANY[14], MANY[23]):
        now.update(told(training, [0], 3, [0.5]), 101.0)
    found = lines(now, most=most)
    # 2 x 3 epochs in 1 s; 13 x 30 - 6 are left.
    assert len(found) <= most and found[-1].endswith(" 12 of 25 networks, about 64 s left")
    # Beside headings and bar there is room for all 25 or for fewer and their count.
    rows = [line for line in found if line.startswith("n_mels")]
    assert len(rows) == (25 if most >= 27 else max(most - 3, 0))
    if 5 <= most < 27:
        # Those in training, the next ones, and, last, finished ones, all in their own order.
        assert [line.split()[:2] for line in rows if "training" in line] == [
            ["n_mels=48", "groups=16"],
            ["n_mels=80", "groups=8"],
        ]
        waiting, finished = min(most - 5, 11), max(most - 16, 0)
        assert [sum(state in line for line in rows) for state in ("waiting", "finished")] == [waiting, finished]
        names = [" ".join(line.split()[:2]) for line in rows]
        assert names == [row.name for row in now.rows.values() if row.name in names]
        rest = [f"{11 - waiting} waiting"] * (waiting < 11) + [f"{12 - finished} finished"]
        assert found[-2] == f"and {', '.join(rest)}"


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_a_narrow_terminal_cuts_names_and_never_breaks_a_line(width):
    trials = [plain(groups=groups, label_smoothing=0.1 * groups, speed=0.05 * groups) for groups in (1, 2)]
    now = board((0, 1), networks=1, trials=trials)
    now.update(told(trials[0], [0], 3, [0.5]), 101.0)
    found = lines(now, width)
    assert len(found) == 4 and all(len(line) <= width for line in found)
    if width > 60:  # The numbers take 53, their headings included.
        assert found[1].startswith("groups=1 ") and found[1].endswith("training  3/30 0.5000")


def test_a_stage_is_said_instead_of_the_bar():
    now = board((4, 4, 4))
    assert lines(now, stage="timing epochs")[-1] == "timing epochs"
    assert lines(now)[-1] == "━" * 24 + " 12 of 12 networks"


def test_a_line_of_a_stack():
    now = board(networks=3)
    ended = told(TRIALS[0], [0, 1], 10, [0.8, 0.9], ended=True)
    now.update(ended, 120.0)
    # 20 of 90 epochs in 20 s. Which seeds is said unless they are all.
    assert now.line(ended) == "groups=1 seeds 0 to 1: mean validation accuracy 0.8500; about 70 s left"
    alone, all_three = (told(TRIALS[0], seeds, 10, [0.7] * len(seeds), ended=True) for seeds in ([2], [0, 1, 2]))
    assert now.line(alone) == "groups=1 seed 2: mean validation accuracy 0.7000; about 70 s left"
    assert now.line(all_three) == "groups=1: mean validation accuracy 0.7000; about 70 s left"


@pytest.mark.parametrize(
    "finished, expected",
    [
        ((0, 0, 0), "0 of 12 networks finished"),
        ((4, 1, 0), "5 of 12 networks finished (groups=1: 4 of 4, groups=2: 1 of 4)"),
        ((4, 4, 4), "12 of 12 networks finished"),
    ],
)
def test_summary(finished, expected):
    assert board(finished).summary() == expected


def test_summary_of_many_and_of_one():
    assert board([2] * 6 + [1, 0], networks=2, trials=MANY[:8]).summary() == (
        "13 of 16 networks finished (6 of 8 configurations whole)"
    )
    assert board((3,), trials=TRIALS[:1]).summary() == "3 of 4 networks finished"


def test_failures_are_counted_apart_and_an_earlier_success_stays():
    now = planned_board([(TRIALS[0], 3, {(None, 1): 0.9})], 0.0)
    job = TrainingJob(TRIALS[0], (0, 1, 2))
    failures = [Failure(seed, job.seeds, "error", "no luck") for seed in (1, 2)]
    event = Finished(job, JobOutcome([TrainedStack(job.seeds, [run_of(0, accuracy=0.7)], [])], failures))
    now.update(event, 10.0)
    # Seed 1 has a record of before: only seed 2 failed.
    assert now.failures() == ["1 failed"] and now.counted() == "2 of 3 networks"
    assert now.line(event) == "epochs=10: mean validation accuracy 0.7000, 2 failed"
