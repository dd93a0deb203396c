"""Training on a device: captured steps, stacks, memory, and what happens when something fails."""

import os
import subprocess
import sys

import pytest
import torch

from bench.system import environment, monitor
from melcnn import configure, extract, fit, inference, predict
from melcnn.checkpoint import checkpoint_of
from melcnn.steps import Stack, capture_for
from tests.cuda import TRIALS

EPOCHS = 3


def trained(trial, seeds, data, captured=True, kernels=None):
    """The losses of each epoch, the weights at the end, and the stack."""
    stack = Stack(trial, seeds, "cuda", capture_for("cuda") if captured else None, kernels)
    losses = torch.stack([stack.epoch(*data) for _ in range(EPOCHS)])
    assert not captured or len(stack.captured) == 2  # 200 clips are three batches of 64, and one of 8.
    return losses, stack.weights.detach().clone(), stack


def of_ours(stack):
    """Whether melbench's kernels computed every convolution: these add up in a fixed order."""
    layers = [layer for layer in stack.network.blocks.modules() if isinstance(layer, torch.nn.Conv1d)]
    return all(layer.__dict__.get("trained_by") == "melcnn" for layer in layers)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2, 3)])
@pytest.mark.parametrize("recipe", TRIALS)
def test_captured_is_as_stepped(recipe, seeds, noise, record_property):
    losses, weights, stack = trained(TRIALS[recipe], seeds, noise)
    stepped, by_step, _ = trained(TRIALS[recipe], seeds, noise, captured=False)
    record_property("weights off by at most", f"{float((weights - by_step).abs().max()):.2g}")
    if of_ours(stack):
        assert torch.equal(losses, stepped) and torch.equal(weights, by_step)
    torch.testing.assert_close(losses, stepped, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights, by_step, rtol=0, atol=2e-3)


@pytest.mark.parametrize("kernels", ["torch", None])
def test_a_stack_is_as_each_alone(kernels, noise, record_property):
    together, *_ = trained(TRIALS["plain"], (0, 1, 2), noise, kernels=kernels)
    alone, *_ = trained(TRIALS["plain"], (1,), noise, kernels=kernels)
    off = float((together[:, 1] - alone[:, 0]).abs().max())
    record_property("losses off by at most", f"{off:.2g}")
    assert off < 1e-3


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_the_same_twice(groups, noise, record_property):
    # cuDNN may add up weight gradients in any order: what it did is recorded. Ours repeat exactly.
    trial, equal = configure(recipe="plain", groups=groups), {}
    for kernels in ("torch", None):
        (first, one, stack), (second, two, _) = (trained(trial, (0, 1), noise, kernels=kernels) for _ in range(2))
        equal[kernels or "fastest"] = torch.equal(one, two)
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    record_property("bit for bit", str(equal))
    assert equal["fastest"] or not of_ours(stack)


