"""Check in minutes, on a machine with a GPU, that CUDA works and how fast it is.

    python -m bench.studies.gpu OUT SPEECH_COMMANDS [--only checks,study]

Sections: the tests that need a device (checks), CPU beside CUDA (parity), features (front-end), epochs by groups and
size of the stack (epochs), convolutions by our kernels and cuDNN's (convolutions), and 5 configurations of 32 seeds by
both recipes (study). Each writes a CSV when it ends, `gpu.md` gathers all, and `sections.csv` says what each took and
how it failed; a section that failed ends no other, and one that is finished in OUT is not run again.
`bench/studies/gpu_carry.sh` packs what such a machine lacks.
"""

import csv
import itertools
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import torch
import typer

from bench.analysis import summary
from bench.baselines import convolutions, front_ends
from bench.cli import options
from bench.cli.output import keep
from bench.cli.terminal import finish, note
from bench.executors.threads import Threads
from bench.formats import Sheet, to_csv, to_markdown
from bench.grid import parse_axes, plan
from bench.measurement.workloads import EPOCH_CLIPS
from bench.records import RecordFolder, TrialRecord
from bench.records.failures import as_error
from bench.stats.intervals import median_interval, significant
from bench.sweep.epoch_time import epoch_times
from bench.sweep.run import ignore, train_missing
from bench.system import environment, monitor
from bench.timing import timer
from bench.timing.clocks import HostClock, busy_seconds, clock_for
from melcnn.config import Trial, configure
from melcnn.data.clips import ClipSet
from melcnn.data.loading import load_clips
from melcnn.errors import Failed, first_line
from melcnn.features import extract
from melcnn.files import make_folder, write_whole
from melcnn.kernels import cuda
from melcnn.steps import Stack, capture_for
from melcnn.training import fit

RECIPES = ("plain", "default")
PARITY_SEEDS, PARITY_EPOCHS = 4, 10
EPOCH_BATCHES, STACK, EPOCH_ROUNDS = (64, 1024), 32, 7
FRONT_END_BATCHES = (64, 1024)  # A clip at a time takes a GPU minutes.
CONVOLUTION_STACKS = (32, 1)
HOME = Path(__file__).parents[2]


@dataclass(frozen=True)
class Setup:
    """The machine, the data, and how much is asked of them.

    Attributes:
        deadline: of the section that runs, on the clock of `time.perf_counter`; tables are cut short there.
        cut: what was left out of the section's table.
        said: what the section found beside its table.
    """

    out: Path
    clips: ClipSet
    device: str
    seeds: int
    epochs: int | None
    epoch_clips: int
    deadline: float = 0.0
    cut: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def late(self, what: object) -> bool:
        """Return whether the deadline is over, and then note that `what` is left out."""
        if time.perf_counter() > self.deadline:
            self.cut.append(str(what))
            return True
        return False


def checks(setup: Setup) -> Sheet:
    """Run the tests of `tests/cuda` in a process of their own, which a lost device ends alone."""
    report = setup.out / "checks.xml"
    command = [sys.executable, "-m", "pytest", "tests/cuda", "-q", "-n0", "--durations=8", "-o", "junit_family=xunit1"]
    command.append(f"--junitxml={report}")
    seconds = max(1.0, setup.deadline - time.perf_counter())
    try:
        code = subprocess.run(command, cwd=HOME, timeout=seconds, stdout=sys.stderr).returncode
    except subprocess.TimeoutExpired:
        raise Failed(f"the tests took longer than {seconds:.0f} s") from None
    if not report.exists():
        raise Failed(f"the tests ended with exit code {code} and no report: see above")
    records: list[dict[str, Any]] = []
    for case in ElementTree.parse(report).iter("testcase"):
        ended = next((part for part in case if part.tag in ("failure", "error", "skipped")), None)
        found = {p.get("name"): p.get("value") for p in case.iter("property")}
        records.append(
            {
                "check": case.get("name"),
                "result": "passed" if ended is None else ended.tag,
                "time_s": significant(float(case.get("time", 0))),
                "found": "; ".join(f"{name} {value}" for name, value in found.items()),
                "message": "" if ended is None else " ".join((ended.get("message") or "").split())[:300],
            }
        )
    report.unlink()
    if not records:
        raise Failed("no test ran: see above")
    sheet = _sheet("checks on the device", records)
    if failed := sum(row["result"] != "passed" for row in records):
        keep(sheet, setup.out / "checks.csv")
        raise Failed(f"{failed} of {len(records)} checks did not pass: see checks.csv")
    return sheet


