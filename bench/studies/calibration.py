"""How often verdicts are wrong on this machine: A against A, and against injected slowdowns, many times.

    python -m bench.studies.calibration interleaved results/timing/calibration-interleaved.csv
    python -m bench.studies.calibration stored results/timing/calibration-stored.csv

Half of the comparisons run while another process loads a core. They are written unit by unit, and the same command
goes on where it stopped (on the same machine, with the same version: start anew after a change). The summary is
printed at the end.
"""

import contextlib
import csv
import io
import itertools
import math
import multiprocessing
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console

from bench.cli.terminal import finish
from bench.formats import Sheet, sheet_of, show
from bench.measurement import comparison, launcher, measurements, side_by_side, workloads
from bench.measurement.workloads import Workload
from bench.stats.intervals import accuracy_interval
from bench.system import environment
from bench.timing.verdicts import EFFECT, FASTER, SAME, SLOWER, UNCLEAR
from melcnn.config import configure
from melcnn.files import check_writable, write_whole

COMPARISONS = 300
SLOWDOWNS = (0.0, 0.05, 0.10)
# For contrast: what many scripts do, a threshold on the ratio of mean times.
THRESHOLD = 0.05
LAUNCHES = 5
# Of so many units two, a quiet and a loaded one, are compared with slowed works too: a stored one takes minutes.
SLOWED_UNITS = {"interleaved": 4, "stored": 8}


class Line(BaseModel):
    """One comparison; the fields are the CSV's columns. unit: comparisons of one unit share launches or a process.
    ratio_of_means: of the same raw samples."""

    mode: str
    unit: int
    loaded: bool
    work: str
    slowdown: float
    ratio: float
    low: float
    high: float
    verdict: str
    ratio_of_means: float


def side_by_side_works() -> list[Workload]:
    """Of each kind and length: inference and front-end of one clip, a small training step; few and many groups."""
    few, many = configure(groups=1, batch_size=16), configure(groups=16, batch_size=16)
    return [
        *workloads.of_trial(few, ["latency"]),
        *workloads.of_trial(many, ["latency"]),
        workloads.of_trial(few, ["front-end"])[0],
        *workloads.of_trial(few, ["step"]),
    ]


def stored_works() -> list[Workload]:
    """Inference of one clip for every network of a grid, and the front-ends: works of a sweep, timed side by side."""
    trials = [configure(n_mels=80, groups=groups) for groups in (1, 2, 4, 8, 16)]
    trials += [configure(n_mels=40, groups=groups) for groups in (1, 2, 4, 8)]
    front_ends = [workloads.of_trial(configure(n_mels=n_mels), ["front-end"])[0] for n_mels in (20, 40, 80)]
    return [work for trial in trials for work in workloads.of_trial(trial, ["latency"])] + front_ends


@contextlib.contextmanager
def loaded_core(wanted: bool) -> Iterator[None]:
    """Another process that computes without end, if wanted."""
    if not wanted:
        yield
        return
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _spin() -> None:
    for number in itertools.count():
        math.sqrt(number)


def interleaved(unit: int) -> Iterator[Line]:
    """Each work against itself and its slowed selves, side by side in this process."""
    for work in side_by_side_works():
        for slowdown in slowdowns("interleaved", unit):
            slowed = work.model_copy(update={"slowdown": slowdown})
            found, run = side_by_side.side_by_side(work, slowed, "cpu", EFFECT, seed=unit)
            means = [statistics.mean(run.series[f"{side}1"].seconds + run.series[f"{side}2"].seconds) for side in "AB"]
            yield _line("interleaved", unit, work, slowdown, found.comparison, means[1] / means[0])


def stored(unit: int) -> Iterator[Line]:
    """A measurement against the next one of the same works, and in some units against slowed ones after it."""
    base, env = stored_works(), environment.collect("cpu")

    def measured(slowdown: float) -> measurements.Measurement:
        slowed = [work.model_copy(update={"slowdown": slowdown}) for work in base]
        return launcher.measure(slowed, "cpu", LAUNCHES, None, True, env)

    a = measured(0.0)
    for slowdown in slowdowns("stored", unit):
        b = measured(slowdown)
        for index, work in enumerate(base):
            means = [statistics.mean(s for one in side.of(index) for s in one.seconds) for side in (a, b)]
            yield _line("stored", unit, work, slowdown, comparison.judge(a.of(index), b.of(index)), means[1] / means[0])


def slowdowns(mode: str, unit: int) -> Sequence[float]:
    return SLOWDOWNS if unit % SLOWED_UNITS[mode] < 2 else SLOWDOWNS[:1]


def _line(mode: str, unit: int, work: Workload, slowdown: float, found, ratio_of_means: float) -> Line:
    figures = {"ratio": found.ratio, "low": found.low, "high": found.high, "ratio_of_means": ratio_of_means}
    return Line(
        mode=mode,
        unit=unit,
        loaded=is_loaded(unit),
        work=workloads.labels([work])[0],
        slowdown=slowdown,
        verdict=found.verdict,
        **{name: round(value, 5) for name, value in figures.items()},
    )


