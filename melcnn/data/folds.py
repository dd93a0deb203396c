"""Cross-validation on the clips outside the test split: folds of whole speakers."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from melcnn.data.clips import SPLITS, ClipSet, Fold
from melcnn.errors import InputError

FOLDS = 5


def fold_of(speakers: Sequence[str], folds: int = FOLDS) -> np.ndarray:
    """Return the fold of each clip `(clips,)`, from 0: all clips of a speaker are in one fold.

    The folds are about equal: each speaker, in the order of their hashes, joins the fold with the fewest clips so far.

    Raises:
        InputError: if there are too few speakers.
    """
    names, index, counts = np.unique(np.asarray(speakers), return_inverse=True, return_counts=True)
    if len(names) < folds:
        raise InputError(
            f"cross-validation needs clips of {folds} speakers or more outside the test split, there are {len(names)}: "
            "add recordings"
        )
    order = sorted(range(len(names)), key=lambda i: hashlib.sha1(str(names[i]).encode()).hexdigest())
    clips, chosen = np.zeros(folds, int), np.zeros(len(names), int)
    for speaker in order:
        chosen[speaker] = clips.argmin()
        clips[chosen[speaker]] += counts[speaker]
    return chosen[index]


def held_out(clips: ClipSet, fold: int, validated: bool, folds: int = FOLDS) -> ClipSet:
    """Return `clips` without their test split: fold `fold` of training and validation clips is the new test split.

    Args:
        validated: the training chooses its epoch by validation, so the next fold is the validation split, and training
            has one fold less; otherwise there is no validation split.

    Raises:
        InputError: if a word has no clip in a split.
    """
    end = clips.split("test").start
    folded = fold_of(clips.speakers[:end].tolist(), folds)
    splits = np.full(end, SPLITS.index("train"), np.int8)
    splits[folded == fold] = SPLITS.index("test")
    if validated:
        splits[folded == (fold + 1) % folds] = SPLITS.index("validation")
    for label, word in enumerate(clips.words):
        for split in ("train", "validation")[: 1 + validated]:
            if not (splits[clips.labels[:end] == label] == SPLITS.index(split)).any():
                raise InputError(
                    f"of the word {word!r} all clips outside the test split are of too few speakers: fold {fold + 1} "
                    f"leaves none for {split}; add recordings"
                )
    order = np.lexsort((np.arange(end), splits))
    return replace(
        clips,
        fold=Fold(fold, folds),
        whole=clips.corpus,
        splits=splits[order],
        **{name: getattr(clips, name)[order] for name in ("waveforms", "labels", "names", "speakers", "lengths")},
    )