def parity(setup: Setup) -> Sheet:
    """Train the same seeds on the CPU, and on the device in both precisions, and compare their curves."""
    # Without patience, so that all curves have one length.
    trial = configure(recipe="plain", groups=4, epochs=setup.epochs or PARITY_EPOCHS, patience=None)
    runs, x = {}, {}
    for device, precision in (("cpu", "fp32"), (setup.device, "fp32"), (setup.device, "tf32")):
        with cuda.computing_in(precision):
            features = extract(setup.clips, trial.front_end, device)
            x[device, precision] = features.x.cpu()
            runs[device, precision] = fit(trial, features, range(min(setup.seeds, PARITY_SEEDS)))
    reference, records = ("cpu", "fp32"), []
    for (device, precision), found in runs.items():
        losses, expected = (torch.tensor([run.curves.train_loss for run in each]) for each in (found, runs[reference]))
        off = ((losses - expected).abs() / expected).amax(0)  # of each epoch, the worst seed
        records.append(
            {
                "where": device,
                "precision": precision,
                "kernels": found[0].kernels,
                "seeds": len(found),
                "max_epochs": trial.training.epochs,
                "feature_max_difference": significant(float((x[device, precision] - x[reference]).abs().max())),
                "train_loss_difference_first": significant(float(off[0])),
                "train_loss_difference_last": significant(float(off[-1])),
                "val_accuracy": significant(sum(run.validation_accuracy for run in found) / len(found)),
            }
        )
    return _sheet("CPU and CUDA: features, and training losses relative to the CPU's", records)


def front_end(setup: Setup) -> Sheet:
    """Compare our features with torchaudio's."""
    trial, name = configure(recipe="plain"), environment.collect(setup.device).device
    return front_ends.sheet(front_ends.measure(trial.front_end, setup.clips, setup.device, name, FRONT_END_BATCHES))


def epochs(setup: Setup) -> Sheet:
    """Time an epoch of the study's size: step by step, captured, and of stacked networks."""
    ways = (1, True), (STACK, True), (1, False)  # What takes longest is last: it is what a deadline cuts off.
    records = []
    for (stack, captured), batch in itertools.product(ways, EPOCH_BATCHES):
        for trial in plan(parse_axes(["groups"]), recipe="plain", batch_size=batch):
            if not setup.late(f"groups {trial.model.groups}, batch {batch}, {stack} networks"):
                records.append(epoch_row(trial, stack, captured, setup.epoch_clips, setup.device))
    return _sheet(f"an epoch of {setup.epoch_clips} clips of noise, by the plain recipe", records)


def epoch_row(
    trial: Trial, stack: int, captured: bool, clips: int, device: str, clock: HostClock | None = None
) -> dict[str, Any]:
    """Time an epoch over `clips` clips of noise for a stack of networks."""
    x = torch.randn(clips, trial.front_end.n_mels, trial.front_end.frames).to(device)
    labels = torch.arange(clips, device=device) % len(trial.data.words)
    network = Stack(trial, range(stack), device, capture_for(device) if captured else None)

    def epoch() -> None:
        network.epoch(x, labels)

    series = timer.interleave({"": epoch}, timer.fixed(EPOCH_ROUNDS), clock or clock_for(device)).series[""]
    median, low, high = median_interval(series.seconds)
    device_time = median_interval(series.device_seconds)[0] if series.device_seconds else None
    busy = busy_seconds(epoch, device)
    stepped = Stack(trial, range(stack), device)  # Replays of a graph allocate nothing.
    return {
        "groups": trial.model.groups,
        "batch_size": trial.training.batch_size,
        "train_clips": clips,
        "stack": stack,
        "captured": captured and capture_for(device) is not None,
        "kernels": network.kernels,
        "epoch_time_s": significant(median),
        "epoch_time_low95_s": significant(low),
        "epoch_time_high95_s": significant(high),
        "epoch_time_a_network_s": significant(median / stack),
        "device_time_s": device_time and significant(device_time),
        "busy_time_s": busy and significant(busy),
        "cold_time_s": significant(series.cold_seconds),
        "peak_bytes": monitor.peak_bytes_of(lambda: stepped.epoch(x, labels), device),
    }


def convolution(setup: Setup) -> Sheet:
    """Compare our kernels with cuDNN's in both precisions, for one network and for a stack."""
    rows = []
    for stack, precision in itertools.product(CONVOLUTION_STACKS, ("fp32", "tf32")):
        for shape in convolutions.of_trials(plan(parse_axes(["groups"])), stack):
            if not setup.late(f"layer {shape.layer}, groups {shape.groups}, {stack} networks, {precision}"):
                with cuda.computing_in(precision):
                    rows += convolutions.measure([shape], setup.device)
    if not rows:
        raise Failed("no time was left")
    return convolutions.sheet(rows)


