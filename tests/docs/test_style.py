"""Texts that people read use the words of docs/style.md."""

import ast
import re
from pathlib import Path

import pytest

from tests.helpers.pages import DOCS, README, ROOT, page

# The left column of the page's list, as patterns.
AVOIDED = [
    r"\bhears?\b",
    r"\bheard\b",
    r"\bnobody\b",
    r"not told from",
    r"less the best's",
    r"\bamiss\b",
    r"no number of seeds would",
    r"max val accuracy",
    r"in good order",
    r"very (set of )?clips",
]
PAGES = [README, "CONTRIBUTING.md", *DOCS, *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("results/**/*.md"))]
OTHERS = {"docs/style.md", "results/test-looks.md"}  # the list itself; a diary
TEMPLATES = ["bench/report/templates/page.html", "bench/report/templates/page.js"]


def avoided(text):
    return [match[0] for pattern in AVOIDED for match in re.finditer(pattern, text, re.IGNORECASE)]


@pytest.mark.parametrize("name", [name for name in [*PAGES, *TEMPLATES] if name not in OTHERS])
def test_pages(name):
    assert not avoided(page(name))


def sentences(path: Path):
    """Return the texts of a module that have at least two words: messages, help texts, headings, docstrings."""
    strings = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
    return [text for text in strings if isinstance(text, str) and " " in text.strip()]


@pytest.mark.parametrize("package", ["bench", "melcnn"])
def test_messages_and_docstrings(package):
    found = {
        str(path.relative_to(ROOT)): words
        for path in sorted((ROOT / package).rglob("*.py"))
        if (words := [word for text in sentences(path) for word in avoided(text)])
    }
    assert not found


def test_the_list_is_on_the_page():
    assert all(
        avoided(text) for text in ("It hears it.", "nobody can tell", "not told from the best", "max val accuracy")
    )
    table = page("docs/style.md").partition("## Words")[2]
    assert all(re.search(pattern, table, re.IGNORECASE) for pattern in AVOIDED)
