"""Measurements of time, as files: works, and for each process launch the raw samples of every work.

A measurement that is kept holds reference work timed beside each work, so that it can be compared with one of
another day (`bench.measurement.reference`).
"""

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, model_validator

from bench.measurement import reference
from bench.measurement.peaks import Peaks
from bench.measurement.workloads import Workload, WorkloadFacts
from bench.stats.intervals import midmean, significant
from bench.system.environment import Environment
from bench.system.monitor import Conditions
from bench.timing.timer import InterleavedRun, Series
from bench.timing.verdicts import BUSY, disturbed, log_ratios
from melcnn.files import write_whole

FORMAT_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# Files of tens of thousands of samples are half as large.
Seconds = Annotated[list[float], PlainSerializer(lambda values: [significant(value) for value in values])]


class Samples(_Record):
    """The samples of a workload in one launch; lists are by round, seconds a call.

    Attributes:
        calls: calls in one sample.
        waited: seconds for which threads waited for a core.
        reference_seconds, reference_waited: the reference work's, in the same rounds.
        busy_seconds: of the device, during one call, by the profiler.
        peak_bytes: memory above what was in use before.
        energy_joules: of the GPU, a call.
        during: the GPU's state while it computed.
        shares: fractions of a call's time (of an epoch's, of a step's) by kind of operator, as
            `bench.measurement.profiler.of_call` gives them; empty in older files and for the front-end.
        rule: the stopping rule's name.
        unmet, steady, overhead_seconds: as in `bench.timing.timer.InterleavedRun`.
        resolution_seconds: a tick of the host's clock.
    """

    calls: int = 1
    cold_seconds: float
    seconds: Annotated[Seconds, Field(min_length=1)]
    waited: Seconds
    device_seconds: Seconds = []
    reference_seconds: Seconds = []
    reference_waited: Seconds = []
    busy_seconds: float | None = None
    peak_bytes: int | None = None
    energy_joules: float | None = None
    during: Conditions | None = None
    shares: dict[str, Annotated[float, Field(ge=0)]] = {}
    rule: str = ""
    steady: bool = True
    unmet: list[str] = []
    overhead_seconds: float = 0.0
    resolution_seconds: float = 0.0

    @model_validator(mode="after")
    def _check(self) -> "Samples":
        rounds = len(self.seconds)
        for name in ("waited", "device_seconds", "reference_seconds", "reference_waited"):
            if len(getattr(self, name)) not in ((rounds,) if name == "waited" else (0, rounds)):
                raise ValueError(f"{name} and seconds differ in number")
        if min(self.seconds) <= 0 or min(self.reference_seconds, default=1) <= 0:
            raise ValueError("a time is not positive")
        if self.shares and not math.isclose(sum(self.shares.values()), 1, abs_tol=1e-6):
            raise ValueError("shares do not sum to 1")
        return self

    @property
    def series(self) -> Series:
        return Series(self.calls, self.cold_seconds, self.seconds, self.waited, self.device_seconds)

    @property
    def busy_share(self) -> float:
        """The share of the rounds that another process held up."""
        return float(np.mean(disturbed(self.series)))

    @property
    def held_up(self) -> bool:
        return self.busy_share > BUSY

    @property
    def log_to_reference(self) -> float | None:
        """The logarithm of the time relative to the reference's, the midmean over rounds; None without one."""
        if not self.reference_seconds:
            return None
        beside = Series(seconds=self.reference_seconds, waited=self.reference_waited)
        return midmean(log_ratios([(beside, self.series)]))


def calm_log_ratios(samples: Iterable[Samples]) -> list[float]:
    """Return the log of the ratio to the reference of each launch that other processes did not hold up."""
    return [log for one in samples if not one.held_up and (log := one.log_to_reference) is not None]


def samples_of(run: InterleavedRun, name: str, beside: str = "", **known: object) -> Samples:
    """Return the samples of candidate `name` and of its reference work `beside`, with further fields in `known`."""
    one, reference_work = run.series[name], run.series.get(beside)
    return Samples(
        calls=one.calls,
        cold_seconds=one.cold_seconds,
        seconds=one.seconds,
        waited=one.waited,
        device_seconds=one.device_seconds,
        reference_seconds=reference_work.seconds if reference_work else [],
        reference_waited=reference_work.waited if reference_work else [],
        steady=run.steady,
        unmet=[reason for which, reason in run.unmet.items() if which in ("", name)],
        overhead_seconds=run.overhead_seconds,
        resolution_seconds=time.get_clock_info("perf_counter").resolution,
        **known,
    )


class Launch(_Record):
    """A process: `samples[i]` is of workload i, None if it was cut short."""

    samples: list[Samples | None]
    before: Conditions
    after: Conditions


class Measurement(_Record):
    """Workloads, what they compute, and the launches that timed them.

    Attributes:
        kernels: the kernels that compute: "torch", or "melcnn" where ours are the faster (older files do not say).
        stopped: why it ended before all was done.
    """

    format_version: int = FORMAT_VERSION
    reference_version: int = reference.VERSION
    works: Annotated[list[Workload], Field(min_length=1)]
    facts: list[WorkloadFacts]
    ceilings: Peaks
    launches: list[Launch] = []
    kernels: str = "torch"
    environment: Environment
    finished_at: str
    stopped: str = ""

    @model_validator(mode="after")
    def _check(self) -> "Measurement":
        if len(self.facts) != len(self.works):
            raise ValueError("works and facts differ in number")
        if any(len(launch.samples) != len(self.works) for launch in self.launches):
            raise ValueError("a launch has more or fewer samples than there are works")
        return self

    def of(self, index: int) -> list[Samples]:
        """Return the samples of workload `index`, by launch."""
        return [samples for launch in self.launches if (samples := launch.samples[index]) is not None]


def write_measurement(measurement: Measurement, path: Path) -> None:
    write_whole(path, lambda file: file.write(measurement.model_dump_json().encode()))
