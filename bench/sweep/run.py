"""Axes to trials to records: what is missing is trained, several stacks at once, and timed in one interleaved run."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.counting import profile
from bench.counting.profile import Complexity
from bench.executors.jobs import Failure, Job, Outcome
from bench.executors.threads import Executor, Threads
from bench.measurement import diagnostics, workloads
from bench.measurement.measurements import samples_of
from bench.measurement.workloads import Work
from bench.records import failures, schema
from bench.records.schema import FailureRecord, RecordFolder, TimedTrial, TimingRecord, TrialRecord
from bench.sweep import schedule, store
from bench.sweep.schedule import Listener, Standing
from bench.sweep.store import Held
from bench.system import environment, monitor
from bench.timing import timer
from bench.timing.clocks import clock_for
from melcnn.config import EXCHANGING, SETTINGS, Trial, configure, descriptions
from melcnn.data.clips import ClipSet
from melcnn.errors import Failed, InputError, first_line
from melcnn.kernels import grouped_conv
from melcnn.model import MelCNN, drawing
from melcnn.training import Run

# The study's two axes, by the names that the command line knows them by.
PRESETS = {"groups": ("groups", (1, 2, 4, 8, 16)), "mels": ("n_mels", (20, 40, 80))}

# More would be a slip of the keyboard: at a second a seed, three hours.
MOST_SEEDS = 10_000

# A word: with fewer, one clip more or less right moves its accuracy by a fifth or more.
FEW_VALIDATION_CLIPS = 5

# Passes timed for each configuration after the cold one: an odd number, so that the median is a sample.
TIMING_ROUNDS = 9


def parse_axes(texts: Sequence[str]) -> dict[str, list]:
    """`["groups"]`, `["mels"]` or `["n_mels=20,40", "groups=1,2"]` as setting names and their values.

    Raises `InputError` for an axis that does not exist, has no values, or is given twice.
    """
    axes: dict[str, list] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals:
            if name not in PRESETS:
                raise InputError(
                    f"there is no axis {text!r}: use {', '.join(PRESETS)}, or name=value,value, such as groups=1,2, "
                    "with a name of " + ", ".join(SETTINGS)
                )
            name, parsed = PRESETS[name][0], list(PRESETS[name][1])
        elif name not in SETTINGS:
            raise InputError(f"there is no setting {name!r}: the settings are {', '.join(SETTINGS)}")
        else:
            parsed = [value.strip() for value in values.split(",")]
            if not all(parsed):
                raise InputError(f"the axis {text!r} has an empty value: write it as {name}=value,value")
            if len(set(parsed)) < len(parsed):
                raise InputError(f"the axis {text!r} names a value twice: name each once")
        if name in axes:
            raise InputError(f"the axis {name!r} is given twice: put all its values into one")
        axes[name] = parsed
    return axes


def plan(axes: dict[str, list], note: Callable[[str], None], **settings) -> list[Trial]:
    """The grid of trials over `axes`, `settings` holding for all. Combinations that cannot exist are noted
    and left out. Raises `InputError` if none can exist."""
    if clash := next((name for name in axes if name in settings), None):
        raise InputError(f"{clash} is both an axis and an option: give it once")
    # In the order of the settings, front-end first: the features of one front-end are then needed in one go.
    axes = {name: axes[name] for name in SETTINGS if name in axes}
    trials, impossible = [], []
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        try:
            trials.append(configure(**settings, **chosen))
        except InputError as error:
            impossible.append((chosen, error))
    if not trials:
        raise impossible[0][1]
    if len({trial.canonical() for trial in trials}) < len(trials):
        raise InputError("the axes name a configuration twice, such as groups=1,01: name each once")
    # What is exchanged between groups needs two of them.
    same = [t for t in trials if t.model.groups == 1 and t.model.variant in EXCHANGING and _plain(t) in trials]
    named = descriptions(trials) if same else {}
    for trial in same:
        note(f"left out {named[trial]}: of one group it is the plain network")
        trials.remove(trial)
    for chosen, error in impossible:
        note(f"left out {' '.join(f'{k}={v}' for k, v in chosen.items())}: {error}")
    return trials


def _plain(trial: Trial) -> Trial:
    return trial.model_copy(update={"model": trial.model.model_copy(update={"variant": "plain"})})


@dataclass(frozen=True)
class Result:
    """The records of a sweep, trials in the order of the plan and seeds rising, and their timing run, None where it
    failed. failures: of the trials that there are no records of."""

    trials: list[TrialRecord]
    timing: TimingRecord | None
    failures: list[FailureRecord]


def sweep(
    trials: Sequence[Trial],
    seeds: int,
    clips: ClipSet,
    folder: RecordFolder,
    where: str | Executor,
    listener: Listener,
    retry_failed: bool = False,
) -> Result:
    """Trains and times what `folder` does not hold yet, for seeds 0 to `seeds` - 1, and returns all of it.

    where: a device of this process, or an executor. What failed before is trained again if `retry_failed`. Raises
    `Failed` if nothing at all succeeded.
    """
    executor = Threads(where) if isinstance(where, str) else where
    with folder.locked():
        found, failed = trained(trials, seeds, clips, folder, executor, listener, retry_failed)
        if not found:
            raise failures.as_error(failed, folder.path)
        # What gave no network has no time either: it would fail again.
        timed = list(dict.fromkeys(record.trial for record in found))
        return Result(found, _timing(timed, clips.split("train").stop, folder, executor, listener), failed)


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
    name = f"timing-{schema.timing_identity(trials, train_clips, env, grouped_conv.kernels(device))}.json"
    remarks: list[str] = []
    made = None if name in known else time_epochs(trials, train_clips, device, env, remarks.append)
    return name, made, remarks


def trained(
    trials: Sequence[Trial],
    seeds: int,
    clips: ClipSet,
    folder: RecordFolder,
    where: str | Executor,
    listener: Listener,
    retry_failed: bool = False,
) -> tuple[list[TrialRecord], list[FailureRecord]]:
    """The records of seeds 0 to `seeds` - 1 of each trial, and of the failures among them; what `folder` does not hold
    yet is trained, as in `sweep`.

    Records are written stack by stack, so that a kill loses at most the stacks in flight.
    """
    executor = Threads(where) if isinstance(where, str) else where
    check_seeds(seeds)
    _warn_of_few(trials, clips, listener.note)
    with folder.locked():
        folder.prepare()
        held = store.held(trials, seeds, clips, folder.trials(), folder.failures())
        settled = {trial: held.settled(trial, retry_failed) for trial in trials}
        if count := sum(map(len, held.found.values())):
            listener.note(f"{count} of {len(trials) * seeds} trials are in {folder.path} already and are not run again")
        train_clips = clips.split("train").stop
        again = held.failed.__getitem__
        planned = schedule.plan(trials, seeds, train_clips, settled.__getitem__, executor.room, again)
        if planned.stacks:
            listener.note(planned.describe())
        costs = schedule.by_network([trial for trial, _ in planned.stacks], lambda trial: _count(trial, clips))
        # A configuration's records are all by the same kernels, whatever would be faster now.
        used = {trial: record.kernels for trial, by_seed in held.found.items() for record in by_seed.values()}
        listener.begin([standing(trial, seeds, {"": held}, retry_failed) for trial in trials])
        keep = store.keeper(held, clips, folder, costs, retry_failed)
        schedule.train(planned, clips, executor, listener, keep, used.get)
    found, failed = (
        [by_trial[trial][seed] for trial in trials for seed in range(seeds) if seed in by_trial[trial]]
        for by_trial in (held.found, held.failed)
    )
    return found, failed


def standing(trial: Trial, seeds: int, held: Mapping[str, Held], retry_failed: bool) -> Standing:
    """Where a configuration stands before training, by what is held of each fold."""
    finished = {
        (fold, seed): record.validation.accuracy
        for fold, own in held.items()
        for seed, record in own.found[trial].items()
    }
    given_up = 0 if retry_failed else sum(len(own.failed[trial]) for own in held.values())
    return Standing(trial, len(held) * seeds - given_up, finished)


def train_best(
    trial: Trial, seeds: int, clips: ClipSet, device: str, listener: Listener
) -> tuple[list[Run], Run, list[Failure]]:
    """Trains seeds 0 to `seeds` - 1 of one configuration; all runs, the one that validation likes best (of equal
    accuracies, the one of lowest loss), and what failed. Raises `Failed` if all of them did."""
    check_seeds(seeds)
    _warn_of_few([trial], clips, listener.note, choosing_seeds=seeds > 1)
    runs: list[Run] = []
    failed: list[Failure] = []

    def keep(job: Job, outcome: Outcome) -> None:
        runs.extend(run for trained in outcome.trained for run in trained.runs)
        failed.extend(outcome.failures)

    executor = Threads(device)
    planned = schedule.plan([trial], seeds, clips.split("train").stop, lambda trial: {}, executor.room)
    listener.begin([Standing(trial, seeds, {})])
    schedule.train(planned, clips, executor, listener, keep)
    if not runs:
        raise Failed(f"seed {failed[0].seed}: {failed[0].message}" + " (and so all others)" * (len(failed) > 1))
    runs.sort(key=lambda run: run.seed)

    def rank(run: Run) -> tuple[float, float]:
        return run.validation_accuracy, -run.curves.validation_loss[run.kept_epoch - 1]

    return runs, max(runs, key=rank), failed


def _warn_of_few(
    trials: Sequence[Trial], clips: ClipSet, note: Callable[[str], None], choosing_seeds: bool = False
) -> None:
    part = clips.split("validation")
    chosen = choosing_seeds or any(trial.training.keep == "best" for trial in trials)
    if chosen and (count := part.stop - part.start) < FEW_VALIDATION_CLIPS * len(clips.words):
        note(f"only {count} validation clips: which epoch and which seed is kept rests on these few; add recordings")


def check_seeds(seeds: int) -> None:
    if not 1 <= seeds <= MOST_SEEDS:
        raise InputError(f"--seeds {seeds} is out of range: give 1 to {MOST_SEEDS}")


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
        trial.canonical(): workloads.build(
            Work(what="epoch", clips=train_clips, batch_size=trial.training.batch_size, trial=trial), device
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


def _count(trial: Trial, clips: ClipSet) -> Complexity:
    frames = clips.waveforms.shape[1] // trial.front_end.hop_length + 1
    with drawing():
        network = MelCNN.of(trial)
    return profile.count(network, (1, trial.front_end.n_mels, frames))
