"""What the benchmark suite adds to pytest-benchmark's JSON, and that JSON as a measurement of one launch."""

from collections.abc import Sequence
from typing import Any

from bench.measurement import reference
from bench.measurement.measurements import FORMAT_VERSION
from bench.measurement.peaks import ceilings
from bench.measurement.workloads import Facts, Work
from bench.system import monitor
from bench.system.environment import Environment
from bench.system.monitor import Conditions
from melcnn.kernels import grouped_conv

KEY = "melbench"


def machine_info(env: Environment, device: str) -> dict[str, Any]:
    """What ran where, for `machine_info`; pytest-benchmark warns of files in which it differs."""
    return {"gpu": env.device if device == "cuda" else None, "versions": env.packages | {"cuda": env.cuda}}


def of_run(env: Environment, device: str, before: Conditions) -> dict[str, Any]:
    """What is of this run alone, for the file's own key `melbench`."""
    return {
        "format_version": FORMAT_VERSION,
        "reference_version": reference.VERSION,
        "kernels": grouped_conv.kernels(device),
        "environment": env.model_dump(mode="json"),
        "ceilings": ceilings(env, device).model_dump(mode="json"),
        "before": before.model_dump(mode="json"),
        "after": monitor.conditions(device).model_dump(mode="json"),
    }


def extra_info(work: Work, facts: Facts, reference_seconds: Sequence[float]) -> dict[str, Any]:
    """What a benchmark carries beside pytest-benchmark's own figures, for `extra_info`."""
    return {
        "params": facts.params,
        "macs": facts.macs,
        KEY: {
            "work": work.model_dump(mode="json"),
            "facts": facts.model_dump(mode="json"),
            "reference_seconds": list(reference_seconds),
        },
    }


def to_measurement(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a JSON file of pytest-benchmark as that of a measurement, still unchecked.

    Raises KeyError, IndexError, TypeError or AttributeError for a file without our benchmarks or their samples.
    """
    here = content[KEY]
    ours = [(one["stats"]["data"], one["extra_info"][KEY]) for one in content["benchmarks"] if KEY in one["extra_info"]]
    samples = [
        {
            "cold_seconds": data[0],
            "seconds": data,
            "waited": [0.0] * len(data),
            "reference_seconds": extra["reference_seconds"],
            "reference_waited": [0.0] * len(extra["reference_seconds"]),
        }
        for data, extra in ours
    ]
    return {
        "format_version": here["format_version"],
        "reference_version": here["reference_version"],
        "works": [extra["work"] for _, extra in ours],
        "facts": [extra["facts"] for _, extra in ours],
        "ceilings": here["ceilings"],
        "launches": [{"samples": samples, "before": here["before"], "after": here["after"]}],
        "kernels": here.get("kernels", "torch"),
        "environment": here["environment"],
        "finished_at": content["datetime"],
    }
