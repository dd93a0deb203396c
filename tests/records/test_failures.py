"""What is said of failures: at a terminal, in tables, by exit codes, in a report."""

import csv
import io
from dataclasses import replace

import pytest
import torch

from bench.cli.board import Board
from bench.executors import jobs
from bench.executors.events import EpochDone, Finished, Planned, PlannedTrial
from bench.executors.jobs import Failure, JobOutcome, TrainedStack, TrainingJob
from bench.executors.threads import Threads
from bench.records import RecordFolder
from bench.report.caveats import caveats
from bench.report.load import load_report
from bench.sweep.crossval import out_of_fold
from bench.system.environment import collect
from melcnn import InputError
from melcnn.data.clips import Fold
from melcnn.errors import Failed
from melcnn.training import Epoch
from tests.helpers.configurations import plain
from tests.helpers.records import failure_record, network, written
from tests.helpers.stand_ins import run_of, stand_in

SMALL = {"n_mels": 16, "channels": 16, "hop_length": 800, "n_fft": 256, "batch_size": 16}
TRIAL, OTHER = (plain(groups=groups, epochs=2, **SMALL) for groups in (1, 2))
ARGUMENTS = ["groups=1,2", *(f"{name}={value}" for name, value in SMALL.items()), "--seeds", 2, "--epochs", 1]


@pytest.fixture
def command(melbench, corpus, tmp_path):
    return lambda name, *more: melbench(name, *more, "--data", corpus, "--out", tmp_path / "runs")


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def bad(groups, seeds):
    """A training of which these groups fail for these seeds."""

    def training(trial, wanted, on_epoch):
        if trial.model.groups in groups and set(wanted) & set(seeds):
            raise ValueError("no luck")
        return [run_of(seed) for seed in wanted]

    return training


def test_a_sweep_with_failures_shows_the_rest_and_exits_with_1(command, monkeypatch, tmp_path):
    stand_in(monkeypatch, bad([2], [1]))
    code, out, err = command("sweep", *ARGUMENTS, "--csv", tmp_path / "table.csv")
    assert code == 1 and "Failed and not shown: groups=2 seed 1 (error)." in " ".join(out.split())
    lines = err.splitlines()
    assert "failed: groups=2 seed 1 (error)" in lines
    logs = tmp_path / "runs" / "failure-*.json"
    assert lines[-1] == (
        f"such as groups=2 seed 1: ValueError: no luck; the logs are in {logs}; --retry-failed runs them again"
    )
    assert [(row["groups"], row["seeds"]) for row in rows((tmp_path / "table.csv").read_text())] == [
        ("1", "2"), ("2", "1"),
    ]  # fmt: skip
    # The same again, without training.
    assert command("sweep", *ARGUMENTS)[0] == 1
    stand_in(monkeypatch, bad([], []))
    assert command("sweep", *ARGUMENTS, "--retry-failed")[0] == 0
    assert command("sweep", *ARGUMENTS)[0] == 0


def test_a_configuration_without_success_has_no_row(command, monkeypatch, tmp_path):
    stand_in(monkeypatch, bad([2], [0, 1]))
    code, out, err = command("sweep", *ARGUMENTS, "--format", "csv")
    assert code == 1 and [row["groups"] for row in rows(out)] == ["1"]
    assert "failed: groups=2 seeds 0, 1 (error)" in err.splitlines()
    stand_in(monkeypatch, bad([1, 2], [0, 1]))
    code, out, err = command("sweep", *ARGUMENTS, "--epochs", 2)
    assert code == 1 and not out
    last = err.splitlines()[-1]
    assert last.startswith("melbench: 4 trials failed, such as groups=1 seed 0: ValueError: no luck; the logs are in ")


def test_a_real_sweep_of_which_one_half_diverges(command):
    code, out, err = command("sweep", *ARGUMENTS, "learning_rate=0.001,1e30", "--format", "csv")
    assert code == 1 and [(row["groups"], row["learning_rate"]) for row in rows(out)] == [
        ("1", "0.001"), ("2", "0.001"),
    ]  # fmt: skip
    assert "failed: groups=2 learning_rate=1e+30 seeds 0, 1 (diverged)" in err.splitlines()


