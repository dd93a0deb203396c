"""Axes to trials to records: what is missing is trained, several stacks at once, and timed in one interleaved run."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import torch

from bench import complexity, environment, machine, noise, records, stacks, timing, works
from bench.clocks import clock_for
from bench.complexity import Complexity
from bench.measurements import samples_of
from bench.records import Predictions, RecordFolder, TimedTrial, TimingRecord, TrialRecord
from bench.stacks import Listener, Standing
from bench.statistics import significant
from bench.works import Work
from melcnn import ops
from melcnn.config import EXCHANGING, SETTINGS, Trial, configure, describe
from melcnn.data.clips import ClipSet
from melcnn.errors import InputError
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
    for trial in same:
        note(f"left out {describe(trial, trials)}: of one group it is the plain network")
        trials.remove(trial)
    for chosen, error in impossible:
        note(f"left out {' '.join(f'{k}={v}' for k, v in chosen.items())}: {error}")
    return trials


def _plain(trial: Trial) -> Trial:
    return trial.model_copy(update={"model": trial.model.model_copy(update={"variant": "plain"})})


@dataclass(frozen=True)
class Result:
    """The records of a sweep, trials in the order of the plan and seeds rising, and their timing run."""

    trials: list[TrialRecord]
    timing: TimingRecord


def sweep(
    trials: Sequence[Trial], seeds: int, clips: ClipSet, folder: RecordFolder, device: str, listener: Listener
) -> Result:
    """Trains and times what `folder` does not hold yet, for seeds 0 to `seeds` - 1, and returns all of it."""
    found = trained(trials, seeds, clips, folder, device, listener)
    env = environment.collect(device)
    train_clips = clips.split("train").stop
    key = records.timing_identity(list(trials), train_clips, env, ops.kernels(device))
    if (timed := folder.timings().get(f"timing-{key}.json")) is None:
        listener.stage(f"timing epochs: {TIMING_ROUNDS} rounds of {len(trials)} configurations, one pass at a time")
        timed = time_epochs(trials, train_clips, device, env, listener.note)
        folder.write(timed)
    return Result(found, timed)


def trained(
    trials: Sequence[Trial], seeds: int, clips: ClipSet, folder: RecordFolder, device: str, listener: Listener
) -> list[TrialRecord]:
    """The records of seeds 0 to `seeds` - 1 of each trial; what `folder` does not hold yet is trained.

    Records are written stack by stack, so that a kill loses at most the stacks in flight.
    """
    check_seeds(seeds)
    _warn_of_few(trials, clips, listener.note)
    folder.prepare()
    present = folder.trials()
    env = environment.collect(device)

    found = {trial: finished(trial, seeds, clips, present) for trial in trials}

    def identity(trial: Trial, seed: int) -> str:
        return records.trial_identity(trial, clips.heard_by(trial.training), seed)

    if count := sum(len(by_seed) for by_seed in found.values()):
        listener.note(f"{count} of {len(trials) * seeds} trials are in {folder.path} already and are not run again")
    planned = stacks.plan(trials, seeds, clips.split("train").stop, found.__getitem__, device)
    costs = {trial: _count(trial, clips) for trial, _ in planned.stacks}

    def keep(trial: Trial, stack: list[int], trained: stacks.Trained) -> None:
        for run in trained.runs:
            if identity(trial, run.seed) not in present:
                record = _record(trial, run, stack, trained.elapsed, clips, env, costs[trial])
                folder.write(record)
                present[record.identity] = record

    if planned.stacks:
        listener.note(planned.describe())
    # A configuration's records are all by the same kernels, whatever would be faster now.
    used = {trial: record.kernels for trial, by_seed in found.items() for record in by_seed.values()}
    listener.begin(
        [
            Standing(trial, seeds, {("", seed): record.validation.accuracy for seed, record in by_seed.items()})
            for trial, by_seed in found.items()
        ]
    )
    stacks.train(planned, clips, device, listener, keep, used.get)
    return [present[identity(trial, seed)] for trial in trials for seed in range(seeds)]


def finished(trial: Trial, seeds: int, clips: ClipSet, present: Mapping[str, TrialRecord]) -> dict[int, TrialRecord]:
    """The records of seeds 0 to `seeds` - 1 of `trial`, trained on `clips`, that are among those `present` by identity;
    by seed."""
    data = clips.heard_by(trial.training)
    keys = {seed: records.trial_identity(trial, data, seed) for seed in range(seeds)}
    return {seed: present[key] for seed, key in keys.items() if key in present}


def train_best(trial: Trial, seeds: int, clips: ClipSet, device: str, listener: Listener) -> tuple[list[Run], Run]:
    """Trains seeds 0 to `seeds` - 1 of one configuration; all runs, and the one that validation likes best
    (of equal accuracies, the one of lowest loss)."""
    check_seeds(seeds)
    _warn_of_few([trial], clips, listener.note, choosing_seeds=seeds > 1)
    runs: list[Run] = []
    planned = stacks.plan([trial], seeds, clips.split("train").stop, lambda trial: {}, device)
    listener.begin([Standing(trial, seeds, {})])
    stacks.train(planned, clips, device, listener, lambda trial, stack, trained: runs.extend(trained.runs))
    runs.sort(key=lambda run: run.seed)

    def rank(run: Run) -> tuple[float, float]:
        return run.validation_accuracy, -run.curves.validation_loss[run.kept_epoch - 1]

    return runs, max(runs, key=rank)


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
    before = machine.conditions(device)
    passes = {
        trial.canonical(): works.build(
            Work(what="epoch", clips=train_clips, batch_size=trial.training.batch_size, trial=trial), device
        ).call
        for trial in trials
    }
    run = timing.interleave(passes, timing.fixed(TIMING_ROUNDS), clock_for(device))
    after = machine.conditions(device)
    doubts = [noise.of_samples(samples_of(run, name)) for name in passes]
    for remark in [*noise.of_machine(before, after), *dict.fromkeys(text for texts in doubts for text in texts)]:
        note(f"epoch times: {remark}")
    return TimingRecord(
        timed=[
            TimedTrial(trial=trial, train_clips=train_clips, epoch_seconds=run.series[trial.canonical()].seconds)
            for trial in trials
        ],
        kernels=ops.kernels(device),
        environment=env,
        before=before,
        after=after,
        finished_at=_now(),
    )


def _count(trial: Trial, clips: ClipSet) -> Complexity:
    frames = clips.waveforms.shape[1] // trial.front_end.hop_length + 1
    with drawing():
        network = MelCNN.of(trial)
    return complexity.count(network, (1, trial.front_end.n_mels, frames))


def _record(
    trial: Trial,
    run: Run,
    stack: list[int],
    elapsed: Sequence[float],
    clips: ClipSet,
    env: environment.Environment,
    costs: Complexity,
) -> TrialRecord:
    def predictions(split: str, logits: torch.Tensor) -> Predictions:
        part = clips.split(split)
        return Predictions(
            names=clips.names[part].tolist(),
            speakers=clips.speakers[part].tolist(),
            labels=clips.labels[part].tolist(),
            logits=logits.tolist(),
        )

    return TrialRecord(
        trial=trial,
        seed=run.seed,
        stack=stack,
        kernels=run.kernels,
        dataset=clips.dataset,
        data_fingerprint=clips.heard_by(trial.training),
        train_clips=clips.split("train").stop,
        left_out_clips=len(clips.left_out),
        complexity=costs,
        train_loss=run.curves.train_loss,
        validation_loss=run.curves.validation_loss,
        validation_accuracy=run.curves.validation_accuracy,
        elapsed_seconds=[significant(seconds) for seconds in elapsed[: len(run.curves.train_loss)]],
        kept_epoch=run.kept_epoch,
        validation=predictions("validation", run.validation_logits),
        test=predictions("test", run.test_logits),
        environment=env,
        finished_at=_now(),
    )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
