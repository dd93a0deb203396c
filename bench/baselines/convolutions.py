"""Grouped convolutions by melbench's kernels and by torch's: times beside multiply-accumulates, layer by layer.

`melbench time groups --against torch` prints the table.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn.functional import conv1d

from bench.formats import Sheet
from bench.measurement import roofline
from bench.measurement.peaks import Peaks, device_peaks
from bench.stats.intervals import median_interval, significant
from bench.system import environment
from bench.timing import timer
from bench.timing.clocks import HostClock, clock_for
from melcnn.config import Trial
from melcnn.errors import InputError
from melcnn.kernels import cuda, grouped_conv
from melcnn.model import KERNEL_SIZE, POOLING

FORWARD, TRAINING = "forward", "training"
ROUNDS = 25


class Shape(BaseModel):
    """A convolution of 3 taps and padding 1, of `replicas` networks side by side, each of these groups and channels.

    Attributes:
        input_gradient: training computes it; a first layer needs none.
    """

    model_config = ConfigDict(frozen=True)

    layer: int | None = None
    groups: int
    channels_in: int
    channels_out: int
    frames: int
    stride: int = 1
    batch_size: int
    replicas: int = 1
    input_gradient: bool = True

    @property
    def macs_a_clip(self) -> int:
        """Forward multiply-accumulates of one clip: every output sees the taps of its group's input channels."""
        frames_out = (self.frames - 1) // self.stride + 1
        return self.replicas * frames_out * self.channels_out * self.channels_in // self.groups * KERNEL_SIZE


class ConvolutionRow(Shape):
    """The times of a shape, seconds a batch; the fields are the CSV's columns.

    Attributes:
        direction: forward, or training, which is forward and backward.
        macs: as `macs_a_clip`.
        speed_ratio: torch's time to ours, the median over rounds with its interval.
        torch_times_floor, melbench_times_floor: the time in units of the least that the device needs for it; None if
            the device's peaks were measured on a busy machine.
        chosen: the kernels that melbench uses for it here.
        precision: in which both computed; None on the CPU.
    """

    direction: str
    macs: int
    torch_time_s: float
    melbench_time_s: float
    speed_ratio: float
    speed_ratio_low95: float
    speed_ratio_high95: float
    torch_times_floor: float | None
    melbench_times_floor: float | None
    chosen: str
    device: str
    precision: str | None = None


def of_trials(trials: Sequence[Trial], replicas: int = 1) -> list[Shape]:
    """Return the convolutions of the trials' networks, `replicas` stacked, and the depthwise form of the inner ones."""
    found = []
    for trial in trials:
        frames, c_in, channels = trial.front_end.frames, trial.front_end.n_mels, trial.model.channels
        for layer in (1, 2, 3):
            for groups in dict.fromkeys((trial.model.groups, channels) if layer > 1 else (trial.model.groups,)):
                found.append(
                    Shape(
                        layer=layer,
                        groups=groups,
                        channels_in=c_in,
                        channels_out=channels,
                        frames=frames,
                        batch_size=trial.training.batch_size,
                        replicas=replicas,
                        input_gradient=layer > 1,
                    )
                )
            frames, c_in = frames // POOLING, channels
    return sorted(dict.fromkeys(found), key=lambda s: (s.batch_size, s.layer, s.groups))


def measure(
    shapes: Sequence[Shape],
    device: str,
    progress: Callable[[str], None] = lambda text: None,
    kernels: str | None = None,
) -> list[ConvolutionRow]:
    """Time every shape, forward and training: torch's convolution and ours in interleaved rounds.

    On CUDA these are replays of graphs by the device's clock, as trainings are: a call from Python takes longer.

    Raises:
        InputError: without kernels of ours, or if `kernels` asks for torch's.
    """
    if "torch" in (kernels, grouped_conv.kernels(device)):
        raise InputError(
            "there are no kernels of melbench's here to compare: install a C compiler, and give no --kernels"
        )
    env = environment.collect(device)
    top = device_peaks(env, device)
    rows = []
    for shape, direction in itertools.product(shapes, (FORWARD, TRAINING)):
        progress(f"layer {shape.layer}, groups {shape.groups}, batch {shape.batch_size}, {direction}")
        rows.append(_row(shape, direction, device, env, top, clock_for(device)))
    return rows


