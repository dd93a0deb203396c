"""JSON files that may be of anybody's making, as records and measurements are: read within limits, or refused."""

import json
from pathlib import Path

from melcnn.files import open_file

# The longest record of Speech Commands, of all 35 words, has 8 MB: 20,986 clips with 35 logits of eleven characters.
MAX_BYTES = 2**26
# Of an object: the largest of ours name a dozen packages or forty settings.
MAX_KEYS = 1000
# A whole number of more is no count of anything, and floating point could not hold it.
MAX_DIGITS = 18


def read_json(path: Path) -> object:
    """What the JSON file holds.

    Raises OSError as the file system does and for what is no regular file, and ValueError for what is no whole JSON,
    too large, nested too deeply, with half a character (a lone surrogate), or with numbers or objects beyond the
    limits.
    """
    with open_file(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES:,} bytes")
    try:
        found = json.loads(content.decode(), parse_int=_whole_number, object_pairs_hook=_object)
        if b"\\u" in content:
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError:  # Only an escape can write it, and nobody could write it again.
        raise ValueError("half a character") from None


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of more than {MAX_DIGITS} digits")
    return int(digits)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(pairs) > MAX_KEYS:
        raise ValueError(f"an object of more than {MAX_KEYS} keys")
    found = dict(pairs)
    if len(found) < len(pairs):  # Of which others would read another one.
        raise ValueError("an object with a key twice")
    return found
