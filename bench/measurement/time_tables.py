"""Tables of measurements and comparisons of time. They read records and run nothing."""

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from bench.formats import Sheet
from bench.measurement import diagnostics, profiler, roofline, workloads
from bench.measurement.comparison import ComparedWorkload
from bench.measurement.measurements import Measurement, Samples
from bench.measurement.workloads import Workload
from bench.stats.intervals import mean_interval, midmean, significant
from bench.timing.verdicts import log_ratios


class TimeRow(BaseModel):
    """The times of a workload; the fields are the CSV's columns, in order, and are only ever added.

    Attributes:
        time_s: seconds of one call, the mean over launches of each launch's median.
        time_ci95_s: the half-width of Student's t interval of that mean; None for one launch.
        time_p95_s, time_p99_s: of all samples together; None where fewer than one of them would lie beyond.
        time_ratio: to the first workload of the same kind and batch, by rounds within launches (midmeans), then by
            launches (Student's t; time_ratio_ci95 its half-width).
        cold_time_s: the first call, mean over launches.
        device_time_s: by CUDA events.
        busy_time_s: by the profiler.
        clips: of one call.
        floor_time_s: the least that its operators (torch's, where ours do several in one) need on this device; None,
            like what follows from it, if the device's peaks were measured on a busy machine.
        times_floor: how many times that it takes.
        kernels: torch, or melcnn where these are the faster.
        peak_bytes: memory above what was in use, the largest of the launches.
        macs: for one clip.
        convolution_time_share, fused_block_time_share, other_operators_time_share, python_time_share: the parts of a
            call's time (of an epoch's, a step's), fractions that sum to 1, the mean over launches
            (`bench.measurement.profiler`); None for the front-end and in older measurements.
        time_held_up: other processes held up half of the launches or more.
    """

    model_config = ConfigDict(frozen=True)

    what: str
    model: str
    n_mels: int | None
    n_fft: int | None
    hop_length: int | None
    groups: int | None
    channels: int | None
    variant: str | None
    batch_size: int
    clips: int
    params: int
    macs: int
    launches: int
    samples: int
    time_s: float
    time_ci95_s: float | None
    time_p95_s: float | None
    time_p99_s: float | None
    time_ratio: float
    time_ratio_ci95: float | None
    cold_time_s: float
    device_time_s: float | None
    busy_time_s: float | None
    clips_per_s: float
    floor_time_s: float | None
    times_floor: float | None
    bound_by: str
    peak_bytes: int | None
    energy_j: float | None
    timer_overhead: float
    device: str
    kernels: str
    convolution_time_share: float | None = None
    fused_block_time_share: float | None = None
    other_operators_time_share: float | None = None
    python_time_share: float | None = None
    time_held_up: bool | None = None


def rows(measurement: Measurement) -> list[TimeRow]:
    """Return a row for each workload that was timed."""
    found = []
    for index, work in enumerate(measurement.works):
        if samples := measurement.of(index):
            found.append(_row(work, samples, index, measurement))
    return found


def _row(work: Workload, samples: Sequence[Samples], index: int, measurement: Measurement) -> TimeRow:
    facts = measurement.facts[index]
    ratio, ratio_half = _to_first(measurement, index)
    time, half = mean_interval([statistics.median(one.seconds) for one in samples])
    every = np.concatenate([one.seconds for one in samples])
    device_times = [statistics.median(one.device_seconds) for one in samples if one.device_seconds]
    busy = _mean([one.busy_seconds for one in samples])
    floor, unknown = facts.floor.seconds, measurement.ceilings.disturbed
    trial = work.trial
    # The front-end is of no network.
    network = trial.model if trial and work.what != "front-end" else None
    return TimeRow(
        what=work.what,
        model=work.model or "",
        n_mels=trial and trial.front_end.n_mels,
        n_fft=trial and trial.front_end.n_fft,
        hop_length=trial and trial.front_end.hop_length,
        groups=network and network.groups,
        channels=network and network.channels,
        variant=network and network.variant,
        batch_size=work.batch_size,
        clips=work.clips,
        params=facts.params,
        macs=facts.macs,
        launches=len(samples),
        samples=len(every),
        time_s=significant(time),
        time_ci95_s=significant(half),
        time_p95_s=_percentile(every, 95),
        time_p99_s=_percentile(every, 99),
        time_ratio=significant(ratio),
        time_ratio_ci95=significant(ratio_half),
        cold_time_s=significant(statistics.mean(one.cold_seconds for one in samples)),
        device_time_s=significant(_mean(device_times)),
        busy_time_s=significant(busy),
        clips_per_s=significant(work.clips / time),
        floor_time_s=None if unknown else significant(floor),
        times_floor=None if unknown else significant(time / floor) if floor else 0.0,
        bound_by="" if unknown else roofline.bound(facts.floor, time, busy, on_gpu=bool(device_times)),
        peak_bytes=max((one.peak_bytes for one in samples if one.peak_bytes is not None), default=None),
        energy_j=significant(_mean([one.energy_joules for one in samples])),
        # Of the sample, which may hold several calls.
        timer_overhead=significant(max(one.overhead_seconds / one.calls / min(one.seconds) for one in samples)),
        device=measurement.environment.device,
        # Only melbench's own networks have kernels of ours.
        kernels=measurement.kernels if trial and work.what != "front-end" else "torch",
        time_held_up=2 * sum(one.held_up for one in samples) >= len(samples),
        **_split(samples),
    )


