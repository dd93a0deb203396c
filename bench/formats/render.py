"""Sheets, and the formats they are printed in: a terminal table, CSV, JSON, Markdown, LaTeX."""

import csv
import io
import json
import math
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from bench.formats import escaping, latex, layout
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
            # Not cropped: a command may be longer than a line.
            console.print(*[""] * (number > 0), to_table(sheet, console.width, encoding), sep="\n", crop=False)
        return
    if format == "json" and len(sheets) > 1:
        text = _json({s.name: _values(s)[0] if s.single else _values(s) for s in sheets}, encoding)
    elif format == "json":
        text = "".join(_json(_values(sheet), encoding) for sheet in filled)
    else:
        text = "\n".join(_TEXT[format](sheet) for sheet in filled)
    sys.stdout.write(escaping.encodable(text, encoding))


def to_table(sheet: Sheet, width: int, encoding: str = "utf-8") -> Group:
    """Return title, table, verdict, command and notes for a terminal of `width` columns; no text is taken for markup.

    Numbers and names are not broken: headings are stacked, and columns that have no room are left out and named.
    """

    def plain(text: str) -> str:
        return escaping.encodable(errors.visible(text), encoding)

    sheet = replace(
        sheet,
        title=plain(sheet.title),
        headings=[plain(heading) for heading in sheet.headings],
        cells=_aligned([[plain(cell) for cell in cells] for cells in sheet.cells]),
        notes=[plain(note) for note in sheet.notes],
        verdict=plain(sheet.verdict),
        command=plain(sheet.command),
        spare=[plain(heading) for heading in sheet.spare],
    )
    sheet = layout.fitted(
        sheet, lambda shown: sum(_least_widths(shown, width)) <= width, "Not shown at this width: {}."
    )
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    long = layout.long_columns(sheet)
    stacks, widths = layout.stacked(sheet)
    if sum(max(one, len(text)) + GAP for one, text in zip(widths, sheet.headings, strict=True)) <= width:
        stacks = [[heading] for heading in sheet.headings]
    numeric = layout.numeric(sheet)
    for i, (stack, number) in enumerate(zip(stacks, numeric, strict=True)):
        least = _least_widths(sheet, width)[i] - GAP if i in long else None
        heading = Text("\n".join(stack), justify="right" if number else "left")
        table.add_column(heading, vertical="bottom", overflow="fold", no_wrap=i not in long, min_width=least)
    for cells in sheet.cells:
        # Right-aligned here: a column of rich's would lose the spaces in place of a mark.
        flush = [
            cell.rjust(max(widths[i], *map(len, stacks[i]))) if numeric[i] else cell for i, cell in enumerate(cells)
        ]
        table.add_row(*map(Text, flush))
    below = [Text(line, style="bold") for line in _wrapped(sheet.verdict, width)]
    below += [Text(sheet.command, no_wrap=True, overflow="ignore")] if sheet.command else []
    below += [Text(line) for note in sheet.notes for line in _wrapped(note, width)]
    title = [Text(line, style="italic") for line in _wrapped(sheet.title, width, indent="")]
    return Group(*title, table, *below)


# A column's two spaces to the next; at the outer edges there is one each.
GAP = 2
# Text in narrower columns takes too many lines to be read.
NARROWEST = 20


def _least_widths(sheet: Sheet, width: int) -> list[int]:
    """Return the columns' least widths, with the gap: of long text its longest word, up to half of `width`."""

    def of_text(i: int) -> int:
        words = [len(word) for cells in sheet.cells for word in cells[i].split()]
        return max(NARROWEST, min(max(words), width // 2))

    long, (_, widths) = layout.long_columns(sheet), layout.stacked(sheet)
    return [min(one, of_text(i)) + GAP if i in long else one + GAP for i, one in enumerate(widths)]


def _aligned(cells: Sequence[Sequence[str]]) -> list[list[str]]:
    """Pad cells that have no mark in a column where others end with one, so that numbers stand under each other."""

    def marked(cell: str) -> bool:
        return cell[-2:-1] == " " and not cell[-1].isalnum()

    columns = {i for row in cells for i, cell in enumerate(row) if marked(cell)}
    return [[cell + "  " * (i in columns and not marked(cell)) for i, cell in enumerate(row)] for row in cells]


def _wrapped(text: str, width: int, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)


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
    """Return the title, the table, the verdict in bold, the command as code, and the notes as a list."""
    rules = ["---:" if number else ":---" for number in layout.numeric(sheet)]
    lines = [[escaping.markdown(cell) for cell in cells] for cells in (sheet.headings, *sheet.cells)]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in (lines[0], rules, *lines[1:]))
    # No blank may stand beside the marks of bold type.
    verdict = escaping.markdown(sheet.verdict).strip()
    verdict = verdict and f"**{verdict}**"
    notes = "\n".join(f"- {escaping.markdown_paragraph(note)}" for note in sheet.notes)
    command = sheet.command and f"    {errors.visible(sheet.command)}"  # a block of code, in which nothing is markup
    parts = escaping.markdown_paragraph(sheet.title), text, verdict, command, notes
    return "\n\n".join(part for part in parts if part) + "\n"


_TEXT = {"csv": to_csv, "json": to_json, "markdown": to_markdown, "latex": latex.to_latex}
