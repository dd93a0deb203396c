"""Lines for a shell that make records again: what these are of, as comments, and the fewest grids that are exactly the
configurations that are there."""

import math
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.grid import DEFAULT_RECIPE, expand, parse_axes, train_command
from bench.records import TrialRecord
from bench.report.load import Chapter
from melcnn.config import SETTINGS, Data, Trial, recipe_settings, settings_of, varying_settings
from melcnn.errors import InputError

# Of the data sets that everybody can get; others are somebody's own folder.
SYNTHETIC = "synthetic"
DATA = {"speech_commands": [], SYNTHETIC: ["--data", SYNTHETIC]}

SOURCE = "# Records do not tell which folder or archive their clips are from: name yours with --data."


def again(chapters: Sequence[Chapter]) -> list[str]:
    """Return the commands that repeat all chapters' trials and folds, each once, under comments that name their clips.

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
    """Return the command that trains one configuration of a data set and keeps the network."""
    return train_command(trial, DATA.get(dataset, ["--data", "my_recordings"]))


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


def _commands(name: str, records: Sequence[TrialRecord], dataset: str) -> list[str]:
    made: dict[Trial, tuple[int, bool]] = {}
    for record in records:
        seeds, by_torch = made.get(record.trial, (0, True))
        made[record.trial] = max(seeds, record.seed + 1), by_torch and record.kernels == "torch"
    made = {trial: how for trial, how in made.items() if _grid([trial])}
    options = list(DATA.get(dataset, ["--data", "my_recordings"]))
    if records and (words := records[0].trial.data.words) != Data().words:
        options += ["--words", ",".join(words)]
    return [
        shlex.join(["melbench", name, *axes, *options, *["--kernels", "torch"] * by_torch, "--seeds", str(seeds)])
        for seeds, by_torch in sorted(set(made.values()), reverse=True)
        for axes in _grids([trial for trial, how in made.items() if how == (seeds, by_torch)])
    ]


def _grids(trials: Sequence[Trial]) -> list[list[str]]:
    """Return axes for `melbench sweep`, of grids that together are exactly `trials`."""
    if axes := _grid(trials):
        return [axes]
    settings = [settings_of(trial) for trial in trials]
    # Parted by what has the fewest values, so that the parts are large.
    values = {name: list(dict.fromkeys(own[name] for own in settings)) for name in varying_settings(settings)}
    name = min(values, key=lambda name: len(values[name]))
    parts = [[t for t, own in zip(trials, settings, strict=True) if own[name] == value] for value in values[name]]
    return [grid for part in parts for grid in _grids(part)]


def _grid(trials: Sequence[Trial]) -> list[str] | None:
    """Return the axes of one grid that is exactly `trials`, or None if there is none."""
    settings = [settings_of(trial) for trial in trials]
    expected = recipe_settings(settings[0]["recipe"])
    varying = varying_settings(settings) or ["groups"]
    named = [name for name in SETTINGS if name in varying or (name != "recipe" and settings[0][name] != expected[name])]
    if settings[0]["recipe"] != DEFAULT_RECIPE and "recipe" not in named:
        named.insert(0, "recipe")
    values = {name: sorted({own[name] for own in settings}, key=_place) for name in named}
    # With combinations that cannot exist, which a sweep leaves out, a grid has hardly more.
    if math.prod(map(len, values.values())) > 2 * len(trials):
        return None
    axes = [f"{name}={','.join(map(_text, each))}" for name, each in values.items()]
    try:
        made, _ = expand(parse_axes(axes), trials[0].data.words, DEFAULT_RECIPE)
    except InputError:
        return None
    return axes if set(made) == set(trials) else None


def _place(value: object) -> tuple:
    return (value, "") if isinstance(value, (int, float)) else (math.inf, str(value))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
