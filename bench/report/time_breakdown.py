"""The parts of the time of one clip: front-end, kinds of operators, Python between them, and what binds each."""

from bench.formats import Point
from bench.measurement import profiler, time_tables
from bench.measurement.measurements import Measurement
from bench.measurement.time_tables import TimeRow
from bench.measurement.workloads import FRONT_END_BATCHES
from bench.stats.intervals import significant
from melcnn.config import descriptions

FRONT_END, CONVOLUTION, FUSED_BLOCK = "front-end", profiler.CONVOLUTION, profiler.FUSED_BLOCK
OTHERS, PYTHON, WHOLE = "other operators", "Python (between operators)", "network, not split"
# As they stand in a bar; all but the first are the network's.
PARTS = (FRONT_END, CONVOLUTION, FUSED_BLOCK, OTHERS, PYTHON, WHOLE)


def points(measurement: Measurement) -> list[Point]:
    """Return a point for each configuration, batch size and part (in the order of `PARTS`): seconds a clip, bound.

    Only batch sizes at which front-ends are timed too. A network without profiler shares is one part. Empty where
    nothing of that kind was timed.
    """
    timed = [work for index, work in enumerate(measurement.works) if measurement.of(index)]
    rows = list(zip(timed, time_tables.rows(measurement), strict=True))
    front_ends = {
        (work.trial.front_end, work.batch_size): row for work, row in rows if work.trial and work.what == "front-end"
    }
    networks = [
        (work, work.trial, row)
        for work, row in rows
        if work.trial and work.what in ("latency", "throughput") and work.batch_size in FRONT_END_BATCHES
    ]
    named = descriptions(trial for _, trial, _ in networks)
    found = []
    for work, trial, row in networks:
        parts = [(part, share * row.time_s, row.bound_by) for part, share in _split(row).items()]
        if own := front_ends.get((trial.front_end, work.batch_size)):
            parts.insert(0, (FRONT_END, own.time_s, own.bound_by))
        place = {"configuration": named[trial], "batch_size": work.batch_size}
        found += [
            place | {"part": part, "time_s": significant(seconds / work.clips), "bound_by": bound_by}
            for part, seconds, bound_by in parts
        ]
    return found


def _split(row: TimeRow) -> dict[str, float]:
    """Return the fractions of the network's time, by part."""
    shares = {
        CONVOLUTION: row.convolution_time_share,
        FUSED_BLOCK: row.fused_block_time_share,
        OTHERS: row.other_operators_time_share,
        PYTHON: row.python_time_share,
    }
    return {part: share for part, share in shares.items() if share} or {WHOLE: 1.0}
