"""What becomes of records when sweeps are killed, race, run long, or lose their disk: many times, and counted.

    python -m bench.studies.endurance results/robustness/endurance.csv kills=200 races=100 full_disk=20 memory=500

Each try is a whole `melbench sweep` of a few tiny networks on tones, in a process and a folder of its own, and the same
command once more. memory is one sweep of that many networks. Rows of trials that are not named stay in the file; a
Markdown file is written beside it.
"""

import csv
import math
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from bench.cli.output import keep
from bench.cli.terminal import finish, note
from bench.formats import Sheet, sheet_of, show
from bench.studies import faults, forked_runs
from bench.studies.faults import DISK, DISK_KILOBYTES, Whole
from bench.system import environment
from melcnn.errors import Failed, InputError
from melcnn.files import check_writable

Attempt = Callable[[Whole, str, random.Random], tuple[str, str]]

# How much memory a sweep may take more after its first networks, which load all that there is to load.
MOST_GROWTH_MB = 50
FIRST_NETWORKS = 50
SEEDS, GROUPS = 10, "1,2,4,8,16"
NETWORKS_A_RATE = 5 * SEEDS
SECONDS_BETWEEN_SAMPLES = 0.02


class EnduranceRow(BaseModel):
    """A trial; the fields are the CSV's columns. right: of the tries, those after which nothing was lost, and every
    message was one clear line; of memory, the networks recorded. growth_mb: of memory, in 10^6 bytes. time_s: of all
    tries together."""

    trial: str
    tries: int
    right: int
    found: str
    growth_mb: int | None = None
    time_s: int
    device: str


@dataclass(frozen=True)
class AttemptOutcome:
    """What comes of the tries of a trial, as in its `Row`."""

    right: int
    found: str
    growth_mb: int | None = None


def repeated(attempt: Attempt, whole: Whole, tries: int) -> AttemptOutcome:
    """Tries so many times, each time the same moments. What is wrong is told, and its folder kept."""
    rng, right, seen = random.Random(0), 0, Counter()
    for number in range(tries):
        name = f"{attempt.__name__}-{number}"
        wrong, what = attempt(whole, name, rng)
        if wrong:
            note(f"{name}: {wrong}")
            continue
        right += 1
        seen[what] += 1
        for folder in (whole.home / name, whole.home / DISK / name):
            shutil.rmtree(folder, ignore_errors=True)
    return AttemptOutcome(right, ", ".join(f"{count} {what}" for what, count in sorted(seen.items())))


def on_a_disk(attempt: Attempt, whole: Whole, tries: int) -> AttemptOutcome:
    """As `repeated`, with a small file system at `DISK`. Raises `Failed` where the system gives us none."""
    return AttemptOutcome(
        *forked_runs.on_a_disk_of_its_own(
            whole.home / DISK, DISK_KILOBYTES, lambda: list(vars(repeated(attempt, whole, tries)).values())
        )
    )


