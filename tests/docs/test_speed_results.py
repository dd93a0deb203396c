"""The reference races: what a person reads there is what the CSV files hold."""

import csv
from pathlib import Path

import pytest

from bench import formats
from bench.baselines import convolutions, front_ends, race
from bench.studies import convolution_grid
from bench.timing import verdicts

RESULTS = Path(__file__).parents[2] / "results"
SPEED = RESULTS / "speed"
README = (SPEED / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "row", "sheet"),
    [
        ("baselines", race.RaceRow, race.sheet),
        ("front-end", front_ends.FrontEndRow, front_ends.sheet),
        ("convolutions", convolutions.ConvolutionRow, convolutions.sheet),
        ("convolutions-stack", convolutions.ConvolutionRow, convolutions.sheet),
    ],
)
def test_the_table_is_the_csv(name, row, sheet):
    with (SPEED / f"{name}.csv").open(newline="") as file:
        rows = [row.model_validate({k: v or None for k, v in line.items()}) for line in csv.DictReader(file)]
    assert formats.to_markdown(sheet(rows)).strip() == (SPEED / f"{name}.md").read_text().strip()


def test_the_grid_of_convolutions():
    with (SPEED / "convolution-grid.csv").open(newline="") as file:
        lines = [{name: value for name, value in line.items() if value} for line in csv.DictReader(file)]
    rows = [convolution_grid.GridRow.model_validate(line) for line in lines]
    assert [convolutions.Shape.model_validate(row.model_dump()) for row in rows] == convolution_grid.GRID
    for row in rows:
        assert row.verdict == verdicts.decide(row.time_ratio_low, row.time_ratio_high)
        assert (row.confirmed is not None) == (row.verdict == verdicts.SLOWER)


def test_the_speedups_in_the_text():
    with (SPEED / "convolutions.csv").open(newline="") as file:
        rows = [convolutions.ConvolutionRow.model_validate(line) for line in csv.DictReader(file)]
    training = [row for row in rows if row.direction == convolutions.TRAINING and row.groups <= 16]
    for batch, layer in {(row.batch_size, row.layer) for row in training}:
        of_layer = [row for row in training if (row.batch_size, row.layer) == (batch, layer)]
        ratios = [f"{row.speed_ratio:.2f}" for row in sorted(of_layer, key=lambda row: row.groups)]
        first = of_layer[0]
        shape = f"{first.channels_in} to {first.channels_out}, {first.frames} frames"
        assert f"| {shape} | {batch} | {' | '.join(ratios)} |" in README


def test_the_accuracies_in_the_text():
    found = {}
    for kernels in ("melbench", "torch"):
        with (SPEED / f"accuracy-{kernels}.csv").open(newline="") as file:
            found[kernels] = {row["groups"]: row for row in csv.DictReader(file)}
    for groups, ours in found["melbench"].items():
        theirs = found["torch"][groups]
        assert (ours["kernels"], theirs["kernels"]) == ("melcnn", "torch") and ours["seeds"] == theirs["seeds"] == "10"
        one, other = float(ours["test_accuracy"]), float(theirs["test_accuracy"])
        assert f"| {groups} | {one:.4f} | {other:.4f} | {one - other:.4f} ±" in README
