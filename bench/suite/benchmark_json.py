"""The fields that the benchmark suite adds to pytest-benchmark's JSON; `bench.measurement.reader` reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bench.measurement import reference
from bench.measurement.measurements import FORMAT_VERSION
from bench.measurement.peaks import device_peaks
from bench.measurement.workloads import Workload, WorkloadFacts
from bench.system import environment, monitor
from bench.system.environment import Environment
from bench.system.monitor import Conditions
from melcnn.kernels import grouped_conv

DEVICE = environment.pick_device("auto")

# What `of_work` returns of each benchmark, by its full name, until the file is written.
WORKS = pytest.StashKey[dict[str, dict[str, Any]]]()


def machine_info(env: Environment, device: str) -> dict[str, Any]:
    """Return the environment for `machine_info`; pytest-benchmark warns of files that differ in it."""
    return {"gpu": env.device if device == "cuda" else None, "versions": env.packages | {"cuda": env.cuda}}


def of_run(env: Environment, device: str, before: Conditions, works: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the facts of this run and of its benchmarks for the file's own key `melbench`."""
    return {
        "format_version": FORMAT_VERSION,
        "reference_version": reference.VERSION,
        "kernels": grouped_conv.kernels(device),
        "environment": env.model_dump(mode="json"),
        "ceilings": device_peaks(env, device).model_dump(mode="json"),
        "before": before.model_dump(mode="json"),
        "after": monitor.conditions(device).model_dump(mode="json"),
        "benchmarks": dict(works),
    }


def of_work(work: Workload, facts: WorkloadFacts, reference_seconds: Sequence[float]) -> dict[str, Any]:
    """Return what `melbench compare` needs of a benchmark; `extra_info` would show it beside the figures."""
    return {
        "work": work.model_dump(mode="json"),
        "facts": facts.model_dump(mode="json"),
        "reference_seconds": list(reference_seconds),
    }
