"""Grouped convolutions by melbench's kernels and by torch's: times beside multiply-accumulates, layer by layer.

`melbench time groups --against torch` prints the table. `python -m bench.baselines.convolutions picture TABLE.csv PICTURE.svg`
draws it, and `python -m bench.baselines.convolutions grid FILE.csv` asks on 200 shapes whether what melbench chooses is ever
slower than torch.
"""

import csv
import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor
from torch.nn.functional import conv1d

from bench.cli.terminal import finish, note
from bench.formats.render import Sheet, to_csv
from bench.measurement import roofline
from bench.measurement.peaks import Ceilings, ceilings
from bench.stats.intervals import median_interval, significant
from bench.system import environment
from bench.timing import timer
from bench.timing.clocks import HostClock, clock_for
from bench.timing.timer import Series
from bench.timing.verdicts import EFFECT, decide, log_ratios
from melcnn.config import Trial
from melcnn.errors import InputError, first_problem
from melcnn.files import check_writable, write_whole
from melcnn.kernels import grouped_conv
from melcnn.model import KERNEL_SIZE, POOLING

FORWARD, TRAINING = "forward", "training"
ROUNDS = 25


class Shape(BaseModel):
    """A convolution of 3 taps and padding 1, of so many networks side by side (`replicas`), each of these groups and
    channels. input_gradient: whether training wants it; a first layer's does not."""

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
        """Of one clip in each network, forward: each output meets the taps of its group's channels."""
        frames_out = (self.frames - 1) // self.stride + 1
        return self.replicas * frames_out * self.channels_out * self.channels_in // self.groups * KERNEL_SIZE


class ConvolutionRow(Shape):
    """One shape's times, seconds a batch; the fields are the CSV's columns.

    direction: forward, or training, which is forward and backward. macs: as `macs_a_clip`. speed_ratio: torch's
    time to ours, the median over rounds with its interval. torch_times_floor, melbench_times_floor: how many times what
    the device takes at least for it. chosen: what melbench uses for it here.
    """

    direction: str
    macs: int
    torch_time_s: float
    melbench_time_s: float
    speed_ratio: float
    speed_ratio_low95: float
    speed_ratio_high95: float
    torch_times_floor: float
    melbench_times_floor: float
    chosen: str
    device: str


def of_trials(trials: Sequence[Trial], replicas: int = 1) -> list[Shape]:
    """The convolutions of the trials' networks, or of stacks of so many, and those that one channel a group makes of
    their inner ones."""
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


def measure(shapes: Sequence[Shape], device: str, progress: Callable[[str], None] = lambda text: None):
    """Rows of every shape, forward and training: torch's convolution and ours in interleaved rounds.

    Raises `InputError` where there are no kernels of ours.
    """
    if grouped_conv.kernels(device) == "torch":
        raise InputError(
            "there are no kernels of melbench's here to compare: install a C compiler, and give no --kernels"
        )
    env = environment.collect(device)
    top = ceilings(env, device)
    rows = []
    for shape, direction in itertools.product(shapes, (FORWARD, TRAINING)):
        progress(f"layer {shape.layer}, groups {shape.groups}, batch {shape.batch_size}, {direction}")
        rows.append(_row(shape, direction, device, env.device, top, clock_for(device)))
    return rows


def _row(shape: Shape, direction: str, device: str, name: str, top: Ceilings, clock: HostClock) -> ConvolutionRow:
    ways = {"torch": conv1d, "melbench": grouped_conv.ours}
    calls = {way: _call(shape, direction, device, convolution) for way, convolution in ways.items()}
    floor = roofline.floor(roofline.operations(calls["torch"]), top).seconds
    run = timer.interleave(calls, timer.fixed(ROUNDS), clock)
    times = {way: _median(run.series[way]) for way in ways}
    # Round by round, so that a machine that drifts has hit both alike.
    ratio, low, high = median_interval(
        [a / b for a, b in zip(run.series["torch"].seconds, run.series["melbench"].seconds, strict=True)]
    )
    return ConvolutionRow(
        **shape.model_dump(),
        direction=direction,
        macs=shape.macs_a_clip,
        torch_time_s=significant(times["torch"]),
        melbench_time_s=significant(times["melbench"]),
        speed_ratio=significant(ratio),
        speed_ratio_low95=significant(low),
        speed_ratio_high95=significant(high),
        torch_times_floor=significant(times["torch"] / floor),
        melbench_times_floor=significant(times["melbench"] / floor),
        chosen=_chosen(shape, direction, device),
        device=name,
    )


def _median(series: Series) -> float:
    return median_interval(series.seconds)[0]


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


def _call(shape: Shape, direction: str, device: str, convolution) -> Callable[[], object]:
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
        return grouped_conv.chosen(*_tensors(shape, direction, device), *_settings(shape))


def sheet(rows: Sequence[ConvolutionRow]) -> Sheet:
    """Times of both, and how many times faster ours is."""
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
                f"{row.torch_times_floor:.3g} / {row.melbench_times_floor:.3g}",
                row.chosen,
            ]
            for row in rows
        ],
        records=[row.model_dump() for row in rows],
        note=(
            "pass: training is forward and backward (the first layer without the gradient of its input); macs: of one "
            "clip in each network, forward; speedup: torch's time to melbench's, median over rounds; x floor: how many "
            "times what the device takes at least, torch's and melbench's; chosen: what melbench uses for it here"
        ),
        spare=["x floor"],
    )


