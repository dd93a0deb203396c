"""Sweeps with a fake training: everything else is real, and random predictions come at once."""

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from bench.analysis import summary
from bench.executors.base import Capacity, Executor
from bench.executors.events import OnEvent
from bench.executors.jobs import FeatureSource, JobOutcome, OnEpoch, TrainedStack, TrainingJob, import_compiler
from bench.executors.processes import Processes
from bench.executors.threads import Threads
from bench.grid import plan
from bench.records import RecordFolder
from bench.stats.intervals import significant
from bench.sweep.run import train_missing
from bench.system import environment, monitor
from bench.system.environment import Environment
from melcnn.config import Trial
from melcnn.data.clips import ClipSet
from melcnn.errors import Failed
from melcnn.training import Curves, TrainedNetwork

T = TypeVar("T")

# The clips of `results/speech_commands_subset`.
CLIPS = {"train": 1328, "validation": 187, "test": 824}
SEEDS = 10
GROUPS = (1, 2, 4, 8, 16)
# Epochs of the recipe default, and the length of each curve.
EPOCHS = 120
# Samples of a clip: the training data are no part of what is measured.
SAMPLES = 800


def measure(name: str, trials: int) -> dict[str, Any]:
    """Measure a sweep by one executor in a process of its own, so that its memory is counted alone."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        return other.submit(simulate, name, trials).result()


def simulate(name: str, count: int) -> dict[str, Any]:
    """Run a sweep of `count` trials, each a stack of its own, and return its costs.

    Returns:
        times in ms a trial, memory in bytes.

    Raises:
        Failed: unless it gives as many records.
    """
    trials, clips = _trials(count), _clips()
    import_compiler()  # The import belongs to no trial's time.
    with tempfile.TemporaryDirectory(prefix="melbench-scaling-") as home, ExitStack() as stack:
        executor = _OneSeedStacks(stack.enter_context(_executor(name)))
        folder = RecordFolder(Path(home))
        before = _resident("VmRSS")
        start = time.perf_counter()
        found, failed = train_missing(trials, SEEDS, clips, folder, executor)
        seconds = time.perf_counter() - start
        slots = executor.capacity.slots
        files = len(list(Path(home).glob("trial-*.json")))
        decided = summary.recommended(found)
        summary.sheet(summary.rows(found, decided=decided), decided)
        peak = _resident("VmHWM")
    count = len(trials) * SEEDS
    if failed or not len(found) == files == count:
        raise Failed(f"{len(found)} records of {count} trials, {files} files, {len(failed)} failures")
    return {
        "executor": name,
        "trials": count,
        "configurations": len(trials),
        "slots": slots,
        "clips": CLIPS["validation"] + CLIPS["test"],
        "epochs": EPOCHS,
        "scheduling_time_ms": significant(1e3 * seconds / count),
        "driver_peak_bytes": peak,
        "driver_before_bytes": before,
        "bytes_a_trial": round((peak - before) / count),
        "device": environment.collect("cpu").device,
    }


def _resident(which: str) -> int:
    """Return the resident memory of this process in bytes, now (VmRSS) or the most so far (VmHWM), as Linux counts."""
    lines = monitor.STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(which))


def _trials(count: int) -> list[Trial]:
    """Return the configurations of `count` trials, `SEEDS` seeds each."""
    rates = [1e-4 * (1 + number) for number in range(count // SEEDS // len(GROUPS))]
    axes: dict[str, list[Any]] = {"groups": list(GROUPS), "learning_rate": rates}
    return plan(axes, epochs=EPOCHS, recipe="plain")


def _clips() -> ClipSet:
    """Return as many clips as the data set has, silent and short, each by another speaker."""
    total = sum(CLIPS.values())
    splits = np.repeat(np.arange(len(CLIPS), dtype=np.int8), list(CLIPS.values()))
    names = np.array([f"yes/{number:08x}_nohash_0.wav" for number in range(total)])
    return ClipSet(
        dataset="silence",
        words=("yes", "no"),
        sample_rate=16_000,
        waveforms=np.zeros((total, SAMPLES), np.int16),
        labels=np.arange(total) % 2,
        splits=splits,
        names=names,
        speakers=np.array([name[4:12] for name in names]),
        lengths=np.full(total, SAMPLES),
    )


def train_nothing(job: TrainingJob, features: FeatureSource, on_epoch: OnEpoch, environment: Environment) -> JobOutcome:
    """Return what a training would, with random predictions and curves and without weights."""
    generator = torch.Generator().manual_seed(job.seeds[0])

    def network(seed: int) -> TrainedNetwork:
        validation, test = (torch.randn(CLIPS[split], 2, generator=generator) for split in ("validation", "test"))
        curve = torch.rand(EPOCHS, generator=generator).double().tolist()
        curves = Curves(curve, curve[::-1], curve[:])
        no_weights: Any = None  # records need none
        return TrainedNetwork(seed, "melcnn", no_weights, curves, EPOCHS, validation, test, curve[-1], 0.5)

    elapsed = [0.1 * epoch for epoch in range(1, EPOCHS + 1)]
    return JobOutcome([TrainedStack(job.seeds, [network(seed) for seed in job.seeds], elapsed)], [], environment)


def _executor(name: str) -> AbstractContextManager[Executor]:
    if name == "threads":
        return nullcontext(Threads("cpu", train_nothing))
    if name == "processes":
        return Processes("cpu", torch.get_num_threads(), train_nothing)
    from bench.executors.ray import Ray

    return Ray("cpu", train=train_nothing)


class _OneSeedStacks:
    """An executor with memory for stacks of one seed only, which gives the most stacks."""

    def __init__(self, executor: Executor):
        self.executor = executor

    @property
    def capacity(self) -> Capacity:
        return replace(self.executor.capacity, free_bytes=0)

    def run(self, jobs: Sequence[TrainingJob], at_once: int, clips: ClipSet, on_event: OnEvent) -> None:
        self.executor.run(jobs, at_once, clips, on_event)

    def run_alone(self, function: Callable[..., T], *arguments: object) -> T:
        return self.executor.run_alone(function, *arguments)
