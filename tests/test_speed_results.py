"""The reference races: what a person reads there is what the CSV files hold."""

import csv
from pathlib import Path

import pytest

from bench import convolutions, formats, front_ends, race, verdicts

SPEED = Path(__file__).parent.parent / "results" / "speed"


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
    rows = [convolutions.GridRow.model_validate(line) for line in lines]
    assert [convolutions.Shape.model_validate(row.model_dump()) for row in rows] == convolutions.GRID
    for row in rows:
        assert row.verdict == verdicts.decide(row.time_ratio_low, row.time_ratio_high)
        assert (row.confirmed is not None) == (row.verdict == verdicts.SLOWER)
