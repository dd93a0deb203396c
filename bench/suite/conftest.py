"""A synchronised timer, and reference work beside every round."""

import statistics
import time
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measurement import builders
from bench.measurement.peaks import Peaks, device_peaks
from bench.measurement.workloads import Workload
from bench.suite import benchmark_json
from bench.suite.benchmark_json import DEVICE
from bench.system import environment
from bench.timing.clocks import clock_for

CLOCK = clock_for(DEVICE)

# Seconds that the rounds of one benchmark take together, and how many they are at least and at most.
SECONDS = 1.0
FEWEST_ROUNDS, MOST_ROUNDS = 3, 500


def timer() -> float:
    """Return seconds on the host's clock once the device has finished its work."""
    CLOCK.synchronize()
    return time.perf_counter()


@pytest.fixture(scope="session")
def top() -> Peaks:
    return device_peaks(environment.collect(DEVICE), DEVICE)


@pytest.fixture
def time_work(benchmark: BenchmarkFixture, top: Peaks, pytestconfig: pytest.Config) -> Callable[[Workload], None]:
    """Time a workload: a cold call and a few warm ones first, then rounds, each after one call of reference work."""

    def run(work: Workload) -> None:
        benchmark.group = work.what  # A step and an epoch, a hundred times as long, share no table.
        call, beside = builders.build(work, DEVICE).call, builders.build_reference(work, DEVICE)
        CLOCK.read(call)
        CLOCK.read(beside)
        warm = statistics.median(CLOCK.read(call).host + CLOCK.read(beside).host for _ in range(FEWEST_ROUNDS))
        rounds = max(FEWEST_ROUNDS, min(MOST_ROUNDS, int(SECONDS / warm)))
        reference_seconds: list[float] = []
        benchmark.pedantic(
            call, setup=lambda: reference_seconds.append(CLOCK.read(beside).host), rounds=rounds, iterations=1
        )
        facts = builders.facts(work, DEVICE, top)
        benchmark.extra_info.update(params=facts.params, macs=facts.macs)
        works = pytestconfig.stash.setdefault(benchmark_json.WORKS, {})
        works[benchmark.fullname] = benchmark_json.of_work(work, facts, reference_seconds)

    return run
