"""A process launch of a measurement: reads a job on standard input and answers in lines, for
`bench.measurement.launcher`.

Each line of standard output is one answer as JSON: the samples of a workload as soon as it is timed, so that a later
failure loses nothing; at the end the conditions, and the error if one cut it short.
"""

import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict

from bench.measurement import builders, profiler, workloads
from bench.measurement.builders import Built
from bench.measurement.measurements import Samples, samples_of
from bench.measurement.workloads import Workload
from bench.system import monitor
from bench.system.monitor import Conditions
from bench.timing import timer
from bench.timing.clocks import HostClock, busy_seconds, clock_for
from bench.timing.timer import CandidateFailed, Rule, Series
from bench.timing.verdicts import ratio_precision
from melcnn.errors import Failed, InputError, first_line
from melcnn.kernels import cuda

# How precisely one launch should know a median. Launches differ by as much: more is better spent on more of them.
PRECISION = 0.01
# Seconds for a run unless the user says otherwise.
MOST_SECONDS = 3.0
# Rounds of an epoch: seconds long, and each the mean of a hundred steps already.
EPOCH_ROUNDS = 3
# Seconds over which the GPU's energy counter, which moves in steps of some milliseconds, is read.
ENERGY_SECONDS = 0.5
# Calls given to the GPU at once, so that it computes while its state is read.
QUEUED = 50


class LaunchJob(BaseModel):
    """The work of a launch: each kind of workload gets an interleaved run of its own.

    Attributes:
        referenced: reference work runs beside each workload.
        max_seconds: the time allowed to each run except epochs, which take as long as they take; None: `MOST_SECONDS`.
        seed: of the order within rounds.
        kernels: the kernels that compute, "torch" or None for the faster.
        precision: of CUDA (`melcnn.kernels.cuda`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    works: list[Workload]
    device: str
    referenced: bool
    max_seconds: float | None
    seed: int
    kernels: str | None = None
    precision: str = "fp32"


class LaunchAnswer(BaseModel):
    """A line of a launch: first the conditions before, then the samples of each workload, at last the conditions after,
    and the error if one cut the launch short (`bad_input`: the fault of the request).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int | None = None
    samples: Samples | None = None
    before: Conditions | None = None
    after: Conditions | None = None
    error: str = ""
    bad_input: bool = False


def launch_answers(job: LaunchJob, clock: HostClock | None = None) -> Iterator[LaunchAnswer]:
    """Run the job. A workload that cannot be built, does not fit the time allowed, or raises, ends it."""
    cuda.set_precision(job.precision)
    clock = clock or clock_for(job.device)
    yield LaunchAnswer(before=monitor.conditions(job.device))
    error, bad_input = "", False
    try:
        for kind in dict.fromkeys(_kind(work) for work in job.works):
            yield from _of_kind({i: work for i, work in enumerate(job.works) if _kind(work) == kind}, job, clock)
    except Exception as failure:  # Whatever it is, a lost device too, ends this launch and is told.
        known = isinstance(failure, InputError | Failed)
        error, bad_input = str(failure) if known else first_line(failure), isinstance(failure, InputError)
    yield LaunchAnswer(after=monitor.conditions(job.device), error=error, bad_input=bad_input)


def _kind(work: Workload) -> tuple[str, int]:
    # Works of one kind and batch take alike long, so that none stretches the others' rounds.
    return work.what, work.batch_size


