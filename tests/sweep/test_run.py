import csv
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench.executors.events import Finished, Planned, PlannedTrial, Stage
from bench.executors.threads import Threads
from bench.grid import parse_axes, plan
from bench.records import RecordFolder
from bench.sweep.epoch_time import time_epochs
from bench.sweep.run import sweep, train_best
from bench.system.environment import collect
from melcnn import InputError, load_clips
from tests.helpers.configurations import plain
from tests.helpers.machines import FakeMachine

SMALL = ["n_mels=16", "channels=16", "hop_length=800", "n_fft=256", "batch_size=16"]


def without_noise(notes):
    """Notices, but for the plan and those of a noisy machine."""
    return [note for note in notes if not note.startswith(("epoch times: ", "training "))]


def test_axes():
    assert parse_axes(["groups"]) == {"groups": [1, 2, 4, 8, 16]}
    assert parse_axes(["mels", "groups=1,2"]) == {"n_mels": [20, 40, 80], "groups": ["1", "2"]}


@pytest.mark.parametrize(
    "axes, message",
    [
        (["depth"], "no axis 'depth': use groups, mels"),
        (["depth=1"], "no setting 'depth'"),
        (["groups=1,,2"], "empty value"),
        (["groups="], "empty value"),
        (["groups=1,1"], "twice"),
        (["mels", "n_mels=20"], "given twice"),
    ],
)
def test_axes_that_cannot_be(axes, message):
    with pytest.raises(InputError, match=message):
        parse_axes(axes)


def test_combinations_that_cannot_exist_are_named_and_left_out(caplog):
    trials = plan(parse_axes(["n_mels=20,80", "groups=4,16"]))
    notes = caplog.messages
    assert [(t.front_end.n_mels, t.model.groups) for t in trials] == [(20, 4), (80, 4), (80, 16)]
    assert len(notes) == 1 and "n_mels=20 groups=16" in notes[0] and "one of 1, 2, 4" in notes[0]


def test_a_grid_of_which_nothing_can_exist():
    with pytest.raises(InputError, match=r"one of 1, 2, 4, 8, 16"):
        plan(parse_axes(["groups=3,5"]))
    with pytest.raises(InputError, match="both an axis and an option"):
        plan(parse_axes(["epochs=1,2"]), epochs=3)


def test_a_configuration_named_twice():
    with pytest.raises(InputError, match="twice"):
        plan(parse_axes(["groups=1,01"]))


def test_the_best_of_several_seeds_is_validations_choice(clips, monkeypatch):
    def run(seed, validation, test, losses, kept):
        curves = SimpleNamespace(validation_loss=losses)
        curves.train_loss, logits = losses, torch.zeros(1, 2)
        return SimpleNamespace(
            seed=seed, validation_accuracy=validation, test_accuracy=test, curves=curves, kept_epoch=kept,
            validation_logits=logits, test_logits=logits,
        )  # fmt: skip

    made = [run(0, 0.9, 1.0, [0.1], 1), run(1, 0.95, 0.2, [0.9, 0.4], 2), run(2, 0.95, 0.9, [0.3, 0.5], 2)]
    monkeypatch.setattr("bench.executors.jobs.fit", lambda trial, features, seeds, *rest: [made[s] for s in seeds])
    _, best, failed = train_best(plan(parse_axes(SMALL))[0], 3, clips, "cpu")
    # 1 and 2 are equal on validation; at their kept epochs 1 has the lower loss. Test would choose 0.
    assert best.seed == 1 and not failed


def test_few_validation_clips_are_said(corpus, tmp_path, caplog):
    copy = shutil.copytree(corpus, tmp_path / "copy")
    for name in (copy / "validation_list.txt").read_text().split():
        if int(name.split("/")[1][2:6], 16) > 3:  # keeps four a word
            (copy / name).unlink()
    caplog.set_level(logging.INFO)
    data = load_clips(copy)
    caplog.clear()
    sweep(plan(parse_axes(SMALL), epochs=1), 1, data, RecordFolder(tmp_path / "runs"), Threads("cpu"))
    assert without_noise(caplog.messages) == [
        "only 8 validation clips: which epoch and which seed is kept rests on these few; add recordings"
    ]


