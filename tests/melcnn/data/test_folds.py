import hashlib
from dataclasses import replace

import numpy as np
import pytest

from melcnn import InputError
from melcnn.data.clips import SPLITS, Fold
from melcnn.data.folds import fold_of, held_out


def test_a_speaker_is_in_one_fold_and_folds_are_about_equal():
    rng = np.random.default_rng(0)
    speakers = [f"{n:03}" for n in range(60) for _ in range(rng.integers(1, 9))]
    folds = fold_of(speakers, 5)
    assert all(len(set(folds[np.array(speakers) == one])) == 1 for one in set(speakers))
    # Each speaker goes into the smallest fold, so folds differ by one speaker's clips at most.
    counts = np.bincount(folds)
    assert len(counts) == 5 and counts.max() - counts.min() <= 8
    # The order of clips changes nothing.
    turned = fold_of(speakers[::-1], 5)[::-1]
    assert np.array_equal(folds, turned)


def test_fewer_speakers_than_folds():
    with pytest.raises(InputError, match="of 5 speakers or more outside the test split, there are 3"):
        fold_of(["a", "b", "c", "a"], 5)


@pytest.mark.parametrize("validated", [True, False])
def test_folds_of_a_clip_set(clips, validated):
    end = clips.split("test").start
    heard = []
    for fold in range(5):
        part = held_out(clips, fold, validated)
        assert (part.dataset, part.fold) == ("speech_commands", Fold(fold, 5)) and len(part) == end
        speakers = [set(part.speakers[part.split(name)]) for name in SPLITS]
        assert not speakers[0] & speakers[2] and not speakers[1] & (speakers[0] | speakers[2])
        assert bool(speakers[1]) == validated
        heard += part.names[part.split("test")].tolist()
        # What belongs together stayed together.
        at = clips.names.tolist().index(part.names[-1])
        assert np.array_equal(part.waveforms[-1], clips.waveforms[at]) and part.labels[-1] == clips.labels[at]
    # Every clip that is not for testing is held out once.
    assert sorted(heard) == sorted(clips.names[:end].tolist())
    assert len({held_out(clips, fold, validated).fingerprint for fold in range(5)}) == 5


def test_the_next_fold_validates_as_a_whole(clips):
    tested = [set((part := held_out(clips, fold, True)).names[part.split("test")]) for fold in range(5)]
    for fold in range(5):
        part = held_out(clips, fold, True)
        assert set(part.names[part.split("validation")]) == tested[(fold + 1) % 5]
        assert set(part.names[part.split("train")]) == set().union(*tested) - tested[fold] - tested[(fold + 1) % 5]


def test_a_fold_knows_its_number_and_its_corpus(clips):
    part = held_out(clips, 1, validated=False)
    assert part.fold == Fold(1, 5) and str(part.fold) == "fold 2 of 5"
    assert (part.dataset, part.corpus) == (clips.dataset, clips.fingerprint) and clips.corpus == clips.fingerprint
    # The fingerprint that records of before name: of the fold's name, as it was part of the data set's.
    named = replace(part, dataset=f"{clips.dataset}, fold 2 of 5", fold=None, whole="")
    assert part.fingerprint == named.fingerprint


def test_a_word_of_one_speaker(clips):
    # Whichever fold holds that speaker out has nothing to learn the word from.
    speakers = np.where(clips.labels == 0, "somebody", clips.speakers)
    few = replace(clips, speakers=speakers)
    with pytest.raises(InputError, match="of the word 'yes' .* too few speakers: fold . leaves none for train"):
        for fold in range(5):
            held_out(few, fold, validated=False)


def test_speakers_join_folds_in_the_order_of_their_hashes():
    # One clip each: the speaker with the first SHA-1 joins the first fold, the second the second, and so on; as many
    # speakers as folds are enough.
    speakers = ["ann", "bob", "cid", "dee", "eve"]
    by_hash = sorted(speakers, key=lambda name: hashlib.sha1(name.encode()).hexdigest())
    assert by_hash != sorted(by_hash)
    assert fold_of(speakers, 5).tolist() == [by_hash.index(name) for name in speakers]


@pytest.mark.parametrize("validated", [True, False])
def test_a_word_that_one_split_lacks(clips, validated):
    # All of yes is said by one speaker of fold 0: fold 4 validates by it and learns from none. Where nothing validates,
    # only fold 0 leaves nothing to learn from.
    end = clips.split("test").start
    folded = fold_of(clips.speakers[:end].tolist())
    inside = np.flatnonzero((folded == 0) & (clips.labels[:end] == 0))
    keep = np.r_[inside, np.flatnonzero(clips.labels[:end] == 1)]
    labels = clips.labels.copy()
    labels[np.setdiff1d(np.arange(end), keep)] = 1
    few = replace(clips, labels=labels)

    def lacks(fold):
        try:
            held_out(few, fold, validated)
        except InputError as error:
            return str(error).partition("leaves none for ")[2].partition(";")[0]
        return None

    assert [lacks(fold) for fold in range(5)] == (
        ["train", "validation", "validation", "validation", "train"] if validated else ["train"] + [None] * 4
    )
