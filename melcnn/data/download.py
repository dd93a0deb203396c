"""Download a file: resume where it broke off, and verify it before anybody opens it."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from melcnn.data.source import file_sha256
from melcnn.errors import InputError
from melcnn.files import opener

# A server that sends nothing for this long counts as lost.
TIMEOUT_S = 30
# Consecutive tries without a new byte before we give up, and the first pause between tries.
MAX_FAILED_TRIES = 4
PAUSE_S = 1.0
CHUNK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file whose size and checksum are known before it is fetched."""

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]


# Address, size and checksum of the official archive, as TensorFlow Datasets lists them.
SPEECH_COMMANDS = RemoteFile(
    url="https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
    size=2_428_923_189,
    sha256="af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
)


def fetch(
    file: RemoteFile,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """Download a file to `folder`, verify it, and return its path.

    An interrupted download, of this call or an earlier one, is resumed. Received bytes are in a `.part` file, which is
    renamed only once size and SHA-256 are right.

    Args:
        progress: called with the bytes done and the bytes in all.

    Raises:
        InputError: if the server cannot be reached, breaks off repeatedly, or sends another file (which is removed).
    """
    target = folder / file.name
    if target.exists():
        if target.stat().st_size == file.size and file_sha256(target) == file.sha256:
            return target
        target.unlink()
    part = folder / f"{file.name}.part"
    failed, reason = 0, ""
    while (done := part.stat().st_size if part.exists() else 0) < file.size:
        if failed == MAX_FAILED_TRIES:
            raise InputError(
                f"{file.url} cannot be fetched ({reason}); {done} of {file.size} bytes are kept: run the same command "
                "to go on, or fetch it by other means and give it with --data"
            )
        if failed:
            pause(PAUSE_S * 2 ** (failed - 1))
        try:
            _receive(file, part, done, progress)
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", None) or error or type(error).__name__)
        after = part.stat().st_size if part.exists() else 0
        failed = 0 if after > done else failed + 1
        reason = reason or "the server breaks off"
    if part.stat().st_size != file.size or file_sha256(part) != file.sha256:
        part.unlink()
        raise InputError(
            f"{file.url} sent another file than the official one (its SHA-256 is wrong) and what it sent was removed: "
            "fetch the archive by other means and give it with --data"
        )
    part.replace(target)
    return target


def _receive(file: RemoteFile, part: Path, done: int, progress: Callable[[int, int], None]) -> None:
    """Append the bytes that the server sends from byte `done` on to `part`, at most up to the expected size."""
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={done}-"} if done else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if done and not resumed:
            done = 0  # This server always starts from the beginning.
        with open(part, "ab" if done else "wb", opener=opener) as out:
            # read1 returns the bytes received so far; read would lose them if the server stalls within a chunk.
            while done <= file.size and (chunk := response.read1(CHUNK)):
                out.write(chunk)
                done += len(chunk)
                progress(min(done, file.size), file.size)
