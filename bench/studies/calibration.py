"""Count wrong verdicts on this machine: A against A, and against injected slowdowns, many times.

    python -m bench.studies.calibration interleaved results/timing/calibration-interleaved.csv
    python -m bench.studies.calibration stored results/timing/calibration-stored.csv

Half of the comparisons run while another process loads a core. They are written unit by unit, and the same command
resumes where it stopped (on the same machine, with the same version: start anew after a change). The summary is
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
from bench.timing.verdicts import EFFECT, FASTER, SAME, SLOWER, UNCLEAR, Comparison, log_ratios
from melcnn.config import configure
from melcnn.files import check_writable, write_whole

COMPARISONS = 300
SLOWDOWNS = (0.0, 0.05, 0.10)
# For contrast, what scripts decide by: a threshold on the ratio of mean times, and better ones on the median over
# rounds of the ratio within a round.
RULES = {"5% on means": ("ratio_of_means", 0.05), "5% on paired medians": ("ratio_of_rounds", 0.05)}
RULES["2% on paired medians"] = ("ratio_of_rounds", 0.02)
LAUNCHES = 5
# Two of so many units, a quiet and a loaded one, are compared with slowed workloads too: a stored one takes minutes.
SLOWED_UNITS = {"interleaved": 12, "stored": 8}


class CalibrationRow(BaseModel):
    """One comparison; the fields are the CSV's columns.

    Attributes:
        unit: comparisons of one unit share launches or a process.
        loaded: whether another process loaded a core.
        work: label of the workload.
        slowdown: injected into B, a fraction of its time.
        ratio, low, high: time of B to time of A, with its 95% interval.
        ratio_of_means: of the same raw samples.
        ratio_of_rounds: the median over rounds of the ratio within a round; None where both sides ran apart.
    """

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
    ratio_of_rounds: float | None = None


def side_by_side_workloads() -> list[Workload]:
    """Return workloads of each kind and length: inference and front-end of one clip, and a small training step.

    Inference is of few and of many groups.
    """
    few, many = configure(recipe="plain", groups=1, batch_size=16), configure(recipe="plain", groups=16, batch_size=16)
    return [
        *workloads.of_trial(few, ["latency"]),
        *workloads.of_trial(many, ["latency"]),
        workloads.of_trial(few, ["front-end"])[0],
        *workloads.of_trial(few, ["step"]),
    ]


def stored_workloads() -> list[Workload]:
    """Return a sweep's workloads, timed side by side: inference of one clip by each network, and the front-ends."""
    trials = [configure(recipe="plain", n_mels=80, groups=groups) for groups in (1, 2, 4, 8, 16)]
    trials += [configure(recipe="plain", n_mels=40, groups=groups) for groups in (1, 2, 4, 8)]
    plain = [configure(recipe="plain", n_mels=n_mels) for n_mels in (20, 40, 80)]
    front_ends = [workloads.of_trial(trial, ["front-end"])[0] for trial in plain]
    return [workload for trial in trials for workload in workloads.of_trial(trial, ["latency"])] + front_ends


@contextlib.contextmanager
def loaded_core(wanted: bool) -> Iterator[None]:
    """Load a core by another process that computes without end, if wanted."""
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


def interleaved(unit: int) -> Iterator[CalibrationRow]:
    """Compare each workload with itself and with its slowed copies, side by side in this process."""
    for workload in side_by_side_workloads():
        for slowdown in slowdowns("interleaved", unit):
            slowed = workload.model_copy(update={"slowdown": slowdown})
            found, run = side_by_side.side_by_side(workload, slowed, "cpu", EFFECT, seed=unit)
            times = {side: [s for n, one in run.series.items() if n[0] == side for s in one.seconds] for side in "AB"}
            means = statistics.mean(times["B"]) / statistics.mean(times["A"])
            pairs = [(run.series[f"A{n}"], run.series[f"B{n}"]) for n in range(side_by_side.PAIRS)]
            rounds = math.exp(statistics.median(log_ratios(pairs)))
            yield _row("interleaved", unit, workload, slowdown, found.comparison, means, rounds)


def stored(unit: int) -> Iterator[CalibrationRow]:
    """Compare a measurement with the next one of the same workloads, and in some units with slowed ones after it."""
    base, env = stored_workloads(), environment.collect("cpu")

    def measured(slowdown: float) -> measurements.Measurement:
        slowed = [workload.model_copy(update={"slowdown": slowdown}) for workload in base]
        return launcher.measure(slowed, "cpu", LAUNCHES, None, True, env)

    a = measured(0.0)
    for slowdown in slowdowns("stored", unit):
        b = measured(slowdown)
        for index, workload in enumerate(base):
            means = [statistics.mean(s for one in side.of(index) for s in one.seconds) for side in (a, b)]
            judged = comparison.judge(a.of(index), b.of(index))
            yield _row("stored", unit, workload, slowdown, judged, means[1] / means[0])


def slowdowns(mode: str, unit: int) -> Sequence[float]:
    """Return the slowdowns that a unit is compared with."""
    return SLOWDOWNS if unit % SLOWED_UNITS[mode] < 2 else SLOWDOWNS[:1]


def _row(
    mode: str,
    unit: int,
    workload: Workload,
    slowdown: float,
    found: Comparison,
    ratio_of_means: float,
    ratio_of_rounds: float | None = None,
) -> CalibrationRow:
    figures = {"ratio": found.ratio, "low": found.low, "high": found.high, "ratio_of_means": ratio_of_means}
    figures |= {} if ratio_of_rounds is None else {"ratio_of_rounds": ratio_of_rounds}
    return CalibrationRow(
        mode=mode,
        unit=unit,
        loaded=is_loaded(unit),
        work=workloads.labels([workload])[0],
        slowdown=slowdown,
        verdict=found.verdict,
        **{name: round(value, 5) for name, value in figures.items()},
    )


