"""Check on 200 shapes of convolutions whether the kernels that melbench chooses are ever slower than torch's.

    python -m bench.studies.convolution_grid grid results/speed/convolution-grid.csv
    python -m bench.studies.convolution_grid picture results/speed/convolutions.csv results/speed/convolutions.svg

grid times a training step, forward and backward, of each shape. picture draws a table that
`melbench time groups --against torch --csv TABLE.csv` wrote, as PNG, SVG or PDF.
"""

import csv
import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from pydantic import ValidationError
from torch.nn.functional import conv1d

from bench.baselines.convolutions import (
    ROUNDS,
    TRAINING,
    ConvolutionRow,
    Shape,
    _call,
    _chosen,
    _settings,
    _tensors,
)
from bench.cli.terminal import finish, note
from bench.formats import Sheet, to_csv
from bench.stats.intervals import median_interval, significant
from bench.system import environment
from bench.timing import timer
from bench.timing.clocks import HostClock, clock_for
from bench.timing.verdicts import EFFECT, decide, log_ratios
from melcnn.errors import InputError, first_problem
from melcnn.files import check_writable, write_whole
from melcnn.kernels import grouped_conv

GRID_ROUNDS = 40  # fewer than 13 give no interval of this confidence

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
    """The time of melbench's choice against torch's; the fields are the CSV's columns.

    Attributes:
        chosen: the kernels that melbench chooses, "melcnn" or "torch".
        time_ratio: melbench's time to torch's, with an interval that holds for all 200 shapes together.
        verdict: as `compare` gives it, for an effect of 2%.
        confirmed: the verdict of a second run, for shapes that the first called SLOWER.
    """

    chosen: str
    time_ratio: float
    time_ratio_low: float
    time_ratio_high: float
    verdict: str
    confirmed: str | None = None
    device: str


def grid(device: str, progress: Callable[[str], None]) -> Iterator[GridRow]:
    """Time each shape of `GRID` against torch, and a second time if it is called SLOWER."""
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
    """Return the ratio of times, its low and high end, and the verdict."""
    # Both are made twice and called as A B B A: the place in memory moves a time by half a percent.
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
    """Return the seconds in which `grouped_conv1d` looks up its choice for a call of the grid's smallest shape."""
    tensors, settings = _tensors(GRID[0], TRAINING, device), _settings(GRID[0])
    run = timer.interleave(
        {"": lambda: grouped_conv.uses_ours(*tensors, *settings)}, timer.fixed(ROUNDS), clock_for(device)
    )
    return median_interval(run.series[""].seconds)[0]


def read(path: Path) -> list[ConvolutionRow]:
    """Return the rows of a table that `melbench time --against torch --csv` wrote.

    Raises:
        InputError: for any other file.
    """
    again = "give a table that 'melbench time groups --against torch --csv FILE' wrote"
    rows: list[ConvolutionRow] = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            for line in lines:
                rows.append(
                    ConvolutionRow.model_validate(
                        {n: c if c or not n.endswith(("_floor", "precision")) else None for n, c in line.items()}
                    )
                )
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
    """Run the command that the arguments name.

    Raises:
        InputError: for other arguments.
    """
    match list(arguments):
        case ["picture", table, target]:
            rows = read(Path(table))
            from bench.studies.convolution_plot import picture  # imported late: the tables need no figures

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