def study(setup: Setup) -> Sheet:
    """Train 5 groups by both recipes to convergence, and time the epochs."""
    found: list[TrialRecord] = []
    executor, records = Threads(setup.device), RecordFolder(setup.out / "records")
    records.prepare()
    for recipe in RECIPES:
        start, before = time.perf_counter(), len(list(records.trials()))
        trials = plan(parse_axes(["groups"]), recipe=recipe, epochs=setup.epochs)
        trained, failures = train_missing(trials, setup.seeds, setup.clips, records, executor)
        if failures:
            raise as_error(failures)
        new, seconds = len(list(records.trials())) - before, time.perf_counter() - start
        setup.said.append(f"The {recipe} recipe: {new} of {len(trained)} networks trained in {seconds:.1f} s.")
        found += trained
    timing = epoch_times(list(dict.fromkeys(record.trial for record in found)), setup.clips, records, executor, ignore)
    sheet = summary.sheet(summary.rows(found, timing))
    return replace(sheet, notes=[*sheet.notes, *setup.said])


# The sections in their order, and the seconds that each may take of nine minutes.
SECTIONS: dict[str, tuple[Callable[[Setup], Sheet], float]] = {
    "checks": (checks, 150),
    "parity": (parity, 40),
    "front-end": (front_end, 15),
    "epochs": (epochs, 130),
    "convolutions": (convolution, 75),
    "study": (study, 130),
}


def run(setup: Setup, names: Sequence[str]) -> bool:
    """Run the sections and return whether all went well."""
    log, env = setup.out / "sections.csv", environment.collect(setup.device)
    ended = list(csv.DictReader(log.read_text().splitlines())) if log.exists() else []
    ended = [row for row in ended if row["section"] not in names or not (row["error"] or row["left_out"])]
    for name in [name for name in names if name not in {row["section"] for row in ended}]:
        function, seconds = SECTIONS[name]
        start = time.perf_counter()
        one = replace(setup, deadline=start + seconds, cut=[], said=[])
        error = ""
        try:
            sheet = function(one)
            keep(sheet, setup.out / f"{name}.csv")
        except Exception as failure:  # Whatever it is, the other sections run.
            error = first_line(failure)
            note("".join(traceback.format_exception(failure))[-4000:])
        if setup.device == "cuda":
            with suppress(RuntimeError):  # The device may be lost.
                torch.cuda.empty_cache()
        took = significant(time.perf_counter() - start)
        texts = {"left_out": "; ".join(one.cut), "error": error, "found": " ".join(one.said)}
        ended.append({"section": name, "time_s": took, **texts})
        _gather(setup, env, ended)
        note(f"{name}: {took:g} s{' ' + error if error else ''}")
    return not any(row["error"] for row in ended if row["section"] in names)


def _gather(setup: Setup, env: environment.Environment, ended: Sequence[dict[str, Any]]) -> None:
    """Write what each section took, and all tables as one page; CSV and page are all that need to be copied."""
    sections = _sheet("sections", ended)
    write_whole(setup.out / "sections.csv", lambda file: file.write(to_csv(sections).encode()))
    about = f"# {env.device}\n\n{env.system}, {env.cpu}, CUDA {env.cuda}, torch {env.packages['torch']}.\n"
    tables = [path.read_text() for name in SECTIONS if (path := setup.out / f"{name}.md").exists()]
    page = "\n".join([about, to_markdown(sections), *tables])
    write_whole(setup.out / "gpu.md", lambda file: file.write(page.encode()))


def _sheet(title: str, records: Sequence[dict[str, Any]]) -> Sheet:
    if not records:
        raise Failed("no time was left")
    cells = [["" if value is None else str(value) for value in row.values()] for row in records]
    return Sheet(title=title, headings=list(records[0]), cells=cells, records=list(records))


def main(
    out: Annotated[Path, typer.Argument(help="Where the tables are written.")],
    data: Annotated[str, typer.Argument(help="Speech Commands, or the speech.tar of gpu_carry.sh.")],
    device: options.Device = "cuda",
    seeds: Annotated[int, typer.Option(help="Networks of each configuration, trained to convergence.")] = 32,
    epochs: options.Epochs = None,
    clips: Annotated[int, typer.Option(help="Clips of the timed epochs.")] = EPOCH_CLIPS,
    only: Annotated[str, typer.Option(help="Run these sections alone.")] = ",".join(SECTIONS),
) -> None:
    """Run the sections and write a table of each."""
    names = only.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise typer.BadParameter(f"there is no section {unknown[0]!r}: use any of {', '.join(SECTIONS)}")
    make_folder(out)
    on = environment.pick_device(device)
    setup = Setup(out, load_clips(data, ("yes", "no")), on, seeds, epochs, clips)
    if not run(setup, names):
        raise Failed("a section failed: see sections.csv")


if __name__ == "__main__":
    finish(lambda: typer.run(main))
