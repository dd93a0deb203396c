"""Speech Commands (arXiv:1804.03209) from a folder or an archive in the official layout.

The layout: `word/speaker_nohash_k.wav`, `validation_list.txt`, `testing_list.txt`, `_background_noise_/`.
"""

import hashlib
import io
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from melcnn.config import check_words
from melcnn.data.clips import Clip, ClipSet, assemble, cached
from melcnn.errors import InputError

SAMPLE_RATE = 16_000
SAMPLES = 16_000
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}

# The data set's rule for a file's split: its hash in 0 to 100 %, the first 10 validation, the next 10 test.
MAX_NUM_WAVS_PER_CLASS = 2**27 - 1
VALIDATION_PERCENTAGE = 10
TESTING_PERCENTAGE = 10

Warn = Callable[[str], None]


def load_clips(source: str | Path, words: Sequence[str] = ("yes", "no"), warn: Warn = lambda text: None) -> ClipSet:
    """All clips of `words` in `source`, a folder or a tar archive, with the official splits.

    Splits come from the official lists; where these are missing, from the data set's published hash rule.
    Decoded clips are cached by content. `warn` receives one-line notices.

    Raises `InputError`: source missing, unreadable or without such words, fewer than two words, a word
    with no clip in a split, a clip that is not 16 kHz audio.
    """
    source = Path(source)
    words = tuple(words)
    check_words(words)
    key = f"speech_commands\n{words}\n{_content(source, words)}"
    return cached(key, lambda: _decode_all(source, words, warn), warn)


def which_split(name: str) -> str:
    """The data set's published rule (its README, and section 7.2 of the paper): a hash of the speaker decides.

    All of a speaker's files fall into one split, whatever files are added later.
    """
    speaker = re.sub(r"_nohash_.*$", "", PurePosixPath(name).name)
    digest = int(hashlib.sha1(speaker.encode()).hexdigest(), 16)
    percentage = (digest % (MAX_NUM_WAVS_PER_CLASS + 1)) * (100.0 / MAX_NUM_WAVS_PER_CLASS)
    if percentage < VALIDATION_PERCENTAGE:
        return "validation"
    if percentage < VALIDATION_PERCENTAGE + TESTING_PERCENTAGE:
        return "test"
    return "train"


def _decode_all(source: Path, words: tuple[str, ...], warn: Warn) -> ClipSet:
    waveforms: dict[str, np.ndarray] = {}
    lists: dict[str, frozenset[str]] = {}
    for name, content in _members(source, words):
        if name in LISTS.values():
            lists[name] = frozenset(content.decode(errors="replace").split())
        else:
            waveforms[name] = _decode(name, content)
    if len(lists) == len(LISTS):

        def split_of(name: str) -> str:
            return next((split for split, file in LISTS.items() if name in lists[file]), "train")
    else:
        missing = ", ".join(sorted(set(LISTS.values()) - set(lists)))
        warn(f"{source} has no {missing}: splits follow the data set's hash rule")
        split_of = which_split
    clips = [
        Clip(
            name=name,
            word=name.split("/")[0],
            speaker=re.sub(r"_nohash_.*$", "", name.split("/")[1]),
            split=split_of(name),
            waveform=waveform,
        )
        for name, waveform in waveforms.items()
    ]
    return assemble("speech_commands", words, SAMPLE_RATE, SAMPLES, clips)


def _decode(name: str, content: bytes) -> np.ndarray:
    import soundfile

    try:
        waveform, rate = soundfile.read(io.BytesIO(content), dtype="int16", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{name} is no audio that can be read ({error.error_string}): replace or remove it") from None
    if rate != SAMPLE_RATE or waveform.shape[1] != 1:
        raise InputError(
            f"{name} has {rate} Hz and {waveform.shape[1]} channel(s), expected {SAMPLE_RATE} Hz mono: convert it"
        )
    if not len(waveform):
        raise InputError(f"{name} is empty: replace or remove it")
    return waveform[:, 0]


def _members(source: Path, words: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """The lists and the clips of `words` in `source`, as `(word/file.wav or list name, content)`.

    Raises `InputError` for a source that cannot be read or lacks a word.
    """
    folders: set[str] = set()

    def wanted(parts: tuple[str, ...]) -> str | None:
        if parts[-1] in LISTS.values():
            return parts[-1]
        if len(parts) < 2 or not parts[-1].lower().endswith(".wav") or parts[-1].startswith("."):
            return None
        folders.add(parts[-2])
        return "/".join(parts[-2:]) if parts[-2] in words else None

    try:
        if source.is_dir():
            for path in sorted([*source.glob("*"), *source.glob("*/*")]):
                name = wanted(path.relative_to(source).parts)
                if name and path.is_file():
                    yield name, path.read_bytes()
        else:
            # A stream is read once from front to back; nothing is extracted, so no member can land anywhere.
            with tarfile.open(source, "r|*") as archive:
                for member in archive:
                    name = wanted(PurePosixPath(member.name).parts or ("",)) if member.isfile() else None
                    if name:
                        yield name, archive.extractfile(member).read()
    except (OSError, EOFError, tarfile.TarError) as error:
        if not source.exists():
            raise InputError(f"{source} does not exist: give a Speech Commands folder or archive") from None
        raise InputError(
            f"{source} cannot be read as a folder or a tar archive ({error}): check or fetch it again"
        ) from None
    known = sorted(folder for folder in folders if not folder.startswith("_"))
    if not known:
        raise InputError(f"{source} holds no word/*.wav: expected a folder or archive in the layout of Speech Commands")
    for word in words:
        if word not in known:
            raise InputError(f"the word {word!r} is not in {source}: it has {', '.join(known)}")


def _content(source: Path, words: tuple[str, ...]) -> str:
    """A hash of what `source` holds: of an archive the file's bytes, of a folder the files that are used."""
    digest = hashlib.sha256()
    if source.is_file():
        try:
            with source.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        except OSError as error:
            raise InputError(f"{source} cannot be read ({error.strerror}): check its permissions") from None
    else:
        for name, content in _members(source, words):
            digest.update(f"{name}\n{len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()
