"""The sizes of folders and files. The import contracts are in pyproject.toml, for `lint-imports`."""

from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_FILES, MOST_LINES = 16, 400
SOURCES = [path for name in ("bench", "melcnn", "tests") for path in sorted((ROOT / name).rglob("*.py"))]


def test_folders_hold_few_files():
    files = Counter(path.parent for path in SOURCES)
    assert {str(folder): number for folder, number in files.items() if number > MOST_FILES} == {}


def test_files_are_short():
    lines = {path: len(path.read_text().splitlines()) for path in SOURCES}
    assert {str(path): number for path, number in lines.items() if number > MOST_LINES} == {}
