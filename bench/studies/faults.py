"""What may befall a sweep: one try of each kind of disturbance, and whether its records and its table are right after.

A try takes a sweep that nobody disturbed, a name for what is its own, and a random generator; it gives what is wrong
(empty: nothing) and what there was to see.
"""

import contextlib
import csv
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from bench.records import RESULTS, RecordFolder, audit
from bench.studies import forked_runs
from bench.studies.forked_runs import ForkedRun
from melcnn import locking
from melcnn.errors import Failed

GRID = ("groups=1,2", *forked_runs.SMALL)
SEEDS, EPOCHS = 3, 2
# Of the grid and the seeds.
NETWORKS = 2 * SEEDS

# A record is written in several times this.
SECONDS_BETWEEN_LOOKS = 0.0005

# A file system of its own is mounted here, in the home of the whole sweep.
DISK = "disk"
DISK_KILOBYTES = 4096


@dataclass(frozen=True)
class Whole:
    """The sweep that nobody disturbed, in `home`. results: what each record says, by its file. rows: of its CSV, less
    measured times. seconds: that it takes once everything is in the caches; writing: from its first record of a network
    to the last."""

    corpus: Path
    home: Path
    results: Mapping[str, dict]
    rows: list[dict[str, str]]
    seconds: float
    writing: float

    def wait(self, run: ForkedRun, folder: Path, rng: random.Random) -> None:
        """Waits for any moment of a sweep that has just begun; half of the times while it writes, after any record but
        the last, however fast this machine is now. Not beyond its end."""
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0, self.seconds))
            return
        records = rng.randrange(1, NETWORKS)
        while len(_records(folder)) < records and not run.over():
            time.sleep(SECONDS_BETWEEN_LOOKS)
        time.sleep(rng.uniform(0, self.writing / NETWORKS))

    def start(self, name: str, folder: Path, first: Callable[[], object] = forked_runs.nothing) -> ForkedRun:
        """Starts the same sweep into `folder`; its table and what it says are in files of this name in `home`."""
        return _start(self.corpus, self.home, name, folder, first)

    def amiss(self, name: str, folder: Path) -> str:
        """How the sweep of that name differs from what it should be; empty if it does not."""
        for finding in audit.inspect(folder).findings:
            if finding.kind != "leftover":
                return f"{finding.path} {finding.reason}"
        if _results(folder) != self.results:
            return f"the records in {folder} are not those of the undisturbed sweep"
        if _rows(self.home / f"{name}.csv") != self.rows:
            return f"the table {name}.csv is not that of the undisturbed sweep"
        return ""


def undisturbed(home: Path) -> Whole:
    """Sweeps twice in `home`: what the first puts into the caches, the others find there. Raises `Failed` if it goes
    wrong."""
    corpus = forked_runs.write_corpus(home / "corpus")
    (home / DISK).mkdir()
    for name in ("first", "whole"):
        begin = time.time()
        run = _start(corpus, home, name, home / name, forked_runs.nothing)
        if run.wait():
            raise Failed(f"the undisturbed sweep failed: {run.said}")
        seconds = time.time() - begin
    results = _results(home / "whole")
    if len(results) != NETWORKS:
        raise Failed(f"the undisturbed sweep made {len(results)} records, not {NETWORKS}")
    written = [path.stat().st_mtime for path in _records(home / "whole")]
    return Whole(corpus, home, results, _rows(home / "whole.csv"), seconds, max(written) - min(written))


def _start(corpus: Path, home: Path, name: str, folder: Path, first: Callable[[], object]) -> ForkedRun:
    sizes = ["--seeds", SEEDS, "--epochs", EPOCHS]
    places = ["--data", corpus, "--out", folder, "--csv", home / f"{name}.csv"]
    return forked_runs.start(["sweep", *GRID, *sizes, *places], home / f"{name}.log", first)


def _results(folder: Path) -> dict[str, dict]:
    records = RecordFolder(folder).trials().values()
    return {record.file_name: record.model_dump(include=RESULTS) for record in records}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if "time" not in name} for row in csv.DictReader(file)]


def _records(folder: Path) -> list[Path]:
    return list(folder.glob("trial-*.json"))


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in _records(folder)}


def killed(
    whole: Whole, name: str, rng: random.Random, first: Callable[[], object] = forked_runs.nothing
) -> tuple[str, str]:
    """SIGKILL at any moment; then the same command again. first: called in both processes before they begin."""
    folder = whole.home / name
    run = whole.start(name, folder, first)
    whole.wait(run, folder, rng)
    os.kill(run.process, signal.SIGKILL)
    ended, before = run.wait(), _files(folder)
    seen = _when(len(before)) if ended == -signal.SIGKILL else "after its end"
    return _resumed(whole, name, folder, before, first), f"killed {seen}"


def _when(records: int) -> str:
    if not records:
        return "before the first record"
    return "between records" if records < NETWORKS else "after the last network"


def _resumed(
    whole: Whole,
    name: str,
    folder: Path,
    before: Mapping[str, bytes],
    first: Callable[[], object] = forked_runs.nothing,
) -> str:
    """Runs the same command again; what is wrong then. before: the records that the first run left."""
    run = whole.start(name, folder, first)
    if code := run.wait():
        return f"the second run ended with {code}: {run.said}"
    after = _files(folder)
    if any(after.get(file) != content for file, content in before.items()):
        return "a record that was there is gone, or has changed"
    return whole.amiss(name, folder)


