"""A small sheet of each table that melbench writes as CSV, by the heading of its section in docs/columns.md."""

import csv
from pathlib import Path

import numpy as np
import torch

from bench.analysis import recommendation, study, summary
from bench.baselines import convolutions, front_ends, race
from bench.cli import listings
from bench.counting import cost_tables
from bench.counting.profile import Complexity
from bench.formats import Sheet
from bench.measurement import side_by_side, time_tables
from bench.measurement.comparison import ComparedWorkload
from bench.records import audit, merging
from bench.records.audit import Finding, Inventory
from bench.records.folds import OutOfFold
from bench.records.merging import Merged
from bench.studies import calibration, convolution_grid, endurance, fuzzing, simulation
from bench.timing.verdicts import SLOWER, Comparison
from melcnn import MelCNN
from melcnn.evaluation import Evaluation
from melcnn.training import Curves, TrainedNetwork
from tests.helpers.configurations import plain
from tests.records.test_folder import timing_record, trial_record

# How many of each kind of record a folder holds.
RECORDS = ("trial", "failure", "timing")
STALE = Finding(Path("a"), "stale", "is old")

RESULTS = Path(__file__).parents[2] / "results"


def csv_sheets(clips):
    """The sheets, by the heading's words in backticks; `clips`: what `melbench data info` is asked about."""
    one, two = plain(), plain(groups=2)
    records = [trial_record(0, trial=one), trial_record(1, trial=one), trial_record(0, trial=two)]
    words, names = ("yes", "no"), ["yes/1.wav", "no/2.wav"]
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6]])
    found = Evaluation(words, names, ["1", "2"], np.array([0, 1]), probabilities)
    run = TrainedNetwork(
        0, "torch", MelCNN(), Curves([0.5], [0.4], [1.0]), 1, torch.zeros(2, 2), torch.zeros(2, 2), 1.0, 0.5
    )
    # Too few launches for an interval.
    compared = ComparedWorkload("step groups=1", Comparison(1.1, 0.0, float("inf"), SLOWER), 1.0, 1.1)
    scenario = next(scenario for scenario in simulation.scenarios() if len(scenario.accuracies) == 2)
    return {
        "melbench sweep": summary.sheet(summary.rows(records, timing_record(one, two))),
        "melbench recommend": _recommended(),
        "melbench reproduce": study.sheets(records, None, None)[-1],
        "melbench train": listings.trained([run], run, one, "synthetic", Path("a.safetensors")),
        "melbench evaluate": listings.evaluated(found, {"checkpoint": "a", "dataset": "synthetic", "split": "test"})[0],
        "melbench predict": listings.predicted(names, words, probabilities),
        "melbench data info": listings.contents(clips)[1],
        "melbench profile": cost_tables.of_trial(two)[1],
        "melbench time": _stored("timing/groups.csv", time_tables.TimeRow, model=""),
        "melbench time --against baseline": _stored("speed/baselines.csv", race.RaceRow),
        "melbench time --against baseline --what front-end": _stored("speed/front-end.csv", front_ends.FrontEndRow),
        "melbench time --against torch": _stored("speed/convolutions.csv", convolutions.ConvolutionRow),
        "melbench compare": time_tables.compared([compared], "groups=1", "groups=2", 0.02, "means"),
        "melbench results check": audit.sheets(Path("runs"), Inventory(dict.fromkeys(RECORDS, 0), (STALE,)), {})[1],
        "melbench results merge": merging.sheet([Merged(Path("a"), dict.fromkeys(RECORDS, 1), 1)], Path("b")),
        "python -m bench.studies.endurance": endurance.sheet(
            [endurance.EnduranceRow(trial="a", tries=1, right=1, found="", time_s=1, device="a")]
        ),
        "python -m bench.studies.fuzzing": fuzzing.sheet({"audio": fuzzing.Tally()}),
        "python -m bench.studies.convolution_grid grid": _stored(
            "speed/convolution-grid.csv", convolution_grid.GridRow
        ),
        "python -m bench.studies.simulation": simulation.sheet([simulation.simulate(scenario, 1)]),
        "python -m bench.studies.calibration": _stored("timing/calibration-stored.csv", calibration.CalibrationRow),
    }


def _recommended():
    trials = [plain(groups=groups) for groups in (1, 4)]
    speakers = tuple(f"{number:03}" for number in range(100))
    counts = Complexity(params=1, macs=1, macs_all_layers=1)
    found = [OutOfFold(trial, counts, np.ones((2, 100), bool), speakers, 80.0) for trial in trials]
    costs_of = side_by_side.costs(trials, "cpu", latency=False)
    return recommendation.sheet(*recommendation.choose(found, costs_of, 0.005), "synthetic")


def _stored(path, row, **fixed):
    """The rows of a reference result, through the model that writes them."""
    with (RESULTS / path).open(newline="") as file:
        lines = [{name: value or None for name, value in line.items()} for line in csv.DictReader(file)]
    return Sheet(path, [], [], [row.model_validate({**line, **fixed}).model_dump() for line in lines])