# 200 shapes, each forward and backward.
GRID = [
    Shape(groups=g or c, channels_in=c, channels_out=c, frames=frames, stride=stride, batch_size=clips)
    for c, g, clips, (frames, stride) in itertools.product(
        (32, 128),
        (1, 2, 4, 8, 0),  # 0: one channel a group
        (1, 8, 64, 256),
        ((25, 1), (101, 1), (400, 1), (101, 2), (400, 2)),
    )
]


class GridRow(Shape):
    """What melbench's choice takes for each second of torch's, with an interval that holds for all 200 together.

    verdict: of `compare` with an effect of 2%; confirmed: that of a second run, for what the first called SLOWER.
    """

    chosen: str
    time_ratio: float
    time_ratio_low: float
    time_ratio_high: float
    verdict: str
    confirmed: str | None = None
    device: str


def grid(device: str, progress: Callable[[str], None]) -> Iterator[GridRow]:
    """A row of each shape of `GRID`. What is called SLOWER is measured a second time."""
    name = environment.collect(device).device
    clock = clock_for(device)
    for number, shape in enumerate(GRID):
        progress(f"{number + 1} of {len(GRID)}: {shape.model_dump(exclude={'layer', 'input_gradient'})}")
        ratio, low, high, verdict = _against_torch(shape, device, clock)
        confirmed = _against_torch(shape, device, clock)[-1] if verdict == "SLOWER" else None
        yield GridRow(
            **shape.model_dump(),
            chosen=_chosen(shape, TRAINING, device),
            time_ratio=significant(ratio),
            time_ratio_low=significant(low),
            time_ratio_high=significant(high),
            verdict=verdict,
            confirmed=confirmed,
            device=name,
        )


def _against_torch(shape: Shape, device: str, clock: HostClock) -> tuple[float, float, float, str]:
    """Both are made twice and called as A B B A: where memory lies moves a time by half a percent."""
    calls = {
        name: _call(shape, TRAINING, device, convolution)
        for name, convolution in (
            ("torch 1", conv1d),
            ("melbench 1", grouped_conv.grouped_conv1d),
            ("melbench 2", grouped_conv.grouped_conv1d),
            ("torch 2", conv1d),
        )
    }
    run = timer.interleave(calls, timer.fixed(GRID_ROUNDS), clock)
    series = run.series
    ratios = log_ratios([(series["torch 1"], series["melbench 1"]), (series["torch 2"], series["melbench 2"])])
    # Bonferroni's correction: all intervals hold together with 95%.
    middle, low, high = median_interval(ratios, 1 - 0.05 / len(GRID))
    ratio, low, high = (float(torch.tensor(value).exp()) for value in (middle, low, high))
    return ratio, low, high, decide(low, high, EFFECT)


def seconds_to_choose(device: str) -> float:
    """Seconds for which `grouped_conv1d` looks up what it decided of a call, of the smallest shape of the grid."""
    tensors, settings = _tensors(GRID[0], TRAINING, device), _settings(GRID[0])
    run = timer.interleave(
        {"": lambda: grouped_conv.decided(*tensors, *settings)}, timer.fixed(ROUNDS), clock_for(device)
    )
    return _median(run.series[""])


GRID_ROUNDS = 40  # of fewer than 13 there is no interval of this confidence


def read(path: Path) -> list[ConvolutionRow]:
    """The rows of a table that `melbench time --against torch --csv` wrote. Raises `InputError` for anything else."""
    again = "give a table that 'melbench time groups --against torch --csv FILE' wrote"
    rows: list[ConvolutionRow] = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            for line in lines:
                rows.append(ConvolutionRow.model_validate(line))
                values = [value for value in rows[-1].model_dump().values() if isinstance(value, float)]
                if rows[-1].layer is None or not all(0 < value < math.inf for value in values):
                    raise InputError(f"line {lines.line_num} has no layer, or a time that is not positive")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {again}") from None
    except ValidationError as error:
        problem = f"line {lines.line_num}, {first_problem(error)}"
        raise InputError(f"{path} is no table of convolutions ({problem}): {again}") from None
    except (csv.Error, ValueError) as error:
        raise InputError(f"{path} is no table of convolutions ({error}): {again}") from None
    if not rows:
        raise InputError(f"{path} holds no rows: {again}")
    return rows


def main(arguments: Sequence[str]) -> None:
    match list(arguments):
        case ["picture", table, target]:
            rows = read(Path(table))
            from bench.studies.convolution_plot import picture  # which this module's tables do without

            picture(rows, Path(target))
        case ["grid", target]:
            check_writable(Path(target))
            device = environment.pick_device("auto")
            print(f"looking up a choice takes {seconds_to_choose(device) * 1e6:.2g} microseconds")
            found = list(grid(device, note))
            records = Sheet("", [], [], [row.model_dump() for row in found])
            write_whole(Path(target), lambda file: file.write(to_csv(records).encode()))
            slower = [row for row in found if row.confirmed == "SLOWER"]
            ours = sum(row.chosen == "melcnn" for row in found)
            print(f"{len(found)} shapes: melbench's kernels are chosen for {ours}; SLOWER than torch: {len(slower)}")
            for row in slower:
                print(f"  {row.time_ratio:.3f} ({row.time_ratio_low:.3f} to {row.time_ratio_high:.3f}): {row!r}")
        case _:
            raise InputError("give 'picture TABLE.csv PICTURE.svg' or 'grid FILE.csv'")


if __name__ == "__main__":
    finish(functools.partial(main, sys.argv[1:]))
