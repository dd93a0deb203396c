"""Lock a folder for one process; the system releases the lock when its holder ends, however that ends."""

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from melcnn.errors import InputError
from melcnn.files import FILE_MODE

log = logging.getLogger(__name__)

NAME = ".melbench.lock"
# A process that is just ending, or was just killed, is waited for.
PATIENCE_SECONDS = 1.0
# The errors of file systems without locks, such as some network file systems.
LOCKS_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
# Read from a lock file to name its holder; anybody may have written the file.
MAX_HOLDER_BYTES = 200


@contextmanager
def held(folder: Path, otherwise: str) -> Iterator[None]:
    """Hold `folder`, which must exist, against other processes. Where the file system has no locks, log a warning.

    Args:
        otherwise: what a person can do instead of waiting, for the error message.

    Raises:
        InputError: if another process holds the folder (the message says which), or no file can be written in it.
    """
    path = folder / NAME
    own: list[os.stat_result] = []

    def sign(descriptor: int) -> None:
        own.append(os.fstat(descriptor))
        now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        with suppress(OSError):  # On a full disk the folder is locked all the same.
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode())
        with suppress(OSError):  # Only the owner of a file can change its mode.
            path.chmod(own[0].st_mode & FILE_MODE)

    # Not of the thread but of the process: another thread may release it.
    lock = FileLock(path, timeout=PATIENCE_SECONDS, thread_local=False, on_acquired=sign)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{folder} is in use by {_holder(path)}: wait until that has ended, or {otherwise}") from None
    except OSError as error:
        if error.errno not in LOCKS_UNSUPPORTED:
            raise InputError(f"{folder} cannot be locked ({error.strerror}): {otherwise}") from None
        log.warning(f"{folder} cannot be locked ({error.strerror}): run nothing else in it meanwhile")
    try:
        yield
    finally:
        if lock.is_locked:
            # Removed before the release, and only if it is our own file: a process that has opened it meanwhile finds
            # it gone and makes a new one.
            with suppress(OSError):
                if os.path.samestat(path.stat(), own[0]):
                    path.unlink()
            lock.release()


def _holder(path: Path) -> str:
    try:
        with path.open("rb") as file:
            holder = file.read(MAX_HOLDER_BYTES).decode(errors="replace").strip()
    except OSError:
        holder = ""
    return holder or "another process"
