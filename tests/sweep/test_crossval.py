"""A cross-validation is one sweep over five folds, and its records say which fold they are of."""

import math

import pytest

from bench.executors.events import Finished, Planned
from bench.executors.threads import Threads
from bench.records import RecordFolder
from bench.sweep.crossval import out_of_fold
from bench.sweep.run import sweep, sweep_for_study
from melcnn import configure
from melcnn.data.clips import Fold
from melcnn.kernels import grouped_conv
from tests.helpers.configurations import plain

SMALL = {"n_mels": 16, "channels": 16, "hop_length": 800, "n_fft": 256, "batch_size": 16, "epochs": 1}
FOLDS = [Fold(index, 5) for index in range(5)]


@pytest.mark.parametrize("recipe", ["plain", "default"])
def test_all_folds_are_announced_at_the_beginning(clips, tmp_path, recipe):
    trials = [configure(groups=groups, recipe=recipe, **SMALL) for groups in (1, 2)]
    folder, events = RecordFolder(tmp_path), []
    out_of_fold(trials, 2, clips, folder, Threads("cpu"), events.append)
    planned, *others = events  # once, with 5 folds of 2 seeds
    assert [(one.trial, one.networks, one.finished) for one in planned.trials] == [(t, 10, {}) for t in trials]
    folds = [event.job.fold for event in others]
    assert folds == sorted(folds, key=FOLDS.index) and set(folds) == set(FOLDS)
    ended = {
        (event.job.fold, network.seed): network.validation_accuracy
        for event in others
        if isinstance(event, Finished) and event.job.trial == trials[1]
        for network in event.outcome.networks
    }
    assert ended.keys() == {(fold, seed) for fold in FOLDS for seed in (0, 1)}
    # The recipe default validates nothing.
    assert {math.isnan(accuracy) for accuracy in ended.values()} == {recipe == "default"}

    gone = next(r for r in folder.trials().values() if (r.fold, r.trial, r.seed) == (FOLDS[3], trials[1], 1))
    (tmp_path / gone.file_name).unlink()
    events.clear()
    out_of_fold(trials, 2, clips, folder, Threads("cpu"), events.append)
    planned, *others = events
    first, second = planned.trials
    assert len(first.finished) == 10 and ended.keys() - second.finished.keys() == {(FOLDS[3], 1)}
    assert not any(isinstance(event, Planned) for event in others)
    assert {(event.job.fold, event.job.trial) for event in others} == {(FOLDS[3], trials[1])}


def test_records_say_their_fold_and_corpus(clips, tmp_path):
    trial = plain(**SMALL)
    folder = RecordFolder(tmp_path)
    own = sweep([trial], 1, clips, folder, Threads("cpu"))
    out_of_fold([trial], 1, clips, folder, Threads("cpu"))
    records = list(folder.trials().values())
    assert {record.fold for record in records} == {None, *FOLDS}
    assert {(record.dataset, record.corpus) for record in records} == {("speech_commands", clips.fingerprint)}
    assert (own.timing.dataset, own.timing.corpus) == ("speech_commands", clips.fingerprint)
    # Each fold is a clip set of its own.
    assert len({record.data_fingerprint for record in records}) == 6


def test_kernels_are_a_value(clips, tmp_path, monkeypatch):
    monkeypatch.delenv("MELBENCH_KERNELS", raising=False)
    result = sweep([plain(**SMALL)], 1, clips, RecordFolder(tmp_path), Threads("cpu"), kernels="torch")
    assert result.trials[0].kernels == result.timing.kernels == "torch"
    # More seeds of a configuration are by the kernels of the first ones.
    again = sweep([plain(**SMALL)], 2, clips, RecordFolder(tmp_path), Threads("cpu"))
    assert [record.kernels for record in again.trials] == ["torch"] * 2


def test_the_study_is_timed_by_torchs_kernels_too(clips, tmp_path):
    trial = plain(epochs=1, n_mels=16, channels=8, hop_length=800, n_fft=256)
    for kernels in (None, "torch"):
        result, by_torch = sweep_for_study([trial], 1, clips, RecordFolder(tmp_path), Threads("cpu"), kernels=kernels)
        assert by_torch.kernels == "torch" and result.timing.kernels == (kernels or grouped_conv.kernels("cpu"))
    # What is timed is not timed again.
    assert len(list(tmp_path.glob("timing-*.json"))) == len({"torch", grouped_conv.kernels("cpu")})
