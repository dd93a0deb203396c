import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bench.measurement import builders, peaks, roofline, workloads
from bench.measurement.peaks import Peaks
from bench.measurement.roofline import ARITHMETIC, LAUNCHES, MEMORY, OperatorTraffic, floor, operations
from bench.system import environment
from bench.timing.clocks import Reading
from tests.helpers.configurations import plain
from tests.helpers.machines import FakeMachine

# 1 GFLOP/s, 1 GB/s for what fits 1 MB and 0.1 GB/s beyond, 1 ms a launch.
TOP = Peaks(flops_per_second=1e9, bytes_per_second={2**20: 1e9, 2**30: 1e8}, launch_seconds=1e-3)


def test_operations_of_a_convolution():
    # Conv1d(4, 6, 3, groups=2) on (2, 4, 10) without padding: output (2, 6, 8), 96 elements of 3 x 2 macs; bias 96.
    # Bytes: input 80, weight 6 x 2 x 3 = 36, bias 6, output 96 floats.
    layer, x = nn.Conv1d(4, 6, 3, groups=2), torch.randn(2, 4, 10)
    with torch.no_grad():
        (one,) = operations(lambda: layer(x))
    assert (one.operator, one.flops, one.bytes) == ("convolution", 2 * 96 * 6 + 96, 4 * (80 + 36 + 6 + 96))


def test_views_and_reservations_are_no_work():
    x = torch.randn(4, 6)
    assert operations(lambda: x.view(6, 4).t()[:2].unsqueeze(0)) == []
    assert operations(lambda: torch.empty(100)) == []
    (copy,) = operations(lambda: x.t().contiguous())
    assert (copy.operator, copy.flops, copy.bytes) == ("clone", 0.0, 2 * 4 * 24)


def test_composite_operators_are_heard_in_parts_in_inference_mode_too():
    layer, x = nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.Linear(8, 2)).eval(), torch.randn(2, 4, 10)

    def heard(mode):
        def call():
            with mode():
                layer(x)

        return [(one.operator, one.flops) for one in operations(call) if one.flops]

    assert heard(torch.inference_mode) == heard(torch.no_grad)
    assert heard(torch.inference_mode)[0] == ("convolution", 2 * 96 * 12 + 96)


def test_an_expanded_tensor_has_more_elements_than_memory():
    small = torch.ones(1).expand(1000)
    (one,) = operations(lambda: small + torch.ones(1000))[-1:]
    assert one.bytes == 4 * (1 + 1000 + 1000)


def test_a_lookup_reads_what_it_gives():
    table, rows = torch.ones(10_000, 8), torch.tensor([1, 2])
    (one,) = operations(lambda: table[rows])
    assert one.bytes == 2 * 4 * 16


def test_operands_that_are_one_tensor_move_once():
    x = torch.randn(100)
    (one,) = operations(lambda: x + x)
    assert one.bytes == 4 * 200


def test_an_operator_without_a_formula_still_moves_its_bytes():
    # A fused Adam step has no formula here: parameter, gradient and both moments, 100 floats each, and a step count.
    p = torch.zeros(100, requires_grad=True)
    optimizer = torch.optim.Adam([p], fused=True)
    p.grad = torch.ones(100)
    optimizer.step()
    heard = operations(optimizer.step)
    assert all(one.flops <= 1 for one in heard)
    assert sum(one.bytes for one in heard) >= 4 * 400


@pytest.mark.parametrize(
    ("one", "seconds", "bound"),
    [
        (OperatorTraffic("mm", flops=5e6, bytes=1000), 5e-3, ARITHMETIC),  # 5e6 / 1e9
        (OperatorTraffic("copy", flops=0.0, bytes=2**22), 2**22 / 1e8, MEMORY),  # beyond 1 MB: the slower bandwidth
        (OperatorTraffic("copy", flops=0.0, bytes=2**20), 2**20 / 1e9, MEMORY),  # 1.05 ms, just above a launch
        (OperatorTraffic("add", flops=10.0, bytes=80), 1e-3, LAUNCHES),
    ],
)
def test_each_operator_takes_at_least_its_dearest_need(one, seconds, bound):
    found = floor([one], TOP)
    assert found.seconds == pytest.approx(seconds) and found.bound == bound


def test_operators_run_one_after_another():
    # 5 ms of arithmetic, three launches of 1 ms; twice. The largest share names the bound.
    found = floor([OperatorTraffic("mm", 5e6, 1000), *[OperatorTraffic("add", 1.0, 8)] * 3] * 2, TOP)
    assert found.seconds == pytest.approx(2 * 8e-3)
    assert (found.bound, found.operators, found.flops, found.bytes) == (ARITHMETIC, 8, 2 * 5_000_003, 2 * 1024)
    assert floor([OperatorTraffic("mm", 2e6, 1000), *[OperatorTraffic("add", 1.0, 8)] * 3], TOP).bound == LAUNCHES


