"""The reference of the Python API has every public name. That every page is in the site, its build checks itself."""

import re

import melcnn
from tests.helpers.pages import DOCS, README, blocks, page

REFERENCE = "docs/api.md"
DESCRIBED = set(re.findall(r"^::: (.+)$", page(REFERENCE), re.MULTILINE))


def test_every_public_name_is_in_the_reference():
    assert {f"melcnn.{name}" for name in set(melcnn.__all__) - {"__version__"}} <= DESCRIBED


def test_what_the_guide_imports_is_in_the_reference():
    code = "\n".join(block.text for name in (README, *DOCS) for block in blocks(name) if block.language == "python")
    imported = re.findall(r"^from ((?:bench|melcnn)[\w.]*) import (\w+)$", code, re.MULTILINE)
    assert imported and {".".join(each) for each in imported} <= DESCRIBED
