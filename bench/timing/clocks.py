"""Clocks: what a call took on the host between synchronisations, on the device, and how long the device was busy.

Host time is what a user waits, from an idle device to an idle device. Device time comes from CUDA events, measured
apart: the device spins until the host has queued the calls, so it does not wait for launches that the host can queue
ahead of it. Busy time is the union of the kernels' own times, as the profiler saw them. Calls follow one another, so
what they read may lie in the device's caches (a warm L2).
"""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch

from melcnn.kernels import cuda
from melcnn.scheduling import run_queue_wait

OVERHEAD_READINGS = 101  # of an empty call; odd, so that the median is a reading


@dataclass(frozen=True)
class Reading:
    """Seconds per call, the mean over the calls of one sample.

    Attributes:
        waited: seconds for which threads of this process were ready to run while another process had the core, summed
            over threads.
        device: None without a device clock.
    """

    host: float
    waited: float = 0.0
    device: float | None = None


class HostClock:
    """Wall time on the host, from an idle device to an idle device.

    Attributes:
        synchronize: returns when the device has finished its work.
        now, waited: seconds.
    """

    def __init__(
        self,
        synchronize: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.perf_counter,
        waited: Callable[[], float] = run_queue_wait,
    ):
        self.synchronize, self.now, self.waited = synchronize, now, waited

    def read(self, call: Callable[[], object], calls: int = 1) -> Reading:
        """Time `calls` calls in a row, as one sample."""
        self.synchronize()
        waited = self.waited()
        start = self.now()
        for _ in range(calls):
            call()
        self.synchronize()
        seconds = self.now() - start
        return Reading(seconds / calls, (self.waited() - waited) / calls)

    def overhead(self) -> float:
        """Return the seconds that reading the clock adds to a sample: the median for a call that does nothing."""
        return statistics.median(self.read(_nothing).host for _ in range(OVERHEAD_READINGS))


# The longest that the device spins, in seconds; the host cannot queue more than about a thousand launches ahead anyway.
MOST_AHEAD = 0.02


class CudaClock(HostClock):
    """The host's clock, and then CUDA's events around the same calls again."""

    def __init__(self, now: Callable[[], float] = time.perf_counter, waited: Callable[[], float] = run_queue_wait):
        super().__init__(torch.cuda.synchronize, now, waited)

    def read(self, call: Callable[[], object], calls: int = 1) -> Reading:
        reading = super().read(call, calls)

        def repeated() -> None:
            for _ in range(calls):
                call()

        ahead = min(calls * reading.host + cuda.SPIN_SECONDS, MOST_AHEAD)
        return replace(reading, device=cuda.seconds(repeated, ahead) / calls)


def clock_for(device: str) -> HostClock:
    """Return the clock for work on `device`, "cpu" or "cuda"."""
    return CudaClock() if device == "cuda" else HostClock()


def busy_seconds(call: Callable[[], object], device: str) -> float | None:
    """Return the seconds in which the device computed during one call, by torch's profiler.

    None on the CPU, where host and device are one, and where the profiler sees no kernels. Measured apart from timed
    calls, which a profiler slows down.
    """
    if device != "cuda":
        return None
    activities = [torch.profiler.ProfilerActivity.CUDA]
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profiler:
        call()
        torch.cuda.synchronize()
    # A user's annotation spans the gaps between its kernels.
    kernels = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type.name == "CUDA" and not getattr(event, "is_user_annotation", False)
    ]
    return covered(kernels) / 1e6 if kernels else None


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of `intervals` (start, end): kernels on several streams count once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _nothing() -> None:
    pass
