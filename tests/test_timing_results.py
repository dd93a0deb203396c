"""The reference times are what their measurements say."""

import csv
import io
from pathlib import Path

import pytest

from bench import formats, reading, timetables

TIMING = Path(__file__).parent.parent / "results" / "timing"


@pytest.mark.parametrize("name", ["groups", "batch_sizes"])
def test_tables_are_made_of_the_measurement(name):
    measured = reading.read(TIMING / f"{name}.json")
    assert not measured.stopped and len(measured.launches) >= 5
    sheet = timetables.times(measured)
    assert formats.to_markdown(sheet) == (TIMING / f"{name}.md").read_text()
    ours = list(csv.DictReader(io.StringIO(formats.to_csv(sheet))))
    with (TIMING / f"{name}.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == ours


def test_the_timer_takes_less_than_a_hundredth_of_what_it_times():
    rows = timetables.rows(reading.read(TIMING / "groups.json"))
    assert max(row.timer_overhead for row in rows) < 0.01
