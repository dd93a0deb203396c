"""`melbench recommend`, from a grid and a budget to the candidates."""

import csv
import io
import json
import re
import shlex

import numpy as np
import pytest

from bench.analysis import recommendation
from bench.analysis.recommendation import Budget
from bench.counting.profile import Complexity
from bench.executors.threads import Threads
from bench.grid import parse_axes, plan
from bench.measurement import side_by_side
from bench.records import RecordFolder
from bench.records.folds import OutOfFold
from bench.sweep.crossval import out_of_fold
from melcnn import InputError, configure
from melcnn.data.folds import FOLDS
from tests.helpers.configurations import plain

SMALL = {"n_mels": 16, "channels": 16, "hop_length": 800, "n_fft": 256, "batch_size": 16, "epochs": 1}
AXES = [f"{name}={value}" for name, value in SMALL.items()]


def predicted(trial, accuracy, seeds=5, speakers=3000):
    rng = np.random.default_rng(trial.model.groups)
    correct = rng.random((seeds, speakers)) < accuracy
    counts = Complexity(params=1, macs=1, macs_all_layers=1)
    return OutOfFold(trial, counts, correct, tuple(f"{n:03}" for n in range(speakers)), 240.0)


def chosen(accuracies, latency=False):
    trials = [plain(groups=groups) for groups in accuracies]
    costs = side_by_side.costs(trials, "cpu", latency)
    found = [predicted(trial, accuracy) for trial, accuracy in zip(trials, accuracies.values(), strict=True)]
    return recommendation.sheet(*recommendation.choose(found, costs, 0.005), "synthetic")


def test_the_cheapest_that_is_as_good_is_recommended_and_dearer_ones_are_off_the_front():
    sheet = chosen({1: 1.0, 4: 1.0, 16: 0.8})
    by_groups = {row["groups"]: row for row in sheet.records}
    assert [row["groups"] for row in sheet.records] == [16, 4, 1], "the cheapest first"
    assert {groups for groups, row in by_groups.items() if row["recommended"]} == {4}
    assert {groups for groups, row in by_groups.items() if row["told_from_best"]} == {16}
    # At equal accuracy the dearer one is no choice; the cheapest always is one.
    assert {groups for groups, row in by_groups.items() if row["on_front"]} == {4, 16}
    # Counted by hand in tests/counting/test_profile.py.
    assert (by_groups[4]["params"], by_groups[4]["macs"], by_groups[4]["weight_bytes"]) == (8482, 255_872, 4 * 8482)
    assert by_groups[4]["latency_time_ms"] is None and "latency" not in sheet.headings
    assert sheet.verdict.startswith("Recommended: groups=4 (255,872 MACs). ")


def test_one_seed_cannot_tell():
    trials = [plain(groups=groups) for groups in (1, 2)]
    costs = side_by_side.costs(trials, "cpu", latency=False)
    sheet = recommendation.sheet(
        *recommendation.choose([predicted(t, 0.99, seeds=1) for t in trials], costs, 0.005), "synthetic", "a CPU"
    )
    assert sheet.verdict.startswith("No clear winner: ") and not any(row["recommended"] for row in sheet.records)
    assert sheet.records[0]["accuracy_low95"] is None


def test_what_is_over_the_budget_is_left_out(caplog):
    caplog.set_level("INFO")
    trials = [plain(groups=groups) for groups in (1, 4, 16)]
    costs = side_by_side.costs(trials, "cpu", latency=True)
    assert all(cost.latency_ms > 0 for cost in costs.values())
    kept = recommendation.within(Budget(params=8482, weight_bytes=4 * 8482), costs)
    assert [trial.model.groups for trial in kept] == [4, 16]
    assert caplog.messages == ["1 of 3 configurations are over the budget and are left out"]
    assert recommendation.within(Budget(macs=255_871), costs) == [trials[2]]
    with pytest.raises(InputError, match="the least of these are params 5,890, macs 67,232; allow more"):
        recommendation.within(Budget(params=100, macs=10**6), costs)
    with pytest.raises(InputError, match="latency_ms"):
        recommendation.within(Budget(latency_ms=1e-6), costs)


