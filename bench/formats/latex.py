"""Tables in LaTeX for pdflatex as it comes, with booktabs alone: text is set as text, and the table fits the page."""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence

from bench.formats.layout import LONG, fitted, long_columns, numeric, stacked
from bench.formats.sheet import Sheet
from melcnn.errors import visible

# How many characters of a table a line of the class article holds in each size of type, by estimate: a table that is
# wider after all stands out on both sides alike.
SIZES = {"": 70, r"\small": 76, r"\footnotesize": 82, r"\scriptsize": 92}
MARGINS = 110  # characters of the smallest type that the margins let stand
GAP = 2.5  # characters between two columns


def to_latex(sheet: Sheet) -> str:
    """Return a float: the title as its caption, the table, and under it verdict, command and notes.

    Headings wider than their column are stacked; numbers are flush right. Columns that have no room are left out.
    """
    sheet = fitted(sheet, _fits, "Not shown for lack of room: {}.")
    stacks, widths = stacked(sheet)
    flush_right = numeric(sheet)
    size, shares = _layout(widths, long_columns(sheet))
    below = " ".join(filter(None, [sheet.verdict, sheet.command, *sheet.notes]))

    def column(i: int) -> str:
        return rf"p{{{shares[i]:.2f}\linewidth}}" if i in shares else "r" if flush_right[i] else "l"

    def heading(i: int) -> str:
        lines = r"\\".join(map(escaped, stacks[i]))
        return rf"\shortstack[{'r' if flush_right[i] else 'l'}]{{{lines}}}" if len(stacks[i]) > 1 else lines

    def cell(i: int, text: str) -> str:
        return _ragged(escaped(text)) if i in shares else escaped(text)

    def row(texts: Iterable[str]) -> str:
        # What is ragged means something else by \\.
        return " & ".join(texts) + (r" \tabularnewline" if shares else r" \\")

    every = range(len(sheet.headings))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(sheet.title)}}}\medskip" if sheet.title else "",
        size and rf"{size}\makebox[\linewidth]{{%",
        rf"\begin{{tabular}}{{{''.join(map(column, every))}}}",
        r"\toprule",
        row(map(heading, every)),
        r"\midrule",
        *(row(map(cell, every, texts)) for texts in sheet.cells),
        r"\bottomrule",
        r"\end{tabular}" + "}" * bool(size),
        rf"\par\medskip\parbox{{\linewidth}}{{\footnotesize {escaped(below)}}}" if below else "",
        r"\end{table}",
    ]
    return "\n".join(filter(None, lines)) + "\n"


def _fits(sheet: Sheet) -> bool:
    """Return whether the table fits the page in the smallest type."""
    return _needed(stacked(sheet)[1], long_columns(sheet)) <= MARGINS


def _layout(widths: Sequence[int], long: Sequence[int]) -> tuple[str, dict[int, float]]:
    """Return the type size for columns of `widths` characters, and the page share of those set in several lines."""
    if sum(widths) + GAP * len(widths) <= SIZES[""]:
        return "", {}
    needed = _needed(widths, long)
    size = next((size for size, line in SIZES.items() if line >= needed), list(SIZES)[-1])
    rest = max(0, SIZES[size] - needed) + LONG * len(long)
    # By the square root, for rows that are about as high in one column as in another.
    roots = {i: math.sqrt(widths[i]) for i in long}
    return size, {i: rest * root / sum(roots.values()) / SIZES[size] for i, root in roots.items()}


def _needed(widths: Sequence[int], long: Sequence[int]) -> float:
    """Return the least characters that the columns take side by side."""
    return GAP * len(widths) + sum(LONG if i in long else width for i, width in enumerate(widths))


def _ragged(text: str) -> str:
    """Return a paragraph in which long paths and names may be broken."""

    def breakable(name: re.Match) -> str:
        return re.sub(r"/|\\_", r"\g<0>\\allowbreak{}", name[0])

    return r"\raggedright " + re.sub(rf"\S{{{LONG},}}", breakable, text)


_SET = {c: f"\\{c}" for c in "_%&#${}"} | {
    "\\": r"\textbackslash{}",
    "^": r"\^{}",
    "~": r"\~{}",
    "`": r"{}\textquoteleft{}",  # no part of the ligatures of ? and !
    '"': "''",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # After the end of a row these two would be arguments of it.
    "[": "{[}",
    "*": "{*}",
    "\u00a0": "~",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "…": r"\ldots{}",
    "‘": r"{}\textquoteleft{}",
    "’": r"\textquoteright{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "−": "$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "°": r"$^\circ$",
    "µ": r"$\mu$",
    "μ": r"$\mu$",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
}
# Combining characters, and what sets them.
_ACCENTS = dict(
    zip("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327", "`'^~=u.\"rHvc", strict=True)
)


def escaped(text: str) -> str:
    """Escape text for pdflatex without packages; a character it lacks, such as an emoji, becomes `U+1F600`."""
    with_minus = re.sub(r"(?<![\w)])-(?=\.?\d)", "−", visible(unicodedata.normalize("NFC", text)))
    # Two hyphens would be set as a dash.
    return re.sub("-(?=-)", "-{}", "".join(map(_set, with_minus)))


def _set(char: str) -> str:
    if char in _SET or char.isascii():
        return _SET.get(char, char)
    base, *accents = list(unicodedata.normalize("NFD", char))
    if base.isascii() and len(accents) == 1 and accents[0] in _ACCENTS:
        letter = rf"\{base}" if base in "ij" else base  # without its dot, which the accent replaces
        return rf"\{_ACCENTS[accents[0]]}{{{letter}}}"
    return rf"\texttt{{U+{ord(char):04X}}}"
