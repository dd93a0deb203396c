"""docs/columns.md describes the columns that CSV files have: all of them, and no others."""

import re
from pathlib import Path

import pytest

from tests.helpers.sheets import csv_sheets

PAGE = (Path(__file__).parents[2] / "docs" / "columns.md").read_text()
SHARED = "Settings"


def sections():
    """The columns that each section describes, by each of the names in its heading."""
    found = {}
    for section in PAGE.split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
        columns = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
        assert len(columns) == len(set(columns)), heading
        found |= dict.fromkeys(re.findall("`(.+?)`", heading) or [heading], columns)
    return found


def check(name, columns):
    """The section `name` describes `columns`: its own are all among them, and what it leaves out all tables share."""
    described = sections()
    assert set(described[name]) <= set(columns), "a column that is not written"
    assert set(columns) <= {*described[name], *described[SHARED]}, "a column that is not described"


@pytest.fixture(scope="module")
def sheets(clips):
    return csv_sheets(clips)


def test_every_column_is_described_and_no_other(sheets):
    for name, sheet in sheets.items():
        check(name, list(sheet.records[0]))
    written = {column for sheet in sheets.values() for column in sheet.records[0]}
    assert set(sections()[SHARED]) <= written


def test_every_section_is_of_a_table(sheets):
    # Sections that a test of the module itself checks, where its tables are made.
    elsewhere = {
        "python -m bench.studies.gains test",
        "python -m bench.studies.gains ingredients",
        "python -m bench.studies.gpu",
    }
    elsewhere.add("python -m bench.studies.scaling")
    assert set(sections()) == {*sheets, *elsewhere, "melbench data prepare", SHARED}


def test_every_measured_time_has_time_in_its_name():
    # A unit of seconds is of time, but for sound, whose seconds nobody measured.
    rows = re.findall(r"^\| (`.*?) \| (m?s)(?: \|)", PAGE, re.MULTILINE)
    names = [name for cell, _ in rows for name in re.findall(r"`(\w+)`", cell)]
    assert len(names) > 20 and all("time" in name for name in names if name != "seconds")
