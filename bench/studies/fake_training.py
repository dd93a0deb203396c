"""Sweeps of which nothing is trained: everything is real but the training, which says at once what a network would."""

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

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

# Of `results/speech_commands_subset`.
CLIPS = {"train": 1328, "validation": 187, "test": 824}
SEEDS = 10
GROUPS = (1, 2, 4, 8, 16)
# Of the recipe default, and so many numbers in each curve.
EPOCHS = 120
# Of a clip: what is trained on is no part of what is measured.
SAMPLES = 800


def measured(name: str, trials: int) -> dict[str, object]:
    """The figures of a sweep by one executor, in a process of its own, so that no memory is another's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        return other.submit(simulate, name, trials).result()


def simulate(name: str, count: int) -> dict[str, object]:
    """A sweep of `count` trials, each a stack of its own. Raises `Failed` unless it gives as many records."""
    trials, clips = _trials(count), _clips()
    import_compiler()  # What it takes is no trial's.
    with tempfile.TemporaryDirectory(prefix="melbench-scaling-") as home, ExitStack() as stack:
        executor = _OneSeedEach(stack.enter_context(_executor(name)))
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
    """The memory of this process that is in use, now (VmRSS) or at the most so far (VmHWM), in bytes, as Linux says."""
    lines = monitor.STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(which))


def _trials(count: int) -> list[Trial]:
    """Configurations, of `SEEDS` seeds each."""
    rates = [1e-4 * (1 + number) for number in range(count // SEEDS // len(GROUPS))]
    axes = {"groups": list(GROUPS), "learning_rate": rates}
    return plan(axes, epochs=EPOCHS, recipe="plain")


def _clips() -> ClipSet:
    """As many clips as the data set has, of a speaker each, silent and short."""
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


def nothing(job: TrainingJob, features: FeatureSource, on_epoch: OnEpoch, environment: Environment) -> JobOutcome:
    """What a training would give, without it."""
    drawn = torch.Generator().manual_seed(job.seeds[0])

    def run(seed: int) -> TrainedNetwork:
        validation, test = (torch.randn(CLIPS[split], 2, generator=drawn) for split in ("validation", "test"))
        curve = torch.rand(EPOCHS, generator=drawn).double().tolist()
        curves = Curves(curve, curve[::-1], curve[:])
        return TrainedNetwork(seed, "melcnn", None, curves, EPOCHS, validation, test, curve[-1], 0.5)

    elapsed = [0.1 * epoch for epoch in range(1, EPOCHS + 1)]
    return JobOutcome([TrainedStack(job.seeds, [run(seed) for seed in job.seeds], elapsed)], [], environment)


def _executor(name: str) -> AbstractContextManager[Executor]:
    if name == "threads":
        return nullcontext(Threads("cpu", nothing))
    if name == "processes":
        return Processes("cpu", torch.get_num_threads(), nothing)
    from bench.executors.ray import Ray

    return Ray("cpu", train=nothing)


class _OneSeedEach:
    """An executor without memory for more than one seed in a stack, which makes the most of them."""

    def __init__(self, executor: Executor):
        self.executor = executor

    @property
    def capacity(self) -> Capacity:
        return replace(self.executor.capacity, free_bytes=0)

    def run(self, jobs: Sequence[TrainingJob], at_once: int, clips: ClipSet, on_event: OnEvent) -> None:
        self.executor.run(jobs, at_once, clips, on_event)

    def run_alone(self, function: Callable[..., T], *arguments: object) -> T:
        return self.executor.run_alone(function, *arguments)
