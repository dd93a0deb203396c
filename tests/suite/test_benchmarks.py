"""`pytest bench --benchmark-only` in a short form, and its JSON with pytest-benchmark's own compare and with ours."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.measurement import reader
from bench.measurement.comparison import stored

ROOT = Path(__file__).parents[2]


def suite(*arguments):
    command = [sys.executable, "-m", "pytest", "bench", "--benchmark-only", "-q", "-p", "no:cacheprovider", *arguments]
    # pytest-benchmark measures nothing in a worker of xdist, which the tests run in and this command does not.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, env=env)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "one.json"
    done = suite("-k", "(forward or step) and (groups16 or groups8)", f"--benchmark-json={path}")
    assert done.returncode == 0, done.stdout
    return path


def test_every_benchmark_is_there():
    done = suite("--collect-only")
    names = [line for line in done.stdout.splitlines() if "::" in line]
    # 3 front-ends; 5 groups and 2 other n_mels for forward, step and epoch
    assert len(names) == 3 + 3 * 7
    assert sum("mels80-groups1]" in name for name in names) == 3


def test_its_json_says_what_was_timed_and_where(run):
    content = json.loads(run.read_text())
    assert {"gpu", "versions"} <= set(content["machine_info"]) and "melbench" in content
    assert "torch" in content["machine_info"]["versions"]
    by_name = {one["name"]: one for one in content["benchmarks"]}
    assert set(by_name) == {f"test_{w}[mels80-groups{g}]" for w in ("forward", "training_step") for g in (8, 16)}
    # seed.md: 5,890 parameters; 67,232 macs of convolution and linear
    extra = by_name["test_forward[mels80-groups16]"]["extra_info"]
    assert (extra["params"], extra["macs"]) == (5890, 67_232)
    for one in content["benchmarks"]:
        assert one["options"]["timer"].endswith("timer") and one["options"]["disable_gc"]
        assert len(one["extra_info"]["melbench"]["reference_seconds"]) == len(one["stats"]["data"]) >= 3


def test_our_compare_reads_it(run):
    measurement = reader.read(run)
    assert len(measurement.launches) == 1
    found = stored(measurement, measurement, 0.02)
    assert len(found) == 4 and {one.comparison.verdict for one in found} == {"UNCLEAR"}  # of one launch
    five = measurement.model_copy(update={"launches": measurement.launches * 5})
    assert {one.comparison.verdict for one in stored(five, five, 0.02)} == {"SAME"}


def test_pytest_benchmarks_own_compare_reads_it(run):
    done = suite("-k", "forward and groups16", f"--benchmark-compare={run}", "--benchmark-compare-fail=median:100000%")
    assert done.returncode == 0, done.stdout
    assert "NOW" in done.stdout and "machine_info is different" not in done.stdout + done.stderr
