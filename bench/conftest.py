"""Add environment and conditions to the suite's JSON files.

The hooks are here, not in `bench/suite`, because pytest-benchmark calls them before it collects that folder.
"""

from typing import Any

import pytest

from bench.measurement import reader
from bench.suite import benchmark_json
from bench.suite.benchmark_json import DEVICE
from bench.system import environment, monitor

BEFORE = monitor.conditions(DEVICE)


def pytest_benchmark_update_machine_info(config: object, machine_info: dict[str, Any]) -> None:
    machine_info.update(benchmark_json.machine_info(environment.collect(DEVICE), DEVICE))


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: object, output_json: dict[str, Any]) -> None:
    works = config.stash.get(benchmark_json.WORKS, {})
    output_json[reader.KEY] = benchmark_json.of_run(environment.collect(DEVICE), DEVICE, BEFORE, works)
