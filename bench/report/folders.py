"""Folders named after what anybody may have called a thing: each its own, wherever they are written."""

import itertools
from collections.abc import Collection
from pathlib import Path


def free(home: Path, taken: Collection[Path]) -> Path:
    """`home`, numbered if it is taken: texts that differ may make one name, and upper and lower case are one to some
    file systems."""
    names = {str(path).casefold() for path in taken}
    numbered = (home.with_name(f"{home.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([home], numbered) if str(path).casefold() not in names)
