"""Escape text for each format: words, file names and checkpoints may hold anything."""

import codecs
import re

from melcnn.errors import CONTROL_CHARACTERS, visible

# A sign alone is none. Some spreadsheets take a semicolon for the end of a cell.
_FORMULA = re.compile(r"(?:^|(?<=;))(?=\s*[-=+@＝＋－＠].)")


def spreadsheet(text: str) -> str:
    """Return text that no spreadsheet computes: an apostrophe goes before a formula (OWASP, CSV injection)."""
    return _FORMULA.sub("'", visible(text))


def json_text(text: str) -> str:
    """Return the JSON text with terminal control characters as escapes such as `\\u001b`."""
    # Ends of lines are the layout's own: within strings JSON has escaped them.
    return re.sub(f"(?!\n){CONTROL_CHARACTERS.pattern}", lambda found: f"\\u{ord(found[0]):04x}", text)


# The entities rather than backslashes, which not every renderer takes before an angle bracket.
_MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# Within a word an underscore marks nothing.
_MARKUP = re.compile(r"[\\`*\[\]~|&<>]|(?<![^\W_])_|_(?![^\W_])")


def markdown(text: str) -> str:
    """Escape text for a line of Markdown or a cell of its tables."""
    return _MARKUP.sub(lambda found: _MARKDOWN.get(found[0], f"\\{found[0]}"), visible(text))


def markdown_paragraph(text: str) -> str:
    """Escape text as a paragraph of Markdown: no heading, quotation, list or block of code, whatever it begins with."""
    return re.sub(r"^(\d*)([#+=.)-])", r"\1\\\2", markdown(text).lstrip())


# What stands for our marks, and for those of Rich, in an output that cannot encode them.
_ASCII = {"≈": "~", "±": "+-", "×": "x", "µ": "u", "μ": "u", "−": "-", "–": "-", "—": "-", "…": "...", "→": "->"}
_ASCII |= {"≤": "<=", "≥": ">=", "‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ", "•": "*"}
# The name, for `str.encode` and streams, of the way in which `encodable` replaces.
ENCODING_ERRORS = "melbench.ascii-marks"


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error

    def mark(char: str) -> str:
        if "\u2500" <= char <= "\u28ff":  # frames, bars and spinners
            return "-" if char in "─━╸╺" else "*"
        return _ASCII.get(char) or char.encode("unicode_escape").decode()

    return "".join(map(mark, error.object[error.start : error.end])), error.end


codecs.register_error(ENCODING_ERRORS, _replaced)


def encodable(text: str, encoding: str) -> str:
    """Return text with the characters that `encoding` lacks as ASCII marks, such as ~ for ≈, or else as escapes."""
    return text.encode(encoding, ENCODING_ERRORS).decode(encoding)