def test_train_fails_in_one_line(melbench, corpus, tmp_path, monkeypatch):
    arguments = ["train", "--data", corpus, "--n-mels", 16, "--n-fft", 256, "--hop-length", 800, "--epochs", 1]
    arguments += ["-o", tmp_path / "a.safetensors"]
    stand_in(monkeypatch, bad([1], [0]))
    code, out, err = melbench(*arguments)
    assert (code, out) == (1, "") and err.splitlines()[-1] == "melbench: seed 0: ValueError: no luck"
    assert not (tmp_path / "a.safetensors").exists()


def test_recommend_compares_seeds_that_all_folds_have(clips, tmp_path, monkeypatch):
    trials, by_fold = [TRIAL, OTHER], {}

    def fit(trial, x, seeds, on_epoch, kernels):
        fold = by_fold.setdefault(x.clips.fold, len(by_fold))
        if (trial == OTHER and fold % 2 in seeds) or (trial == TRIAL and fold == 3 and 1 in seeds):
            raise ValueError("no luck")
        counts = [len(x.split(name)[1]) for name in ("validation", "test")]
        logits = [torch.zeros(count, 2) for count in counts]
        return [replace(run_of(s), validation_logits=logits[0], test_logits=logits[1]) for s in seeds]

    monkeypatch.setattr(jobs, "fit", fit)
    found, failures = out_of_fold(trials, 3, clips, RecordFolder(tmp_path), Threads("cpu"))
    # Of groups=1 seed 1 failed in a fold; of groups=2 seed 0 or 1 in each, and seed 2 in none.
    assert [(one.trial, len(one.correct)) for one in found] == [(TRIAL, 2), (OTHER, 1)]
    assert len(failures) == 1 + 5
    assert {failure.seed for failure in failures if failure.trial == OTHER} == {0, 1}
    assert found[0].devices == (collect("cpu").device,)

    found, failures = out_of_fold(trials, 2, clips, RecordFolder(tmp_path), Threads("cpu"))
    assert [(one.trial, len(one.correct)) for one in found] == [(TRIAL, 1)] and len(failures) == 1 + 5
    with pytest.raises(Failed, match="5 trials failed, such as .*no luck"):
        out_of_fold([OTHER], 2, clips, RecordFolder(tmp_path), Threads("cpu"))


def test_a_board_counts_what_failed():
    board, job = Board(Planned((PlannedTrial(TRIAL, 3, {}),)), 0.0), TrainingJob(TRIAL, (0, 1, 2))
    board.update(EpochDone(job, (0, 1, 2), Epoch(1, [0.5] * 3, [True] * 3)), 1.0)
    board.update(EpochDone(job, (0,), Epoch(1, [0.5], [True])), 2.0)  # the stack goes on in parts
    (row,) = board.rows.values()
    assert list(row.training) == [(None, (0,))] and board.epochs_done == 1
    networks = [run_of(0, accuracy=0.75), run_of(2, accuracy=0.25)]
    failure = Failure(1, (1,), "error", "no luck")
    ended = Finished(job, JobOutcome([TrainedStack((0, 2), networks, [])], [failure]))
    board.update(ended, 3.0)
    assert not row.training and row.state == "finished" and board.epochs_done == board.epochs == 6
    # (0.75 + 0.25) / 2
    assert board.line(ended).endswith(": mean validation accuracy 0.5000, 1 failed")
    assert board.summary() == "2 of 3 networks finished, 1 failed"


def test_a_report_says_what_failed(tmp_path):
    one, two = plain(), plain(groups=2)
    fold = failure_record(0, one, fold=Fold(1, 5), data_fingerprint="f02", kind="lost")
    records = [network(one, 0), network(one, 1), network(two, 0), failure_record(1, two), fold]
    (chapter,) = load_report([written(tmp_path, *records).path]).chapters
    assert {failure.kind for failure in chapter.failures} == {"out of memory", "lost"}
    remarks = caveats([[records[0], records[1]], [records[2]]], [], {}, chapter.failures)
    assert remarks[0] == (
        "failed: groups=1 seed 0 of fold 2 (lost), groups=2 seed 1 (out of memory); --retry-failed runs them again"
    )
    # It lacks nothing that the same sweep would train.
    assert not [remark for remark in remarks if "not all seeds" in remark]


def test_failures_alone_make_no_report(tmp_path):
    with pytest.raises(InputError, match="failures alone"):
        load_report([written(tmp_path, failure_record()).path])
