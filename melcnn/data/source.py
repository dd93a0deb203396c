"""Files of a data set in a folder or a tar archive, read in one pass; nothing is ever extracted here."""

import hashlib
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from melcnn.data.audio import SUFFIXES
from melcnn.errors import InputError

LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
NOISE = "_background_noise_"


def members(source: Path, folders: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The split lists, and the audio files directly in `folders`: `(list name or folder/file, content)`.

    In an archive the word folders may lie at any depth. Raises `InputError` for a source that is missing,
    cannot be read, holds members that point outside, or has no such folder.
    """
    seen: set[str] = set()

    def wanted(parts: tuple[str, ...]) -> str | None:
        if not parts or parts[-1].startswith("."):
            return None
        if parts[-1] in LISTS.values():
            return parts[-1]
        if len(parts) < 2 or not parts[-1].lower().endswith(SUFFIXES):
            return None
        seen.add(parts[-2])
        return "/".join(parts[-2:]) if parts[-2] in folders else None

    if not source.exists():
        raise InputError(f"{source} does not exist: give a folder of word folders, or an archive of one")
    try:
        if source.is_dir():
            for path in sorted([*source.glob("*"), *source.glob("*/*")]):
                name = wanted(path.relative_to(source).parts)
                if name and path.is_file():
                    yield name, path.read_bytes()
        else:
            # A stream is read once from front to back, which is what a compressed archive is good at.
            with tarfile.open(source, "r|*") as archive:
                for member in archive:
                    _check_inside(source, member)
                    name = wanted(PurePosixPath(member.name).parts) if member.isfile() else None
                    if name:
                        yield name, archive.extractfile(member).read()
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{source} cannot be read as a folder or a whole tar archive ({reason}): check or fetch it again"
        ) from None
    known = sorted(folder for folder in seen if not folder.startswith("_"))
    if not known:
        raise InputError(f"{source} holds no word folder with audio files: expected word/clip.wav")
    for folder in folders:
        if folder not in seen and folder != NOISE:
            raise InputError(f"the word {folder!r} is not in {source}: it has {', '.join(known)}")


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
