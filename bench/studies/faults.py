"""Faults of a sweep: one try of each kind, and a check of its records and its table afterwards.

A try takes the undisturbed sweep, a name for its own files, and a random generator; it returns the problem (empty if
there is none) and what was observed.
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
from datetime import datetime, tzinfo
from pathlib import Path

from bench.records import RESULTS, RecordFolder, audit
from bench.studies import forked_runs
from bench.studies.forked_runs import ForkedRun
from melcnn import locking
from melcnn.errors import Failed

GRID = ("groups=1,2", *forked_runs.SMALL)
SEEDS, EPOCHS = 3, 2
NETWORKS = 2 * SEEDS  # two configurations in the grid

# Writing a record takes several times this.
SECONDS_BETWEEN_LOOKS = 0.0005

# A file system of its own is mounted here, in the home of the reference sweep.
DISK = "disk"
DISK_KILOBYTES = 4096


@dataclass(frozen=True)
class ReferenceSweep:
    """The undisturbed sweep, in `home`.

    Attributes:
        results: the results of each record, by file name.
        rows: the rows of its CSV file without measured times.
        seconds: duration once everything is in the caches.
        writing: seconds from its first record of a network to the last.
    """

    corpus: Path
    home: Path
    results: Mapping[str, dict]
    rows: list[dict[str, str]]
    seconds: float
    writing: float

    def wait(self, run: ForkedRun, folder: Path, rng: random.Random) -> None:
        """Wait for a random moment of a sweep that has just begun, but not beyond its end.

        Half of the moments are while it writes, after any record but the last, however fast this machine is now.
        """
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0, self.seconds))
            return
        records = rng.randrange(1, NETWORKS)
        while len(_records(folder)) < records and not run.has_ended():
            time.sleep(SECONDS_BETWEEN_LOOKS)
        time.sleep(rng.uniform(0, self.writing / NETWORKS))

    def start(self, name: str, folder: Path, setup: Callable[[], object] = forked_runs.do_nothing) -> ForkedRun:
        """Start the same sweep into `folder`; its table and its output are files of this name in `home`."""
        return _start(self.corpus, self.home, name, folder, setup)

    def problem(self, name: str, folder: Path) -> str:
        """Return how the sweep of that name differs from this one; empty if it does not."""
        for finding in audit.inspect(folder).findings:
            if finding.kind != "leftover":
                return f"{finding.path} {finding.reason}"
        if _results(folder) != self.results:
            return f"the records in {folder} are not those of the undisturbed sweep"
        if _rows(self.home / f"{name}.csv") != self.rows:
            return f"the table {name}.csv is not that of the undisturbed sweep"
        return ""


def run_reference(home: Path) -> ReferenceSweep:
    """Sweep twice in `home` and return the second sweep, which finds everything in the caches.

    Raises:
        Failed: if one of them fails.
    """
    corpus = forked_runs.write_corpus(home / "corpus")
    (home / DISK).mkdir()
    for name in ("first", "reference"):
        begin = time.time()
        run = _start(corpus, home, name, home / name, forked_runs.do_nothing)
        if run.wait():
            raise Failed(f"the undisturbed sweep failed: {run.output}")
        seconds = time.time() - begin
    results = _results(home / "reference")
    if len(results) != NETWORKS:
        raise Failed(f"the undisturbed sweep made {len(results)} records, not {NETWORKS}")
    written = [path.stat().st_mtime for path in _records(home / "reference")]
    return ReferenceSweep(corpus, home, results, _rows(home / "reference.csv"), seconds, max(written) - min(written))


def _start(corpus: Path, home: Path, name: str, folder: Path, setup: Callable[[], object]) -> ForkedRun:
    sizes = ["--seeds", SEEDS, "--epochs", EPOCHS]
    places = ["--data", corpus, "--out", folder, "--csv", home / f"{name}.csv"]
    return forked_runs.start(["sweep", *GRID, *sizes, *places], home / f"{name}.log", setup)


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
    reference: ReferenceSweep, name: str, rng: random.Random, setup: Callable[[], object] = forked_runs.do_nothing
) -> tuple[str, str]:
    """Kill a sweep with SIGKILL at a random moment, then run the same command again.

    Args:
        setup: called in both processes before they begin.
    """
    folder = reference.home / name
    run = reference.start(name, folder, setup)
    reference.wait(run, folder, rng)
    os.kill(run.process, signal.SIGKILL)
    code, before = run.wait(), _files(folder)
    moment = _moment(len(before)) if code == -signal.SIGKILL else "after its end"
    return _resume(reference, name, folder, before, setup), f"killed {moment}"


def _moment(records: int) -> str:
    if not records:
        return "before the first record"
    return "between records" if records < NETWORKS else "after the last network"


def _resume(
    reference: ReferenceSweep,
    name: str,
    folder: Path,
    before: Mapping[str, bytes],
    setup: Callable[[], object] = forked_runs.do_nothing,
) -> str:
    """Run the same command again and return the problem then.

    Args:
        before: the records that the first run left, by file name.
    """
    run = reference.start(name, folder, setup)
    if code := run.wait():
        return f"the second run ended with {code}: {run.output}"
    after = _files(folder)
    if any(after.get(file) != content for file, content in before.items()):
        return "a record that was there is gone, or has changed"
    return reference.problem(name, folder)


def raced(reference: ReferenceSweep, name: str, rng: random.Random) -> tuple[str, str]:
    """Run two sweeps at once in one folder.

    Half of the times both start at the same moment, else the second starts while the first runs. Half of the times the
    second does not wait for the lock, as it would not wait long enough for a longer sweep.
    """
    folder, other_name = reference.home / name, f"{name}-other"
    one = reference.start(name, folder)
    if rng.random() < 0.5:
        reference.wait(one, folder, rng)
    other = reference.start(other_name, folder, rng.choice((forked_runs.do_nothing, _do_not_wait)))
    codes = {name: one.wait(), other_name: other.wait()}
    if sorted(codes.values()) not in ([0, 0], [0, 2]):
        return f"they ended with {codes}: {one.output} {other.output}", ""
    for refused, holder in ((one, other), (other, one)):
        if codes[refused.log.stem] and f"{folder} is in use by process {holder.process} on " not in refused.output:
            return f"one was refused without the right reason: {refused.output}", ""
    problems = [reference.problem(each, folder) for each, code in codes.items() if not code]
    return next(filter(None, problems), ""), "one was refused" if 2 in codes.values() else "one came after the other"


def _do_not_wait() -> None:
    locking.PATIENCE_SECONDS = 0


def on_a_full_disk(reference: ReferenceSweep, name: str, rng: random.Random) -> tuple[str, str]:
    """Fill the disk at `DISK` at a random moment, then make room and run the same command again."""
    folder, filler = reference.home / DISK / name, reference.home / DISK / "filler"
    run = reference.start(name, folder)
    reference.wait(run, folder, rng)
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        for _ in range(DISK_KILOBYTES):  # Any other, larger disk is not filled.
            file.write(bytes(1024))
    code, before = run.wait(), _files(folder)
    filler.unlink()
    if code not in (0, 2) or (code == 2 and not _is_one_line_error(run, "No space left on device")):
        return f"it ended with {code}: {run.output}", ""
    observation = f"full {_moment(len(before))}" if code else "full too late to matter"
    return _resume(reference, name, folder, before), observation


def read_only(reference: ReferenceSweep, name: str, rng: random.Random) -> tuple[str, str]:
    """Kill a sweep in `DISK` and make its folder read-only, then writable again, with the same command each time."""
    folder = reference.home / DISK / name
    run = reference.start(name, folder)
    reference.wait(run, folder, rng)
    os.kill(run.process, signal.SIGKILL)
    run.wait()
    before = _files(folder)
    forked_runs.set_writable(reference.home / DISK, False)
    run = reference.start(name, folder)
    code = run.wait()
    forked_runs.set_writable(reference.home / DISK, True)
    if code != 2 or not _is_one_line_error(run, "Read-only file system"):
        return f"it ended with {code}: {run.output}", ""
    if _files(folder) != before:
        return "what was there has changed", ""
    return _resume(reference, name, folder, before), f"with the records of a sweep killed {_moment(len(before))}"


def _is_one_line_error(run: ForkedRun, reason: str) -> bool:
    """Return whether the output has a single error line, with this reason, and no traceback."""
    errors = [line for line in run.output.splitlines() if line.startswith("melbench: ")]
    return len(errors) == 1 and reason in errors[0] and "Traceback" not in run.output


def without_its_folder(reference: ReferenceSweep, name: str, rng: random.Random) -> tuple[str, str]:
    """Move the folder away at a random moment of the sweep, then run the same command again."""
    folder, moved = reference.home / name, reference.home / f"{name}-moved"
    run = reference.start(name, folder)
    reference.wait(run, folder, rng)
    with contextlib.suppress(FileNotFoundError):  # The sweep may not have made it yet.
        folder.rename(moved)
    code = run.wait()
    if code not in (0, 2) or (code == 2 and not _is_one_line_error(run, "No such file or directory")):
        return f"it ended with {code}: {run.output}", ""
    # After a sweep that went to its end every record is in its folder, or in the place that this was moved to.
    if not code and _files(folder if folder.exists() else moved).keys() != reference.results.keys():
        return "a record of a sweep that went to its end is gone", ""
    observation = "refused" if code else "made again" if folder.exists() and moved.exists() else "not missed"
    return _resume(reference, name, folder, _files(folder)), observation


# Counted from the import of this module, a real second is a day by which the clock goes back.
_IMPORTED, _real_time = time.time(), time.time


def with_a_clock_that_goes_back(reference: ReferenceSweep, name: str, rng: random.Random) -> tuple[str, str]:
    """Try as `killed` does, with a clock that goes back, so that the second run is earlier than the first."""
    return killed(reference, name, rng, _turn_clock_back)


def _turn_clock_back() -> None:
    def backwards() -> float:
        return _IMPORTED - 24 * 3600 * (_real_time() - _IMPORTED)

    class Backwards(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a plain datetime will do
            return datetime.fromtimestamp(backwards(), tz)

    time.time = backwards
    for module in list(sys.modules.values()):
        if getattr(module, "datetime", None) is datetime:
            setattr(module, "datetime", Backwards)  # noqa: B010 - mypy knows no such attribute of a module
