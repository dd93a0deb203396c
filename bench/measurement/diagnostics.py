"""Doubts about a measurement, one line each, with the remedy."""

import numpy as np

from bench.measurement.measurements import Samples
from bench.system.monitor import Conditions

# Shares beyond which a remark is worth a person's time.
DRIFT = 0.10
SLOWER_CLOCK = 0.10
FEW = 3  # samples below which even the median says little
FEW_FOR_SHAPE = 6  # samples on each side of a drift or between two humps
# Two humps: each holds a tenth of the samples, and their distance is four times their widths together.
SMALLER_HUMP = 0.10
DISTANCE = 4.0
APART = 0.05
RESOLUTION = 100  # a sample should be this many ticks of the clock


def of_samples(one: Samples) -> list[str]:
    """Return the doubts about a workload's samples in one launch."""
    seconds = np.asarray(one.seconds)
    found = []
    if not one.steady:
        found.append("never got steady while it warmed up: time it longer (melbench time --max-time)")
    if len(seconds) < FEW:
        found.append(f"only {len(seconds)} samples, too few to trust: time it longer (melbench time --max-time)")
    found += [
        f"stopped before it was precise ({reason}): time it longer (melbench time --max-time)" for reason in one.unmet
    ]
    if np.median(seconds) * one.calls < RESOLUTION * one.resolution_seconds:
        found.append(f"hardly longer than a tick of the clock, {one.resolution_seconds:.1g} s: time a larger batch")
    if (drift := _drift(seconds)) is not None:
        found.append(f"drifting: the last third took {drift:+.0%} against the first: let the machine settle")
    if two := _humps(seconds):
        found.append(
            f"bimodal: about {two[0]:.3g} s and about {two[1]:.3g} s: look for other processes, power saving, or a "
            "call that does not always do the same"
        )
    if one.held_up:
        found.append(f"busy machine: others held it up in {one.busy_share:.0%} of the rounds: stop them, or time later")
    if one.during and one.during.throttle is None:
        found.append("unknown whether throttled: the GPU's driver does not tell; install melbench[gpu]")
    elif one.during and one.during.throttle:
        reasons = ", ".join(one.during.throttle)
        found.append(f"throttled: the GPU ran slower than it can ({reasons}): let it cool, or raise its limit")
    return found


def of_machine(before: Conditions, after: Conditions) -> list[str]:
    """Return the doubts about the machine before and after something was timed."""
    found = []
    # One's own threads are in the load by the end, so only the load before is another's.
    if before.load is not None and before.cores and before.load > before.cores + 0.5:
        found.append(f"busy machine: a load of {before.load:g} on {before.cores} cores before: stop other processes")
    if before.cpu_mhz and after.cpu_mhz and after.cpu_mhz < before.cpu_mhz * (1 - SLOWER_CLOCK):
        found.append(
            f"throttled: the CPU fell from {before.cpu_mhz:.0f} to {after.cpu_mhz:.0f} MHz: let it cool, or use its "
            "performance governor"
        )
    return found


def _drift(seconds: np.ndarray) -> float | None:
    """Return the last third's median relative to the first's, less 1, if the two thirds hardly overlap."""
    third = len(seconds) // 3
    if third < FEW_FOR_SHAPE:
        return None
    first, last = seconds[:third], seconds[-third:]
    change = float(np.median(last) / np.median(first)) - 1
    if abs(change) < DRIFT:
        return None
    low, high = (first, last) if change > 0 else (last, first)
    return change if np.quantile(low, 0.75) < np.quantile(high, 0.25) else None


def _humps(seconds: np.ndarray) -> tuple[float, float] | None:
    """Return the medians of two modes if Otsu's threshold (the least squared deviations) leaves two that lie far apart.

    A mode of equal samples has no width: any distance is then far.
    """
    ordered = np.sort(seconds)
    n = len(ordered)
    smallest = max(FEW_FOR_SHAPE, int(np.ceil(n * SMALLER_HUMP)))
    if n < 2 * smallest:
        return None
    cuts = np.arange(smallest, n - smallest + 1)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    # Least squared deviation within is largest n1 n2 (mean1 - mean2)^2 between.
    between = cuts * (n - cuts) * (sums[cuts] / cuts - (sums[n] - sums[cuts]) / (n - cuts)) ** 2
    cut = int(cuts[np.argmax(between)])
    low, high = ordered[:cut], ordered[cut:]
    middle_low, middle_high = float(np.median(low)), float(np.median(high))
    width = np.subtract(*np.quantile(low, [0.75, 0.25])) + np.subtract(*np.quantile(high, [0.75, 0.25]))
    far = middle_high - middle_low > DISTANCE * width and middle_high > middle_low * (1 + APART)
    return (middle_low, middle_high) if far else None
