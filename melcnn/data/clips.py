"""The clip set, which holds all waveforms of an experiment in memory, and the cache of decoded clip sets."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from melcnn.config import Training
from melcnn.data.audio import loudest_stretch
from melcnn.errors import InputError, did_you_mean
from melcnn.files import cache_folder, make_folder, write_whole

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")

# Raise when clips are decoded or stored differently: older cache files are then ignored.
CACHE_VERSION = 4


@dataclass(frozen=True)
class Fold:
    """A fold of a cross-validation: `index` counts from 0, `of` is the number of folds."""

    index: int
    of: int

    def __str__(self) -> str:
        return f"fold {self.index + 1} of {self.of}"


@dataclass(frozen=True, eq=False)
class ClipSet:
    """Labelled clips, ordered by split, word and name, so that each split is one slice.

    Attributes:
        waveforms: int16 `(clips, samples)`, zero-padded at the end.
        labels: int64 `(clips,)`, indices into `words`.
        splits: int8 `(clips,)`, indices into `SPLITS`.
        names: the name of each clip, `word/file`.
        speakers: the speaker of each clip.
        lengths: int64 `(clips,)`, samples before padding or cutting.
        noise: int16 `(samples,)`, the data set's recordings of background noise one after another; may be empty.
        resampled, mixed_down: numbers of clips that had another rate, or several channels.
        left_out: files that gave no clip, each with its reason.
        remarks: one-line notices for users of these clips.
        fold: the fold of a cross-validation that this set is; None: it is the whole data set.
        whole: the fingerprint of the clip set that a fold was made from; empty if this is no fold.
    """

    dataset: str
    words: tuple[str, ...]
    sample_rate: int
    waveforms: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    names: np.ndarray
    speakers: np.ndarray
    lengths: np.ndarray
    noise: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int16))
    resampled: int = 0
    mixed_down: int = 0
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    fold: Fold | None = None
    whole: str = ""

    def __post_init__(self) -> None:
        if self.waveforms.dtype != np.int16 or self.waveforms.ndim != 2:
            raise InputError(
                f"waveforms of a clip set must be int16 (clips, samples), not {self.waveforms.dtype} "
                f"{self.waveforms.shape}: melcnn.data.audio.clips_of converts them"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        counts = ", ".join(f"{np.count_nonzero(self.splits == i)} {name}" for i, name in enumerate(SPLITS))
        return f"ClipSet({self.dataset!r}: {','.join(self.words)}, {counts}, {self.sample_rate} Hz)"

    def split(self, name: str) -> slice:
        """Return the clips of split `name` ("train", "validation" or "test").

        Raises:
            InputError: if there is no such split.
        """
        if name not in SPLITS:
            close = did_you_mean(name, SPLITS)
            raise InputError(f"there is no split {name!r}{close}: the splits are {', '.join(SPLITS)}")
        first, last = np.searchsorted(self.splits, [SPLITS.index(name), SPLITS.index(name) + 1])
        return slice(int(first), int(last))

    def check_splits(self) -> None:
        """Raise `InputError` if a word has no clip in a split."""
        present = {(int(label), int(split)) for label, split in zip(self.labels, self.splits, strict=True)}
        for label, word in enumerate(self.words):
            for number, split in enumerate(SPLITS):
                if (label, number) not in present:
                    raise InputError(
                        f"the word {word!r} has no clip in the {split} split: every word needs clips for "
                        "train, validation and test; add some or leave the word out"
                    )

    @property
    def corpus(self) -> str:
        """The fingerprint of the clip set before it was divided into folds."""
        return self.whole or self.fingerprint

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that a result can depend on except the noise; the path of the files is no part of it."""
        # The name that a fold had before there was the field `fold`: older records keep their identity.
        name = f"{self.dataset}, {self.fold}" if self.fold else self.dataset
        digest = hashlib.sha256(f"{name}\n{self.words}\n{self.sample_rate}\n".encode())
        digest.update("\n".join([*self.names, *self.speakers]).encode())
        for array in (self.labels, self.splits, self.waveforms):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def fingerprint_for(self, training: Training) -> str:
        """Return the fingerprint of the data that a training uses: with the noise only if it uses noise."""
        if not (training.noise and len(self.noise)):
            return self.fingerprint
        return hashlib.sha256(self.fingerprint.encode() + self.noise.tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Clip:
    """A decoded clip on its way into a `ClipSet`.

    Attributes:
        waveform: int16 `(samples,)`.
        length: the samples of the recording, if `waveform` is a stretch of it; None: `waveform` is the recording.
    """

    name: str
    word: str
    speaker: str
    split: str
    waveform: np.ndarray
    length: int | None = None


def assemble(dataset: str, words: Sequence[str], sample_rate: int, samples: int, clips: Sequence[Clip]) -> ClipSet:
    """Return a `ClipSet` of clips, each fitted to `samples` samples as by `audio.fit_length`."""
    words = tuple(words)
    ordered = sorted(clips, key=lambda c: (SPLITS.index(c.split), words.index(c.word), c.name))
    waveforms = np.zeros((len(ordered), samples), np.int16)
    for row, clip in zip(waveforms, ordered, strict=True):
        stretch = loudest_stretch(clip.waveform, samples)
        row[: len(stretch)] = stretch
    return ClipSet(
        dataset=dataset,
        words=words,
        sample_rate=sample_rate,
        waveforms=waveforms,
        labels=np.array([words.index(c.word) for c in ordered], np.int64),
        splits=np.array([SPLITS.index(c.split) for c in ordered], np.int8),
        names=np.array([c.name for c in ordered]),
        speakers=np.array([c.speaker for c in ordered]),
        lengths=np.array([len(c.waveform) if c.length is None else c.length for c in ordered], np.int64),
    )


def cached(key: str, make: Callable[[], ClipSet]) -> ClipSet:
    """Return the clip set stored under `key`; if there is none, return `make()` and store it.

    A damaged cache file is made again. A cache that cannot be written only causes a warning.
    """
    name = hashlib.sha256(f"{CACHE_VERSION}\n{key}".encode()).hexdigest()[:24]
    path = cache_folder() / f"clips-{name}.npz"
    if os.path.exists(path):
        try:
            return _read(path)
        except Exception:  # Damage can raise nearly any exception; in each case the file is of no use.
            log.warning(f"the cache file {path} is damaged and is made again")
    clips = make()
    try:
        make_folder(path.parent)
        _write(path, clips)
    except OSError as error:
        log.warning(f"the cache cannot be written ({error}); set MELBENCH_CACHE to a folder that can")
    return clips


def _write(path: Path, clips: ClipSet) -> None:
    # Folds are made from a clip set in memory and never cached.
    stored = [f.name for f in fields(clips) if f.name not in ("fold", "whole")]
    arrays: dict[str, Any] = {name: np.asarray(getattr(clips, name)) for name in stored}
    write_whole(path, lambda file: np.savez(file, fingerprint=np.asarray(clips.fingerprint), **arrays))


def _read(path: Path) -> ClipSet:
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    fingerprint = str(arrays.pop("fingerprint"))
    clips = ClipSet(
        **{
            **arrays,
            "dataset": str(arrays["dataset"]),
            **{name: tuple(map(str, arrays[name])) for name in ("words", "left_out", "remarks")},
            **{name: int(arrays[name]) for name in ("sample_rate", "resampled", "mixed_down")},
        }
    )
    if clips.fingerprint != fingerprint or not _in_shape(clips):
        raise ValueError("content does not match its fingerprint")
    return clips


def _in_shape(clips: ClipSet) -> bool:
    """Return whether the arrays have the shapes and types of a `ClipSet`, of which the fingerprint sees only bytes."""
    n = len(clips.labels)
    each = {"labels": np.int64, "splits": np.int8, "lengths": np.int64, "names": np.str_, "speakers": np.str_}
    return (
        all(getattr(clips, a).shape == (n,) and np.issubdtype(getattr(clips, a).dtype, t) for a, t in each.items())
        and (clips.waveforms.ndim, len(clips.waveforms), clips.noise.ndim) == (2, n, 1)
        and clips.waveforms.dtype == clips.noise.dtype == np.int16
    )