def _row(
    shape: Shape, direction: str, device: str, env: environment.Environment, top: Peaks, clock: HostClock
) -> ConvolutionRow:
    ways: dict[str, Callable[..., Tensor]] = {"torch": conv1d, "melbench": grouped_conv.ours}
    calls = {way: _call(shape, direction, device, convolution) for way, convolution in ways.items()}
    floor = roofline.floor(roofline.operations(calls["torch"]), top).seconds
    if device == "cuda":
        calls = {way: cuda.captured(call) for way, call in calls.items()}
    run = timer.interleave(calls, timer.fixed(ROUNDS), clock)
    seconds = {way: series.device_seconds or series.seconds for way, series in run.series.items()}
    times = {way: median_interval(each)[0] for way, each in seconds.items()}
    # Round by round, so that a machine that drifts has hit both alike.
    ratio, low, high = median_interval([a / b for a, b in zip(seconds["torch"], seconds["melbench"], strict=True)])
    return ConvolutionRow(
        **shape.model_dump(),
        direction=direction,
        macs=shape.macs_a_clip,
        torch_time_s=significant(times["torch"]),
        melbench_time_s=significant(times["melbench"]),
        speed_ratio=significant(ratio),
        speed_ratio_low95=significant(low),
        speed_ratio_high95=significant(high),
        torch_times_floor=None if top.disturbed else significant(times["torch"] / floor),
        melbench_times_floor=None if top.disturbed else significant(times["melbench"] / floor),
        chosen=_chosen(shape, direction, device),
        device=env.device,
        precision=env.precision,
    )


def _tensors(shape: Shape, direction: str, device: str) -> tuple[Tensor, Tensor, Tensor]:
    training, outputs = direction == TRAINING, shape.replicas * shape.channels_out
    x = torch.randn(shape.batch_size, shape.replicas * shape.channels_in, shape.frames, device=device)
    weight = torch.randn(outputs, shape.channels_in // shape.groups, KERNEL_SIZE, device=device)
    bias = torch.randn(outputs, device=device)
    return (
        x.requires_grad_(training and shape.input_gradient),
        weight.requires_grad_(training),
        bias.requires_grad_(training),
    )


def _settings(shape: Shape) -> tuple[int, int, int, int]:
    return shape.stride, KERNEL_SIZE // 2, 1, shape.replicas * shape.groups


def _call(shape: Shape, direction: str, device: str, convolution: Callable[..., Tensor]) -> Callable[[], object]:
    tensors = _tensors(shape, direction, device)
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    settings = _settings(shape)
    with torch.no_grad():
        dy = torch.randn_like(conv1d(*tensors, *settings))

    def call() -> None:
        with torch.set_grad_enabled(bool(wanted)):
            y = convolution(*tensors, *settings)
        if wanted:
            torch.autograd.grad(y, wanted, dy)

    return call


def _chosen(shape: Shape, direction: str, device: str) -> str:
    with torch.set_grad_enabled(direction == TRAINING):
        return grouped_conv.faster_kernels(*_tensors(shape, direction, device), *_settings(shape))


def sheet(rows: Sequence[ConvolutionRow]) -> Sheet:
    """Return the times of both kernels and the speedup of melbench's."""
    return Sheet(
        title=f"convolutions of {KERNEL_SIZE} taps by torch's kernels and melbench's, {rows[0].device}",
        headings=["layer", "batch", "pass", "groups", "macs", "torch", "melbench", "speedup", "x floor", "chosen"],
        cells=[
            [
                f"{row.channels_in} to {row.channels_out}, {row.frames} frames"
                + (f", {row.replicas} side by side" if row.replicas > 1 else ""),
                str(row.batch_size),
                row.direction,
                str(row.groups),
                f"{row.macs:,}",
                f"{row.torch_time_s * 1e3:.3g} ms",
                f"{row.melbench_time_s * 1e3:.3g} ms",
                f"{row.speed_ratio:.2f} ({row.speed_ratio_low95:.2f} to {row.speed_ratio_high95:.2f})",
                " / ".join(f"{n:.3g}" for n in (row.torch_times_floor, row.melbench_times_floor) if n is not None),
                row.chosen,
            ]
            for row in rows
        ],
        records=[row.model_dump() for row in rows],
        notes=[
            "pass: training is forward and backward; the first layer needs no gradient of its input.",
            "MACs: one clip in each network, forward.",
            "speedup: torch's time divided by melbench's, median over rounds.",
            "x floor: time as a multiple of the least that the device needs, torch's / melbench's.",
            "chosen: the kernels that melbench uses for this shape on this machine.",
        ],
        spare=["x floor"],
    )
