"""Configurations timed side by side now: two that are compared, or all candidates of a recommendation."""

import random
import statistics
from collections.abc import Mapping, Sequence

import torch

from bench.counting.profile import NetworkCost, profile
from bench.measurement import builders, workloads
from bench.measurement.comparison import ComparedWorkload
from bench.measurement.workloads import Workload
from bench.stats.intervals import significant
from bench.timing import timer
from bench.timing.clocks import clock_for
from bench.timing.timer import InterleavedRun, Rule, Series
from bench.timing.verdicts import compare_pairs, pair_precision, seconds_of_a
from melcnn.config import Trial
from melcnn.errors import InputError
from melcnn.model import MelCNN

# Calls of each network after the warm-up: enough for a median that a budget can be held against.
LATENCY_ROUNDS = 101


def costs(trials: Sequence[Trial], device: str, latency: bool, kernels: str | None = None) -> dict[Trial, NetworkCost]:
    """Return the cost of each configuration.

    Args:
        latency: measure it too, all configurations interleaved, batches of one clip.
        kernels: the kernels that compute, "torch" or None for the faster.
    """
    found = {}
    for trial in trials:
        shape = (1, trial.front_end.n_mels, trial.front_end.frames)
        counted = profile(MelCNN.of(trial), [torch.zeros(shape)], training=False)
        names = ("params", "macs", "macs_all_layers", "weight_bytes")
        found[trial] = NetworkCost(**{name: counted.total(name) for name in names})
    if latency:
        calls = {
            t.canonical(): builders.build(
                Workload(what="latency", clips=1, batch_size=1, trial=t), device, kernels=kernels
            ).call
            for t in trials
        }
        run = timer.interleave(calls, timer.fixed(LATENCY_ROUNDS), clock_for(device), singly=True)
        for trial, cost in found.items():
            median = statistics.median(run.series[trial.canonical()].seconds)
            found[trial] = NetworkCost(**{**vars(cost), "latency_ms": significant(1000 * median)})
    return found


# Seconds for a comparison side by side unless the user says otherwise.
MOST_SECONDS = 30.0
FEWEST_ROUNDS = 15
# How often each side is built. Where a build lies in memory changes its speed by half a percent, and nothing that is
# timed afterwards shows by how much: only other builds do.
PAIRS = 20


def side_by_side(
    a: Workload,
    b: Workload,
    device: str,
    effect: float,
    max_seconds: float | None = None,
    seed: int = 0,
    kernels: str | None = None,
) -> tuple[ComparedWorkload, InterleavedRun]:
    """Time A and B in interleaved rounds until their ratio is known to half of `effect`, or time is over.

    Args:
        seed: draws the order in which all are built, and that of each round.

    Raises:
        InputError: if a call of A and one of B process different numbers of clips.
    """
    if a.clips != b.clips:
        raise InputError(
            f"a {a.what} of A has {a.clips} clips and one of B {b.clips}: compare epochs, or equal batches"
        )
    # One after the other, in half of the pairs A first: neither side is favoured by what was built before it.
    first = random.Random(seed).sample("AB" * (PAIRS // 2), PAIRS)
    order = [f"{side}{number}" for number in range(PAIRS) for side in (first[number], "AB".replace(first[number], ""))]
    sides = {"A": a, "B": b}
    built = {name: builders.build(sides[name[0]], device, kernels=kernels).call for name in order}

    def pairs(series: Mapping[str, Series]) -> list[tuple[Series, Series]]:
        return [(series[f"A{number}"], series[f"B{number}"]) for number in range(PAIRS)]

    rule = Rule(
        effect / 2,
        min_rounds=FEWEST_ROUNDS,
        max_seconds=max_seconds or MOST_SECONDS,
        figures=lambda series: {"the ratio": pair_precision(pairs(series))},
    )
    run = timer.interleave(built, rule, clock_for(device), seed, singly=a.what == "latency")
    label = " / ".join(workloads.labels([a, b]))
    found, seconds = compare_pairs(pairs(run.series), effect), seconds_of_a(pairs(run.series))
    return ComparedWorkload(label, found, seconds, seconds * found.ratio), run
