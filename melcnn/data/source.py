"""Files of a data set in a folder or a tar archive, read in one pass; nothing is ever extracted here."""

import bz2
import gzip
import hashlib
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from melcnn.data.audio import SUFFIXES
from melcnn.errors import InputError

LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
NOISE = "_background_noise_"


def members(source: Path, folders: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The split lists, and the audio files directly in `folders`: `(list name or folder/file, content)`.

    In an archive the word folders may lie at any depth. Raises `InputError` for a source that is missing,
    cannot be read whole, holds members that point outside or two files of one name, or has no such folder.
    """
    seen: set[str] = set()
    given: set[str] = set()

    def wanted(parts: tuple[str, ...]) -> str | None:
        if not parts or parts[-1].startswith("."):
            return None
        if parts[-1] in LISTS.values():
            return parts[-1]
        if len(parts) < 2 or not parts[-1].lower().endswith(SUFFIXES):
            return None
        seen.add(parts[-2])
        return printable("/".join(parts[-2:])) if parts[-2] in folders else None

    try:
        for name, read in _files(source, wanted):
            if name in given:
                raise InputError(f"{source} holds {name} more than once: keep one of them")
            given.add(name)
            yield name, read()
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{source} does not exist: give a folder of word folders, or an archive of one") from None
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{source} cannot be read as a folder or a whole tar archive ({reason}): check or fetch it again"
        ) from None
    known = sorted(folder for folder in seen if not folder.startswith("_"))
    if not known:
        raise InputError(f"{source} holds no word folder with audio files: expected word/clip.wav")
    for folder in folders:
        if folder not in seen and folder != NOISE:
            meant = f" (did you mean {folder.lower()!r}?)" if folder.lower() in known else ""
            raise InputError(f"the word {folder!r} is not in {source}: it has {', '.join(known)}{meant}")


def printable(name: str) -> str:
    """`name` as text that can be printed and stored: bytes of a file name that are not UTF-8 are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


Wanted = Callable[[tuple[str, ...]], str | None]


def _files(source: Path, wanted: Wanted) -> Iterator[tuple[str, Callable[[], bytes]]]:
    if source.is_dir():
        for path in sorted([*source.glob("*"), *source.glob("*/*")]):
            if (name := wanted(path.relative_to(source).parts)) and path.is_file():
                yield name, path.read_bytes
        return
    with source.open("rb") as raw:
        stream = _Stream(_decompressed(raw))
        # A stream is read once from front to back, which is what a compressed archive is good at.
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                _check_inside(source, member)
                name = wanted(PurePosixPath(member.name).parts) if member.isfile() else None
                if name:
                    yield name, lambda member=member: archive.extractfile(member).read()
            stream.check_end(archive.offset)


def _decompressed(raw: BinaryIO) -> BinaryIO:
    magic = raw.read(6)
    raw.seek(0)
    for start, module in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ", lzma)):
        if magic.startswith(start):
            return module.open(raw)
    return raw


class _Stream:
    """A byte stream for tarfile, which takes any damaged header for the end of the archive: `check_end` tells."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.position = 0
        self.recent = b""

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.position += len(data)
        self.recent = (self.recent + data)[-4 * tarfile.RECORDSIZE :]
        return data

    def check_end(self, offset: int) -> None:
        """Reads the rest, by which checksums of the compression are checked too. Raises `EOFError` unless
        from `offset` on there are only the zeros that end an archive."""
        behind = self.recent[len(self.recent) - (self.position - offset) :] if self.position > offset else b""
        ended = len(behind) >= tarfile.BLOCKSIZE and not any(behind)
        while rest := self.stream.read(1 << 20):
            ended = ended and not any(rest)
        if not ended:
            raise EOFError("it is damaged or ends too early")


def content_hash(source: Path, folders: Sequence[str]) -> str:
    """A hash of what `source` holds: of an archive the file's bytes, of a folder the files that are used."""
    digest = hashlib.sha256()
    if source.is_file():
        return file_sha256(source)
    for name, content in members(source, folders):
        digest.update(f"{name}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises `InputError` if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
    return digest.hexdigest()


def _check_inside(source: Path, member: tarfile.TarInfo) -> None:
    """An honest data set holds files and folders under its own root; anything else says what the file is."""
    names = [member.name] + [member.linkname] * (member.issym() or member.islnk())
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(
                f"{source} has a member that points outside, {name!r}: this is no data set; do not unpack it either"
            )
