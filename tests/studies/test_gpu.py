"""The command for a machine with a GPU, on the CPU: its sections, each apart, and going on where it ended."""

import csv
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.grid import parse_axes, plan
from bench.studies import gpu
from melcnn import InputError
from melcnn.errors import Failed
from tests.docs.test_columns import check
from tests.helpers.machines import FakeMachine

pytestmark = pytest.mark.slow

TINY = ["n_mels=16", "channels=8", "hop_length=800", "n_fft=256", "batch_size=16", "groups=1,2"]


def test_an_epoch_of_a_stack_by_hand(monkeypatch):
    machine = FakeMachine()
    monkeypatch.setattr(gpu.Stack, "epoch", lambda stack, x, y: machine.work("", stack.network.replicas / 2)())
    trial = plan(parse_axes(TINY), recipe="plain")[0]
    row = gpu.epoch_row(trial, 4, False, 32, "cpu", machine.clock)
    # Half a second a network, however many there are.
    assert (row["epoch_time_s"], row["epoch_time_a_network_s"], row["cold_time_s"]) == (2.0, 0.5, 2.0)
    assert (row["stack"], row["captured"], row["device_time_s"]) == (4, False, None)


def test_the_folder_is_not_open_to_everybody(tmp_path):
    before = os.umask(0)
    try:
        with pytest.raises(InputError, match="no data"):
            gpu.main(tmp_path / "new", str(tmp_path / "no data"), "cpu")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o002 == 0


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(gpu, "parse_axes", lambda axes: parse_axes(TINY[:-2] + TINY[-1:]))
    monkeypatch.setattr(gpu, "EPOCH_BATCHES", (16,))
    monkeypatch.setattr(gpu, "STACK", 2)
    monkeypatch.setattr(gpu, "CONVOLUTION_STACKS", (1,))
    monkeypatch.setattr(gpu, "FRONT_END_BATCHES", (4,))
    monkeypatch.setattr(gpu.convolutions, "ROUNDS", 6)


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_every_table_is_written_and_finished_sections_stay(tiny, corpus, tmp_path):
    names = [name for name in gpu.SECTIONS if name != "checks"]
    gpu.main(tmp_path, str(corpus), "cpu", seeds=2, epochs=1, clips=48, only=",".join(names))
    assert [(row["section"], row["left_out"], row["error"]) for row in rows(tmp_path / "sections.csv")] == [
        (name, "", "") for name in names
    ]
    assert [row["seeds"] for row in rows(tmp_path / "study.csv")] == ["2"] * 4
    assert {row["recipe"] for row in rows(tmp_path / "study.csv")} == set(gpu.RECIPES)
    assert [row["train_loss_difference_first"] for row in rows(tmp_path / "parity.csv")] == ["0.0"] * 2
    assert {row["batch_size"] for row in rows(tmp_path / "front-end.csv")} == {"4"}
    page = (tmp_path / "gpu.md").read_text()
    assert all(path.read_text() in page for name in names if (path := tmp_path / f"{name}.md"))
    (of_study,) = (row["found"] for row in rows(tmp_path / "sections.csv") if row["section"] == "study")
    assert of_study.count("2 of 2 networks trained in") == 0 and of_study.count("4 of 4 networks trained in") == 2
    assert of_study.split(". ")[0] in page
    written = {column for name in ("epochs", "parity", "sections") for column in rows(tmp_path / f"{name}.csv")[0]}
    check("python -m bench.studies.gpu", [*written, "check", "result", "found", "message"])
    before = (tmp_path / "epochs.csv").stat().st_mtime_ns
    gpu.main(tmp_path, str(corpus), "cpu", seeds=2, epochs=1, clips=48, only=",".join(names))
    assert (tmp_path / "epochs.csv").stat().st_mtime_ns == before


def test_a_section_that_fails_ends_no_other_and_runs_again(tiny, corpus, tmp_path, monkeypatch):
    def failing(setup):
        raise RuntimeError("CUDA error: device-side assert triggered\nmore")

    monkeypatch.setitem(gpu.SECTIONS, "parity", (failing, 10))
    with pytest.raises(Failed, match=r"a section failed: see sections.csv"):
        gpu.main(tmp_path, str(corpus), "cpu", clips=48, only="parity,epochs")
    assert [row["error"] for row in rows(tmp_path / "sections.csv")] == [
        "RuntimeError: CUDA error: device-side assert triggered", ""
    ]  # fmt: skip
    monkeypatch.setitem(gpu.SECTIONS, "parity", (lambda setup: gpu._sheet("", [{"a": 1}]), 10))
    gpu.main(tmp_path, str(corpus), "cpu", clips=48, only="parity,epochs")
    assert [row["section"] for row in rows(tmp_path / "sections.csv")] == ["epochs", "parity"]


def test_what_a_deadline_cuts_off_is_said(tiny, clips, tmp_path):
    setup = gpu.Setup(tmp_path, clips, "cpu", 2, 1, 48, deadline=time.perf_counter() - 1)
    with pytest.raises(Failed, match="no time was left"):
        gpu.epochs(setup)
    assert setup.cut[0] == "groups 1, batch 16, 1 networks" and len(setup.cut) == 6


def test_an_unknown_section(tmp_path):
    with pytest.raises(Exception, match=r"there is no section 'all': use any of checks, parity"):
        gpu.main(tmp_path, "synthetic", "cpu", only="all")


def test_checks_that_do_not_pass_end_the_command_badly(corpus, tmp_path, monkeypatch):
    case = '<testcase name="{}" time="0.5"><properties><property name="off by" value="2e-7"/></properties>{}</testcase>'

    def pytests(command, **options):
        (path,) = (text.partition("=")[2] for text in command if text.startswith("--junitxml="))
        cases = [case.format("test_a", ""), case.format("test_b", '<failure message="assert 1 &lt; 0&#10;more"/>')]
        Path(path).write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(gpu.subprocess, "run", pytests)
    with pytest.raises(Failed, match="a section failed"):
        gpu.main(tmp_path, str(corpus), "cpu", only="checks")
    assert rows(tmp_path / "sections.csv")[0]["error"] == "Failed: 1 of 2 checks did not pass: see checks.csv"
    assert [list(row.values()) for row in rows(tmp_path / "checks.csv")] == [
        ["test_a", "passed", "0.5", "off by 2e-7", ""],
        ["test_b", "failure", "0.5", "off by 2e-7", "assert 1 < 0 more"],
    ]
    # A process that dies leaves no report.
    monkeypatch.setattr(gpu.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=-6))
    with pytest.raises(Failed, match="a section failed"):
        gpu.main(tmp_path, str(corpus), "cpu", only="checks")
    assert "exit code -6 and no report" in rows(tmp_path / "sections.csv")[0]["error"]
    # What failed is of no account where another section is asked for.
    monkeypatch.setitem(gpu.SECTIONS, "parity", (lambda setup: gpu._sheet("", [{"a": 1}]), 10))
    gpu.main(tmp_path, str(corpus), "cpu", only="parity")
    assert "| test_b | failure |" in (tmp_path / "gpu.md").read_text().replace("\\_", "_")
