"""Environment and conditions in the suite's JSON files. It lies here because pytest-benchmark asks before it collects.
"""

from bench.measurement import reader
from bench.suite import benchmark_json
from bench.system import environment, monitor

DEVICE = environment.pick_device("auto")
BEFORE = monitor.conditions(DEVICE)


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info.update(benchmark_json.machine_info(environment.collect(DEVICE), DEVICE))


def pytest_benchmark_update_json(config, benchmarks, output_json):
    output_json[reader.KEY] = benchmark_json.of_run(environment.collect(DEVICE), DEVICE, BEFORE)
