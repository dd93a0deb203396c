"""One process at a time in a folder: a lock that the system takes back when its holder ends, however that ends."""

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from melcnn.errors import InputError
from melcnn.files import FILE_MODE

NAME = ".melbench.lock"
# A process that is just ending, or was just killed, is waited for.
PATIENCE_SECONDS = 1.0
# What file systems say that know no locks; some of a network do not.
WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
# Of what a lock file says of its holder: anybody may have written it.
MOST_CHARACTERS = 200


@contextmanager
def held(folder: Path, otherwise: str) -> Iterator[None]:
    """A context in which no other process holds `folder`, which must exist. otherwise: what to do but wait.

    Raises `InputError`, which says who has it, if another one holds it, and if no file can be written in it. Where the
    file system knows no locks, a warning says so.
    """
    path = folder / NAME
    own: list[os.stat_result] = []

    def sign(descriptor: int) -> None:
        own.append(os.fstat(descriptor))
        now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        with suppress(OSError):  # On a full disk it is held all the same.
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode())
        with suppress(OSError):  # Of somebody else's file the mode is his.
            path.chmod(own[0].st_mode & FILE_MODE)

    # Of this process: the thread that lets go of it may be another.
    lock = FileLock(path, timeout=PATIENCE_SECONDS, thread_local=False, on_acquired=sign)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{folder} is in use by {_holder(path)}: wait until that has ended, or {otherwise}") from None
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise InputError(f"{folder} cannot be locked ({error.strerror}): {otherwise}") from None
        warnings.warn(f"{folder} cannot be locked ({error.strerror}): run nothing else in it meanwhile", stacklevel=2)
    try:
        yield
    finally:
        if lock.is_locked:
            # While it is held, and only the own file: who opened it meanwhile finds it gone, and makes another.
            with suppress(OSError):
                if os.path.samestat(path.stat(), own[0]):
                    path.unlink()
            lock.release()


def _holder(path: Path) -> str:
    try:
        with path.open("rb") as file:
            said = file.read(MOST_CHARACTERS).decode(errors="replace").strip()
    except OSError:
        said = ""
    return said or "another process"
