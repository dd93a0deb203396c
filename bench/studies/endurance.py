"""Check that no record is lost when sweeps are killed, race, run long, or lose their disk: many times, and counted.

    python -m bench.studies.endurance results/robustness/endurance.csv kills=200 races=100 full_disk=20 memory=500

Each try runs `melbench sweep` for a few tiny networks on tones, in a process and a folder of its own, and then the same
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
from bench.studies.faults import DISK, DISK_KILOBYTES, ReferenceSweep
from bench.system import environment
from melcnn.errors import Failed, InputError
from melcnn.files import check_writable

# One try of a fault: returns the problem (empty: none) and what was observed, as the functions of `faults` do.
Attempt = Callable[[ReferenceSweep, str, random.Random], tuple[str, str]]

# Growth of a sweep's memory that is allowed after its first networks, which load all that there is to load.
MAX_GROWTH_MB = 50
FIRST_NETWORKS = 50
SEEDS, GROUPS = 10, "1,2,4,8,16"
NETWORKS_PER_RATE = 5 * SEEDS
SECONDS_BETWEEN_SAMPLES = 0.02


class EnduranceRow(BaseModel):
    """A trial; the fields are the CSV's columns.

    Attributes:
        right: the tries after which nothing was lost and every message was one clear line; for memory, the networks
            recorded.
        found: what was observed, counted.
        growth_mb: growth of the memory, in 10^6 bytes.
        time_s: seconds of all tries together.
    """

    trial: str
    tries: int
    right: int
    found: str
    growth_mb: int | None = None
    time_s: int
    device: str


@dataclass(frozen=True)
class AttemptOutcome:
    """The outcome of the tries of a trial; the fields are those of `EnduranceRow`."""

    right: int
    found: str
    growth_mb: int | None = None


def repeat(attempt: Attempt, reference: ReferenceSweep, tries: int) -> AttemptOutcome:
    """Try `tries` times, at the same random moments in each run. Problems are printed, and their folders kept."""
    rng, right, observed = random.Random(0), 0, Counter[str]()
    for number in range(tries):
        name = f"{attempt.__name__}-{number}"
        problem, observation = attempt(reference, name, rng)
        if problem:
            note(f"{name}: {problem}")
            continue
        right += 1
        observed[observation] += 1
        for folder in (reference.home / name, reference.home / DISK / name):
            shutil.rmtree(folder, ignore_errors=True)
    return AttemptOutcome(right, ", ".join(f"{count} {text}" for text, count in sorted(observed.items())))


def repeat_on_private_disk(attempt: Attempt, reference: ReferenceSweep, tries: int) -> AttemptOutcome:
    """Try as `repeat` does, with a small file system at `DISK`.

    Raises:
        Failed: if the system does not allow one.
    """
    return AttemptOutcome(
        *forked_runs.call_on_private_disk(
            reference.home / DISK, DISK_KILOBYTES, lambda: list(vars(repeat(attempt, reference, tries)).values())
        )
    )


def memory(reference: ReferenceSweep, networks: int) -> AttemptOutcome:
    """Watch the memory of one sweep's process while its networks are trained and timed, one stack after another."""
    rates = ",".join(f"{0.001 + 1e-5 * number:.5f}" for number in range(networks // NETWORKS_PER_RATE))
    grid = [f"groups={GROUPS}", f"learning_rate={rates}", *forked_runs.SMALL]
    folder = reference.home / "memory"
    sizes = ["--seeds", SEEDS, "--epochs", 1, "--data", reference.corpus, "--out", folder]
    run = forked_runs.start(["sweep", *grid, *sizes], reference.home / "memory.log")
    most = dict.fromkeys(("the first", "all were trained", "epochs were timed", "the end"), 0)
    while (code := run.exit_code()) is None:
        trained, timed = (len(list(folder.glob(f"{kind}-*.json"))) for kind in ("trial", "timing"))
        stage = 3 if timed else 2 if trained == networks else 1 if trained > FIRST_NETWORKS else 0
        name = list(most)[stage]
        most[name] = max(most[name], run.resident_bytes())
        time.sleep(SECONDS_BETWEEN_SAMPLES)
    if code:
        raise Failed(f"the sweep of {networks} networks ended with {code}: {run.output}")
    first = most.pop("the first")
    found = ", ".join(f"{bytes / 1e6:.0f} MB until {name}" for name, bytes in most.items())
    found = f"at most {first / 1e6:.0f} MB until {FIRST_NETWORKS} were trained, {found}"
    return AttemptOutcome(len(list(folder.glob("trial-*.json"))), found, math.ceil((max(most.values()) - first) / 1e6))


# Title and function of each trial, by its name on the command line.
TRIALS: dict[str, tuple[str, Callable[[ReferenceSweep, int], AttemptOutcome]]] = {
    "kills": ("SIGKILL, and the same command again", partial(repeat, faults.killed)),
    "races": ("two sweeps at once in one folder", partial(repeat, faults.raced)),
    "full_disk": ("the disk is full", partial(repeat_on_private_disk, faults.on_a_full_disk)),
    "read_only": ("the folder cannot be written", partial(repeat_on_private_disk, faults.read_only)),
    "gone": ("the folder is moved away", partial(repeat, faults.without_its_folder)),
    "clock": ("SIGKILL, and a clock that goes back", partial(repeat, faults.with_a_clock_that_goes_back)),
    "memory": ("networks of one sweep", memory),
}


def parse(texts: Sequence[str]) -> dict[str, int]:
    """Return names of `TRIALS` and their numbers of tries, from `["kills=200", "memory=500"]`.

    Raises:
        InputError: for anything else.
    """
    found = {}
    for text in texts:
        name, _, count = text.partition("=")
        if name not in TRIALS or not count.isdecimal() or not int(count):
            raise InputError(f"{text!r} is no trial: give name=number with a name of {', '.join(TRIALS)}")
        found[name] = int(count)
    networks = found.get("memory", 2 * FIRST_NETWORKS)
    if networks % NETWORKS_PER_RATE or networks <= FIRST_NETWORKS:
        raise InputError(f"memory={networks}: give a multiple of {NETWORKS_PER_RATE} above {FIRST_NETWORKS}")
    return found


def sheet(rows: Sequence[EnduranceRow]) -> Sheet:
    """Return the table of all trials."""
    return sheet_of(
        "records under fire",
        [{name: "" if value is None else value for name, value in row.model_dump().items()} for row in rows],
        [
            f"A try is a sweep of {faults.NETWORKS} tiny networks on tones, disturbed at any moment (half of the times "
            "while it writes), and the same command again.",
            "right: no record lost, changed or trained twice; the table equal to the undisturbed one but for times; "
            "each message one line.",
            "memory: growth of one process after its first networks.",
        ],
    )


def _stored(path: Path) -> dict[str, EnduranceRow]:
    """Return the rows of an earlier run, by their trial.

    Raises:
        InputError: if the file is another table.
    """
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [{name: value or None for name, value in line.items()} for line in csv.DictReader(file)]
        return {row.trial: row for row in map(EnduranceRow.model_validate, lines)}
    except (ValueError, csv.Error):
        raise InputError(f"{path} is no table of this command: give a file of its own") from None


def main(
    out: Annotated[Path, typer.Argument(help="The CSV file, one line a trial.")],
    trials: Annotated[
        list[str], typer.Argument(metavar="NAME=NUMBER...", help=f"What to do how often: {', '.join(TRIALS)}.")
    ],
) -> None:
    """Disturb sweeps and count what is lost: nothing, it is hoped."""
    wanted = parse(trials)
    check_writable(out)
    rows = _stored(out)
    if not hasattr(os, "fork") or not Path("/proc/self/statm").exists():
        raise Failed("this needs processes that fork, and /proc: run it on Linux")
    home = Path(tempfile.mkdtemp(prefix="melbench-endurance-"))
    os.environ["MELBENCH_CACHE"] = str(home / "cache")
    reference = faults.run_reference(home)
    good = True
    for name, tries in wanted.items():
        title, trial = TRIALS[name]
        begin = time.perf_counter()
        outcome = trial(reference, tries)
        seconds = round(time.perf_counter() - begin)
        device = environment.collect("cpu").device
        rows[title] = EnduranceRow(trial=title, tries=tries, **vars(outcome), time_s=seconds, device=device)
        good &= outcome.right == tries and (outcome.growth_mb or 0) < MAX_GROWTH_MB
        keep(sheet([rows[title] for title, _ in TRIALS.values() if title in rows]), out)
    show([sheet([row for title, row in rows.items() if title in {TRIALS[name][0] for name in wanted}])], "markdown")
    if not good:
        raise Failed(f"not all went as it should: see the notices above, and {home}")
    shutil.rmtree(home)


if __name__ == "__main__":
    finish(lambda: typer.run(main))
