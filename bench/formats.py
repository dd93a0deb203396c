"""Sheets, and the formats they are printed in: a terminal table, CSV, JSON, Markdown, LaTeX."""

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

FORMATS = ("table", "json", "csv", "markdown", "latex")


@dataclass(frozen=True)
class Sheet:
    """One table: `headings` and `cells` for a person, `records` (equal keys, raw values) for a program.

    spare: headings that a narrow terminal is spared. single: as JSON the one record, not a list of it. key: the sheet's
    name in JSON beside others, its title unless given.
    """

    title: str
    headings: Sequence[str]
    cells: Sequence[Sequence[str]]
    records: Sequence[dict[str, Any]]
    note: str = ""
    spare: Sequence[str] = ()
    single: bool = False
    key: str = ""


def show(sheets: Sequence[Sheet], format: str) -> None:
    """Prints `sheets` on standard output.

    As JSON a single sheet is its records; several are an object with each sheet's records under its title.
    """
    filled = [sheet for sheet in sheets if sheet.records]
    if format == "table":
        console = Console()
        for number, sheet in enumerate(filled):
            console.print(*[""] * (number > 0), to_table(sheet, console.width), sep="\n")
    elif format == "json" and len(sheets) > 1:
        content = {(s.key or s.title).replace(" ", "_"): s.records[0] if s.single else s.records for s in sheets}
        sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("\n".join(_TEXT[format](sheet) for sheet in filled))


def to_table(sheet: Sheet, width: int) -> Table:
    """The rich table for a terminal of `width` columns. Words from files are shown as they are, not as markup."""
    kept = [i for i, heading in enumerate(sheet.headings) if width >= 100 or heading not in sheet.spare]
    hidden = [heading for i, heading in enumerate(sheet.headings) if i not in kept]
    more = f"a wider terminal, and --format csv, show {', '.join(hidden)} too" if hidden else ""
    note = "; ".join(part for part in (sheet.note, more) if part)
    table = Table(
        title=Text(sheet.title),
        caption=Text(note) if note else None,
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    for i in kept:
        numeric = all(cells[i][:1].isdigit() or not cells[i] for cells in sheet.cells)
        table.add_column(Text(sheet.headings[i]), justify="right" if numeric else "left", overflow="fold")
    for cells in sheet.cells:
        table.add_row(*(Text(cells[i]) for i in kept))
    return table


def to_csv(sheet: Sheet) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(sheet.records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(sheet.records)
    return out.getvalue()


def to_json(sheet: Sheet) -> str:
    return json.dumps(sheet.records, indent=2, ensure_ascii=False) + "\n"


def to_markdown(sheet: Sheet) -> str:
    lines = [sheet.headings, ["---:"] * len(sheet.headings), *sheet.cells]
    text = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |" for cells in lines)
    return "\n\n".join(part for part in (sheet.title, text, sheet.note) if part) + "\n"


_LATEX = {c: "\\" + c for c in "_%&#${}"} | {
    "±": r"$\pm$",
    "\\": r"\textbackslash{}",
    "^": r"\^{}",
    "~": r"\~{}",
}


def to_latex(sheet: Sheet) -> str:
    """A booktabs table; the caption says what the title and the note say."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(escaped, cells)) + r" \\"

    def escaped(text: str) -> str:
        return "".join(_LATEX.get(c, c) for c in text)

    caption = "; ".join(part for part in (sheet.title, sheet.note) if part)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(caption)}}}",
            rf"\begin{{tabular}}{{{'r' * len(sheet.headings)}}}",
            r"\toprule",
            line(sheet.headings),
            r"\midrule",
            *map(line, sheet.cells),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


_TEXT = {"csv": to_csv, "json": to_json, "markdown": to_markdown, "latex": to_latex}
