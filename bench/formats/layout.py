"""Fit a table into a limited width: stacked headings, text in several lines, columns that are left out."""

import re
import textwrap
from collections.abc import Callable
from dataclasses import replace

from rich.cells import cell_len

from bench.formats.sheet import Sheet
from melcnn.errors import visible

LONG = 30  # text of more characters is set in several lines where the table is too wide


def stacked(sheet: Sheet) -> tuple[list[list[str]], list[int]]:
    """Return the lines of each column's heading, and the characters of the column's longest line."""
    lengths = [max((cell_len(visible(row[i])) for row in sheet.cells), default=0) for i in range(len(sheet.headings))]
    stacks = [_stack(heading, length) for heading, length in zip(sheet.headings, lengths, strict=True)]
    return stacks, [max([length, *map(len, stack)]) for length, stack in zip(lengths, stacks, strict=True)]


def _stack(heading: str, length: int) -> list[str]:
    """Return the heading in as few lines as `length` characters allow, about equally long."""
    words = visible(heading).split()
    if not words:
        return []

    def lines(width: int) -> list[str]:
        return textwrap.wrap(" ".join(words), width, break_on_hyphens=False)

    shortest = max(map(len, words))
    fewest = lines(max(length, shortest))
    return next((made for width in range(shortest, length) if len(made := lines(width)) == len(fewest)), fewest)


def numeric(sheet: Sheet) -> list[bool]:
    """Return for each column whether it holds numbers, with or without a unit or an interval."""
    number = re.compile(r"(x )?[-+]?(\d[\d,]*(\.\d+)?(e[-+]?\d+)?%?|nan|inf)(?!\S)")
    return [
        all(number.match(cells[i]) or not cells[i] for cells in sheet.cells) and any(cells[i] for cells in sheet.cells)
        for i in range(len(sheet.headings))
    ]


def long_columns(sheet: Sheet) -> list[int]:
    """Return the columns of text that may be set in several lines; numbers and short names never are."""
    _, widths = stacked(sheet)
    return [
        i for i, (width, number) in enumerate(zip(widths, numeric(sheet), strict=True)) if width > LONG and not number
    ]


def fitted(sheet: Sheet, fits: Callable[[Sheet], bool], remark: str) -> Sheet:
    """Return the sheet without as many columns as it takes to fit, named in a note.

    The spare columns go first, in their order; then the last ones, up to the first.

    Args:
        remark: the note, with {} for the names of those columns.
    """
    others = [heading for heading in sheet.headings[1:] if heading not in sheet.spare]
    order = [*(heading for heading in sheet.spare if heading in sheet.headings), *reversed(others)]
    hidden: list[str] = []
    shown = sheet
    while order and not fits(shown):
        hidden.append(order.pop(0))
        kept = [i for i, heading in enumerate(sheet.headings) if heading not in hidden]
        shown = replace(
            sheet,
            headings=[sheet.headings[i] for i in kept],
            cells=[[cells[i] for i in kept] for cells in sheet.cells],
            notes=[*sheet.notes, remark.format(", ".join(name for name in sheet.headings if name in hidden))],
        )
    return shown