def test_a_device_trains_as_the_cpu(clips, record_property):
    runs = {}
    trial = configure(recipe="plain", groups=4, epochs=10)
    for device in ("cpu", "cuda"):
        features = extract(clips, trial.front_end, device)
        runs[device] = fit(trial, features, (0, 1)), features.x.cpu()
    (cpu, x), (gpu, same) = runs["cpu"], runs["cuda"]
    record_property("features off by at most", f"{float((x - same).abs().max()):.2g}")
    torch.testing.assert_close(x, same, rtol=0, atol=2e-3)
    for one, two in zip(cpu, gpu, strict=True):
        assert two.curves.train_loss[0] == pytest.approx(one.curves.train_loss[0], rel=1e-3)
        assert two.curves.train_loss[-1] == pytest.approx(one.curves.train_loss[-1], rel=0.25, abs=0.02)
        assert two.kernels in ("melcnn", "torch")
        x, _ = features.split("test")
        torch.testing.assert_close(inference.logits(one.network, x.cpu())[0], one.test_logits, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(inference.logits(two.network, x.cpu())[0], two.test_logits, rtol=1e-2, atol=1e-2)
    checkpoint = checkpoint_of(gpu[0], trial, clips)
    there, here = (torch.from_numpy(predict(checkpoint, clips.waveforms[:8], device)) for device in ("cuda", "cpu"))
    torch.testing.assert_close(there, here, rtol=1e-2, atol=1e-3)


def test_memory_goes_with_its_stack(noise, record_property):
    seen = []
    for _ in range(20):
        trained(configure(recipe="plain", groups=1), range(4), noise)
        torch.cuda.empty_cache()
        seen.append((torch.cuda.memory_allocated() >> 20, torch.cuda.memory_reserved() >> 20))
    record_property("MiB allocated, reserved after stacks 1, 3, 20", f"{seen[0]}, {seen[2]}, {seen[-1]}")
    assert seen[-1][0] <= seen[2][0] + 1 and seen[-1][1] <= seen[2][1] + 32


def test_free_memory_counts_what_torch_keeps(noise):
    torch.cuda.empty_cache()
    before = monitor.free_bytes("cuda")
    block = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    del block  # torch keeps it.
    assert abs(monitor.free_bytes("cuda") - before) < 2**26


def test_the_machine_is_described(record_property):
    env, now = environment.collect("cuda"), monitor.conditions("cuda")
    record_property("conditions", f"{now.gpu_mhz} MHz, {now.gpu_celsius} C, throttle {now.throttle}")
    assert env.device == torch.cuda.get_device_name() and env.precision == "fp32" and env.cuda == torch.version.cuda


def by_itself(code):
    """The output of a process that may end up with a broken device."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=env)
    assert done.returncode == 0, f"{done.stdout} {done.stderr[:3000]} ... {done.stderr[-1000:]}"
    return done.stdout


WAITING = """
import torch
from melcnn import configure
from melcnn.kernels import cuda
from melcnn.steps import Stack, capture_for

x, y = torch.randn(200, 80, 101, device="cuda"), torch.arange(200, device="cuda") % 2
trial = configure(recipe="plain", groups=4)
stacks = [Stack(trial, [0], "cuda", way) for way in (capture_for("cuda"), None)]
step = stacks[0]._step
stacks[0]._step = lambda *batch: (step(*batch), stacks[0].total.tolist())  # No capture survives a wait.
found = [[stack.epoch(x, y).tolist() for _ in range(3)] for stack in stacks]
same = torch.cuda.current_stream() == torch.cuda.default_stream()
print(stacks[0].capture, cuda.can_capture(), capture_for("cuda"), same)
print(max(abs(a[0] - b[0]) for a, b in zip(*found)) < 1e-3)
"""


def test_a_capture_that_fails_costs_no_training():
    assert by_itself(WAITING).splitlines() == ["None False None True", "True"]


SHORT = """
import torch
from contextlib import nullcontext
from bench.executors.jobs import TrainingJob, train_job
from bench.system import environment
from melcnn import configure, extract, load_clips
from tests.conftest import write_corpus
from pathlib import Path
import sys, tempfile

with tempfile.TemporaryDirectory() as folder:
    clips = load_clips(write_corpus(Path(folder) / "corpus"), ("yes", "no"))
trial = configure(recipe="plain", epochs=2, batch_size=48)
features = extract(clips, trial.front_end, "cuda")
limit = {limit}
torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + limit) / torch.cuda.mem_get_info()[1])
job = TrainingJob(trial, tuple(range(64)))
found = train_job(job, lambda front_end: nullcontext(features), lambda *_: None, environment.collect("cuda"))
print([len(stack.seeds) for stack in found.stacks], [f.message for f in found.failures][:1], found.device_lost)
"""


def test_memory_that_is_short_halves_the_stack(record_property):
    said = by_itself(SHORT.format(limit=160 << 20))
    record_property("stacks", said.strip())
    sizes = eval(said[: said.index("]") + 1])
    assert sum(sizes) == 64 and len(sizes) > 1 and "[] " in said


LOST = """
import torch
from melcnn import configure
from melcnn.steps import Stack, capture_for
from bench.executors.jobs import _device_lost

x, y = torch.randn(128, 80, 101, device="cuda"), torch.full((128,), 7, device="cuda")  # There is no class 7.
try:
    Stack(configure(recipe="plain"), [0], "cuda", capture_for("cuda")).epoch(x, y).tolist()
except Exception as error:
    print(type(error).__name__, _device_lost())
"""


def test_a_lost_device_is_noticed(record_property):
    said = by_itself(LOST)
    record_property("error", said.strip())
    assert said.split()[-1] == "True"
