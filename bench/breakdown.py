"""Where the time of one clip goes: front-end, convolution, the rest of the network, and what binds each."""

from bench import shares, timetables
from bench.drawing import Point
from bench.measurements import Measurement
from bench.shares import CONVOLUTION, FUSED_BLOCK
from bench.statistics import significant
from bench.works import FRONT_END_BATCHES
from melcnn.config import describe

FRONT_END, REST, WHOLE = "front-end", "rest of the network", "network, not split"


def points(measurement: Measurement) -> list[Point]:
    """A point for each configuration, batch size and part: seconds a clip, and what binds the work that it is of.

    Of the batch sizes at which front-ends are timed too. The network's time is split by the profiler's shares; a
    measurement of before these were taken leaves it whole. Empty where nothing of that kind was timed.
    """
    rows = [(row, row_work) for row, row_work in zip(timetables.rows(measurement), _timed(measurement), strict=True)]
    front_ends = {(work.trial.front_end, work.batch_size): row for row, (work, _) in rows if work.what == "front-end"}
    networks = [
        (row, work, samples)
        for row, (work, samples) in rows
        if work.trial and work.what in ("latency", "throughput") and work.batch_size in FRONT_END_BATCHES
    ]
    trials = [work.trial for _, work, _ in networks]
    found = []
    for row, work, samples in networks:
        place = {"configuration": describe(work.trial, trials), "batch_size": work.batch_size}
        parts = []
        if heard := front_ends.get((work.trial.front_end, work.batch_size)):
            parts.append((FRONT_END, heard.time_s, heard.bound_by))
        split = shares.mean([one.shares for one in samples if one.shares])
        if split:
            convolution = split.get(CONVOLUTION, 0) + split.get(FUSED_BLOCK, 0)
            parts.append(("convolution", row.time_s * convolution, row.bound_by))
            parts.append((REST, row.time_s * (1 - convolution), row.bound_by))
        else:
            parts.append((WHOLE, row.time_s, row.bound_by))
        found += [
            place | {"part": part, "time_s": significant(seconds / work.clips), "bound_by": bound_by}
            for part, seconds, bound_by in parts
        ]
    return found


def _timed(measurement: Measurement):
    return [(work, of) for index, work in enumerate(measurement.works) if (of := measurement.of(index))]
