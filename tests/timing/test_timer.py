import gc
import math

import pytest

from bench.timing.clocks import HostClock
from bench.timing.timer import MOST_WARM_UP_ROUNDS, CandidateFailed, Rule, Series, fixed, interleave, median_widths
from bench.timing.verdicts import log_ratios
from melcnn.errors import Failed, InputError
from tests.helpers.machines import FakeMachine


def test_each_sample_is_one_call_and_the_cold_one_is_kept_apart():
    # A cold first epoch: 100 s more than the others.
    machine = FakeMachine(cold=100.0)
    run = interleave({"a": machine.work("a", 1.0), "b": machine.work("b", 2.5)}, fixed(4), machine.clock)
    assert {name: one.seconds for name, one in run.series.items()} == {"a": [1.0] * 4, "b": [2.5] * 4}
    assert {name: one.cold_seconds for name, one in run.series.items()} == {"a": 101.0, "b": 102.5}
    assert run.steady and run.unmet == {}


def test_rounds_are_interleaved_in_changing_order():
    machine = FakeMachine()
    names = ["a", "b", "c"]
    interleave({name: machine.work(name, 1.0) for name in names}, fixed(10), machine.clock)
    rounds = [tuple(machine.calls[i : i + 3]) for i in range(0, len(machine.calls), 3)][-10:]
    assert all(sorted(r) == names for r in rounds)
    assert len(set(rounds)) > 1


def test_blocks_are_called_next_to_each_other():
    machine = FakeMachine()
    calls = {name: machine.work(name, 1.0) for name in "aAbBcC"}
    interleave(calls, fixed(20), machine.clock, blocks=["aA", "bB", "cC"])
    rounds = ["".join(machine.calls[i : i + 6]) for i in range(0, len(machine.calls), 6)][-20:]
    assert all(sorted(r[i : i + 2].lower() for i in (0, 2, 4)) == ["aa", "bb", "cc"] for r in rounds)
    assert len(set(rounds)) > 10


def test_the_order_is_that_of_the_seed():
    def order(seed):
        machine = FakeMachine()
        interleave({name: machine.work(name, 1.0) for name in "abcd"}, fixed(8), machine.clock, seed)
        return machine.calls

    assert order(1) == order(1) != order(2)


def test_an_unsynchronised_timer_is_caught():
    # A device that computes behind the host's back: without synchronisation every call seems to take no time.
    machine, pending = FakeMachine(), []

    def synchronize():
        machine.time += sum(pending)
        pending.clear()

    clock = HostClock(synchronize, machine.now, lambda: 0.0)
    run = interleave({"a": lambda: pending.append(1.0), "b": lambda: pending.append(3.0)}, fixed(3), clock)
    assert {name: one.seconds for name, one in run.series.items()} == {"a": [1.0] * 3, "b": [3.0] * 3}
    # What is still pending when a sample begins belongs to whoever launched it, not to the sample.
    pending.append(50.0)
    assert clock.read(lambda: pending.append(2.0)).host == 2.0


def test_a_drifting_machine_hits_all_alike():
    # A machine that gets slower by half a percent a second: timed one after the other, b would seem far slower.
    machine = FakeMachine(slowness=lambda now: 1 + now / 200)
    run = interleave({"a": machine.work("a", 1.0), "b": machine.work("b", 1.0)}, fixed(101), machine.clock)
    a, b = run.series["a"].seconds, run.series["b"].seconds
    assert a[-1] > 2 * a[0]
    ratios = log_ratios([(run.series["a"], run.series["b"])])
    assert sum(ratios) / len(ratios) == pytest.approx(0.0, abs=0.006)
    assert sum(b[50:]) / sum(a[:50]) > 1.5  # what timing one after the other would have said


def test_warm_up_goes_on_until_steady():
    # Each call 20% faster than the one before until the tenth: 0.8^9 = 0.134.
    machine = FakeMachine()
    run = interleave({"a": machine.work("a", lambda before: 0.8 ** min(before, 9))}, fixed(3), machine.clock)
    assert run.steady and run.series["a"].seconds == pytest.approx([0.8**9] * 3)


def test_what_never_gets_steady_is_said():
    machine = FakeMachine()
    run = interleave({"a": machine.work("a", lambda before: 0.9**before)}, fixed(3), machine.clock)
    assert not run.steady
    assert len(machine.calls) == 1 + MOST_WARM_UP_ROUNDS + 3


