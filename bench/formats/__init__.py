"""Sheets and the formats they are printed in: terminal, CSV, JSON, Markdown, LaTeX."""

from bench.formats.latex import to_latex
from bench.formats.layout import numeric
from bench.formats.render import FORMATS, show, to_csv, to_json, to_markdown, to_table
from bench.formats.sheet import Point, Sheet, sheet_of

__all__ = [
    "FORMATS",
    "Point",
    "Sheet",
    "numeric",
    "sheet_of",
    "show",
    "to_csv",
    "to_json",
    "to_latex",
    "to_markdown",
    "to_table",
]
