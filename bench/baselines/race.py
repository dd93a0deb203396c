"""melbench against what people would otherwise write: whole trainings on the same recordings, in interleaved rounds."""

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import soundfile
from pydantic import BaseModel, ConfigDict

from bench.baselines import BASELINES
from bench.baselines.loop import Files, Settings
from bench.executors.jobs import import_compiler
from bench.executors.threads import Threads
from bench.formats import Sheet
from bench.grid import check_seeds
from bench.records import RecordFolder
from bench.records.failures import as_error
from bench.stats.intervals import mean_interval, significant
from bench.sweep.run import sweep
from bench.timing import timer
from bench.timing.clocks import HostClock, clock_for
from melcnn.config import Trial
from melcnn.data import recordings
from melcnn.data.clips import SPLITS, ClipSet
from melcnn.data.source import LISTS
from melcnn.errors import InputError

MELBENCH = "melbench"


@dataclass(frozen=True)
class Contestant:
    """A way to train all configurations with all seeds.

    Attributes:
        seconds: of each round, which holds every configuration once, or with `seeds_a_round` seeds.
        accuracies: the best on validation, of each training.
    """

    name: str
    seeds_a_round: int
    seconds: list[float]
    accuracies: list[float]


def race(
    trials: Sequence[Trial],
    seeds: int,
    clips: ClipSet,
    device: str,
    progress: Callable[[str], None] = lambda text: None,
    clock: HostClock | None = None,
    kernels: str | None = None,
) -> list[Contestant]:
    """Train every configuration with every contestant for as many epochs, from recordings on disk.

    A round is one seed: each baseline trains each configuration with that seed, melbench all configurations with all
    seeds at once, from the recordings anew and into an empty folder. No training stops early.

    Raises:
        InputError: if the configurations differ in batch size or epochs, as the table shows one of each.
    """
    check_seeds(seeds)
    if len({(trial.training.batch_size, trial.training.epochs) for trial in trials}) > 1:
        raise InputError("--against baseline takes one batch size and one number of epochs: compare them in turn")
    trials = [_to_the_end(trial) for trial in trials]
    import_compiler()
    with tempfile.TemporaryDirectory(prefix="melbench-race-") as temporary:
        folder = Path(temporary)
        files = write_recordings(clips, folder / "data")
        accuracies: dict[str, list[float]] = {name: [] for name in (*BASELINES, MELBENCH)}

        def baseline(name: str, seed: int) -> None:
            for trial in trials:
                accuracies[name].append(BASELINES[name](files, settings(trial, device), seed).validation_accuracy)

        def melbench(number: int) -> None:
            own = recordings.load(folder / "data", clips.words)
            found = sweep(
                trials, seeds, own, RecordFolder(folder / f"records-{number}"), Threads(device), kernels=kernels
            )
            if found.failures:
                raise as_error(found.failures)
            accuracies[MELBENCH] += [record.validation_accuracy[record.kept_epoch - 1] for record in found.trials]

        series = timer.rounds(
            {
                **{name: partial(baseline, name) for name in BASELINES},
                MELBENCH: melbench,
            },
            seeds,
            clock or clock_for(device),
            progress,
        )
    return [
        Contestant(name, seeds if name == MELBENCH else 1, series[name].seconds, accuracies[name])
        for name in accuracies
    ]


class RaceRow(BaseModel):
    """The figures of a contestant; the fields are the CSV's columns.

    Attributes:
        time_s: of all trainings, the mean over rounds.
        time_a_training_s: the same, divided by their number.
        time_ratio: to melbench's time, the geometric mean over rounds with Student's t interval.
        val_accuracy_max: the mean over trainings of the best.
    """

    model_config = ConfigDict(frozen=True)

    way: str
    dataset: str
    configurations: int
    seeds: int
    epochs: int
    batch_size: int
    train_clips: int
    time_s: float
    time_a_training_s: float
    time_ratio: float
    time_ratio_low95: float | None
    time_ratio_high95: float | None
    val_accuracy_max: float
    device: str


