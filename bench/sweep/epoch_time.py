"""Epoch times of a sweep: all its configurations in one interleaved run, unless that run is stored already."""

import logging
from collections.abc import Sequence

from bench.executors.base import Executor
from bench.executors.events import OnEvent, Stage
from bench.measurement import builders, diagnostics
from bench.measurement.measurements import samples_of
from bench.measurement.workloads import Workload
from bench.records import RecordFolder, TimedTrial, TimingRecord, timing_identity
from bench.sweep import store
from bench.system import environment, monitor
from bench.timing import timer
from bench.timing.clocks import clock_for
from melcnn.config import Trial
from melcnn.data.clips import ClipSet
from melcnn.errors import Failed, InputError, first_line
from melcnn.kernels import grouped_conv

log = logging.getLogger(__name__)

# Passes timed for each configuration after the cold one: an odd number, so that the median is a sample.
TIMING_ROUNDS = 9


def epoch_times(
    trials: list[Trial],
    clips: ClipSet,
    folder: RecordFolder,
    executor: Executor,
    on_event: OnEvent,
    kernels: str | None = None,
) -> TimingRecord | None:
    """Return the timing run of the trials, from `folder` or timed now and written there; None if it fails.

    Args:
        kernels: the kernels that are timed, "torch" or None for the faster.
    """
    stored = folder.timings()
    on_event(Stage(f"timing epochs: {TIMING_ROUNDS} rounds of {len(trials)} configurations, one pass at a time"))
    device, train_clips = executor.capacity.device, clips.split("train").stop
    arguments = trials, train_clips, clips.dataset, clips.corpus, device, kernels, list(stored)
    try:
        name, timed, remarks = executor.run_alone(_time_unless_stored, *arguments)
    except Exception as error:  # Whatever it is, the networks are trained and their accuracies can be shown.
        reason = str(error) if isinstance(error, (Failed, InputError)) else first_line(error)
        log.warning(f"epochs could not be timed ({reason}): there are no times; the same command times them again")
        return None
    for remark in remarks:
        log.warning(f"epoch times: {remark}")
    if timed is not None:
        folder.write(timed)
    return timed or stored[name]


def _time_unless_stored(
    trials: list[Trial],
    train_clips: int,
    dataset: str,
    corpus: str,
    device: str,
    kernels: str | None,
    stored: Sequence[str],
) -> tuple[str, TimingRecord | None, list[str]]:
    """Return the file name of the timing run in this environment, the run (None if `stored` names it), and remarks."""
    env = environment.collect(device)
    by = kernels or grouped_conv.kernels(device)
    # Older runs name no corpus; their times do not depend on it.
    names = [f"timing-{timing_identity(trials, train_clips, env, by, of)}.json" for of in (corpus, "")]
    if known := next((name for name in names if name in stored), None):
        return known, None, []
    record, remarks = time_epochs(trials, train_clips, device, env, kernels)
    return names[0], record.model_copy(update={"dataset": dataset, "corpus": corpus}), remarks


def time_epochs(
    trials: Sequence[Trial],
    train_clips: int,
    device: str,
    env: environment.Environment,
    kernels: str | None = None,
) -> tuple[TimingRecord, list[str]]:
    """Time one training pass over `train_clips` clips for a single network of each configuration.

    Returns:
        the record, and remarks on what is doubtful about it.
    """
    before = monitor.conditions(device)
    passes = {}
    for trial in trials:
        epoch = Workload(what="epoch", clips=train_clips, batch_size=trial.training.batch_size, trial=trial)
        passes[trial.canonical()] = builders.build(epoch, device, kernels=kernels).call
    run = timer.interleave(passes, timer.fixed(TIMING_ROUNDS), clock_for(device))
    after = monitor.conditions(device)
    samples = {name: samples_of(run, name) for name in passes}
    doubts = map(diagnostics.of_samples, samples.values())
    remarks = [*diagnostics.of_machine(before, after), *dict.fromkeys(text for texts in doubts for text in texts)]
    record = TimingRecord(
        timed=[
            TimedTrial(
                trial=trial,
                train_clips=train_clips,
                epoch_seconds=run.series[trial.canonical()].seconds,
                held_up=samples[trial.canonical()].held_up,
            )
            for trial in trials
        ],
        kernels=kernels or grouped_conv.kernels(device),
        environment=env,
        before=before,
        after=after,
        finished_at=store.now(),
    )
    return record, remarks
