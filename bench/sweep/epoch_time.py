"""Epoch times of a sweep: all its configurations in one interleaved run, unless that run is known."""

from collections.abc import Callable, Sequence

from bench import records
from bench.executors.base import Executor
from bench.measurement import builders, diagnostics
from bench.measurement.measurements import samples_of
from bench.measurement.workloads import Workload
from bench.records import RecordFolder, TimedTrial, TimingRecord
from bench.sweep import store
from bench.sweep.events import Listener
from bench.system import environment, monitor
from bench.timing import timer
from bench.timing.clocks import clock_for
from melcnn.config import Trial
from melcnn.errors import Failed, InputError, first_line
from melcnn.kernels import grouped_conv

# Passes timed for each configuration after the cold one: an odd number, so that the median is a sample.
TIMING_ROUNDS = 9


def _timing(
    trials: list[Trial], train_clips: int, folder: RecordFolder, executor: Executor, listener: Listener
) -> TimingRecord | None:
    known = folder.timings()
    listener.stage(f"timing epochs: {TIMING_ROUNDS} rounds of {len(trials)} configurations, one pass at a time")
    try:
        name, made, remarks = executor.alone(_time_unless_known, trials, train_clips, executor.room.device, list(known))
    except Exception as error:  # Whatever it is: the networks are trained, and what they are worth can be said.
        said = str(error) if isinstance(error, (Failed, InputError)) else first_line(error)
        listener.note(f"epochs could not be timed ({said}): there are no times; the same command times them again")
        return None
    for remark in remarks:
        listener.note(remark)
    if made is not None:
        folder.write(made)
    return made or known[name]


def _time_unless_known(
    trials: list[Trial], train_clips: int, device: str, known: Sequence[str]
) -> tuple[str, TimingRecord | None, list[str]]:
    """The file name of the timing run in this very environment, the run unless that is `known`, and remarks on it."""
    env = environment.collect(device)
    name = f"timing-{records.timing_identity(trials, train_clips, env, grouped_conv.kernels(device))}.json"
    remarks: list[str] = []
    made = None if name in known else time_epochs(trials, train_clips, device, env, remarks.append)
    return name, made, remarks


def time_epochs(
    trials: Sequence[Trial],
    train_clips: int,
    device: str,
    env: environment.Environment,
    note: Callable[[str], None] = lambda text: None,
) -> TimingRecord:
    """Times one training pass over `train_clips` clips for a single network of each configuration. note hears what
    is doubtful about it."""
    before = monitor.conditions(device)
    passes = {
        trial.canonical(): builders.build(
            Workload(what="epoch", clips=train_clips, batch_size=trial.training.batch_size, trial=trial), device
        ).call
        for trial in trials
    }
    run = timer.interleave(passes, timer.fixed(TIMING_ROUNDS), clock_for(device))
    after = monitor.conditions(device)
    doubts = [diagnostics.of_samples(samples_of(run, name)) for name in passes]
    for remark in [*diagnostics.of_machine(before, after), *dict.fromkeys(text for texts in doubts for text in texts)]:
        note(f"epoch times: {remark}")
    return TimingRecord(
        timed=[
            TimedTrial(trial=trial, train_clips=train_clips, epoch_seconds=run.series[trial.canonical()].seconds)
            for trial in trials
        ],
        kernels=grouped_conv.kernels(device),
        environment=env,
        before=before,
        after=after,
        finished_at=store.now(),
    )
