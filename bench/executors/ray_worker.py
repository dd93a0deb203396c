"""What runs on the workers of a Ray cluster: a job, what is told of it meanwhile, and what takes a machine whole."""

import contextlib
import functools
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError
from dataclasses import astuple, replace
from typing import Any, TypeVar

import torch

from bench.executors.jobs import JobOutcome, LatestFeatures, TrainFunction, TrainingJob
from bench.executors.retry import WAIT_SECONDS, sent
from bench.records import RESULTS_VERSION
from bench.system import environment, monitor
from bench.system.environment import Environment
from melcnn import native
from melcnn.data.clips import ClipSet
from melcnn.errors import InputError
from melcnn.training import Epoch

T = TypeVar("T")

# For where a job is, before anything can befall its process.
TELL_SECONDS = 10


def on_worker(version: int, switch: str | None, function: Callable[..., T], *arguments: object) -> T:
    """Calls the function with the driver's choice of kernels. Raises `InputError` unless the melbench of this node
    makes the same numbers."""
    if version != RESULTS_VERSION:
        raise InputError(
            f"{socket.gethostname()} of the Ray cluster has a melbench of other results (version {RESULTS_VERSION}, "
            f"here {version}): install the same on each node"
        )
    if os.environ.get(native.SWITCH) != switch:
        os.environ.pop(native.SWITCH, None)
        if switch is not None:
            os.environ[native.SWITCH] = switch
        native._switch.cache_clear()
    return function(*arguments)


@functools.cache
def _cores() -> int:
    """Of the node that this runs on, as it was told to Ray: what a timing may use."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return max([1, *(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["NodeID"] == here)])


@functools.cache
def _environment(device: str) -> Environment:
    torch.set_num_threads(_cores())
    found = environment.collect(device)
    torch.set_num_threads(1)
    return found


def free_bytes(device: str) -> int:
    return monitor.free_bytes(device) // (_cores() if device == "cpu" else 1)


def alone(function: Callable[..., T], arguments: Sequence[object]) -> T:
    torch.set_num_threads(_cores())
    try:
        return function(*arguments)
    finally:
        torch.set_num_threads(1)


def _told(reference: Any) -> None:
    """Waits until an actor has heard. Not by `ray.wait`: for as long as that takes, Ray gives the core to others."""
    from ray.exceptions import RayError

    with contextlib.suppress(RayError, TimeoutError):
        reference.future().result(TELL_SECONDS)


# Of this process: what it was given last, and whether its device is lost.
_kept: dict[str, LatestFeatures] = {}
_lost = False


def train(
    number: int, ears: Any, key: str, clips: ClipSet, job: TrainingJob, device: str, work: TrainFunction
) -> JobOutcome:
    """Does a job. number: by which `ears`, an actor of `bench.executors.ray_mailbox`, hears of it; key: of the clips."""
    global _lost
    host, told_at = socket.gethostname(), -math.inf

    def hear(stack: Sequence[int], epoch: Epoch) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= WAIT_SECONDS:  # nobody looks more often
            told_at = time.monotonic()
            ears.hear.remote(number, host, tuple(stack), astuple(epoch))

    _told(ears.hear.remote(number, host))
    if _lost:
        raise SystemExit(1)  # Another process does it, in which the device may answer.
    env = _environment(device)
    torch.set_num_threads(1)
    if key not in _kept:
        _kept.clear()
        _kept[key] = LatestFeatures(clips, device)
    outcome = work(job, _kept[key].of, hear, env)
    if outcome.device_lost:
        _lost = True
        outcome = replace(outcome, where=host)
    return sent(outcome)
