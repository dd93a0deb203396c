import torch

from bench import timing
from bench.timing import interleave


class Machine:
    """A fake clock, and calls that take fake time on it: the first, cold call of each takes longer."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def clock(self):
        return self.now

    def call(self, name, seconds):
        def run():
            cold = name not in self.calls
            self.calls.append(name)
            self.now += 100.0 if cold else seconds

        return run


def test_each_sample_is_one_call_and_the_cold_one_is_left_out():
    machine = Machine()
    samples = interleave({"a": machine.call("a", 1.0), "b": machine.call("b", 2.5)}, 4, clock=machine.clock)
    assert samples == {"a": [1.0] * 4, "b": [2.5] * 4}


def test_rounds_are_interleaved_in_changing_order():
    machine = Machine()
    names = ["a", "b", "c"]
    interleave({name: machine.call(name, 1.0) for name in names}, 10, clock=machine.clock)
    rounds = [tuple(machine.calls[i : i + 3]) for i in range(3, len(machine.calls), 3)]
    assert len(rounds) == 10 and all(sorted(r) == names for r in rounds)
    assert len(set(rounds)) > 1


def test_the_clock_is_read_between_synchronisations(monkeypatch):
    # A device that computes behind the host's back: unsynchronised, every call would seem to take no time.
    machine, pending = Machine(), []

    def synchronize():
        machine.now += sum(pending)
        pending.clear()

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    launched = {"a": lambda: pending.append(1.0), "b": lambda: pending.append(3.0)}
    assert interleave(launched, 3, "cuda", machine.clock) == {"a": [1.0] * 3, "b": [3.0] * 3}
    assert timing.interleave(launched, 1, "cpu", machine.clock) == {"a": [0.0], "b": [0.0]}