def test_epochs_are_timed_on_the_device_of_the_sweep(monkeypatch):
    machine, heard = FakeMachine(cold=100.0), []

    def build(work, device, kernels):
        heard.append((work.what, work.clips, device))
        return SimpleNamespace(call=machine.work(work.trial.model.groups, work.trial.model.groups))

    monkeypatch.setattr("bench.sweep.epoch_time.builders.build", build)
    monkeypatch.setattr("bench.sweep.epoch_time.clock_for", lambda device: heard.append(device) or machine.clock)
    trials = plan(parse_axes(["groups=1,2", *SMALL]))
    record, _ = time_epochs(trials, 4, "cuda", collect("cpu"))
    assert heard == [("epoch", 4, "cuda")] * 2 + ["cuda"]
    # The cold first epoch is in none of them.
    assert [timed.epoch_seconds for timed in record.timed] == [[1.0] * 9, [2.0] * 9]


def test_more_seeds_train_only_these_and_keep_the_rest(clips, tmp_path, caplog):
    folder, trials = RecordFolder(tmp_path), plan(parse_axes(["groups=1,2", *SMALL]), epochs=2)
    sweep(trials, 2, clips, folder, Threads("cpu"))
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    caplog.set_level(logging.INFO)
    result = sweep(trials, 3, clips, folder, Threads("cpu"))
    assert without_noise(caplog.messages) == [f"4 of 6 trials are in {tmp_path} already and are not run again"]
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.name in before} == before
    assert [(r.trial.model.groups, r.seed) for r in result.trials] == [(g, s) for g in (1, 2) for s in range(3)]
    assert all(r.seed in r.stack for r in result.trials)


def test_other_noise_is_other_data(clips, tmp_path):
    trial = plain(epochs=1, noise=True, n_mels=16, channels=8, n_fft=256, hop_length=800)
    noise = np.random.default_rng(0).normal(0, 500, 50_000).astype(np.int16)
    folder = RecordFolder(tmp_path)
    for used in (noise, noise, noise[::-1].copy()):
        sweep([trial], 1, replace(clips, noise=used), folder, Threads("cpu"))
    assert len(folder.trials()) == 2
    # Without noise in the training the noise is no part of its data.
    quiet = trial.model_copy(update={"training": trial.training.model_copy(update={"noise": False})})
    for used in (noise, noise[::-1].copy()):
        sweep([quiet], 1, replace(clips, noise=used), folder, Threads("cpu"))
    assert len(folder.trials()) == 3


def test_a_record_holds_what_the_run_gave(clips, tmp_path):
    trials = plan(parse_axes(SMALL), epochs=3)
    result = sweep(trials, 1, clips, RecordFolder(tmp_path), Threads("cpu"))
    (record,) = result.trials
    test = clips.split("test")
    assert record.test.names == clips.names[test].tolist() and record.test.labels == clips.labels[test].tolist()
    assert len(record.test.logits) == 16 and len(record.validation.logits) == 16
    assert len(record.train_loss) == len(record.validation_loss) == 3 and 1 <= record.kept_epoch <= 3
    assert record.validation.accuracy == record.validation_accuracy[record.kept_epoch - 1]
    assert record.train_clips == 48 and record.left_out_clips == 0 and record.environment.threads > 0
    (timed,) = result.timing.timed
    assert timed.train_clips == 48 and len(timed.epoch_seconds) == 9 and min(timed.epoch_seconds) > 0


COMMAND = [sys.executable, "-c", "from bench.cli.app import main; main()", "sweep", "groups=1,2,4", *SMALL]