def raced(whole: Whole, name: str, rng: random.Random) -> tuple[str, str]:
    """Two at once in one folder: half of the times from the same moment on, else the second while the first runs; half
    of the times the second does not wait for a moment, as a sweep that takes longer would not let it."""
    folder, other_name = whole.home / name, f"{name}-other"
    one = whole.start(name, folder)
    if rng.random() < 0.5:
        whole.wait(one, folder, rng)
    other = whole.start(other_name, folder, rng.choice((forked_runs.nothing, _do_not_wait)))
    codes = {name: one.wait(), other_name: other.wait()}
    if sorted(codes.values()) not in ([0, 0], [0, 2]):
        return f"they ended with {codes}: {one.said} {other.said}", ""
    for refused, holder in ((one, other), (other, one)):
        if codes[refused.log.stem] and f"{folder} is in use by process {holder.process} on " not in refused.said:
            return f"one was refused without the right reason: {refused.said}", ""
    wrong = [whole.amiss(each, folder) for each, code in codes.items() if not code]
    return next(filter(None, wrong), ""), "one was refused" if 2 in codes.values() else "one came after the other"


def _do_not_wait() -> None:
    locking.PATIENCE_SECONDS = 0


def on_a_full_disk(whole: Whole, name: str, rng: random.Random) -> tuple[str, str]:
    """From any moment on the disk is full; then it has room again, and the same command. In `DISK`."""
    folder, filler = whole.home / DISK / name, whole.home / DISK / "filler"
    run = whole.start(name, folder)
    whole.wait(run, folder, rng)
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        for _ in range(DISK_KILOBYTES):  # If it is another disk, it is not filled.
            file.write(bytes(1024))
    code, before = run.wait(), _files(folder)
    filler.unlink()
    if code not in (0, 2) or (code == 2 and not _in_one_line(run, "No space left on device")):
        return f"it ended with {code}: {run.said}", ""
    return _resumed(whole, name, folder, before), f"full {_when(len(before))}" if code else "full too late to matter"


def read_only(whole: Whole, name: str, rng: random.Random) -> tuple[str, str]:
    """A sweep is killed; its folder cannot be written; then it can again, and the same command. In `DISK`."""
    folder = whole.home / DISK / name
    run = whole.start(name, folder)
    whole.wait(run, folder, rng)
    os.kill(run.process, signal.SIGKILL)
    run.wait()
    before = _files(folder)
    forked_runs.let_write(whole.home / DISK, False)
    run = whole.start(name, folder)
    code = run.wait()
    forked_runs.let_write(whole.home / DISK, True)
    if code != 2 or not _in_one_line(run, "Read-only file system"):
        return f"it ended with {code}: {run.said}", ""
    if _files(folder) != before:
        return "what was there has changed", ""
    return _resumed(whole, name, folder, before), f"with the records of a sweep killed {_when(len(before))}"


def _in_one_line(run: ForkedRun, reason: str) -> bool:
    """Whether the last line says what is wrong and for which reason, and no other does."""
    errors = [line for line in run.said.splitlines() if line.startswith("melbench: ")]
    return len(errors) == 1 and reason in errors[0] and "Traceback" not in run.said


def without_its_folder(whole: Whole, name: str, rng: random.Random) -> tuple[str, str]:
    """The folder is gone from any moment on: moved away, whatever the sweep is at; then the same command."""
    folder, moved = whole.home / name, whole.home / f"{name}-moved"
    run = whole.start(name, folder)
    whole.wait(run, folder, rng)
    with contextlib.suppress(FileNotFoundError):  # It has not been made yet.
        folder.rename(moved)
    code = run.wait()
    if code not in (0, 2) or (code == 2 and not _in_one_line(run, "No such file or directory")):
        return f"it ended with {code}: {run.said}", ""
    # Of a sweep that went to its end every record is where it was told to put them, or where these were moved.
    if not code and _files(folder if folder.exists() else moved).keys() != whole.results.keys():
        return "a record of a sweep that went to its end is gone", ""
    seen = "refused" if code else "made again" if folder.exists() and moved.exists() else "not missed"
    return _resumed(whole, name, folder, _files(folder)), seen


# A second of ours is a day of the clock that goes back, from when this was imported on.
_BEGUN, _real_time = time.time(), time.time


def with_a_clock_that_goes_back(whole: Whole, name: str, rng: random.Random) -> tuple[str, str]:
    """As `killed`, by a calendar that goes back, so that the second run is earlier than the first."""
    return killed(whole, name, rng, _turn_back)


def _turn_back() -> None:
    def backwards() -> float:
        return _BEGUN - 24 * 3600 * (_real_time() - _BEGUN)

    class Backwards(datetime):
        @classmethod
        def now(cls, tz: timezone | None = None) -> datetime:
            return datetime.fromtimestamp(backwards(), tz)

    time.time = backwards
    for module in list(sys.modules.values()):
        if getattr(module, "datetime", None) is datetime:
            module.datetime = Backwards
