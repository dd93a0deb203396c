import csv
import json
import os
import subprocess
import sys

import pytest

from tests.measurement.test_launcher import MODELS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "timed_models.py").write_text(MODELS)
    return tmp_path


def test_time_a_grid(melbench, folder):
    command = "time groups=4,16 batch_size=8 --what latency,front-end --launches 2 --max-time 2 --csv times.csv --json"
    code, out, err = melbench(*command.split())
    assert code == 0, err
    rows = json.loads(out)
    with open("times.csv") as file:
        assert [row["time_s"] for row in csv.DictReader(file)] == [str(row["time_s"]) for row in rows]
    found = [(row["what"], row["groups"], row["batch_size"]) for row in rows]
    assert found == [
        *[("latency", 4, 1), ("front-end", None, 1), ("front-end", None, 64)],
        ("latency", 16, 1),
    ]
    for row in rows:
        assert row["time_s"] > 0 and row["launches"] == 2 and row["bound_by"] and row["floor_time_s"] > 0
        # A percentile needs samples beyond it, which a busy machine may have had no time for.
        assert row["time_s"] <= (row["time_p95_s"] or 9) * 2 and (row["time_p95_s"] or 0) <= (row["time_p99_s"] or 9)
    assert rows[0]["macs"] == 255_872 and rows[3]["macs"] == 67_232
    assert "launch 2 of 2" in err


def test_time_and_compare_anybodys_model(melbench, folder, monkeypatch):
    monkeypatch.setattr("bench.measurement.launcher.MOST_LAUNCHES", 1)
    for module in ("timing.verdicts", "measurement.comparison"):
        monkeypatch.setattr(f"bench.{module}.FEWEST_LAUNCHES", 2)
    command = "time --model timed_models:Small --input 1,4,8 --what latency --launches 1 --max-time 5 -o a.json"
    code, out, err = melbench(*command.split())
    assert code == 0, err
    assert (
        "timed_models:Small" in out and "launch 2 of 2" in err
    )  # what is kept has enough for a verdict, whatever is asked for
    code, out, _ = melbench("compare", "a.json", "a.json", "--json")
    (row,) = json.loads(out)
    assert code == 0 and row["time_ratio"] == 1.0 and row["verdict"] in ("SAME", "UNCLEAR")
    assert row["time_ratio_low95"] < 1 < row["time_ratio_high95"]


def test_compare_two_configurations(melbench, folder):
    code, out, err = melbench(
        "compare", "groups=16", "groups=16,channels=512", *"--what latency --max-time 3 --csv c.csv".split()
    )
    if code == 0:  # Where others use the machine, it says so, and makes no false claim.
        assert "busy machine" in err and "FASTER" not in out
        return
    assert code == 1, err
    assert "SLOWER" in out
    with open("c.csv") as file:
        (row,) = csv.DictReader(file)
    assert float(row["time_ratio_low95"]) > 1.02 and row["verdict"] == "SLOWER"
    code, out, _ = melbench(
        "compare", "groups=16,channels=512", "groups=16", *"--what latency --max-time 3 --json".split()
    )
    assert code == 0 and json.loads(out)[0]["verdict"] == "FASTER"


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("time groups=3", "groups 3 does not divide"),
        ("time groups --what sleep", "--what 'sleep' is not known: use any of step, epoch"),
        ("time groups --what ,", "--what names nothing"),
        ("time groups --model a:b --input 1,2", "a grid and --model are both given"),
        ("time --model timed_models:Small", "--model and --input go together"),
        ("time --model nowhere:Net --input 1,4,8", "there is no module 'nowhere'"),
        ("time groups=16 -o no/such/folder/m.json", "cannot be written"),
        ("compare a.json b.json", "a.json is no file and no configuration"),
        ("compare groups=1 timed_models.py", "are not alike"),
        ("compare timed_models.py timed_models.py", "no whole measurement file"),
        ("compare groups=1 depth=2", "there is no setting 'depth'"),
        ("time recipe=plain,default --what step", "recipe is no axis of time: use front-end and network settings"),
        ("time variant=shuffle --against baseline", "--against knows the plain network alone: leave out variant"),
        ("compare groups=1 groups=3", "groups 3 does not divide"),
        ("compare groups=1 groups=2 --effect 7", "--effect"),
        ("compare batch_size=16 batch_size=64", "has 16 clips and one of B 64"),
        ("time --model timed_models:Small --input 1,4,8 --what front-end", "the front-end is melbench's own"),
        ("time --model timed_models:Small --input 1,4,8 --batch-size 0", "batch_size"),
        ("time --model timed_models:Small --input 1,3 --what latency", "cannot be run: RuntimeError"),
    ],
)
def test_bad_input_is_one_line(melbench, folder, command, complaint):
    code, out, err = melbench(*command.split())
    assert code == 2 and not out
    lines = [line for line in err.splitlines() if not line.startswith(("launch", "measuring"))]
    assert len(lines) == 1 and complaint in lines[0]


def test_no_room_is_bad_input_unless_the_machine_is_busy(melbench, folder):
    code, out, err = melbench(*"time groups=16 --what step --launches 1 --max-time 0.001".split())
    busy = "while other processes hold up this machine" in err
    assert code == (1 if busy else 2) and not out and "has no room for 9 rounds" in err


def test_a_model_that_fails_keeps_what_was_timed(melbench, folder):
    command = "time --model timed_models:Fails --input 1,4,8 --what latency,step --launches 2 -o kept.json"
    code, out, err = melbench(*command.split())
    assert code == 1
    assert "out of luck" in err and err.count("kept.json") == 1 and " kept in kept.json" in err
    assert "latency" in out and (folder / "kept.json").exists()


def test_help_does_not_wait_for_torch():
    code = "import sys; sys.argv = ['melbench', 'time', '--help']; from bench import cli\n"
    code += "try: cli.main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ)
    assert "--what" in done.stdout
