"""Sheets: one table, its cells for people and its records for programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sheet:
    """A table: `headings` and `cells` for people, `records` (equal keys, raw values) for programs.

    Attributes:
        verdict: the answer that the table gives, one line; its first sentence is the answer, the rest its evidence.
        command: the shell command that goes on from the verdict; printed on a line of its own, which is never broken.
        notes: sentences about the table, each beginning with the mark that it explains, if any.
        spare: headings of columns that are left out where there is no room, in the order in which they go.
        single: as JSON the one record, not a list of it.
        key: the sheet's name in JSON beside others; its title unless given.
    """

    title: str
    headings: Sequence[str]
    cells: Sequence[Sequence[str]]
    records: Sequence[dict[str, Any]]
    notes: Sequence[str] = ()
    spare: Sequence[str] = ()
    single: bool = False
    key: str = ""
    verdict: str = ""
    command: str = ""

    @property
    def name(self) -> str:
        return (self.key or self.title).replace(" ", "_")


def sheet_of(
    title: str,
    records: Sequence[dict[str, object]],
    notes: Sequence[str] = (),
    spare: Sequence[str] = (),
    single: bool = False,
) -> Sheet:
    """Return a sheet whose cells are the records' values: fractions with four digits, thousands with commas.

    Args:
        single: there is one record, which people read from top to bottom.
    """
    if single:
        return Sheet(title, ["", "value"], [[n, _cell(v)] for n, v in records[0].items()], records, notes, single=True)
    cells = [[_cell(value) for value in record.values()] for record in records]
    headings = [name.replace("_", " ") for name in records[0]] if records else []
    return Sheet(title, headings, cells, records, notes, spare)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


# By the names of its fields raw values: text, numbers, truth values or None. All points of a figure have equal fields.
Point = dict[str, Any]
