"""The reference of the Python API has every public name, and the site every file that a page links."""

import ast
import re

import melcnn
from tests.helpers.pages import DOCS, README, ROOT, blocks, page

REFERENCE = "docs/api.md"
DESCRIBED = set(re.findall(r"^::: (.+)$", page(REFERENCE), re.MULTILINE))


def test_every_public_name_is_in_the_reference():
    assert {f"melcnn.{name}" for name in set(melcnn.__all__) - {"__version__"}} <= DESCRIBED


def test_what_the_guide_imports_is_in_the_reference():
    code = "\n".join(block.text for name in (README, *DOCS) for block in blocks(name) if block.language == "python")
    imported = re.findall(r"^from ((?:bench|melcnn)[\w.]*) import (\w+)$", code, re.MULTILINE)
    assert imported and {".".join(each) for each in imported} <= DESCRIBED


def test_what_a_page_links_is_on_the_site():
    # `mkdocs build --strict` asks the same, but is not installed where these tests run.
    hooks = (ROOT / "docs" / "hooks.py").read_text()
    (patterns,) = re.findall(r"^PATTERNS = (\(.*?^\))", hooks, re.MULTILINE | re.DOTALL)
    files = {path for pattern in ast.literal_eval(patterns) for path in ROOT.glob(pattern)}
    missing = []
    for file in sorted(path for path in files if path.suffix == ".md"):
        text = re.sub(r"```.*?```", "", file.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target and (file.parent / target).resolve() not in files:
                missing.append(f"{file.relative_to(ROOT)}: {target}")
    assert missing == []
