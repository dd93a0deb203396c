"""Timing callables side by side: synchronised, interleaved, the cold call left out. Knows no model."""

import random
import time
from collections.abc import Callable, Mapping

import torch


def synchronize(device: str) -> None:
    """Waits until everything given to `device` has been computed."""
    if device == "cuda":
        torch.cuda.synchronize()


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Seconds of each candidate's calls, one a round: `{name: [round 1, round 2, ...]}`.

    Every candidate is called once before the first round, unmeasured: that call pays for allocation and
    the choice of kernels. Each round calls all candidates in a random order, so that a drifting machine
    hits all alike. The device is synchronised before both readings of the clock.
    """
    order = random.Random(seed)
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for call in candidates.values():
        call()
    for _ in range(rounds):
        for name in order.sample(list(candidates), len(candidates)):
            synchronize(device)
            start = clock()
            candidates[name]()
            synchronize(device)
            samples[name].append(clock() - start)
    return samples
