"""Records of older formats, read as if they were written today.

Format 1 named a fold in the data set's name ("speech_commands, fold 2 of 5") and knew no corpus.
"""

import re
from typing import Any

from bench.records.schema import FORMAT_VERSION

_FOLD_NAME = re.compile(r"(?P<dataset>.+), fold (?P<number>[1-9][0-9]{0,2}) of (?P<of>[1-9][0-9]{0,2})")


def migrated(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a record file in today's format.

    Args:
        content: the file's JSON object, with its `format_version`; still unchecked.
    """
    if content["format_version"] == FORMAT_VERSION:
        return content
    content = {**content, "format_version": FORMAT_VERSION}
    dataset = content.get("dataset")
    found = _FOLD_NAME.fullmatch(dataset) if isinstance(dataset, str) else None
    if found and int(found["number"]) <= int(found["of"]):
        content["dataset"] = found["dataset"]
        content["fold"] = {"index": int(found["number"]) - 1, "of": int(found["of"])}
    return content
