"""Measure all tables of speed in one call, for a machine that is lent for minutes, and write them into one folder.

    python -m bench.studies.whole_study FOLDER --data speech_commands_v0.02 --device cuda

Tables: convolutions by our kernels and torch's (convolutions), an epoch of the study's size for stacks of several sizes
(stacks), features against torchaudio's (front-end), 5 configurations of 32 seeds to convergence (study), and whole
trainings against plain PyTorch (baselines).
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bench.analysis import summary
from bench.baselines import convolutions, front_ends, race
from bench.cli import options
from bench.cli.output import keep
from bench.cli.terminal import finish, note
from bench.executors.threads import Threads
from bench.formats import Sheet, show
from bench.grid import parse_axes, plan
from bench.measurement.workloads import EPOCH_CLIPS
from bench.records import RecordFolder
from bench.records.failures import as_error
from bench.stats.intervals import median_interval, significant
from bench.sweep.run import sweep
from bench.system import environment
from bench.timing import timer
from bench.timing.clocks import HostClock, clock_for
from melcnn.config import Trial
from melcnn.data.loading import load_clips
from melcnn.errors import Failed
from melcnn.files import make_folder
from melcnn.kernels import grouped_conv
from melcnn.steps import Stack, capture_for

STACK_SIZES = (1, 8, 32)
STACK_ROUNDS = 7
CONVOLUTION_BATCHES = "batch_size=64,1024"


def stack_times(
    trials: Sequence[Trial], sizes: Sequence[int], clips: int, device: str, clock: HostClock | None = None
) -> Sheet:
    """Time an epoch over `clips` clips of noise for stacks of `sizes` networks, in interleaved rounds."""
    name = environment.collect(device).device
    records: list[dict[str, Any]] = []
    for trial in trials:
        x = torch.randn(clips, trial.front_end.n_mels, trial.front_end.frames).to(device)
        labels = torch.arange(clips, device=device) % len(trial.data.words)
        stacks = {size: Stack(trial, list(range(size)), device, capture_for(device)) for size in sizes}
        calls = {str(size): lambda stack=stack, x=x, y=labels: stack.epoch(x, y) for size, stack in stacks.items()}
        run = timer.interleave(calls, timer.fixed(STACK_ROUNDS), clock or clock_for(device))
        for size in sizes:
            seconds = run.series[str(size)].seconds
            median, low, high = median_interval(seconds)
            records.append(
                {
                    "n_mels": trial.front_end.n_mels,
                    "groups": trial.model.groups,
                    "batch_size": trial.training.batch_size,
                    "train_clips": clips,
                    "stack": size,
                    "epoch_time_s": significant(median),
                    "epoch_time_low95_s": significant(low),
                    "epoch_time_high95_s": significant(high),
                    "epoch_time_a_network_s": significant(median / size),
                    "device": name,
                }
            )
    cells = [
        [
            str(row["groups"]),
            str(row["stack"]),
            f"{row['epoch_time_s'] * 1e3:.4g} ms",
            f"{row['epoch_time_a_network_s'] * 1e3:.3g} ms",
        ]
        for row in records
    ]
    return Sheet(
        title=f"an epoch of {clips} clips by size of the stack, batch {records[0]['batch_size']}, {name}",
        headings=["groups", "networks", "epoch time", "a network"],
        cells=cells,
        records=records,
        notes=["One stack at a time, with all of torch's threads; a sweep trains several at once on the CPU."],
    )


def main(
    folder: Annotated[Path, typer.Argument(help="Where the tables are written.")],
    data: options.Data = "auto",
    device: options.Device = "auto",
    seeds: Annotated[int, typer.Option(help="Networks of each configuration, trained to convergence.")] = 32,
    epochs: Annotated[int, typer.Option(help="Epochs of the race against the baselines.")] = 2,
    clips: Annotated[int, typer.Option(help="Clips of the timed epochs.")] = EPOCH_CLIPS,
) -> None:
    """Measure all tables and write each as a CSV and a Markdown file."""
    make_folder(folder)
    on = environment.pick_device(device)
    name = environment.collect(on).device
    loaded = load_clips(data, ("yes", "no"))
    trials = plan(parse_axes(["groups"]))

    def deliver(table: str, sheet: Sheet, more: str = "") -> None:
        keep(sheet, folder / f"{table}.csv", more)
        show([sheet], "markdown")

    if grouped_conv.kernels(on) != "torch":
        shapes = convolutions.of_trials(plan(parse_axes(["groups", CONVOLUTION_BATCHES])))
        deliver("convolutions", convolutions.sheet(convolutions.measure(shapes, on)))
    deliver("stacks", stack_times(trials, STACK_SIZES, clips, on))
    deliver("front-end", front_ends.sheet(front_ends.measure(trials[0].front_end, loaded, on, name)))
    with tempfile.TemporaryDirectory(prefix="melbench-study-") as records:
        start = time.perf_counter()
        found = sweep(trials, seeds, loaded, RecordFolder(Path(records)), Threads(on))
        took = time.perf_counter() - start
    if found.failures:
        raise as_error(found.failures)
    if found.timing is None:
        raise Failed("the epochs could not be timed: run the same again")
    deliver("study", summary.sheet(summary.rows(found.trials, found.timing)), f"\nThe whole took {took:.1f} s.\n")
    few = [t.model_copy(update={"training": t.training.model_copy(update={"epochs": epochs})}) for t in trials]
    deliver("baselines", race.sheet(race.rows(race.race(few, 5, loaded, on, note), few, 5, loaded, name)))


if __name__ == "__main__":
    finish(lambda: typer.run(main))
