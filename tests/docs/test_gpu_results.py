"""The README of the results on a GPU says what its tables hold."""

import csv
import re
from pathlib import Path

GPU = Path(__file__).parents[2] / "results" / "gpu"
README = " ".join((GPU / "README.md").read_text().split())


def rows(name):
    return list(csv.DictReader((GPU / "nvidia-h200" / f"{name}.csv").read_text().splitlines()))


def test_all_checks_passed():
    found = rows("checks")
    assert {row["result"] for row in found} == {"passed"} and f"All {len(found)} checks of that day pass" in README
    spin = next(row["found"] for row in found if "spin" in row["check"] and row["found"])
    host, events, profiler = re.findall(r"[\d.]+", spin)
    assert f"{host} ms by the host, {events} ms by events and {profiler} ms by the profiler" in README
    repeats = {row["check"]: row["found"] for row in found if "twice[" in row["check"]}
    assert all("'fastest': True" in text for text in repeats.values())
    assert [name for name, text in repeats.items() if "'torch': False" in text] == [
        "test_the_same_twice[4]", "test_the_same_twice[16]"
    ]  # fmt: skip


def test_the_table_of_epochs():
    found = [row for row in rows("epochs") if row["batch_size"] == "64"]
    times = {(row["stack"], row["captured"], row["groups"]): row for row in found}
    for groups in ("1", "2", "4", "8", "16"):
        eager, captured = (1e3 * float(times["1", way, groups]["epoch_time_s"]) for way in ("False", "True"))
        stacked = 1e3 * float(times["32", "True", groups]["epoch_time_a_network_s"])
        assert f"| {groups} | {eager:.0f} | {captured:.1f} | {stacked:.2f} |" in README
        assert 18 <= round(eager / captured) <= 21  # as docs/gpu.md says
    goals = [float(times["1", "True", g]["epoch_time_s"]) / 0.020 for g in ("1", "2", "4", "8", "16")]
    assert max(goals) < 1.18 and [g < 1 for g in goals] == [False] * 4 + [True]
    assert 1 < float(times["32", "True", "1"]["epoch_time_a_network_s"]) / 0.0038 < 1.06


def test_parity():
    cpu, gpu, tf32 = rows("parity")
    assert gpu["val_accuracy"] == cpu["val_accuracy"]
    assert f"{float(gpu['train_loss_difference_first']):.2%} at most in the first epoch" in README
    last = [float(row["train_loss_difference_last"]) for row in (gpu, tf32)]
    assert f"by {last[0]:.0%} in the last one ({last[1]:.0%} with TF32)" in README


def test_the_study():
    default = {row["groups"]: float(row["test_accuracy"]) for row in rows("study") if row["recipe"] == "default"}
    assert f"(here {default['2']:.4f} and {default['4']:.4f})" in README
    assert {row["seeds"] for row in rows("study")} == {"32"} and len(rows("study")) == 10
    page = (GPU / "nvidia-h200" / "gpu.md").read_text()
    seconds = re.findall(r"The (\w+) recipe: 160 of 160 networks trained in ([\d.]+) s", page)
    assert [name for name, _ in seconds] == ["plain", "default"]
    assert f"takes {seconds[0][1]} s** by the plain recipe" in README and f"it takes {seconds[1][1]} s" in README
    cold = [float(row["cold_time_s"]) for row in rows("epochs") if row["stack"] == "32" and row["batch_size"] == "64"]
    assert f"takes {min(cold):.1f} to {max(cold):.1f} s" in README
