"""Files of caches, checkpoints and records: written whole or not at all, writable by owner and group at most.

A person who can write to a file or folder decides what is read from it, so no one else may.
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
    """Raise `InputError` if `write_whole` could not write `path`: checked before hours of work, not after."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file")
    try:
        probe = path.with_name(f".{path.name}.probe")  # beside it, as the file itself will first be written
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): choose another file") from None


# The widest modes, less what the umask forbids: an open umask must not open a cache to everybody.
FILE_MODE = 0o664
FOLDER_MODE = 0o775


def opener(path: str, flags: int) -> int:
    """Open a new file that not everybody can write to, for `open(..., opener=opener)`."""
    return os.open(path, flags, FILE_MODE)


def open_file(path: Path) -> BinaryIO:
    """Open a file to read it.

    Raises:
        OSError: as the file system does, and for a pipe or a device, which may never end.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # For a folder the system's own error is clear.
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.open("rb")


def make_folder(path: Path) -> None:
    """Make the folder `path` and its parents where they are missing, none of them writable by everybody."""
    for folder in reversed([path, *path.parents]):
        folder.mkdir(FOLDER_MODE, exist_ok=True)


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a temporary file beside `path` by `write`, and rename it to `path` once it is on the disk.

    A kill at any moment leaves the old file or the new one, and at most a `.tmp` file that is never read.

    Raises:
        OSError: as the file system does; then nothing is left behind.
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
    """Return the folder that `MELBENCH_CACHE` names, else the user's cache folder for melbench."""
    return Path(os.environ.get("MELBENCH_CACHE") or platformdirs.user_cache_dir("melbench"))


# The longest record, of all 35 words of Speech Commands, has 8 MB: 20,986 clips with 35 logits of eleven characters.
MAX_JSON_BYTES = 2**26
# Our largest objects name a dozen packages or forty settings.
MAX_JSON_KEYS = 1000
# No count of ours is longer, and floating point could not hold it.
MAX_JSON_DIGITS = 18


def read_json(path: Path) -> object:
    """Return the content of a JSON file.

    Raises:
        OSError: as the file system does, and for anything but a regular file.
        ValueError: for JSON that is not whole, too large, nested too deeply, with half a character (a lone surrogate),
            or with numbers or objects beyond the limits.
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
    except UnicodeEncodeError:  # A lone surrogate can be read from an escape, but not be written.
        raise ValueError("half a character") from None


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_JSON_DIGITS:
        raise ValueError(f"a number of more than {MAX_JSON_DIGITS} digits")
    return int(digits)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(pairs) > MAX_JSON_KEYS:
        raise ValueError(f"an object of more than {MAX_JSON_KEYS} keys")
    found = dict(pairs)
    if len(found) < len(pairs):  # Other readers might take the other value.
        raise ValueError("an object with a key twice")
    return found
