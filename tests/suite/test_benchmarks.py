"""`pytest bench --benchmark-only` in a short form, and its JSON with pytest-benchmark's own compare and with ours."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.measurement import reader
from bench.measurement.comparison import stored

ROOT = Path(__file__).parents[2]


def suite(*arguments, bench=("bench",), folder=ROOT):
    command = [sys.executable, "-m", "pytest", *bench, "--benchmark-only", "-q", "-p", "no:cacheprovider", *arguments]
    # pytest-benchmark measures nothing in a worker of xdist, which the tests run in and this command does not.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env["PYTHONPATH"] = str(ROOT)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, env=env)


def collected(done):
    return [line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "one.json"
    chosen = "(latency or step) and (groups16 or groups8) or front-end-mels20"
    done = suite("-k", chosen, f"--benchmark-json={path}", "--benchmark-group-by=param:groups")
    assert done.returncode == 0, done.stdout
    path.with_suffix(".txt").write_text(done.stdout)
    return path


def test_every_benchmark_is_there_and_is_found_by_the_names_of_the_command_line():
    names = collected(suite("--collect-only"))
    # 3 front-ends; 5 groups and 2 other n_mels for latency, step and epoch
    found = {word: sum(word in name for name in names) for word in ("latency", "step", "epoch", "front")}
    assert found == {"latency": 7, "step": 7, "epoch": 7, "front": 3} and len(names) == 24
    assert sum("mels80-groups1]" in name for name in names) == 3
    assert len(collected(suite("--collect-only", "-k", "step"))) == 7


def test_it_runs_from_any_folder(tmp_path):
    names = collected(suite("--collect-only", bench=("--pyargs", "bench"), folder=tmp_path))
    assert names and names == collected(suite("--collect-only"))


def test_its_json_says_what_was_timed_and_where(run):
    content = json.loads(run.read_text())
    assert {"gpu", "versions"} <= set(content["machine_info"]) and "melbench" in content
    assert "torch" in content["machine_info"]["versions"]
    by_name = {one["name"]: one for one in content["benchmarks"]}
    networks = {f"test_speed[{what}-mels80-groups{groups}]" for what in ("latency", "step") for groups in (8, 16)}
    assert set(by_name) == networks | {"test_speed[front-end-mels20]"}
    # seed.md: 5,890 parameters; 67,232 macs of convolution and linear
    extra = by_name["test_speed[latency-mels80-groups16]"]["extra_info"]
    assert extra == {"params": 5890, "macs": 67_232}
    for one in content["benchmarks"]:
        assert one["options"]["timer"].endswith("timer") and one["options"]["disable_gc"]
        assert set(one["extra_info"]) == {"params", "macs"}
        ours = content["melbench"]["benchmarks"][one["fullname"]]
        assert len(ours["reference_seconds"]) == len(one["stats"]["data"]) >= 3


def test_its_parameters_are_plain_values_and_unlike_works_share_no_group(run):
    by_name = {one["name"]: one for one in json.loads(run.read_text())["benchmarks"]}
    step = by_name["test_speed[step-mels80-groups8]"]
    assert step["params"] == {"what": "step", "groups": 8, "n_mels": 80} and step["group"] == "step"
    front_end = by_name["test_speed[front-end-mels20]"]
    assert front_end["params"] == {"what": "front-end", "groups": None, "n_mels": 20}
    assert {one["group"] for one in by_name.values()} == {"step", "latency", "front-end"}
    tables = run.with_suffix(".txt").read_text()
    for group, tests in (("groups=8", 2), ("groups=16", 2), ("groups=None", 1)):
        assert f"benchmark '{group}': {tests} tests" in tables


def test_our_compare_reads_it(run):
    measurement = reader.read(run)
    assert len(measurement.launches) == 1
    found = stored(measurement, measurement, 0.02)
    assert len(found) == 5 and {one.comparison.verdict for one in found} == {"UNCLEAR"}  # of one launch
    five = measurement.model_copy(update={"launches": measurement.launches * 5})
    assert {one.comparison.verdict for one in stored(five, five, 0.02)} == {"SAME"}


def test_our_compare_reads_files_of_earlier_versions(run, tmp_path):
    content = json.loads(run.read_text())
    works = content["melbench"].pop("benchmarks")
    for one in content["benchmarks"]:
        one["extra_info"]["melbench"] = works[one["fullname"]]
    # A benchmark that is not ours.
    content["benchmarks"].append({**content["benchmarks"][0], "fullname": "test_other", "extra_info": {}})
    (tmp_path / "old.json").write_text(json.dumps(content))
    assert reader.read(tmp_path / "old.json") == reader.read(run)


def test_pytest_benchmarks_own_compare_reads_it(run, tmp_path):
    done = suite("-k", "latency and groups16", f"--benchmark-compare={run}", "--benchmark-compare-fail=median:100000%")
    assert done.returncode == 0, done.stdout
    assert "NOW" in done.stdout and "machine_info is different" not in done.stdout + done.stderr
    program = Path(sys.executable).with_name("pytest-benchmark")
    other = shutil.copy(run, tmp_path / "other.json")
    command = [program, "compare", run, other, "--group-by=param:groups", "--columns=median"]
    tables = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "benchmark 'groups=None': 2 tests" in tables and "reference_seconds" not in tables
