"""One file from the web: resumed where it broke off, verified before anybody opens it."""

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

# A server that sends nothing for this long is taken for gone.
TIMEOUT_S = 30
# Tries that bring no byte before we give up, and the pause between tries.
FRUITLESS_TRIES = 4
PAUSE_S = 1.0
CHUNK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file that we know before we fetch it."""

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
    """The verified file in `folder`; a download that was broken off, now or in an earlier call, goes on.

    What has come lies in a `.part` file, which is renamed only once size and SHA-256 are right. progress:
    hears bytes done and bytes in all. Raises `InputError` if the server cannot be reached, breaks off again
    and again, or sends another file (which is then removed).
    """
    target = folder / file.name
    if target.exists():
        if target.stat().st_size == file.size and file_sha256(target) == file.sha256:
            return target
        target.unlink()
    part = folder / f"{file.name}.part"
    fruitless, reason = 0, ""
    while (done := part.stat().st_size if part.exists() else 0) < file.size:
        if fruitless == FRUITLESS_TRIES:
            raise InputError(
                f"{file.url} cannot be fetched ({reason}); {done} of {file.size} bytes are kept: run the same command "
                "to go on, or fetch it by other means and give it with --data"
            )
        if fruitless:
            pause(PAUSE_S * 2 ** (fruitless - 1))
        try:
            _receive(file, part, done, progress)
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", None) or error or type(error).__name__)
        after = part.stat().st_size if part.exists() else 0
        fruitless = 0 if after > done else fruitless + 1
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
    """Appends to `part` what the server sends from byte `done` on, at most up to the size we expect."""
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={done}-"} if done else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if done and not resumed:
            done = 0  # This server always starts from the beginning, and so do we.
        with open(part, "ab" if done else "wb", opener=opener) as out:
            # read1 gives what has come; read would drop it where the server stalls before a whole chunk.
            while done <= file.size and (chunk := response.read1(CHUNK)):
                out.write(chunk)
                done += len(chunk)
                progress(min(done, file.size), file.size)
