"""Files that are whole or not there: what every cache, checkpoint and record is written with."""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

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


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Gives `write` a temporary file beside `path`, then renames it to `path` once it is on the disk.

    A kill at any moment leaves the old file or the new one, and at most a `.tmp` file that nobody reads.
    Raises OSError as the file system does; then nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
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