@pytest.mark.parametrize("recipe", ["plain", "default"])
def test_every_clip_is_predicted_once_by_a_network_that_did_not_hear_its_speaker(clips, tmp_path, recipe, caplog):
    caplog.set_level("INFO")
    trials = [configure(groups=groups, recipe=recipe, **SMALL) for groups in (1, 2)]
    folder = RecordFolder(tmp_path)
    found, _ = out_of_fold(trials, 2, clips, folder, Threads("cpu"))
    records = list(folder.trials().values())
    assert len(records) == len(trials) * 2 * FOLDS
    end = clips.split("test").start
    names = [name for r in records if r.seed == 0 and r.trial == trials[0] for name in r.test.names]
    assert sorted(names) == sorted(clips.names[:end].tolist())
    # The plain recipe chooses its epoch by another fold; the default one needs none.
    assert {bool(r.validation.names) for r in records} == {recipe == "plain"}
    for one, trial in zip(found, trials, strict=True):
        assert one.trial == trial and one.correct.shape == (2, end) and len(one.speakers) == end
        own = sorted((r for r in records if r.trial == trial and r.seed == 1), key=lambda r: r.fold.index)
        assert one.correct[1].tolist() == [bool(c) for r in own for c in r.test.correct]
    # Nothing is trained twice.
    caplog.clear()
    again, _ = out_of_fold(trials, 2, clips, folder, Threads("cpu"))
    assert np.array_equal(again[0].correct, found[0].correct)
    assert [n for n in caplog.messages if "are not run again" not in n and "validation clips" not in n] == []


def test_the_command(melbench, corpus, tmp_path):
    grid = [axis for axis in AXES if not axis.startswith("epochs")]
    arguments = ["recommend", "groups=1,2", *grid, "--epochs", 1, "--data", corpus, "--seeds", 2]
    code, out, err = melbench(*arguments, "--out", tmp_path / "runs", "--csv", tmp_path / "c.csv", "--json")
    assert code == 0 and "fold 5 of 5" in err
    rows = json.loads(out)
    assert [row["groups"] for row in rows] == [2, 1] and rows[0]["clips"] == 64
    # Numbers and truth values in the file as they are on the screen.
    assert [row["accuracy"] for row in csv.DictReader(io.StringIO((tmp_path / "c.csv").read_text()))] == [
        str(row["accuracy"]) for row in rows
    ]
    code, out, err = melbench(*arguments, "--out", tmp_path / "runs")
    assert code == 0 and "verdict" in out and ("Recommended: " in out or "No clear winner: " in out)
    # Within 90 points of the best are all: the cheapest is taken, and named in the command that trains it.
    code, out, err = melbench(*arguments, "--out", tmp_path / "runs", "--margin", 0.9)
    words = " ".join(out.split())
    named = re.search(r"Recommended: (.*?) \(", words)[1].split()
    (command,) = (shlex.split(line) for line in out.splitlines() if line.startswith("melbench train "))
    assert code == 0 and "groups=2" in named and {*named, "--data", str(corpus)} <= set(command)
    code, out, err = melbench("recommend", "--max-params", 10, "--data", corpus, "--out", tmp_path / "runs")
    assert (code, out) == (2, "") and "the least of these are params 5,890" in err


def test_of_one_group_nothing_is_exchanged(caplog):
    trials = plan(parse_axes(["groups=1,2", "variant=plain,interleaved,shuffle"]))
    assert len(trials) == 4 and caplog.messages == [
        f"left out groups=1 variant={variant}: of one group it is the plain network"
        for variant in ("interleaved", "shuffle")
    ]
    assert len(plan(parse_axes(["groups=1,2", "variant=shuffle"]))) == 2


def test_a_grid_over_the_recipe_and_ingredients(tmp_path):
    trials = plan(parse_axes(["recipe=plain,default", "label_smoothing=0,0.1", "normalize=none,mel"]))
    assert len(trials) == 8
    assert {t.training.epochs for t in trials if t.training.recipe == "plain"} == {30}