def memory(whole: Whole, networks: int) -> AttemptOutcome:
    """The memory of one sweep's process while its networks are trained and timed, one stack after another."""
    rates = ",".join(f"{0.001 + 1e-5 * number:.5f}" for number in range(networks // NETWORKS_A_RATE))
    grid = [f"groups={GROUPS}", f"learning_rate={rates}", *forked_runs.SMALL]
    folder = whole.home / "memory"
    sizes = ["--seeds", SEEDS, "--epochs", 1, "--data", whole.corpus, "--out", folder]
    run = forked_runs.start(["sweep", *grid, *sizes], whole.home / "memory.log")
    most = dict.fromkeys(("the first", "all were trained", "epochs were timed", "the end"), 0)
    while (code := run.ended()) is None:
        trained, timed = (len(list(folder.glob(f"{kind}-*.json"))) for kind in ("trial", "timing"))
        stage = 3 if timed else 2 if trained == networks else 1 if trained > FIRST_NETWORKS else 0
        name = list(most)[stage]
        most[name] = max(most[name], run.resident_bytes())
        time.sleep(SECONDS_BETWEEN_SAMPLES)
    if code:
        raise Failed(f"the sweep of {networks} networks ended with {code}: {run.said}")
    first = most.pop("the first")
    found = ", ".join(f"{bytes / 1e6:.0f} MB until {name}" for name, bytes in most.items())
    found = f"at most {first / 1e6:.0f} MB until {FIRST_NETWORKS} were trained, {found}"
    return AttemptOutcome(len(list(folder.glob("trial-*.json"))), found, math.ceil((max(most.values()) - first) / 1e6))


# By the name that the command line knows them by.
TRIALS: dict[str, tuple[str, Callable[[Whole, int], AttemptOutcome]]] = {
    "kills": ("SIGKILL, and the same command again", partial(repeated, faults.killed)),
    "races": ("two sweeps at once in one folder", partial(repeated, faults.raced)),
    "full_disk": ("the disk is full", partial(on_a_disk, faults.on_a_full_disk)),
    "read_only": ("the folder cannot be written", partial(on_a_disk, faults.read_only)),
    "gone": ("the folder is moved away", partial(repeated, faults.without_its_folder)),
    "clock": ("SIGKILL, and a clock that goes back", partial(repeated, faults.with_a_clock_that_goes_back)),
    "memory": ("networks of one sweep", memory),
}


def parse(texts: Sequence[str]) -> dict[str, int]:
    """`["kills=200", "memory=500"]` as names of `TRIALS` and tries. Raises `InputError` for anything else."""
    found = {}
    for text in texts:
        name, _, count = text.partition("=")
        if name not in TRIALS or not count.isdecimal() or not int(count):
            raise InputError(f"{text!r} is no trial: give name=number with a name of {', '.join(TRIALS)}")
        found[name] = int(count)
    networks = found.get("memory", 2 * FIRST_NETWORKS)
    if networks % NETWORKS_A_RATE or networks <= FIRST_NETWORKS:
        raise InputError(f"memory={networks}: give a multiple of {NETWORKS_A_RATE} above {FIRST_NETWORKS}")
    return found


def sheet(rows: Sequence[EnduranceRow]) -> Sheet:
    return sheet_of(
        "records under fire",
        [{name: "" if value is None else value for name, value in row.model_dump().items()} for row in rows],
        f"a try: a melbench sweep of {faults.NETWORKS} tiny networks on tones, disturbed at any moment of its "
        "life (half of the times while it writes), and the same command again; right: no record lost, changed or "
        "trained twice, the table equal to the undisturbed one but for times, each message one line; memory: of one "
        "process, growth after its first networks",
    )


def _stored(path: Path) -> dict[str, EnduranceRow]:
    """The rows of an earlier run. Raises `InputError` if the file is of something else."""
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{name: value or None for name, value in line.items()} for line in csv.DictReader(file)]
        return {row["trial"]: EnduranceRow.model_validate(row) for row in rows}
    except (KeyError, ValueError, csv.Error):
        raise InputError(f"{path} is no table of this command: give a file of its own") from None


def main(
    out: Annotated[Path, typer.Argument(help="The CSV file, one line a trial.")],
    trials: Annotated[
        list[str], typer.Argument(metavar="NAME=NUMBER...", help=f"What to do how often: {', '.join(TRIALS)}.")
    ],
) -> None:
    """Disturbs sweeps and counts what is lost: nothing, it is hoped."""
    wanted = parse(trials)
    check_writable(out)
    rows = _stored(out)
    if not hasattr(os, "fork") or not Path("/proc/self/statm").exists():
        raise Failed("this needs processes that fork, and /proc: run it on Linux")
    home = Path(tempfile.mkdtemp(prefix="melbench-endurance-"))
    os.environ["MELBENCH_CACHE"] = str(home / "cache")
    whole = faults.undisturbed(home)
    good = True
    for name, tries in wanted.items():
        title, trial = TRIALS[name]
        begin = time.perf_counter()
        outcome = trial(whole, tries)
        seconds = round(time.perf_counter() - begin)
        device = environment.collect("cpu").device
        rows[title] = EnduranceRow(trial=title, tries=tries, **vars(outcome), time_s=seconds, device=device)
        good &= outcome.right == tries and (outcome.growth_mb or 0) < MOST_GROWTH_MB
        keep(sheet([rows[title] for title, _ in TRIALS.values() if title in rows]), out)
    show([sheet([row for title, row in rows.items() if title in {TRIALS[name][0] for name in wanted}])], "markdown")
    if not good:
        raise Failed(f"not all went as it should: see the notices above, and {home}")
    shutil.rmtree(home)


if __name__ == "__main__":
    finish(lambda: typer.run(main))