def rows(
    found: Sequence[Contestant], trials: Sequence[Trial], seeds: int, clips: ClipSet, device: str
) -> list[RaceRow]:
    ours = next(one for one in found if one.name == MELBENCH)
    made = []
    for one in found:
        whole = [s * seeds / one.seeds_a_round for s in one.seconds]
        # Round by round, so that a machine that drifts has hit both alike.
        logs = [math.log(s / own) for s, own in zip(whole, ours.seconds, strict=True)]
        middle, half = mean_interval(logs)
        made.append(
            RaceRow(
                way=one.name,
                dataset=clips.dataset,
                configurations=len(trials),
                seeds=seeds,
                epochs=trials[0].training.epochs,
                batch_size=trials[0].training.batch_size,
                train_clips=clips.split("train").stop,
                time_s=significant(statistics.mean(whole)),
                time_a_training_s=significant(statistics.mean(whole) / len(trials) / seeds),
                time_ratio=significant(math.exp(middle)),
                time_ratio_low95=None if half is None else significant(math.exp(middle - half)),
                time_ratio_high95=None if half is None else significant(math.exp(middle + half)),
                val_accuracy_max=significant(statistics.mean(one.accuracies)),
                device=device,
            )
        )
    return made


def sheet(rows: Sequence[RaceRow]) -> Sheet:
    """Return a sheet of each contestant's time for all configurations and seeds, and its ratio to melbench's."""
    first = rows[0]
    return Sheet(
        title=(
            f"{first.dataset}: {first.configurations} configurations, {first.seeds} seeds, {first.epochs} epochs over "
            f"{first.train_clips} clips, batch {first.batch_size}, {first.device}"
        ),
        headings=["way", "time", "a training", "x melbench", "val accuracy (best epoch)"],
        cells=[
            [
                row.way,
                f"{row.time_s:.4g} s",
                f"{row.time_a_training_s:.3g} s",
                _ratio(row),
                f"{row.val_accuracy_max:.4f}",
            ]
            for row in rows
        ],
        records=[row.model_dump() for row in rows],
        notes=[
            "Time: from recordings on disk to results, without Python's start. In each round melbench reads the "
            "recordings, makes features, writes records and times epochs; the loop with features in memory makes them "
            "once for all rounds.",
            "Interval: Student's t over rounds; a round is one seed of each baseline and all seeds of melbench.",
        ],
    )


def settings(trial: Trial, device: str) -> Settings:
    """Return a trial as the settings of a baseline."""
    return Settings(
        sample_rate=trial.front_end.sample_rate,
        n_fft=trial.front_end.n_fft,
        hop_length=trial.front_end.hop_length,
        n_mels=trial.front_end.n_mels,
        groups=trial.model.groups,
        channels=trial.model.channels,
        n_classes=len(trial.data.words),
        learning_rate=trial.training.learning_rate,
        batch_size=trial.training.batch_size,
        epochs=trial.training.epochs,
        device=device,
    )


def write_recordings(clips: ClipSet, folder: Path) -> Files:
    """Write every clip as a WAV file, with the official lists, and return the files of each split with their labels."""
    files: dict[str, tuple[list[str], list[int]]] = {split: ([], []) for split in SPLITS}
    for word in clips.words:
        (folder / word).mkdir(parents=True)
    listed: dict[str, list[str]] = {split: [] for split in LISTS}
    for name, label, split, waveform, length in zip(
        clips.names, clips.labels, clips.splits, clips.waveforms, clips.lengths, strict=True
    ):
        path, where = folder / (name if name.endswith(".wav") else f"{name}.wav"), SPLITS[split]
        soundfile.write(path, waveform[:length], clips.sample_rate, subtype="PCM_16")
        files[where][0].append(str(path))
        files[where][1].append(int(label))
        if where in listed:
            listed[where].append(str(path.relative_to(folder)))
    for split, name in LISTS.items():
        (folder / name).write_text("".join(f"{line}\n" for line in listed[split]))
    return files


def _to_the_end(trial: Trial) -> Trial:
    training = trial.training.model_copy(update={"patience": trial.training.epochs})
    return trial.model_copy(update={"training": training})


def _ratio(row: RaceRow) -> str:
    low, high = row.time_ratio_low95, row.time_ratio_high95
    interval = "" if low is None or low == high else f" ({low:.1f} to {high:.1f})"
    return f"{row.time_ratio:.1f}{interval}"