def _split(samples: Sequence[Samples]) -> dict[str, float]:
    """Return the parts of the time by column; nothing if they were not measured."""
    found = profiler.mean([one.shares for one in samples if one.shares])
    if not found:
        return {}
    columns = {
        "convolution_time_share": found.pop(profiler.CONVOLUTION, 0.0),
        "fused_block_time_share": found.pop(profiler.FUSED_BLOCK, 0.0),
        "python_time_share": found.pop(profiler.PYTHON, 0.0),
        "other_operators_time_share": sum(found.values()),
    }
    return {name: significant(share) for name, share in columns.items()}


def _to_first(measurement: Measurement, index: int) -> tuple[float, float | None]:
    """Return the ratio of a workload's time to that of the first one timed beside it, and its interval's half-width."""
    work = measurement.works[index]
    kind = (work.what, work.batch_size)
    first = next(i for i, other in enumerate(measurement.works) if (other.what, other.batch_size) == kind)
    if first == index:
        return 1.0, None
    pairs = [(launch.samples[first], launch.samples[index]) for launch in measurement.launches]
    logs = [midmean(log_ratios([(a.series, b.series)])) for a, b in pairs if a and b]
    middle, half = mean_interval(logs) if logs else (math.nan, None)
    ratio = math.exp(middle)
    return ratio, None if half is None else ratio * math.expm1(half)


def _percentile(values: np.ndarray, percent: int) -> float | None:
    return significant(float(np.quantile(values, percent / 100))) if len(values) * (100 - percent) >= 100 else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


_SETTINGS = ("n_mels", "n_fft", "hop_length", "groups", "channels", "variant")
_SPARE = ("p99", "p95", "peak memory", "cold", "clips/s", "kernels", "floor", "x floor", "bound by", "MACs")


def table(found: Sequence[TimeRow]) -> tuple[list[str], list[list[str]]]:
    """Return headings and the cells under them, for people."""
    network_rows = [row for row in found if row.groups is not None]
    varying = [name for name in _SETTINGS if len({getattr(row, name) for row in network_rows}) > 1]
    if any(row.what == "front-end" for row in found) and "n_mels" not in varying:
        varying.insert(0, "n_mels")
    any_of_ours = any(row.kernels != "torch" for row in found)
    figures: dict[str, Callable[[TimeRow], str]] = {
        "work": lambda row: row.what,
        **{name: partial(_setting, name) for name in varying},
        "batch": lambda row: str(row.batch_size),
        "MACs": lambda row: f"{row.macs:,}",
        "kernels": lambda row: row.kernels if any_of_ours else "",
        "time": lambda row: _with_half(row.time_s, row.time_ci95_s) + " !" * bool(row.time_held_up),
        "device time": lambda row: _seconds(row.device_time_s),
        "busy": lambda row: _seconds(row.busy_time_s),
        "x first": lambda row: _ratio(row),
        "p95": lambda row: _seconds(row.time_p95_s),
        "p99": lambda row: _seconds(row.time_p99_s),
        "cold": lambda row: _seconds(row.cold_time_s),
        "clips/s": lambda row: f"{row.clips_per_s:,.0f}",
        "floor": lambda row: _seconds(row.floor_time_s),
        "x floor": lambda row: "" if row.times_floor is None else f"{row.times_floor:.1f}",
        "bound by": lambda row: row.bound_by,
        "peak memory": lambda row: "" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.1f} MB",
        "energy": lambda row: "" if row.energy_j is None else f"{row.energy_j:.3g} J",
    }
    # A column that is empty throughout is of a device that this is not.
    shown = {name: text for name, text in figures.items() if any(text(row) for row in found)}
    return list(shown), [[text(row) for text in shown.values()] for row in found]


def _setting(name: str, row: TimeRow) -> str:
    return _text(getattr(row, name))


