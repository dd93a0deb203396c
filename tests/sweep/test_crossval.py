"""What is told of a cross-validation: five folds as one sweep."""

import math

import pytest

from bench.records import RecordFolder
from bench.sweep.crossval import out_of_fold
from bench.sweep.events import Listener
from melcnn import configure

SMALL = {"n_mels": 16, "channels": 16, "hop_length": 800, "n_fft": 256, "batch_size": 16, "epochs": 1}
FOLDS = [f"fold {number} of 5" for number in range(1, 6)]


@pytest.mark.parametrize("recipe", ["plain", "default"])
def test_all_folds_are_told_of_at_the_beginning(clips, tmp_path, recipe):
    trials = [configure(groups=groups, recipe=recipe, **SMALL) for groups in (1, 2)]
    folder, begun, heard = RecordFolder(tmp_path), [], []
    listener = Listener(begin=begun.append, status=heard.append)
    out_of_fold(trials, 2, clips, folder, "cpu", listener)
    ((first, second),) = begun  # once, with 5 folds of 2 seeds
    assert [(one.trial, one.networks, one.finished) for one in (first, second)] == [(t, 10, {}) for t in trials]
    assert [fold for fold in FOLDS for status in heard if status.fold == fold] == [status.fold for status in heard]
    ended = {(status.fold, seed): accuracy for status in heard if status.ended and status.trial == trials[1]
             for seed, accuracy in zip(status.seeds, status.accuracies, strict=True)}  # fmt: skip
    assert ended.keys() == {(fold, seed) for fold in FOLDS for seed in (0, 1)}
    # The recipe default validates nothing.
    assert {math.isnan(accuracy) for accuracy in ended.values()} == {recipe == "default"}

    gone = next(path for path in tmp_path.glob("trial-*-groups2-seed1-*") if FOLDS[3] in path.read_text())
    gone.unlink()
    begun.clear(), heard.clear()
    out_of_fold(trials, 2, clips, folder, "cpu", listener)
    ((first, second),) = begun
    assert len(first.finished) == 10 and ended.keys() - second.finished.keys() == {(FOLDS[3], 1)}
    assert {status.fold for status in heard} == {FOLDS[3]} and {status.trial for status in heard} == {trials[1]}
