"""Files that are whole or not there, and open to no stranger: what every cache, checkpoint and record is written with.

Whoever can write to a file or folder decides what is read there: that is at most the owner and the group.
"""

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import platformdirs

from melcnn.errors import InputError


def check_writable(path: Path) -> None:
    """Raises `InputError` if `write_whole` could not write `path`: asked before hours of work, not after."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file")
    try:
        probe = path.with_name(f".{path.name}.probe")  # beside it, as the file itself will first be written
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): choose another file") from None


# The most that a file may allow, less what the mask forbids: an open mask must not open a cache to everybody.
FILE_MODE = 0o664
FOLDER_MODE = 0o775


def opener(path: str, flags: int) -> int:
    """For `open(..., opener=opener)`: a new file that not everybody can write to."""
    return os.open(path, flags, FILE_MODE)


def open_file(path: Path) -> BinaryIO:
    """Opens a file to read it. Raises OSError as the file system does, and for a pipe or a device, whose end nobody
    may ever see."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # Of a folder the system says itself what it is.
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.open("rb")


def make_folder(path: Path) -> None:
    """Makes the folder `path` and those above it where they are missing, none of them for everybody to write to.

    Raises OSError as the file system does.
    """
    for folder in reversed([path, *path.parents]):
        folder.mkdir(FOLDER_MODE, exist_ok=True)


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Gives `write` a temporary file beside `path`, then renames it to `path` once it is on the disk.

    A kill at any moment leaves the old file or the new one, and at most a `.tmp` file that nobody reads.
    Raises OSError as the file system does; then nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb", opener=opener) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The rename must reach the disk too; not every system lets a folder be opened for that.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def cache_folder() -> Path:
    """`MELBENCH_CACHE` if set, else the user's cache folder for melbench."""
    return Path(os.environ.get("MELBENCH_CACHE") or platformdirs.user_cache_dir("melbench"))


# The longest record of Speech Commands, of all 35 words, has 8 MB: 20,986 clips with 35 logits of eleven characters.
MAX_JSON_BYTES = 2**26
# Of an object: the largest of ours name a dozen packages or forty settings.
MAX_JSON_KEYS = 1000
# A whole number of more is no count of anything, and floating point could not hold it.
MAX_JSON_DIGITS = 18


def read_json(path: Path) -> object:
    """What the JSON file holds.

    Raises OSError as the file system does and for what is no regular file, and ValueError for what is no whole JSON,
    too large, nested too deeply, with half a character (a lone surrogate), or with numbers or objects beyond the
    limits.
    """
    with open_file(path) as file:
        content = file.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"longer than {MAX_JSON_BYTES:,} bytes")
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
    if len(digits) > MAX_JSON_DIGITS:
        raise ValueError(f"a number of more than {MAX_JSON_DIGITS} digits")
    return int(digits)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(pairs) > MAX_JSON_KEYS:
        raise ValueError(f"an object of more than {MAX_JSON_KEYS} keys")
    found = dict(pairs)
    if len(found) < len(pairs):  # Of which others would read another one.
        raise ValueError("an object with a key twice")
    return found