def times(measurement: Measurement) -> Sheet:
    """Return the table of times, and what its floors rest on."""
    found = rows(measurement)
    headings, cells = table(found)
    launches = max(row.launches for row in found) if found else 0
    of = found[0].model if found and found[0].model else ""
    top = measurement.ceilings
    copies = ", ".join(f"{rate / 1e9:.3g} GB/s at {_bytes(size)}" for size, rate in top.bytes_per_second.items())
    floor = (
        "No floor: other processes held up the measurement of the device's peaks. Time it on a quiet machine."
        if top.disturbed
        else "floor: the least time of its operators, one after another, at "
        f"{top.flops_per_second / 1e9:,.3g} GFLOP/s (matmul), {copies} (copies), and "
        f"{_seconds(top.launch_seconds)} a launch."
    )
    notes = [
        "± 95% interval of the mean over launches.",
        "x first: relative to the first of its kind and batch, in the same rounds; ≈: no difference shown.",
        floor,
    ]
    if any(row.time_held_up for row in found):
        notes.append("! Other processes held up this time: it is too long. Time it on a quiet machine.")
    return Sheet(
        title=f"times{f' of {of}' if of else ''} ({launches} launches), {measurement.environment.device}",
        headings=headings,
        cells=cells,
        records=[row.model_dump() for row in found],
        notes=notes,
        spare=_SPARE,
    )


def remarks(measurement: Measurement) -> list[str]:
    """Return the doubts about a measurement, each with its remedy.

    Doubts that differ in their figures alone are stated once, with the workloads and launches that they concern.
    """
    texts: dict[str, str] = {}
    where: dict[str, set[str]] = defaultdict(set)
    when: dict[str, set[int]] = defaultdict(set)

    def collect(number: int, work: str, doubts: Sequence[str]) -> None:
        for text in doubts:
            kind = re.sub(r"[-+]?[\d.]+", "#", text)
            texts.setdefault(kind, text)
            where[kind].add(work)
            when[kind].add(number)

    labels = workloads.labels(measurement.works)
    for number, launch in enumerate(measurement.launches):
        collect(number, "", diagnostics.of_machine(launch.before, launch.after))
        for label, one in zip(labels, launch.samples, strict=True):
            collect(number, label, diagnostics.of_samples(one) if one else [])

    def place(kind: str) -> str:
        named = sorted(where[kind] - {""})
        more = f" and {len(named) - 1} more" if len(named) > 1 else ""
        return f"{named[0]}{more}, " if named else ""

    many = len(measurement.launches)
    lines = [f"{text} ({place(kind)}{len(when[kind])} of {many} launches)" for kind, text in texts.items()]
    return [f"stopped early: {measurement.stopped}", *lines] if measurement.stopped else lines


def compared(found: Sequence[ComparedWorkload], a: str, b: str, effect: float, times: str) -> Sheet:
    """Return a sheet with one verdict a workload: how long B takes for each second of A.

    Args:
        times: what the times of A and B are.
    """
    records: list[dict[str, Any]] = []
    for one in found:
        ratio, low, high = one.comparison.ratio, one.comparison.low, one.comparison.high
        records.append(
            {
                "work": one.label,
                "time_a_s": significant(one.time_a),
                "time_b_s": significant(one.time_b),
                "time_ratio": significant(ratio),
                # Too few launches or rounds hold no interval.
                "time_ratio_low95": significant(low) if low > 0 else None,
                "time_ratio_high95": significant(high) if high < math.inf else None,
                "verdict": one.comparison.verdict,
            }
        )
    cells = [
        [
            record["work"],
            _seconds(record["time_a_s"]),
            _seconds(record["time_b_s"]),
            f"{record['time_ratio']:.3f}",
            _interval(record["time_ratio_low95"], record["time_ratio_high95"]),
            record["verdict"],
        ]
        for record in records
    ]
    return Sheet(
        title=f"A: {a}; B: {b}",
        headings=["work", "time of A", "time of B", "B / A", "95% interval", "verdict"],
        cells=cells,
        records=records,
        notes=[
            f"SLOWER: the interval of B / A lies above {1 + effect:.3g}. FASTER: below 1/{1 + effect:.3g}. SAME: "
            "between the two. UNCLEAR: none of these.",
            f"Times: {times}.",
        ],
        spare=["time of A", "time of B"],
    )


def _ratio(row: TimeRow) -> str:
    half = row.time_ratio_ci95
    if half is None:
        return f"{row.time_ratio:.2f}"
    return f"{row.time_ratio:.2f} ±{half:.2f}" + " ≈" * (abs(row.time_ratio - 1) <= half)


def _interval(low: float | None, high: float | None) -> str:
    return "none" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _with_half(time: float, half: float | None) -> str:
    return _seconds(time) if half is None else f"{_seconds(time)} ±{half / time:.1%}"


def _seconds(value: float | None) -> str:
    """Format seconds with the prefix that leaves one to three digits before the point."""
    if value is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value / size < 999.5 else f"{value / size:.0f} {unit}"
    return f"{value / 1e-9:.3g} ns"


def _bytes(size: int) -> str:
    for unit, one in (("GB", 2**30), ("MB", 2**20), ("kB", 2**10)):
        if size >= one:
            return f"{size // one} {unit}"
    return f"{size} B"
