"""Sweeps that are killed, race, and lose their disk: the long command in its shortest form, and its verdicts."""

import csv
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.records import RESULTS, RecordFolder
from bench.studies import endurance, faults, forked_runs
from bench.studies.endurance import MAX_GROWTH_MB, TRIALS, AttemptOutcome, EnduranceRow, main, parse, repeat
from melcnn import InputError
from melcnn.errors import Failed
from tests.helpers.records import trial_record

pytestmark = pytest.mark.slow

linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="it needs Linux")


def run(out, *trials):
    """Run the command and return its exit code, its standard error, and its rows by trial."""
    # torch's kernels need no compilation and no measurement.
    environment = {**os.environ, "MELBENCH_KERNELS": "torch"}
    command = [sys.executable, "-m", "bench.studies.endurance", out, *trials]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    with out.open(newline="") as file:
        return done.returncode, done.stderr, {row["trial"]: row for row in csv.DictReader(file)}


@linux
def test_nothing_is_lost_in_short(tmp_path):
    code, errors, rows = run(tmp_path / "endurance.csv", "kills=2", "races=1", "gone=1", "clock=1", "memory=100")
    assert (code, errors) == (0, "")
    counts = {"kills": "2", "races": "1", "gone": "1", "clock": "1", "memory": "100"}
    assert {trial: (row["tries"], row["right"]) for trial, row in rows.items()} == {
        TRIALS[name][0]: (count, count) for name, count in counts.items()
    }
    assert int(rows[TRIALS["memory"][0]]["growth_mb"]) < MAX_GROWTH_MB
    assert "| networks of one sweep | 100 | 100 |" in (tmp_path / "endurance.md").read_text()


def disk_of_its_own(folder):
    def fits():
        (folder / "small").write_bytes(bytes(1000))
        with pytest.raises(OSError, match="No space left"):
            (folder / "large").write_bytes(bytes(100_000))
        return ["it is small"]

    return forked_runs.call_on_private_disk(folder, 64, fits)


@linux
def test_nothing_is_lost_with_the_disk_in_short(tmp_path):
    (tmp_path / "disk").mkdir()
    try:
        assert disk_of_its_own(tmp_path / "disk") == ["it is small"]
    except Failed:
        pytest.skip("this system gives nobody a disk of its own")
    assert os.listdir(tmp_path / "disk") == [], "nobody else sees it"
    code, errors, rows = run(tmp_path / "endurance.csv", "full_disk=1", "read_only=1")
    assert (code, errors) == (0, "") and [row["right"] for row in rows.values()] == ["1", "1"]


def reference_in(home):
    (home / faults.DISK).mkdir()
    return faults.ReferenceSweep(home / "corpus", home, {}, [], 1.0, 0.6)


def test_tries_are_counted_and_problems_are_printed_and_kept(tmp_path, monkeypatch):
    notes = []
    monkeypatch.setattr(endurance, "note", notes.append)

    def attempt(reference, name, rng):
        (reference.home / name).mkdir()
        number = int(name.removeprefix("attempt-"))
        return ("it was lost", "") if number == 3 else ("", "even" if number % 2 == 0 else "odd")

    # Three of 0 to 4 are even; 3, an odd one, fails.
    outcome = repeat(attempt, reference_in(tmp_path), 5)
    assert (outcome.right, outcome.found) == (4, "3 even, 1 odd")
    assert notes == ["attempt-3: it was lost"] and (tmp_path / "attempt-3").exists()
    assert not (tmp_path / "attempt-2").exists()


def spoilt_record(home):
    (path,) = (home / "runs").iterdir()
    path.write_text(path.read_text()[:-1])


def lost_record(home):
    (path,) = (home / "runs").iterdir()
    path.unlink()


def other_record(home):
    RecordFolder(home / "runs").write(trial_record(0, logits=((0.1, 0.9), (0.7, 0.30001))))


def one_record_more(home):
    RecordFolder(home / "runs").write(trial_record(1))


