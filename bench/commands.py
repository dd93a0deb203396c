"""The commands that make records again: the fewest grids that are exactly the configurations that are there."""

import math
import shlex
from collections.abc import Sequence

from bench.gathering import Chapter
from bench.records import TrialRecord
from bench.sweep import parse_axes, plan
from melcnn.config import SETTINGS, Data, Trial, settings_of, telling, usual
from melcnn.errors import InputError

# The recipe that sweeps take where nobody says otherwise.
RECIPE = "default"

# Of the data sets that everybody can get; others are somebody's own folder.
DATA = {"speech_commands": "", "synthetic": "--data synthetic"}


def of_chapter(chapter: Chapter) -> list[str]:
    """Commands for the chapter's trials and its folds. A configuration that no command can name is left out."""
    return [
        *_commands("sweep", chapter.trials, chapter.dataset),
        *_commands("recommend", chapter.folds, chapter.dataset),
    ]


def _commands(name: str, records: Sequence[TrialRecord], dataset: str) -> list[str]:
    seeds_of: dict[Trial, int] = {}
    for record in records:
        seeds_of[record.trial] = max(seeds_of.get(record.trial, 0), record.seed + 1)
    options = shlex.split(DATA.get(dataset, "--data my_recordings"))
    if records and (words := records[0].trial.data.words) != Data().words:
        options += ["--words", ",".join(words)]
    return [
        shlex.join(["melbench", name, *axes, *options, "--seeds", str(seeds)])
        for seeds in sorted(set(seeds_of.values()), reverse=True)
        for axes in _grids([trial for trial, many in seeds_of.items() if many == seeds])
    ]


def _grids(trials: Sequence[Trial]) -> list[list[str]]:
    """Axes, as `melbench sweep` takes them, of grids that together are `trials`."""
    if axes := _grid(trials):
        return [axes]
    settings = [settings_of(trial) for trial in trials]
    # Parted by what has the fewest values, so that the parts are large.
    values = {name: list(dict.fromkeys(own[name] for own in settings)) for name in telling(settings)}
    if not values:
        return []
    name = min(values, key=lambda name: len(values[name]))
    parts = [[t for t, own in zip(trials, settings, strict=True) if own[name] == value] for value in values[name]]
    return [grid for part in parts for grid in _grids(part)]


def _grid(trials: Sequence[Trial]) -> list[str] | None:
    """The axes of one grid that is exactly `trials`, or None if there is none."""
    settings = [settings_of(trial) for trial in trials]
    expected = usual(settings[0]["recipe"])
    varying = telling(settings) or ["groups"]
    named = [name for name in SETTINGS if name in varying or (name != "recipe" and settings[0][name] != expected[name])]
    if settings[0]["recipe"] != RECIPE and "recipe" not in named:
        named.insert(0, "recipe")
    values = {name: sorted({own[name] for own in settings}, key=_place) for name in named}
    # With combinations that cannot exist, which a sweep leaves out, a grid has hardly more.
    if math.prod(map(len, values.values())) > 2 * len(trials):
        return None
    axes = [f"{name}={','.join(map(_text, each))}" for name, each in values.items()]
    recipe = {} if "recipe" in values else {"recipe": RECIPE}
    try:
        made = plan(parse_axes(axes), lambda text: None, words=trials[0].data.words, **recipe)
    except InputError:
        return None
    return axes if set(made) == set(trials) else None


def _place(value: object) -> tuple:
    return (value, "") if isinstance(value, (int, float)) else (math.inf, str(value))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
