"""Sheets, and the formats they are printed in: a terminal table, CSV, JSON, Markdown, LaTeX."""

import csv
import io
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.formats import escaping, latex
from bench.formats.sheet import Sheet
from melcnn import errors

FORMATS = ("table", "json", "csv", "markdown", "latex")


def show(sheets: Sequence[Sheet], format: str) -> None:
    """Print `sheets` on standard output, in whatever encoding it has.

    As JSON a single sheet is its records; several are an object with each sheet's records under its name.
    """
    filled = [sheet for sheet in sheets if sheet.records]
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if format == "table":
        console = Console()
        for number, sheet in enumerate(filled):
            console.print(*[""] * (number > 0), to_table(sheet, console.width, encoding), sep="\n")
        return
    if format == "json" and len(sheets) > 1:
        text = _json({s.name: _values(s)[0] if s.single else _values(s) for s in sheets}, encoding)
    elif format == "json":
        text = "".join(_json(_values(sheet), encoding) for sheet in filled)
    else:
        text = "\n".join(_TEXT[format](sheet) for sheet in filled)
    sys.stdout.write(escaping.encodable(text, encoding))


def to_table(sheet: Sheet, width: int, encoding: str = "utf-8") -> Table:
    """Return the rich table for a terminal of `width` columns and this encoding; no text of it is taken for markup."""

    def plain(text: str) -> Text:
        return Text(escaping.encodable(errors.visible(text), encoding))

    if width < 100:
        sheet = _narrow(sheet, "a wider terminal, and --format json, show {} too")
    table = Table(
        title=plain(sheet.title),
        caption=plain(sheet.note) if sheet.note else None,
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    for heading, numeric in zip(sheet.headings, _numeric(sheet), strict=True):
        table.add_column(plain(heading), justify="right" if numeric else "left", overflow="fold")
    for cells in sheet.cells:
        table.add_row(*map(plain, cells))
    return table


def _narrow(sheet: Sheet, more: str) -> Sheet:
    """Return the sheet without its spare columns.

    Args:
        more: goes into the note, with {} for the names of those columns.
    """
    kept = [i for i, heading in enumerate(sheet.headings) if heading not in sheet.spare]
    hidden = ", ".join(heading for heading in sheet.headings if heading in sheet.spare)
    if not hidden:
        return sheet
    return replace(
        sheet,
        headings=[sheet.headings[i] for i in kept],
        cells=[[cells[i] for i in kept] for cells in sheet.cells],
        note="; ".join(part for part in (sheet.note, more.format(hidden)) if part),
    )


def _numeric(sheet: Sheet) -> list[bool]:
    """Return for each column whether it holds numbers, with or without a unit or an interval."""
    number = re.compile(r"(x )?[-+]?(\d[\d,]*(\.\d+)?(e[-+]?\d+)?%?|nan|inf)(?!\S)")
    return [
        all(number.match(cells[i]) or not cells[i] for cells in sheet.cells) and any(cells[i] for cells in sheet.cells)
        for i in range(len(sheet.headings))
    ]


def _values(sheet: Sheet) -> list[dict[str, Any]]:
    """Return the records with None for non-finite numbers, which JSON and spreadsheets do not have."""
    return [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}
        for row in sheet.records
    ]


def to_csv(sheet: Sheet, escape: Callable[[str], str] = escaping.spreadsheet) -> str:
    """Return the records as CSV, one line each; None and non-finite numbers are empty cells.

    Args:
        escape: applied to text; by default no spreadsheet takes a cell for a formula.
    """

    def cell(value: object) -> object:
        return escape(value) if isinstance(value, str) else value

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(sheet.records[0])
    writer.writerow(map(cell, names))
    writer.writerows([cell(row[name]) for name in names] for row in _values(sheet))
    return out.getvalue()


def to_json(sheet: Sheet) -> str:
    return _json(_values(sheet))


def _json(content: object, encoding: str = "utf-8") -> str:
    ascii_alone = not encoding.lower().startswith("utf")
    return escaping.json_text(json.dumps(content, indent=2, ensure_ascii=ascii_alone, allow_nan=False)) + "\n"


def to_markdown(sheet: Sheet) -> str:
    """Return a table between its title and its note."""
    rules = ["---:" if numeric else ":---" for numeric in _numeric(sheet)]
    lines = [[escaping.markdown(cell) for cell in cells] for cells in (sheet.headings, *sheet.cells)]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in (lines[0], rules, *lines[1:]))
    title, note = map(escaping.markdown_paragraph, (sheet.title, sheet.note))
    return "\n\n".join(part for part in (title, text, note) if part) + "\n"


def to_latex(sheet: Sheet) -> str:
    """Return a booktabs table with its title as the caption; without the spare columns where the page is too narrow."""
    if not latex.fits(sheet.headings, sheet.cells, _numeric(sheet)):
        sheet = _narrow(sheet, "left out for want of room: {}")
    return latex.table(sheet.title, sheet.headings, sheet.cells, _numeric(sheet), sheet.note)


_TEXT = {"csv": to_csv, "json": to_json, "markdown": to_markdown, "latex": to_latex}
