"""The files of a data set in a folder or a tar archive, read in one pass; nothing is ever extracted to the disk.

Anybody may have made an archive: its headers cannot lead outside, and sizes stay within limits.
"""

import bz2
import functools
import gzip
import hashlib
import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from melcnn.data.audio import MAX_BYTES, SUFFIXES
from melcnn.errors import InputError, visible

LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
NOISE = "_background_noise_"

# Speech Commands has a tenth of it. The header of each member is read, and takes time.
MAX_MEMBERS = 1_000_000
# An extended header, such as a long name, is read at once. A path of Linux has at most 4096 bytes.
MAX_HEADER_BYTES = 2**20
# An archive may unpack to this many times its own size. Recordings shrink to a half or a third; an archive that shrinks
# to a hundredth is made to fill a memory. A small archive may shrink more, as it fills none.
MAX_EXPANSION = 100
SMALL_BYTES = 2**26

# The exceptions that the libraries raise for a damaged archive, or one that is made to look damaged.
DAMAGED = (
    OSError,
    EOFError,
    ArithmeticError,
    LookupError,
    RecursionError,
    ValueError,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
)


def members(source: Path, folders: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the split lists, and the audio files directly in `folders`: `(list name or folder/file, content)`.

    In an archive the word folders may lie at any depth.

    Raises:
        InputError: for a source that is missing, cannot be read whole, exceeds our limits, lacks one of the folders, or
            holds members that point outside, links in place of files, or two files of one name.
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
        # The name of the folder must equal the word.
        return f"{parts[-2]}/{printable(parts[-1])}" if parts[-2] in folders else None

    with _readable(source):
        for name, read in _files(source, wanted):
            if name in given:
                raise InputError(f"{source} holds {name} more than once: keep one of them")
            given.add(name)
            yield name, read()
    known = sorted(folder for folder in seen if not folder.startswith("_"))
    if not known:
        raise InputError(_NO_WORDS.format(source))
    for folder in folders:
        if folder not in seen and folder != NOISE:
            meant = f" (did you mean {folder.lower()!r}?)" if folder.lower() in known else ""
            raise InputError(f"the word {folder!r} is not in {source}: it has {', '.join(known)}{meant}")


def word_counts(source: Path) -> dict[str, int]:
    """Return the words of a folder or an archive, sorted, with the number of audio files of each.

    Raises:
        InputError: as `members` does.
    """

    def wanted(parts: tuple[str, ...]) -> str | None:
        is_clip = len(parts) >= 2 and not parts[-1].startswith(".") and parts[-1].lower().endswith(SUFFIXES)
        return "/".join(parts[-2:]) if is_clip and not parts[-2].startswith("_") else None

    with _readable(source):
        found = Counter(name.partition("/")[0] for name, _ in _files(source, wanted))
    if not found:
        raise InputError(_NO_WORDS.format(source))
    return dict(sorted(found.items()))


_NO_WORDS = "{} holds no word folder with audio files: expected word/clip.wav"


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    """Raise `InputError` for whatever keeps a source from being read whole."""
    try:
        yield
    except InputError:
        raise
    except _Sparse:
        raise InputError(f"{source} holds a sparse file, which is not read: pack it without tar --sparse") from None
    except FileNotFoundError:
        raise InputError(f"{source} does not exist: give a folder of word folders, or an archive of one") from None
    except DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{source} cannot be read as a folder or a whole tar archive ({reason}): check or fetch it again"
        ) from None


