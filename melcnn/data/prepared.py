"""Speech Commands, prepared once for `--data auto`: the chosen words, the split lists and the noise."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from melcnn import locking
from melcnn.data.download import SPEECH_COMMANDS, fetch
from melcnn.data.source import LISTS, NOISE, members, printable
from melcnn.errors import InputError
from melcnn.files import FOLDER_MODE, cache_folder, make_folder, opener

# A file beside the prepared words that names their source.
ORIGIN = ".origin"


def folder() -> Path:
    """Return the folder of prepared speech, which may not exist yet."""
    return cache_folder() / "speech_commands"


def words() -> list[str]:
    """Return the words that are prepared."""
    return sorted(path.name for path in folder().glob("[!._]*") if path.is_dir())


def check_words(wanted: Sequence[str]) -> None:
    """Raise `InputError`, with the command that helps, for words that are not prepared."""
    if missing := [word for word in wanted if word not in words()]:
        raise InputError(
            f"the word {missing[0]!r} is not prepared (prepared are {', '.join(words())}): run "
            f"'melbench data prepare --words {','.join(wanted)}', or give --data"
        )


def prepare(
    source: Path | None, wanted: Sequence[str], progress: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Prepare the `wanted` words of Speech Commands beside those already prepared, and return the folder.

    The folder of a word is there whole or not at all.

    Args:
        source: a folder or archive in the official layout; None: the official archive, which is downloaded and kept, so
            that more words need no second download.
        progress: called with the bytes done and the bytes in all.

    Raises:
        InputError: for a source that cannot be read, lacks a word or the lists, or is not the source of the prepared
            words; for a download that fails or is not the official file; and while another process prepares.
    """
    home = folder()
    origin = "the official archive" if source is None else printable(str(source.resolve()))
    try:
        make_folder(home.parent)
        with locking.held(home.parent, "set MELBENCH_CACHE to another folder"):
            _check_origin(home, origin)
            for left in home.parent.glob(".prepare-*"):  # Left by a killed run: a living one would hold the lock.
                shutil.rmtree(left, ignore_errors=True)
            if source is None:
                source = fetch(SPEECH_COMMANDS, home.parent, progress)
            _renew(home, source, wanted, origin)
    except OSError as error:
        raise InputError(
            f"{home} cannot be written ({error.strerror}): set MELBENCH_CACHE to a folder that can"
        ) from None
    return home


def _renew(home: Path, source: Path, wanted: Sequence[str], origin: str) -> None:
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".prepare-") as temporary:
        _copy(source, (*wanted, NOISE), Path(temporary))
        make_folder(home)
        _write(home / ORIGIN, origin.encode())
        for item in sorted(Path(temporary).iterdir(), key=lambda path: path.is_dir()):
            target = home / item.name
            if target.is_dir():
                # Moved aside first: a kill leaves the word missing, never half old and half new.
                shutil.rmtree(target.rename(Path(temporary) / f".old-{item.name}"))
            item.replace(target)


def _check_origin(home: Path, origin: str) -> None:
    """Raise `InputError` if the prepared words have another origin: words of two sources are not one data set."""
    before = (home / ORIGIN).read_text("utf-8", "replace") if (home / ORIGIN).exists() else origin
    if before != origin:
        raise InputError(
            f"{home} was prepared from {before}, not from {origin}: remove that folder to start anew, or give --data"
        )


def _copy(source: Path, folders: Sequence[str], target: Path) -> None:
    found: set[str] = set()
    for name, content in members(source, folders):
        path = target / name
        path.parent.mkdir(FOLDER_MODE, exist_ok=True)
        _write(path, content)
        found.add(name)
    if missing := set(LISTS.values()) - found:
        raise InputError(
            f"{source} has no {', '.join(sorted(missing))}: prepare takes Speech Commands in its official layout; "
            "give your own recordings with --data each time"
        )


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb", opener=opener) as file:
        file.write(content)