def test_short_calls_are_timed_together():
    # Between two looks at the clock of 0.1 ms each, one of them adds to a sample. For 1% the calls must last
    # 10 ms: 100 calls of 0.1 ms.
    machine = FakeMachine(reading=1e-4)
    run = interleave({"a": machine.work("a", 1e-4)}, fixed(5), machine.clock)
    (one,) = run.series.values()
    assert run.overhead_seconds == pytest.approx(1e-4)
    assert one.calls == 100
    assert one.seconds == pytest.approx([1e-4 + 1e-4 / 100] * 5)
    assert run.overhead_seconds / one.calls / min(one.seconds) < 0.01
    singly = interleave({"a": machine.work("b", 1e-4)}, fixed(5), machine.clock, singly=True)
    assert singly.series["a"].calls == 1


def test_garbage_is_not_collected_while_timing():
    seen = []
    machine = FakeMachine()
    work = machine.work("a", 1.0)

    def call():
        seen.append(gc.isenabled())
        work()

    interleave({"a": call}, fixed(3), machine.clock)
    assert seen[0] and not any(seen[-3:]) and gc.isenabled()


def test_precise_stops_when_every_median_is_known():
    # A constant is known at once: what holds the run is 9 rounds and 2 s.
    machine = FakeMachine()
    rule = Rule(precision=0.02, min_rounds=9, min_seconds=2.0, max_seconds=100.0)
    run = interleave({"a": machine.work("a", 0.1)}, rule, machine.clock)
    assert run.unmet == {} and 20 <= len(run.series["a"].seconds) <= 23


def test_precise_goes_on_while_a_median_is_not_known():
    # 1 s and 1.1 s in turn: the interval of the median has both until the cap, its half-width is 0.05 of 1.05 s.
    machine = FakeMachine()
    rule = Rule(precision=0.02, min_rounds=9, min_seconds=0.0, max_seconds=50.0)
    run = interleave(
        {"steady": machine.work("s", 0.1), "a": machine.work("a", lambda n: 1 + n % 2 / 10)}, rule, machine.clock
    )
    assert run.unmet == {"a": "known to ±4.8%, wanted ±2.0%"}


def test_a_cap_says_what_was_not_met():
    rule = Rule(precision=0.02, min_rounds=9, min_seconds=1.0, max_rounds=4)
    assert rule.unmet({}, 4, 0.5) == {"": "4 of at least 9 rounds, 0.5 of at least 1 s"}
    assert rule.capped(4, 0.5) and not rule.capped(3, 0.5) and rule.capped(3, 11.0)


def test_fewer_than_six_samples_know_nothing():
    assert median_widths({"a": Series(seconds=[1.0] * 5)})["a"] == math.inf
    assert median_widths({"a": Series(seconds=[1.0] * 6)})["a"] == 0.0


def test_no_room_for_a_repetition_is_said_before_time_is_spent():
    machine = FakeMachine()
    rule = Rule(min_rounds=9, max_seconds=5.0)
    with pytest.raises(InputError, match=r"time allowed, 5 s, has no room for 9 rounds of 2 s: allow 27 s or more"):
        interleave({"a": machine.work("a", 2.0)}, rule, machine.clock)
    assert len(machine.calls) <= 4


def test_a_busy_machine_is_no_bad_input():
    # Each call waits for a core for 3% of its two seconds.
    machine = FakeMachine()
    work = machine.work("a", 2.0)

    def held_up():
        machine.waiting += 0.06
        work()

    with pytest.raises(Failed, match=r"of 2 s while other processes hold up this machine: stop them, or allow 27 s"):
        interleave({"a": held_up}, Rule(min_rounds=9, max_seconds=5.0), machine.clock)


def test_what_raises_in_round_3_is_named_and_the_rounds_before_are_kept():
    machine = FakeMachine()
    works = {"good": machine.work("good", 1.0), "bad": machine.work("bad", 2.0)}
    warm = interleave(dict(works), fixed(1), machine.clock)
    calls_before_rounds = machine.calls.count("bad") - 1
    assert warm.series["bad"].seconds == [2.0]

    machine = FakeMachine()
    good, work = machine.work("good", 1.0), machine.work("bad", 2.0)

    def bad():
        if machine.calls.count("bad") == calls_before_rounds + 2:
            raise RuntimeError("CUDA error: device lost\nwith more lines")
        work()

    with pytest.raises(
        CandidateFailed, match="^bad raised in round 3 RuntimeError: CUDA error: device lost$"
    ) as failed:
        interleave({"good": good, "bad": bad}, fixed(9), machine.clock)
    kept = failed.value.run.series
    assert kept["good"].seconds == [1.0, 1.0] and kept["bad"].seconds == [2.0, 2.0]
    assert len(kept["good"].waited) == len(kept["bad"].waited) == 2


def test_what_raises_at_once_is_said_to_have_done_so():
    with pytest.raises(CandidateFailed, match="a raised while it warmed up ZeroDivisionError: division by zero"):
        interleave({"a": lambda: 1 / 0}, fixed(9), FakeMachine().clock)