def printable(name: str) -> str:
    """Return a file name as text that can be printed and stored: bytes that are not UTF-8 and controls are escaped."""
    return visible(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


Wanted = Callable[[tuple[str, ...]], str | None]


def _files(source: Path, wanted: Wanted) -> Iterator[tuple[str, Callable[[], bytes]]]:
    if source.is_dir():
        for path in sorted([*source.glob("*"), *source.glob("*/*")]):
            if (name := wanted(path.relative_to(source).parts)) and path.is_file():
                _check_size(source, name, path.stat().st_size)
                yield name, path.read_bytes
        return
    with source.open("rb") as raw:
        limit = max(SMALL_BYTES, MAX_EXPANSION * source.stat().st_size)
        stream = _Stream(_decompressed(raw), source, limit)
        # Mode "r|" reads once from front to back, because going back in a compressed archive is slow. It calls nothing
        # but `read`, whereas typeshed wants a whole file.
        with tarfile.open(mode="r|", fileobj=stream, tarinfo=_Member) as archive:  # type: ignore[call-overload]
            number = 0
            while (member := archive.next()) is not None:
                archive.members.clear()  # tarfile keeps them for going back, and they would fill the memory.
                if (number := number + 1) > MAX_MEMBERS:
                    raise InputError(f"{source} has more than {MAX_MEMBERS:,} members: give a part of it")
                _check_inside(source, member)
                if member.issparse():
                    raise _Sparse
                name = None if member.isdir() else wanted(PurePosixPath(member.name).parts)
                if name:
                    if not member.isfile():
                        raise InputError(
                            f"{source} holds {name} as a link, which is not followed: pack it with "
                            "tar --dereference --hard-dereference"
                        )
                    _check_size(source, name, member.size)
                    yield name, functools.partial(_content, archive, member)
            stream.check_end(archive.offset)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None  # It is a regular file.
    return file.read()


def _check_size(source: Path, name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise InputError(
            f"{source} holds {name} of {size:,} bytes, and a recording has at most {MAX_BYTES:,}: cut it into words"
        )


class _Sparse(Exception):
    """A sparse file, which an archive stores without its holes.

    tarfile makes hundreds of megabytes of one header, uncounted, and reads a map of any length even to skip the file.
    """


class _Member(tarfile.TarInfo):
    """A header of a member; sizes that no honest header has are refused."""

    def _proc_gnusparse_10(self, *_: object) -> None:
        # This private method of tarfile reads the map, and tarfile calls no public method before it.
        raise _Sparse

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise _Sparse
        extends = member.type in (
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        )
        if member.size < 0 or (extends and member.size > MAX_HEADER_BYTES):
            raise ValueError(f"a header says a size of {member.size} bytes")
        return member


def _decompressed(raw: BinaryIO) -> BinaryIO:
    magic = raw.read(6)
    raw.seek(0)
    for start, module in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ", lzma)):
        if magic.startswith(start):
            return module.open(raw)
    return raw


class _Stream:
    """A byte stream for tarfile, which takes any damaged header for the end of the archive; `check_end` finds that out.

    Raises:
        InputError: for more than `limit` bytes, because an archive can be made to unpack without end.
    """

    def __init__(self, stream: BinaryIO, source: Path, limit: int) -> None:
        self.stream = stream
        self.source = source
        self.limit = limit
        self.position = 0
        self.recent = b""
        self.ended = 0

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self._count(len(data))
        self.recent = (self.recent + data)[-4 * tarfile.RECORDSIZE :]
        # To skip a member with an impossible size, tarfile would read on for ever.
        self.ended += not data
        if self.ended > 2:
            raise EOFError("it ends too early")
        return data

    def _count(self, size: int) -> None:
        self.position += size
        if self.position > self.limit:
            raise InputError(
                f"{self.source} unpacks to more than {MAX_EXPANSION} times its size, as no recordings do: do not "
                "unpack it either"
            )

    def check_end(self, offset: int) -> None:
        """Read the rest, which also checks the checksums of the compression.

        Raises:
            EOFError: unless there are only the zeros that end an archive from `offset` on.
        """
        rest = self.recent[len(self.recent) - (self.position - offset) :] if self.position > offset else b""
        ended = len(rest) >= tarfile.BLOCKSIZE and not any(rest)
        while rest := self.stream.read(1 << 20):
            self._count(len(rest))
            ended = ended and not any(rest)
        if not ended:
            raise EOFError("it is damaged or ends too early")


def content_hash(source: Path, folders: Sequence[str]) -> str:
    """Return a hash of `source`: of the bytes of an archive, or of the files in a folder that are used."""
    digest = hashlib.sha256()
    if source.is_file():
        return file_sha256(source)
    for name, content in members(source, folders):
        digest.update(f"{name}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        InputError: if it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
    return digest.hexdigest()


def _check_inside(source: Path, member: tarfile.TarInfo) -> None:
    """Raise `InputError` for a member outside the archive's root and for a device: no data set has such members."""
    names = [member.name] + [member.linkname] * (member.issym() or member.islnk())
    for name in names:
        # Also as Windows reads it, where backslashes and drives have a meaning.
        if any(".." in path.parts or path.anchor for path in (PurePosixPath(name), PureWindowsPath(name))):
            raise InputError(
                f"{source} has a member that points outside, {name!r}: this is no data set; do not unpack it either"
            )
    if member.isdev():
        raise InputError(
            f"{source} has a device or a pipe as a member, {member.name!r}: this is no data set; do not unpack it "
            "either"
        )
