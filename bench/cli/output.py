"""The results of a command: sheets on standard output, and tables in files."""

from collections.abc import Sequence
from pathlib import Path

from bench.cli.terminal import note
from bench.formats import Sheet, show, to_csv, to_markdown
from melcnn.files import write_whole


def deliver(sheets: Sequence[Sheet], format: str, csv: Path | None = None, main: str = "") -> None:
    """Print `sheets`, and write the main one to the file `csv` if it has any records.

    As CSV the main sheet is printed alone, because other programs load one table; a notice names the others.

    Args:
        main: the name of the main sheet; the first one unless given.
    """
    chosen = next(sheet for sheet in sheets if main in ("", sheet.name))
    if csv and chosen.records:
        _write(csv, to_csv(chosen))
    if format != "csv":
        show(sheets, format)
        return
    show([chosen], format)
    if others := [sheet.name for sheet in sheets if sheet.records and sheet is not chosen]:
        note(f"CSV holds one table, {chosen.name}: --format json has {', '.join(others)} too")


def keep(sheet: Sheet, csv: Path, more: str = "") -> None:
    """Write the sheet to the file `csv` and, with `more` under it, to a Markdown file of the same name."""
    _write(csv, to_csv(sheet))
    _write(csv.with_suffix(".md"), to_markdown(sheet) + more)


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode()))