def _of_kind(chosen: dict[int, Workload], job: LaunchJob, clock: HostClock) -> Iterator[LaunchAnswer]:
    """Time workloads of one kind side by side."""
    labels = dict(zip(chosen, workloads.labels(list(chosen.values())), strict=True))
    built = {i: builders.build(work, job.device, kernels=job.kernels) for i, work in chosen.items()}
    candidates = {labels[i]: built[i].call for i in chosen}
    blocks = []
    if job.referenced:
        for i, work in chosen.items():
            candidates[_beside(labels[i])] = builders.build_reference(work, job.device)
            blocks.append([labels[i], _beside(labels[i])])
    peaks: dict[str, int | None] = {}

    @contextmanager
    def watch(name: str) -> Iterator[None]:
        memory = monitor.PeakMemory(job.device)
        yield
        peaks[name] = memory.bytes()

    what = next(iter(chosen.values())).what
    rule = _rule(what, list(labels.values()), job)
    failure: Failed | None = None
    try:
        run = timer.interleave(candidates, rule, clock, job.seed, watch, what == "latency", blocks)
    except CandidateFailed as failed:
        run, failure = failed.run, failed
    for i, label in labels.items():
        if run.series[label].seconds:
            known: dict[str, object] = {}
            if not failure:  # After one the device may be lost, and is not asked any more.
                try:
                    known = _asked_of_device(chosen[i], built[i].call, job)
                    seconds = statistics.median(run.series[label].seconds)
                    known["shares"] = _shares(chosen[i], built[i], seconds, job.device, clock)
                except Exception as error:  # What was timed is kept.
                    failure = Failed(f"{label} raised after its rounds {first_line(error)}")
            known.setdefault("peak_bytes", peaks.get(label))
            samples = samples_of(run, label, _beside(label), rule=rule.name, **known)
            yield LaunchAnswer(index=i, samples=samples)
    if failure:
        raise failure


def _beside(label: str) -> str:
    return f"reference of {label}"


def _rule(what: str, labels: list[str], job: LaunchJob) -> Rule:
    if what == "epoch":
        return timer.fixed(EPOCH_ROUNDS)
    seconds = job.max_seconds or MOST_SECONDS
    if not job.referenced:
        return Rule(PRECISION, max_seconds=seconds)

    def figures(series: Mapping[str, Series]) -> dict[str, float]:
        return {label: ratio_precision([(series[_beside(label)], series[label])]) for label in labels}

    return Rule(PRECISION, max_seconds=seconds, figures=figures)


def _asked_of_device(work: Workload, call: Callable[[], object], job: LaunchJob) -> dict[str, object]:
    """Return what only the device can tell, and what would disturb the rounds."""
    if job.device != "cuda":
        return {}
    busy, energy = busy_seconds(call, job.device), _energy(call)
    # Calls are queued, not waited for: the state of a GPU that idles says nothing.
    for _ in range(QUEUED):
        call()
    during = monitor.conditions(job.device)
    # Replays of a graph allocate nothing, and first calls also choose kernels: neither shows what a call needs.
    step_by_step = builders.build(work, job.device, in_steps=True, kernels=job.kernels).call
    return {
        "busy_seconds": busy,
        "energy_joules": energy,
        "during": during,
        "peak_bytes": monitor.peak_bytes_of(step_by_step, job.device),
    }


def _shares(work: Workload, built: Built, seconds: float, device: str, clock: HostClock) -> dict[str, float]:
    """Return the parts of the time of a network's call, which takes `seconds`."""
    if work.what == "front-end":
        return {}
    if work.what in ("latency", "throughput"):
        return profiler.of_call(built.call, clock, device, seconds)
    # An epoch goes where its steps go; captured, neither has operators.
    clips = min(work.batch_size, work.clips)
    step = builders.build(work.model_copy(update={"clips": clips}), device, in_steps=True)
    return profiler.of_call(step.call, clock, device, seconds * clips / work.clips)


def _energy(call: Callable[[], object]) -> float | None:
    """Return the joules of the GPU for one call, the mean over half a second of calls."""
    if (start := monitor.energy_joules()) is None:
        return None
    clock, calls = clock_for("cuda"), 0
    end = clock.now() + ENERGY_SECONDS
    while clock.now() < end:
        call()
        clock.synchronize()
        calls += 1
    used = monitor.energy_joules()
    return None if used is None else (used - start) / calls


def main() -> None:
    # Whatever a model prints must not land between the answers.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # The profiler's complaint of a missing GPU would be taken for what a process died of.
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")
    job = LaunchJob.model_validate_json(sys.stdin.buffer.read())
    for answer in launch_answers(job):
        out.write(answer.model_dump_json() + "\n")
        out.flush()