def other_table(home):
    (home / "sweep.csv").write_text("groups,epoch_time_s,epochs\n1,0.5,3\n")


def other_times(home):
    (home / "sweep.csv").write_text("groups,epoch_time_s,epochs\n1,0.9,2\n")
    RecordFolder(home / "runs").write(trial_record(0, elapsed_seconds=[9.0]))
    (home / "runs" / f".{trial_record(0).file_name}.0123abcd.tmp").touch()


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (spoilt_record, "is not a whole melbench record"),
        (lost_record, "the records in"),
        (other_record, "the records in"),
        (one_record_more, "the records in"),
        (other_table, "the table sweep.csv"),
        (other_times, ""),
    ],
)
def test_what_is_lost_or_changed_is_seen(tmp_path, change, wrong):
    (tmp_path / "runs").mkdir()
    RecordFolder(tmp_path / "runs").write(trial_record(0))
    (tmp_path / "sweep.csv").write_text("groups,epoch_time_s,epochs\n1,0.5,2\n")
    results = {trial_record(0).file_name: trial_record(0).model_dump(include=RESULTS)}
    reference = faults.ReferenceSweep(tmp_path, tmp_path, results, [{"groups": "1", "epochs": "2"}], 1.0, 1.0)
    assert reference.problem("sweep", tmp_path / "runs") == ""
    change(tmp_path)
    found = reference.problem("sweep", tmp_path / "runs")
    assert (wrong in found) if wrong else not found


def moments(home, monkeypatch, times, ended):
    """Wait `times` times, with one more record at each look, and return the number of records and the seconds slept
    beside the looks."""
    reference, rng, found = reference_in(home), random.Random(0), []

    def sleep(seconds):
        if seconds == faults.SECONDS_BETWEEN_LOOKS:
            (folder / f"trial-{len(list(folder.iterdir()))}.json").touch()
        else:
            slept.append(seconds)

    monkeypatch.setattr(faults.time, "sleep", sleep)
    for number in range(times):
        folder, slept = home / str(number), []
        folder.mkdir()
        reference.wait(SimpleNamespace(has_ended=lambda: ended), folder, rng)
        found.append((len(list(folder.iterdir())), *slept))
    return found


def test_half_of_the_moments_are_while_records_are_written(tmp_path, monkeypatch):
    found = moments(tmp_path, monkeypatch, 1000, False)
    # Each of five numbers of records a tenth of the times, with a standard deviation of 0.0095.
    counts = Counter(records for records, _ in found)
    assert {records: count / 1000 for records, count in counts.items()} == pytest.approx(
        {0: 0.5, **dict.fromkeys(range(1, faults.NETWORKS), 0.1)}, abs=0.05
    )
    # Then for at most what passes between two records, or for any part of the sweep's second.
    assert max(seconds for records, seconds in found if records) <= 0.6 / faults.NETWORKS
    assert 0.9 < max(seconds for records, seconds in found if not records) <= 1


def test_a_sweep_that_is_over_is_not_waited_for(tmp_path, monkeypatch):
    assert not any(records for records, _ in moments(tmp_path, monkeypatch, 20, True))


def fake_run(tmp_path, output):
    log = tmp_path / "log"
    log.write_text(output)
    return forked_runs.ForkedRun(0, log)


@pytest.mark.parametrize(
    ("output", "good"),
    [
        ("melbench: a cannot be written (No space left on device): choose another\n", True),
        ("a note\nmelbench: a cannot be written (No space left on device): choose another\n", True),
        ("melbench: something else\n", False),
        ("melbench: No space left on device\nmelbench: and again\n", False),
        ("Traceback (most recent call last):\nmelbench: No space left on device\n", False),
        ("", False),
    ],
)
def test_what_counts_as_a_clear_end(tmp_path, output, good):
    assert faults._is_one_line_error(fake_run(tmp_path, output), "No space left on device") == good


