"""The reference times: what a person reads there is what the CSV files hold."""

import csv
from pathlib import Path

import pytest

from bench import formats
from bench.formats import Sheet
from bench.measurement import time_tables
from bench.measurement.time_tables import TimeRow

TIMING = Path(__file__).parents[2] / "results" / "timing"


def rows(name):
    with (TIMING / f"{name}.csv").open(newline="") as file:
        return [
            TimeRow.model_validate({k: v or None for k, v in row.items()} | {"model": ""})
            for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize("name", ["groups", "batch_sizes", "groups-melbench"])
def test_the_table_is_the_csv(name):
    headings, cells = time_tables.table(rows(name))
    body = formats.to_markdown(Sheet(title="", headings=headings, cells=cells, records=[])).strip()
    assert body in (TIMING / f"{name}.md").read_text()


def test_the_timer_takes_less_than_a_hundredth_of_what_it_times():
    assert max(row.timer_overhead for row in rows("groups")) < 0.01
