"""Workloads made ready to call: networks, inputs and optimisers on the device, and what they compute."""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bench.counting.cost_tables import load_model
from bench.counting.profile import make_inputs, materialise, profile
from bench.measurement import reference, roofline
from bench.measurement.peaks import Peaks
from bench.measurement.workloads import Workload, WorkloadFacts, labels
from melcnn import native
from melcnn.config import Trial
from melcnn.errors import InputError, first_line
from melcnn.frontend import LogMelFilterBanks
from melcnn.model import MelCNN
from melcnn.steps import Stack, capture_for

# An epoch's reference is shorter, which costs less and says as much about the machine.
REFERENCE_SHARE = 8


@dataclass(frozen=True)
class Built:
    """A work that is ready to be called; `module`: the network or front-end in it, `inputs`: one batch for it."""

    call: Callable[[], object]
    module: nn.Module
    inputs: list[Tensor]


def build(work: Workload, device: str, in_steps: bool = False, kernels: str | None = None) -> Built:
    """Build what a workload needs on `device`: weights, and random inputs (noise takes as long as speech).

    Args:
        in_steps: training runs operator by operator, also where it would be captured as a whole.

    Raises:
        InputError: the model cannot be built, or cannot be trained though a step or epoch is asked for.
    """
    built = _of_trial(work, work.trial, device, in_steps, kernels) if work.trial else _of_model(work, device)
    return Built(_delayed(built.call, work.slowdown), built.module, built.inputs) if work.slowdown else built


def build_reference(work: Workload, device: str) -> Callable[[], object]:
    """Return reference work of the same kind and, for a trial, of the same shapes."""
    trial = work.trial or Trial()
    front_end, n_classes = trial.front_end, len(trial.data.words)
    if work.what == "front-end":
        waveforms = torch.randn(work.batch_size, front_end.sample_rate, device=device)
        return reference.front_end(front_end.n_fft, front_end.hop_length, front_end.n_mels, waveforms)
    network = reference.network(front_end.n_mels, trial.model.groups, trial.model.channels, n_classes).to(device)
    x = torch.randn(work.batch_size, front_end.n_mels, trial.front_end.frames, device=device)
    if work.what in ("latency", "throughput"):
        return reference.inference(network, x)
    step = reference.training_step(network, x, n_classes)
    steps = math.ceil(work.clips / work.batch_size / (REFERENCE_SHARE if work.what == "epoch" else 1))
    return lambda: [step() for _ in range(steps)]


def facts(work: Workload, device: str, ceilings: Peaks) -> WorkloadFacts:
    """Run a call of `work` once (one step of each size for an epoch) and return what it computes.

    Raises:
        InputError: the model cannot be built, or refuses its input.
    """
    whole, rest = divmod(work.clips, work.batch_size)
    kind = "step" if work.what == "epoch" else work.what
    fewest = 2 if work.trial and work.what == "epoch" else 1  # Trainings leave out a last batch of one clip.
    operators: list[roofline.OperatorTraffic] = []
    try:
        for clips, times in ((work.batch_size, whole), (rest, 1)):
            if clips >= fewest and times:
                part = work.model_copy(update={"what": kind, "clips": clips, "batch_size": clips, "slowdown": 0.0})
                built = build(part, device, in_steps=True)
                with native.without_kernels():  # Our kernels are not operators that a dispatch mode sees.
                    built.call()  # An optimiser's first step also makes its state.
                    operators += roofline.operations(built.call) * times
    except (InputError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise InputError(f"{labels([work])[0]} cannot be run: {first_line(error)}") from error
    counted = profile(built.module, [tensor[:1] for tensor in built.inputs], allow_uncounted=True, training=False)
    return WorkloadFacts(
        params=counted.total("params"),
        macs=counted.pipeline_macs if work.what == "front-end" else counted.total("macs"),
        floor=roofline.floor(operators, ceilings),
    )


def _of_trial(work: Workload, trial: Trial, device: str, in_steps: bool, kernels: str | None) -> Built:
    if work.what == "front-end":
        module: nn.Module = LogMelFilterBanks(**trial.front_end.model_dump()).to(device)
        waveforms = torch.randn(work.batch_size, trial.front_end.sample_rate, device=device)
        return Built(reference.inference(module, waveforms), module, [waveforms])
    if work.what in ("latency", "throughput"):
        network = MelCNN.of(trial).to(device)
        network.kernels = kernels
        x = torch.randn(work.batch_size, trial.front_end.n_mels, trial.front_end.frames, device=device)
        return Built(reference.inference(network, x), network, [x])
    stack = Stack(trial, [0], device, None if in_steps else capture_for(device), kernels)
    x = _noise(work.clips, trial.front_end.n_mels, trial.front_end.frames, device)
    labels = torch.arange(work.clips, device=device) % len(trial.data.words)
    call = stack.repeated_step(x, labels) if work.what == "step" else functools.partial(stack.epoch, x, labels)
    return Built(call, stack.network, [x[: work.batch_size]])


@functools.lru_cache(maxsize=1)
def _noise(clips: int, n_mels: int, frames: int, device: str) -> Tensor:
    # An epoch's features are 205 MB: configurations that are timed side by side share them.
    return torch.randn(clips, n_mels, frames).to(device)


def _of_model(work: Workload, device: str) -> Built:
    model = load_model(str(work.model)).to(device)
    inputs = make_inputs(model, [(work.batch_size, *shape) for shape in work.input_shapes])
    materialise(model, inputs)
    if work.what in ("latency", "throughput"):
        return Built(reference.inference(model, *inputs), model, inputs)
    weights = [p for p in model.parameters() if p.requires_grad]
    if not weights:
        raise InputError(f"{work.model} has no trainable parameters: time latency or throughput of it")
    model.train()
    optimizer = torch.optim.Adam(weights)
    steps = math.ceil(work.clips / work.batch_size)

    def train() -> None:
        for _ in range(steps):
            outputs = [t for t in tree_leaves(model(*inputs)) if isinstance(t, Tensor) and t.requires_grad]
            if not outputs:
                raise InputError(f"{work.model}: no output has a gradient: time latency or throughput of it")
            optimizer.zero_grad(set_to_none=True)
            # Any loss that reaches every output will do: the time does not depend on its value.
            torch.stack([output.square().mean() for output in outputs]).sum().backward()
            optimizer.step()

    return Built(train, model, inputs)


def _delayed(call: Callable[[], object], share: float) -> Callable[[], None]:
    def delayed() -> None:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        end = now + share * (now - start)
        while time.perf_counter() < end:
            pass

    return delayed
