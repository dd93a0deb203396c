"""What is chosen, that it is asked for once and kept, and that nothing depends on the file it is kept in."""

import json
import os
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from melcnn.kernels import autotune, grouped_conv, trunk
from melcnn.model import MelCNN


class Machine:
    """A clock that the ways move: each takes its seconds."""

    def __init__(self, monkeypatch, **seconds):
        self.now, self.calls = 0.0, []
        self.ways = {name: lambda name=name, took=took: self.run(name, took) for name, took in seconds.items()}
        monkeypatch.setattr(autotune.time, "perf_counter", lambda: self.now)

    def run(self, name, took):
        self.calls.append(name)
        self.now += took


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(autotune, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(autotune, "_known", {})
    autotune._warn.cache_clear()
    return tmp_path / "cache"


@pytest.mark.parametrize(("ours", "expected"), [(0.5, "ours"), (0.94, "ours"), (0.96, "library"), (2.0, "library")])
def test_another_must_be_faster_by_a_margin(monkeypatch, ours, expected):
    machine = Machine(monkeypatch, library=0.01, ours=0.01 * ours)
    found = autotune.measure(machine.ways)
    assert found["chosen"] == expected
    assert found["seconds"] == pytest.approx({"library": 0.01, "ours": 0.01 * ours})
    # Two calls each to begin with, then rounds of one each: so many as fill the time allowed, at least the fewest.
    per_round = 0.01 * (1 + ours)
    rounds = max(autotune.MIN_ROUNDS, int(autotune.SECONDS / per_round) + 1)
    assert len(machine.calls) == 2 * (2 + rounds)


def test_a_short_call_is_repeated(monkeypatch):
    machine = Machine(monkeypatch, library=1e-6, ours=1e-6)
    autotune.measure(machine.ways)
    # A sample of the shortest length holds this many calls.
    assert machine.calls.count("ours") == pytest.approx(2 + autotune.MAX_ROUNDS * autotune.SHORTEST / 1e-6, rel=0.02)


def test_it_is_measured_once_and_kept(monkeypatch, cache):
    machine, asked = Machine(monkeypatch, library=0.01, ours=0.001), []

    def ways():
        asked.append(1)
        return machine.ways

    assert [autotune.choose(("conv", 1), ways) for _ in range(3)] == ["ours"] * 3
    autotune._known.clear()  # another process
    assert autotune.choose(("conv", 1), ways) == "ours"
    assert len(asked) == 1
    assert autotune.choose(("conv", 2), ways) == "ours"
    assert len(asked) == 2
    kept = [json.loads(path.read_text()) for path in (cache / "choices").iterdir()]
    assert sorted(entry["key"] for entry in kept) == [["conv", 1], ["conv", 2]]
    assert all(entry["seconds"] == pytest.approx({"library": 0.01, "ours": 0.001}) for entry in kept)


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"key": 3}', '{"key": ["conv", 1], "chosen": 4, "seconds": {}}', "{}"]
)
def test_a_file_that_is_not_ours_is_measured_over(monkeypatch, cache, text):
    machine = Machine(monkeypatch, library=0.01, ours=0.001)
    autotune.choose(("conv", 1), lambda: machine.ways)
    (path,) = (cache / "choices").iterdir()
    path.write_text(text)
    autotune._known.clear()
    assert autotune.choose(("conv", 1), lambda: machine.ways) == "ours"
    assert json.loads(path.read_text())["chosen"] == "ours"


def test_a_cache_that_cannot_be_written_costs_one_line(monkeypatch, cache, caplog):
    cache.write_text("a file where the folder should be")
    machine = Machine(monkeypatch, library=0.01, ours=0.001)
    assert autotune.choose(("conv", 1), lambda: machine.ways) == "ours"
    assert autotune.choose(("conv", 2), lambda: machine.ways) == "ours"
    (warning,) = caplog.messages
    assert warning.startswith("the choice of kernels cannot be kept")


def test_a_way_that_fails_is_left_out(monkeypatch, caplog):
    machine = Machine(monkeypatch, library=0.01)

    def broken():
        raise RuntimeError("no compiler")

    assert autotune.measure(machine.ways | {"ours": broken})["chosen"] == "library"
    assert "kernels of ours fail and are not used: RuntimeError: no compiler" in caplog.text
    with pytest.raises(RuntimeError, match="no compiler"):
        autotune.measure(machine.ways | {"library": broken})


def test_a_measurement_that_asks_for_another_does_not_wait_for_itself(monkeypatch):
    machine, inner = Machine(monkeypatch, library=0.01, ours=0.001), []

    def ways():
        inner.append(autotune.choose(("inner",), lambda: machine.ways))
        return machine.ways

    assert autotune.choose(("outer",), ways) == "ours"
    assert inner == ["library"] and ("inner",) not in autotune._known


def test_a_measurement_is_hidden_from_modes_and_hooks_around_it(cache):
    x, kept = torch.ones(2, 2, requires_grad=True), []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    counter, hooks = (
        FlopCounterMode(display=False),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    )
    with counter, hooks:
        autotune.choose(("multiply",), lambda: {"one": lambda: x @ x, "other": lambda: x @ x})
    assert counter.get_total_flops() == 0 and not kept
    with counter, hooks:
        x @ x
    assert counter.get_total_flops() == 2 * 2**3 and kept


def test_measuring_takes_none_of_the_callers_random_numbers():
    network = MelCNN(8, 2, 4)
    before = torch.random.get_rng_state()
    trunk.choose(network, 5, 20, picked=True)
    trunk.choose(network, 5, 20, picked=False)
    grouped_conv.faster_kernels(torch.zeros(5, 8, 20), torch.zeros(4, 4, 3), None, 1, 1, 1, 2)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("waits", "kept"), [(0.0, True), (0.0001, False)])
def test_a_choice_of_a_busy_machine_is_kept_for_a_short_while(monkeypatch, cache, waits, kept):
    # A round of two calls takes 11 ms, of which 0.11 ms (1%) may be waiting for a core; here it waits 0 or 0.2 ms.
    machine = Machine(monkeypatch, library=0.01, ours=0.001)
    monkeypatch.setattr(autotune, "run_queue_wait", lambda: len(machine.calls) * waits)

    def is_known(age):
        """Return whether another process, `age` seconds later, takes the choice without measuring."""
        autotune._known.clear()
        machine.calls.clear()
        (path,) = (cache / "choices").iterdir()
        os.utime(path, (time.time() - age,) * 2)
        assert autotune.choose(("conv", 1), lambda: machine.ways) == "ours"
        return not machine.calls

    assert autotune.choose(("conv", 1), lambda: machine.ways) == "ours"
    assert is_known(age=autotune.DISTURBED_FOR - 60)
    assert is_known(age=autotune.DISTURBED_FOR + 60) == kept
    assert is_known(age=-60) == kept  # the clock went back