@linux
def test_a_process_is_forked_waited_for_and_killed(tmp_path):
    code = subprocess.run([sys.executable, "-c", FORKS, tmp_path], capture_output=True, text=True)
    assert code.stdout == f"2 None False {-signal.SIGKILL} True\n", code.stderr
    assert (tmp_path / "refused").read_text().startswith("melbench: there is no axis")


FORKS = """
import os, signal, sys, time
from pathlib import Path
from bench.studies import forked_runs
home = Path(sys.argv[1])
refused = forked_runs.start(["sweep", "nothing"], home / "refused")
print(refused.wait(), end=" ")
endless = forked_runs.start([], home / "endless", lambda: time.sleep(1000))
print(endless.exit_code(), endless.has_ended(), end=" ")
memory = endless.resident_bytes()
os.kill(endless.process, signal.SIGKILL)
while not endless.has_ended():
    time.sleep(0.01)
print(endless.wait(), memory > 10**6)
"""


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["kills"], "'kills' is no trial: give name=number with a name of kills, races"),
        (["kills=0"], "no trial"),
        (["kills=-1"], "no trial"),
        (["floods=3"], "no trial"),
        (["memory=50"], "give a multiple of 50 above 50"),
        (["memory=75"], "give a multiple of 50 above 50"),
    ],
)
def test_trials_that_there_are_not(texts, message):
    with pytest.raises(InputError, match=message):
        parse(texts)
    assert parse(["kills=3", "memory=500"]) == {"kills": 3, "memory": 500}


@pytest.fixture
def faked(tmp_path, monkeypatch):
    """The command with trials that take no time: `outcome(tries)` returns their outcome."""
    home = tmp_path / "home"
    monkeypatch.setattr(faults, "run_reference", reference_in)
    monkeypatch.setattr(endurance.tempfile, "mkdtemp", lambda prefix: home.mkdir() or str(home))
    monkeypatch.setenv("MELBENCH_CACHE", "")  # which the command sets

    def command(trials, outcome):
        for name, (title, _) in TRIALS.items():
            monkeypatch.setitem(TRIALS, name, (title, lambda reference, tries: outcome(tries)))
        main(tmp_path / "out.csv", trials)

    return command


@linux
def test_rows_of_other_trials_stay(faked, tmp_path):
    faked(["clock=2", "memory=100"], lambda tries: AttemptOutcome(tries, f"{tries} good", 7 if tries == 100 else None))
    faked(["kills=3", "clock=4"], lambda tries: AttemptOutcome(tries, f"{tries} good"))
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = [EnduranceRow.model_validate({k: v or None for k, v in line.items()}) for line in csv.DictReader(file)]
    # In the order of TRIALS, whichever ran first.
    assert [(row.trial, row.tries, row.found, row.growth_mb) for row in rows] == [
        (TRIALS["kills"][0], 3, "3 good", None),
        (TRIALS["clock"][0], 4, "4 good", None),
        (TRIALS["memory"][0], 100, "100 good", 7),
    ]
    assert not (tmp_path / "home").exists()


@linux
@pytest.mark.parametrize(
    "outcome", [lambda tries: AttemptOutcome(tries - 1, ""), lambda tries: AttemptOutcome(tries, "", MAX_GROWTH_MB)]
)
def test_what_goes_wrong_is_written_and_said_and_its_folder_kept(faked, tmp_path, outcome):
    with pytest.raises(Failed, match=f"not all went as it should: .* {tmp_path / 'home'}"):
        faked(["memory=100"], outcome)
    assert (tmp_path / "out.csv").exists() and (tmp_path / "home").exists()


@linux
def test_another_table_is_not_overwritten(faked, tmp_path):
    (tmp_path / "out.csv").write_text("groups,macs\n1,2\n")
    with pytest.raises(InputError, match="is no table of this command"):
        faked(["kills=1"], lambda tries: AttemptOutcome(tries, ""))
    assert (tmp_path / "out.csv").read_text() == "groups,macs\n1,2\n"
