"""Lines for a shell that make records again: what these are of, as comments, and few grids that are exactly the
configurations that are there."""

import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.grid import axes_of, train_command
from bench.records import TrialRecord
from bench.report.configurations import sweeps
from bench.report.load import Chapter
from melcnn.config import Data, Trial, settings_of, varying_settings

# Of the data sets that everybody can get; others are somebody's own folder.
SYNTHETIC = "synthetic"
DATA = {"speech_commands": [], SYNTHETIC: ["--data", SYNTHETIC]}

SOURCE = "# Records do not tell which folder or archive their clips are from: name yours with --data."


def again(chapters: Sequence[Chapter]) -> list[str]:
    """Return the commands that repeat all chapters' trials and folds, under comments that name their clips.

    A configuration that no command can name is left out.
    """
    clips_of: dict[str, list[str]] = {}
    for chapter in chapters:
        for name, records, describe in (
            ("sweep", chapter.trials, _clips),
            ("recommend", chapter.folds, _clips_of_folds),
        ):
            for command in _commands(name, records, chapter.dataset):
                clips_of.setdefault(command, []).append(f"# {chapter.name}; {describe(records)}")
    lines = [SOURCE] * (bool(clips_of) and any(chapter.dataset != SYNTHETIC for chapter in chapters))
    said: list[str] = []
    for command, clips in clips_of.items():
        lines += [*([] if clips == said else dict.fromkeys(clips)), command]
        said = clips
    return lines


def training(trial: Trial, dataset: str) -> str:
    """Return the command that trains one configuration of a data set and keeps the network; empty if none can."""
    return train_command(trial, DATA.get(dataset, ["--data", "my_recordings"]))


def deciding(chapter: Chapter, more_seeds: int = 0) -> list[str]:
    """Return the commands that cross-validate all configurations of a chapter, with so many more seeds."""
    return _commands("recommend", chapter.folds or chapter.trials, chapter.dataset, more_seeds)


def of_report(paths: Sequence[Path], output: Path) -> str:
    """Return the command that makes `output` from `paths`, each cut to the part that identifies it among them.

    The rest of a path is private.
    """
    whole = [Path(os.path.abspath(path)).parts for path in paths]

    def told_apart(own: tuple[str, ...]) -> str:
        others = {parts for parts in whole if parts != own}
        ends = (own[-length:] for length in range(1, len(own) + 1))
        return str(Path(*next(end for end in ends if all(parts[-len(end) :] != end for parts in others))))

    return shlex.join(["melbench", "report", *map(told_apart, whole), "-o", output.name])


def _clips(trials: Sequence[TrialRecord]) -> str:
    training = _counts(record.train_clips for record in trials)
    validation = _counts(len(record.validation.names) for record in trials)
    return f"{training} training, {validation} validation and {_counts([len(trials[0].test.names)])} test clips"


def _clips_of_folds(folds: Sequence[TrialRecord]) -> str:
    held_out = {record.fold: len(record.test.names) for record in folds}
    return f"cross-validation of {_counts([sum(held_out.values())])} clips"


def _counts(numbers: Iterable[int]) -> str:
    return " / ".join(f"{number:,}" for number in dict.fromkeys(numbers))


def _commands(name: str, records: Sequence[TrialRecord], dataset: str, more_seeds: int = 0) -> list[str]:
    made: dict[Trial, tuple[int, bool]] = {}
    for record in records:
        seeds, by_torch = made.get(record.trial, (0, True))
        made[record.trial] = max(seeds, record.seed + 1), by_torch and record.kernels == "torch"
    made = {trial: how for trial, how in made.items() if axes_of([trial])}
    options = list(DATA.get(dataset, ["--data", "my_recordings"]))
    if records and (words := records[0].trial.data.words) != Data().words:
        options += ["--words", ",".join(words)]
    lines = [
        shlex.join(
            ["melbench", name, *axes, *options, *["--kernels", "torch"] * by_torch, "--seeds", str(seeds + more_seeds)]
        )
        for seeds, by_torch in sorted(set(made.values()), reverse=True)
        for sweep in sweeps([trial for trial, how in made.items() if how == (seeds, by_torch)])
        for axes in _grids(sweep.trials)
    ]
    # A configuration may be in several sweeps.
    return list(dict.fromkeys(lines))


def _grids(trials: Sequence[Trial]) -> list[list[str]]:
    """Return axes for `melbench sweep`, of grids that together are exactly `trials`."""
    if axes := axes_of(trials):
        return [axes]
    settings = [settings_of(trial) for trial in trials]
    # Parted by what has the fewest values, so that the parts are large.
    values = {name: list(dict.fromkeys(own[name] for own in settings)) for name in varying_settings(settings)}
    name = min(values, key=lambda name: len(values[name]))
    parts = [[t for t, own in zip(trials, settings, strict=True) if own[name] == value] for value in values[name]]
    return [grid for part in parts for grid in _grids(part)]