def is_loaded(unit: int) -> bool:
    return unit % 2 == 1


MODES = {"interleaved": (interleaved, side_by_side_works), "stored": (stored, stored_works)}


def _unit(mode: str, unit: int) -> list[Line]:
    return list(MODES[mode][0](unit))


def summary(lines: Sequence[Line]) -> list[Sheet]:
    """How often each verdict was given, for each slowdown, on a quiet and on a loaded machine."""
    return [_verdicts(lines), _means(lines)]


def _verdicts(lines: Sequence[Line]) -> Sheet:
    rows = []
    for slowdown, chosen, where in _parts(lines):
        wrong = [_is_wrong(line.verdict, slowdown) for line in chosen]
        # Comparisons of one unit share their launches: units are what is independent. 0.90 on two sides is
        # 0.95 on one.
        _, bound = accuracy_interval(wrong, [str(line.unit) for line in chosen], 0.90)
        counts = {name: sum(line.verdict == name for line in chosen) for name in (FASTER, SAME, UNCLEAR, SLOWER)}
        rows.append(
            {
                "slowdown": slowdown,
                "machine": where,
                "comparisons": len(chosen),
                "units": len({line.unit for line in chosen}),
                **counts,
                "mean_ratio": round(math.exp(statistics.mean(math.log(line.ratio) for line in chosen)), 4),
                "wrong": sum(wrong),
                "wrong_upper95": round(bound, 4),
            }
        )
    note = (
        "slowdown: injected; wrong: FASTER or SLOWER without one, FASTER or SAME with one; wrong upper95: the "
        "one-sided 95% bound of their share (Korn and Graubard's, by unit: comparisons of one unit share a process or "
        "launches)"
    )
    return sheet_of(f"verdicts, {lines[0].mode}", rows, note)


def _means(lines: Sequence[Line]) -> Sheet:
    rows = []
    for slowdown, chosen, where in _parts(lines):
        slower = sum(line.ratio_of_means > 1 + THRESHOLD for line in chosen)
        faster = sum(line.ratio_of_means < 1 - THRESHOLD for line in chosen)
        rows.append(
            {
                "slowdown": slowdown,
                "machine": where,
                "comparisons": len(chosen),
                "FASTER": faster,
                "SAME": len(chosen) - faster - slower,
                "SLOWER": slower,
            }
        )
    return sheet_of(f"the same samples by a {THRESHOLD:.0%} threshold on means", rows)


def _parts(lines: Sequence[Line]) -> Iterator[tuple[float, list[Line], str]]:
    for slowdown in SLOWDOWNS:
        for where in ("quiet", "a core loaded", "both"):
            wanted = {"quiet": (False,), "a core loaded": (True,), "both": (False, True)}[where]
            if chosen := [line for line in lines if line.slowdown == slowdown and line.loaded in wanted]:
                yield slowdown, chosen, where


def _is_wrong(verdict: str, slowdown: float) -> bool:
    return verdict in ((FASTER, SAME) if slowdown else (FASTER, SLOWER))


def read(path: Path) -> list[Line]:
    with path.open(newline="") as file:
        return [Line.model_validate(row) for row in csv.DictReader(file)]


def main(
    mode: Annotated[str, typer.Argument(help="interleaved or stored")],
    out: Annotated[Path, typer.Argument(help="The CSV file of comparisons.")],
    comparisons: Annotated[int, typer.Option(help="A-against-A comparisons in all.")] = COMPARISONS,
) -> None:
    """Calibrates the verdicts on this machine."""
    console = Console(stderr=True)
    check_writable(out)
    lines = read(out) if out.exists() else []
    if mode not in MODES:
        raise typer.BadParameter(f"there is no mode {mode!r}: use {' or '.join(MODES)}")
    units = math.ceil(comparisons / len(MODES[mode][1]()))
    # Quiet ones first, when the machine is likely to be still left alone.
    for unit in sorted(range(units), key=is_loaded):
        if any(line.unit == unit for line in lines):
            continue
        # A process of its own, as each use of melbench is one: where its memory lies is drawn anew.
        with loaded_core(is_loaded(unit)), multiprocessing.get_context("spawn").Pool(1) as fresh:
            found = fresh.apply(_unit, (mode, unit))
        lines += found
        text = io.StringIO()
        writer = csv.DictWriter(text, list(Line.model_fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows(line.model_dump() for line in lines)
        write_whole(out, lambda file, text=text: file.write(text.getvalue().encode()))
        console.print(f"unit {unit + 1} of {units}: " + " ".join(line.verdict for line in found))
    show(summary(lines), "markdown")


if __name__ == "__main__":
    finish(lambda: typer.run(main))
