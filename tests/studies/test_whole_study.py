"""The script for a lent machine: what needs no device of its own."""

import csv
import os
from types import SimpleNamespace

import pytest

from bench.grid import parse_axes, plan
from bench.studies import whole_study
from melcnn import InputError
from melcnn.errors import Failed
from melcnn.kernels import grouped_conv
from tests.docs.test_columns import check
from tests.helpers.machines import FakeMachine

pytestmark = pytest.mark.slow

WHAT = ["stacks", "front-end", "study", "baselines", *["convolutions"] * (grouped_conv.kernels("cpu") == "melcnn")]
TINY = ["n_mels=16", "channels=8", "hop_length=800", "n_fft=256", "batch_size=16", "groups=1,2"]


def test_stacks_of_several_sizes(monkeypatch):
    machine = FakeMachine()
    trials = plan(parse_axes(TINY))
    monkeypatch.setattr(whole_study.Stack, "epoch", lambda stack, x, y: machine.work("", stack.network.replicas / 2)())
    sheet = whole_study.stack_times(trials, (1, 4), 32, "cpu", machine.clock)
    # Half a second a network, however many there are.
    assert [(row["groups"], row["stack"], row["epoch_time_s"]) for row in sheet.records] == [
        (1, 1, 0.5), (1, 4, 2.0), (2, 1, 0.5), (2, 4, 2.0),
    ]  # fmt: skip
    assert {row["epoch_time_a_network_s"] for row in sheet.records} == {0.5}
    check("python -m bench.studies.whole_study", list(sheet.records[0]))


def test_the_folder_is_not_open_to_everybody(tmp_path):
    before = os.umask(0)
    try:
        with pytest.raises(InputError, match="no data"):
            whole_study.main(tmp_path / "new", str(tmp_path / "no data"), "cpu")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o002 == 0


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(whole_study, "parse_axes", lambda axes: parse_axes(TINY))
    monkeypatch.setattr(whole_study, "STACK_SIZES", (1, 2))
    monkeypatch.setattr(whole_study.front_ends, "BATCHES", (4,))
    monkeypatch.setattr(whole_study.race, "BASELINES", {})
    monkeypatch.setattr(whole_study.convolutions, "ROUNDS", 6)


def test_every_table_is_written(tiny, corpus, tmp_path):
    whole_study.main(tmp_path, str(corpus), "cpu", seeds=2, epochs=1, clips=48)
    assert {path.name for path in tmp_path.iterdir()} == {f"{what}.{kind}" for what in WHAT for kind in ("csv", "md")}
    with (tmp_path / "study.csv").open() as file:
        assert [row["seeds"] for row in csv.DictReader(file)] == ["2", "2"]
    assert "The whole took" in (tmp_path / "study.md").read_text()


def test_a_study_without_times_is_none(tiny, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(whole_study, "sweep", lambda *_, **__: SimpleNamespace(timing=None, failures=[]))
    with pytest.raises(Failed, match="could not be timed"):
        whole_study.main(tmp_path, str(corpus), "cpu", seeds=2, epochs=1, clips=48)
    assert not (tmp_path / "study.csv").exists()
