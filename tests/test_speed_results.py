"""The reference races: what a person reads there is what the CSV files hold."""

import csv
from pathlib import Path

import pytest

from bench import formats, front_ends, race

SPEED = Path(__file__).parent.parent / "results" / "speed"


@pytest.mark.parametrize(
    ("name", "row", "sheet"),
    [("baselines", race.RaceRow, race.sheet), ("front-end", front_ends.FrontEndRow, front_ends.sheet)],
)
def test_the_table_is_the_csv(name, row, sheet):
    with (SPEED / f"{name}.csv").open(newline="") as file:
        rows = [row.model_validate({k: v or None for k, v in line.items()}) for line in csv.DictReader(file)]
    assert formats.to_markdown(sheet(rows)).strip() == (SPEED / f"{name}.md").read_text().strip()
