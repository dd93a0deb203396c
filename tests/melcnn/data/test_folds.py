from dataclasses import replace

import numpy as np
import pytest

from melcnn import InputError
from melcnn.data.clips import SPLITS
from melcnn.data.folds import fold_named, fold_of, held_out


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
        assert part.dataset == f"speech_commands, fold {fold + 1} of 5" and len(part) == end
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


def test_the_name_of_a_fold_and_what_is_none():
    assert fold_named("sc, fold 2 of 5") == ("sc", 1, 5) and fold_named("sc, fold 999 of 999") == ("sc", 998, 999)
    numbers = [(9, 5), (0, 5), (1, 0), ("01", 5), (1, 300_000_000), ("9" * 5000, 5), (1, "9" * 5000), ("٣", 5), (-1, 5)]
    assert [fold_named(f"sc, fold {fold} of {folds}") for fold, folds in numbers] == [None] * len(numbers)


def test_a_word_of_one_speaker(clips):
    # Whichever fold holds that speaker out has nothing to learn the word from.
    speakers = np.where(clips.labels == 0, "somebody", clips.speakers)
    few = replace(clips, speakers=speakers)
    with pytest.raises(InputError, match="of the word 'yes' .* too few speakers: fold . leaves none for train"):
        for fold in range(5):
            held_out(few, fold, validated=False)