def without_times(path):
    with open(path) as file:
        return [{k: v for k, v in row.items() if "time" not in k} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_killed_and_started_again_gives_the_undisturbed_table(corpus, tmp_path):
    def arguments(name):
        return [*COMMAND, "--data", corpus, "--seeds", "3", "--epochs", "8",
                "--out", tmp_path / name, "--csv", tmp_path / f"{name}.csv"]  # fmt: skip

    subprocess.run(arguments("whole"), check=True, capture_output=True)
    killed = subprocess.Popen(arguments("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not list((tmp_path / "killed").glob("trial-*")):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    survived = {p.name: p.read_bytes() for p in (tmp_path / "killed").glob("trial-*")}
    assert 0 < len(survived) < 9 and not (tmp_path / "killed.csv").exists()
    # As if the kill had come between two files of one stack.
    if len(survived) > 1:
        gone = max(survived)
        (tmp_path / "killed" / gone).unlink()
        del survived[gone]
    again = subprocess.run(arguments("killed"), check=True, capture_output=True, text=True)
    assert f"{len(survived)} of 9 trials" in again.stderr
    assert without_times(tmp_path / "killed.csv") == without_times(tmp_path / "whole.csv")
    for name, content in survived.items():
        assert (tmp_path / "killed" / name).read_bytes() == content


def test_a_record_counts_what_was_left_out(corpus, tmp_path):
    copy = shutil.copytree(corpus, tmp_path / "copy")
    name = (copy / "testing_list.txt").read_text().split()[0]
    train = next(p for p in sorted((copy / "yes").iterdir()) if p.name[6:8] == "00")
    for path in (copy / name, train):
        path.write_bytes(b"")
    trials = plan(parse_axes(SMALL), epochs=1)
    (record,) = sweep(trials, 1, load_clips(copy), RecordFolder(tmp_path / "runs"), Threads("cpu")).trials
    assert record.left_out_clips == 2 and record.train_clips == 47 and len(record.test.labels) == 15


def test_each_front_end_is_computed_once(clips, tmp_path, monkeypatch):
    import bench.executors.threads as module

    extracted = []
    original = module.extract
    monkeypatch.setattr(module, "extract", lambda *a: extracted.append(a[1].n_mels) or original(*a))
    trials = plan(parse_axes(["groups=1,2", "n_mels=16,20", *SMALL[1:]]), epochs=1)
    result = sweep(trials, 1, clips, RecordFolder(tmp_path), Threads("cpu"))
    assert extracted == [16, 20]
    assert [(r.trial.model.groups, r.trial.front_end.n_mels) for r in result.trials] == [
        (1, 16), (2, 16), (1, 20), (2, 20),
    ]  # fmt: skip


def test_what_a_resumed_sweep_tells(clips, tmp_path):
    folder, trials = RecordFolder(tmp_path), plan(parse_axes(["groups=1,2", *SMALL]), epochs=1)
    first = sweep(trials[:1], 2, clips, folder, Threads("cpu")).trials
    events = []
    sweep(trials, 2, clips, folder, Threads("cpu"), events.append)
    kept = {(None, record.seed): record.validation.accuracy for record in first}
    assert events[0] == Planned((PlannedTrial(trials[0], 2, kept), PlannedTrial(trials[1], 2, {})))
    assert {event.job.trial for event in events[1:-1]} == {trials[1]}
    assert sorted(seed for event in events if isinstance(event, Finished) for seed in event.job.seeds) == [0, 1]
    assert events[-1] == Stage("timing epochs: 9 rounds of 2 configurations, one pass at a time")


def test_words_of_the_trial_reach_the_labels(corpus, tmp_path):
    trials = [plain(("go", "yes", "no"), n_mels=16, n_fft=256, hop_length=800, epochs=1)]
    result = sweep(trials, 1, load_clips(corpus, ("go", "yes", "no")), RecordFolder(tmp_path), Threads("cpu"))
    assert len(result.trials[0].test.logits[0]) == 3
