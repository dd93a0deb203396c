"""Functions that run on the workers of a Ray cluster: a job with its progress, and work that takes a machine whole."""

import contextlib
import functools
import math
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError
from dataclasses import astuple, replace
from typing import Any, TypeVar

import torch

from bench.executors.jobs import JobOutcome, LatestFeatures, TrainFunction, TrainingJob
from bench.executors.retry import WAIT_SECONDS
from bench.records import RESULTS_VERSION
from bench.system import environment, monitor
from bench.system.environment import Environment
from melcnn.data.clips import ClipSet
from melcnn.errors import InputError
from melcnn.kernels import cuda
from melcnn.training import Epoch

T = TypeVar("T")

# Seconds to report where a job runs, before anything can happen to its process.
REPORT_SECONDS = 10


def on_worker(version: int, precision: str, function: Callable[..., T], *arguments: object) -> T:
    """Call the function.

    Args:
        version: the driver's `RESULTS_VERSION`.
        precision: the driver's, of CUDA.

    Raises:
        InputError: unless the melbench of this node makes the same numbers.
    """
    if version != RESULTS_VERSION:
        raise InputError(
            f"{socket.gethostname()} of the Ray cluster has a melbench of other results (version {RESULTS_VERSION}, "
            f"here {version}): install the same on each node"
        )
    cuda.set_precision(precision)
    return function(*arguments)


@functools.cache
def _cores() -> int:
    """Return the cores of this node as Ray was told: a timing may use them all."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return max([1, *(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["NodeID"] == here)])


@functools.cache
def _environment(device: str, precision: str) -> Environment:
    torch.set_num_threads(_cores())
    found = environment.collect(device)
    torch.set_num_threads(1)
    return found


def free_bytes(device: str) -> int:
    """Return the free bytes for each task of this node."""
    return monitor.free_bytes(device) // (_cores() if device == "cpu" else 1)


def run_alone(function: Callable[..., T], arguments: Sequence[object]) -> T:
    """Return `function(*arguments)`, run with all cores of this node."""
    torch.set_num_threads(_cores())
    try:
        return function(*arguments)
    finally:
        torch.set_num_threads(1)


def _delivered(reference: Any) -> None:
    """Wait until an actor has got a message. `ray.wait` would give this task's core to others meanwhile."""
    from ray.exceptions import RayError

    with contextlib.suppress(RayError, TimeoutError):
        reference.future().result(REPORT_SECONDS)


# This process's own: the features that it made last, by the key of their clips, and whether its device is lost.
_kept: dict[str, LatestFeatures] = {}
_lost = False


def train(
    number: int, mailbox: Any, key: str, clips: ClipSet, job: TrainingJob, device: str, train_function: TrainFunction
) -> JobOutcome:
    """Train a job.

    Args:
        number: names the job in `mailbox`, an actor of `bench.executors.ray_mailbox`.
        key: names the clips.
    """
    global _lost
    host, reported_at = socket.gethostname(), -math.inf

    def on_epoch(seeds: Sequence[int], epoch: Epoch) -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at >= WAIT_SECONDS:  # The driver looks no more often.
            reported_at = time.monotonic()
            mailbox.put.remote(number, host, tuple(seeds), astuple(epoch))

    _delivered(mailbox.put.remote(number, host))
    if _lost:
        raise SystemExit(1)  # Another process takes the job; its device may answer.
    env = _environment(device, cuda.precision())
    torch.set_num_threads(1)
    if key not in _kept:
        _kept.clear()
        _kept[key] = LatestFeatures(clips, device)
    outcome = train_function(job, _kept[key].of, on_epoch, env)
    if outcome.device_lost:
        _lost = True
        outcome = replace(outcome, where=host)
    return outcome.without_networks()
