"""Text that stays text wherever it is shown: words, file names and checkpoints may be of anybody's making."""

import re

from melcnn.errors import CONTROL_CHARACTERS, visible

# A sign alone is none. Some spreadsheets take a semicolon for the end of a cell.
_FORMULA = re.compile(r"(?:^|(?<=;))(?=\s*[-=+@＝＋－＠].)")


def spreadsheet(text: str) -> str:
    """`text` that no spreadsheet computes: before what begins like a formula there is an apostrophe (OWASP, CSV
    injection)."""
    return _FORMULA.sub("'", visible(text))


def json_text(text: str) -> str:
    """JSON that equals the JSON `text`, with what a terminal obeys as `\\u001b`."""
    # Ends of lines are the layout's own: within strings JSON has escaped them.
    return re.sub(f"(?!\n){CONTROL_CHARACTERS.pattern}", lambda found: f"\\u{ord(found[0]):04x}", text)


# The entities rather than backslashes, which not every renderer takes before an angle bracket.
_MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# Within a word an underscore marks nothing.
_MARKUP = re.compile(r"[\\`*\[\]~|&<>]|(?<![^\W_])_|_(?![^\W_])")


def markdown(text: str) -> str:
    """`text` within a line of Markdown or a cell of its tables."""
    return _MARKUP.sub(lambda found: _MARKDOWN.get(found[0], f"\\{found[0]}"), visible(text))


def markdown_paragraph(text: str) -> str:
    """`text` as a paragraph of Markdown: no heading, quotation, list or block of code, whatever it begins with."""
    return re.sub(r"^(\d*)([#+=.)-])", r"\1\\\2", markdown(text).lstrip())
