"""The pages that a person reads, README and docs/, and what is in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README = "README.md"
DOCS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))


class Block(NamedTuple):
    """A fenced block of a page. language: "sh", "python", "text" (lines that the commands before print) or none."""

    language: str
    text: str


FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def page(name):
    return (ROOT / name).read_text()


def blocks(name):
    return [Block(*found) for found in FENCED.findall(page(name))]


def prose(name):
    """The page without its blocks."""
    return FENCED.sub("", page(name))


def code_spans(name):
    """What stands between backticks in the prose."""
    return re.findall(r"`([^`\n]+)`", prose(name))


def commands(text):
    """The commands of a block, without comments, one by one."""
    lines = (re.sub(r"(^|\s+)#.*", "", line) for line in text.splitlines())
    return [part.strip() for line in lines for part in line.split("&&") if part.strip()]