def is_loaded(unit: int) -> bool:
    """Return whether a unit runs beside a process that loads a core."""
    return unit % 2 == 1


MODES = {"interleaved": (interleaved, side_by_side_workloads), "stored": (stored, stored_workloads)}


def _unit(mode: str, unit: int) -> list[CalibrationRow]:
    return list(MODES[mode][0](unit))


def summary(rows: Sequence[CalibrationRow]) -> list[Sheet]:
    """Count the verdicts for each slowdown, on a quiet and on a loaded machine."""
    return [_verdicts(rows), *(_thresholds(rows, name) for name in RULES if _values(rows, name))]


def _verdicts(rows: Sequence[CalibrationRow]) -> Sheet:
    records = []
    for slowdown, chosen, where in _parts(rows):
        wrong = [_is_wrong(row.verdict, slowdown) for row in chosen]
        # Comparisons of one unit share their launches, so only units are independent. 0.90 on two sides is 0.95 on one.
        _, bound = accuracy_interval(wrong, [str(row.unit) for row in chosen], 0.90)
        counts = {name: sum(row.verdict == name for row in chosen) for name in (FASTER, SAME, UNCLEAR, SLOWER)}
        records.append(
            {
                "slowdown": slowdown,
                "machine": where,
                "comparisons": len(chosen),
                "units": len({row.unit for row in chosen}),
                **counts,
                "mean_ratio": round(math.exp(statistics.mean(math.log(row.ratio) for row in chosen)), 4),
                "wrong": sum(wrong),
                "wrong_upper95": round(bound, 4),
                "covered": sum(row.low <= 1 + slowdown <= row.high for row in chosen),
                "truth_below": sum(1 + slowdown < row.low for row in chosen),
                "truth_above": sum(1 + slowdown > row.high for row in chosen),
            }
        )
    notes = [
        "slowdown: injected.",
        "wrong: FASTER or SLOWER without a slowdown, FASTER or SAME with one.",
        "wrong upper95: the one-sided 95% bound of their share (Korn and Graubard, by unit: comparisons of one unit "
        "share a process or launches).",
        "covered: intervals that hold the true ratio; truth below, above: those that lie above or below it.",
    ]
    return sheet_of(f"verdicts, {rows[0].mode}", records, notes)


def _values(rows: Sequence[CalibrationRow], rule: str) -> list[float]:
    return [value for row in rows if (value := getattr(row, RULES[rule][0])) is not None]


def _thresholds(rows: Sequence[CalibrationRow], rule: str) -> Sheet:
    threshold, records = RULES[rule][1], []
    for slowdown, chosen, where in _parts(rows):
        values = _values(chosen, rule)
        slower, faster = sum(v > 1 + threshold for v in values), sum(v < 1 - threshold for v in values)
        records.append(
            {
                "slowdown": slowdown,
                "machine": where,
                "comparisons": len(values),
                "FASTER": faster,
                "SAME": len(values) - faster - slower,
                "SLOWER": slower,
            }
        )
    return sheet_of(f"the same samples by {rule}", records)


def _parts(rows: Sequence[CalibrationRow]) -> Iterator[tuple[float, list[CalibrationRow], str]]:
    for slowdown in SLOWDOWNS:
        for where in ("quiet", "a core loaded", "both"):
            wanted = {"quiet": (False,), "a core loaded": (True,), "both": (False, True)}[where]
            if chosen := [row for row in rows if row.slowdown == slowdown and row.loaded in wanted]:
                yield slowdown, chosen, where


def _is_wrong(verdict: str, slowdown: float) -> bool:
    return verdict in ((FASTER, SAME) if slowdown else (FASTER, SLOWER))


def read(path: Path) -> list[CalibrationRow]:
    """Return the comparisons of a CSV file."""
    with path.open(newline="") as file:
        return [CalibrationRow.model_validate(line) for line in csv.DictReader(file)]


def _write(path: Path, rows: Sequence[CalibrationRow]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(CalibrationRow.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    write_whole(path, lambda file: file.write(text.getvalue().encode()))


def main(
    mode: Annotated[str, typer.Argument(help="interleaved or stored")],
    out: Annotated[Path, typer.Argument(help="The CSV file of comparisons.")],
    comparisons: Annotated[int, typer.Option(help="A-against-A comparisons in all.")] = COMPARISONS,
) -> None:
    """Calibrate the verdicts on this machine."""
    console = Console(stderr=True)
    check_writable(out)
    rows = read(out) if out.exists() else []
    if mode not in MODES:
        raise typer.BadParameter(f"there is no mode {mode!r}: use {' or '.join(MODES)}")
    units = math.ceil(comparisons / len(MODES[mode][1]()))
    # Quiet units first, while the machine is likely to be left alone.
    for unit in sorted(range(units), key=is_loaded):
        if any(row.unit == unit for row in rows):
            continue
        # A fresh process, as each use of melbench is one: its memory layout is drawn anew.
        with loaded_core(is_loaded(unit)), multiprocessing.get_context("spawn").Pool(1) as fresh:
            found = fresh.apply(_unit, (mode, unit))
        rows += found
        _write(out, rows)
        console.print(f"unit {unit + 1} of {units}: " + " ".join(row.verdict for row in found))
    show(summary(rows), "markdown")


if __name__ == "__main__":
    finish(lambda: typer.run(main))