def test_only_busy_time_says_that_a_gpu_waits_for_launches():
    found = floor([OperatorTraffic("add", 1.0, 8)] * 9, TOP)
    assert found.bound == LAUNCHES
    assert roofline.bound(found, 1.0, None, on_gpu=False) == LAUNCHES  # the CPU: host and device are one
    assert roofline.bound(found, 1.0, None, on_gpu=True) == MEMORY  # not known, so not said
    assert roofline.bound(found, 1.0, 0.9, on_gpu=True) == MEMORY
    assert roofline.bound(found, 1.0, 0.1, on_gpu=True) == LAUNCHES
    heavy = floor([OperatorTraffic("mm", 5e9, 1000)], TOP)
    assert roofline.bound(heavy, 10.0, 0.1, on_gpu=True) == LAUNCHES


def test_facts_of_an_epoch_are_those_of_its_steps():
    trial = plain(groups=16, batch_size=8)
    step, epoch = workloads.of_trial(trial, ["step", "epoch"])
    epoch = epoch.model_copy(update={"clips": 20})
    one, all_steps = builders.facts(step, "cpu", TOP), builders.facts(epoch, "cpu", TOP)
    # 8 + 8 + 4 clips: two whole steps, and a half one that launches as many operators
    assert all_steps.floor.operators == 3 * one.floor.operators
    assert 2.4 * one.floor.flops < all_steps.floor.flops < 2.7 * one.floor.flops
    # seed.md's network at 16 groups: 67,232 convolution and linear macs a clip; a step has about three times
    # those of the forward pass (gradients of weights and of activations, none for the input).
    assert (one.params, one.macs) == (5890, 67_232)
    forward = builders.facts(workloads.of_trial(trial, ["latency"])[0], "cpu", TOP)
    assert 2 * 67_232 < forward.floor.flops < 2.6 * 67_232
    assert 2 * 8 * forward.floor.flops < one.floor.flops < 3.5 * 8 * forward.floor.flops


def test_ceilings_are_measured_once_a_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path))
    measured = []

    def measure(device, clock):
        measured.append(device)
        return TOP

    monkeypatch.setattr(peaks, "measure", measure)
    env = environment.collect("cpu")
    assert peaks.device_peaks(env, "cpu") == peaks.device_peaks(env, "cpu") == TOP
    assert measured == ["cpu"]
    peaks.device_peaks(env.model_copy(update={"threads": env.threads + 1}), "cpu")
    assert measured == ["cpu"] * 2
    for file in tmp_path.glob("ceilings/*.json"):
        file.write_text("{}")
    peaks.device_peaks(env, "cpu")
    assert measured == ["cpu"] * 3


def test_a_ceiling_is_the_best_of_its_tries(monkeypatch):
    # Every try takes a second, but for one that takes half: 2 n^3 FLOPs, the copied bytes and a launch over half.
    machine = FakeMachine()
    took = {"calls": 0}

    class Clock:
        def read(self, call, calls=1):
            took["calls"] += 1
            machine.work("x", 0.5 if took["calls"] % 17 == 9 else 1.0)()
            return machine.clock.read(machine.work("y", 0.5 if took["calls"] % 17 == 9 else 1.0))

    found = peaks.measure("cpu", Clock())
    assert found.flops_per_second == pytest.approx(2 * max(peaks.MATMUL_SIZES["cpu"]) ** 3 / 0.5)
    assert found.bytes_per_second == {size: size / 0.5 for size in peaks.COPY_BYTES["cpu"]}
    assert found.launch_seconds == pytest.approx(0.5 / peaks.LAUNCHES)


def measured_with(waits):
    """Return peaks of a machine on which every call takes a second; try n waits `waits(n)` seconds for a core."""
    numbers = itertools.count()
    clock = SimpleNamespace(read=lambda call, calls=1: Reading(1.0 if (n := next(numbers)) % 2 else 0.5, waits(n)))
    return peaks.measure("cpu", clock)


def test_peaks_are_of_undisturbed_tries():
    # Every second try takes 0.5 s, but it waited for a core for 6 ms, more than 1%: the seconds of the others count.
    found = measured_with(lambda number: 0.006 * (number % 2 == 0))
    assert found.flops_per_second == pytest.approx(2 * max(peaks.MATMUL_SIZES["cpu"]) ** 3) and not found.disturbed
    assert measured_with(lambda number: 0.004).launch_seconds == pytest.approx(0.5 / peaks.LAUNCHES)
    assert measured_with(lambda number: 0.02).disturbed


def test_peaks_of_a_busy_machine_are_not_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path))
    found = [TOP.model_copy(update={"disturbed": True}), TOP]
    monkeypatch.setattr(peaks, "measure", lambda device, clock: found.pop(0))
    env = environment.collect("cpu")
    assert peaks.device_peaks(env, "cpu").disturbed
    assert peaks.device_peaks(env, "cpu") == peaks.device_peaks(env, "cpu") == TOP


def test_a_last_batch_of_one_clip_is_no_step():
    # 7 clips in batches of 3 are two steps: trainings leave the seventh out.
    step, epoch = workloads.of_trial(plain(groups=16, batch_size=3), ["step", "epoch"])
    epoch = epoch.model_copy(update={"clips": 7})
    one, two_steps = builders.facts(step, "cpu", TOP), builders.facts(epoch, "cpu", TOP)
    assert two_steps.floor.operators == 2 * one.floor.operators
