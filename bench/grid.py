"""Axes of a grid, as people write them, to configurations."""

import itertools
import logging
import math
import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from melcnn.config import (
    DEFAULT_RECIPE,
    SETTINGS,
    SHUFFLING_VARIANTS,
    Data,
    Trial,
    configure,
    descriptions,
    recipe_settings,
    settings_of,
    varying_settings,
)
from melcnn.errors import InputError, did_you_mean

log = logging.getLogger(__name__)

# The study's two axes, by their names on the command line.
PRESETS: dict[str, tuple[str, tuple[int, ...]]] = {
    "groups": ("groups", (1, 2, 4, 8, 16)),
    "mels": ("n_mels", (20, 40, 80)),
}

# More would be a typing error: at a second a seed, they take three hours.
MAX_SEEDS = 10_000


def parse_axes(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Return setting names and their values from `["groups"]`, `["mels"]` or `["n_mels=20,40", "groups=1,2"]`.

    Raises:
        InputError: for an axis that does not exist, has no values, or is given twice.
    """
    axes: dict[str, list[Any]] = {}
    parsed: list[Any]
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals:
            if name not in PRESETS:
                raise InputError(
                    f"there is no axis {text!r}{did_you_mean(text, PRESETS)}: use {', '.join(PRESETS)}, or "
                    f"name=value,value, such as groups=1,2, with a name of {', '.join(SETTINGS)}"
                )
            name, parsed = PRESETS[name][0], [*PRESETS[name][1]]
        elif name not in SETTINGS:
            hint = did_you_mean(name, SETTINGS)
            raise InputError(f"there is no setting {name!r}{hint}: the settings are {', '.join(SETTINGS)}")
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


def single(
    axes: Sequence[str],
    words: Sequence[str] = ("yes", "no"),
    recipe: str | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Trial:
    """Return the one configuration that axes such as `["groups=4", "variant=shuffle"]` name.

    Args:
        recipe, batch_size, epochs: as in `plan`.
        options: further settings by name; None: not given.

    Raises:
        InputError: if an axis has several values, or a setting is given both ways.
    """
    grid = parse_axes(axes)
    if several := next((name for name, values in grid.items() if len(values) > 1), None):
        raise InputError(f"{several} has several values: this command takes one configuration, such as {several}=4")
    given = {name: [value] for name, value in options.items() if value is not None}
    if clash := next((name for name in given if name in grid), None):
        raise InputError(f"{clash} is both an axis and an option: give it once")
    return plan(grid | given, words, recipe, batch_size, epochs)[0]


def axes_of(trials: Sequence[Trial]) -> list[str] | None:
    """Return the axes of the grid that is exactly `trials`; None if there is none, or no axes can name them."""
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


def train_command(trial: Trial, options: Sequence[str] = ()) -> str:
    """Return the shell command that trains `trial` and keeps the network; empty if no axes can name it.

    Args:
        options: further arguments, such as those that name the data.
    """
    if (axes := axes_of([trial])) is None:
        return ""
    words = trial.data.words
    named = [] if words == Data().words else ["--words", ",".join(words)]
    return shlex.join(["melbench", "train", *axes, *named, *options, "-o", "network.safetensors"])


def plan(
    axes: Mapping[str, list[Any]],
    words: Sequence[str] = ("yes", "no"),
    recipe: str | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
) -> list[Trial]:
    """Return the grid of trials over `axes`, and log the combinations that are left out.

    Args:
        recipe, batch_size, epochs: for all trials; None: plain, and the recipe's. An axis `recipe` takes precedence.

    Raises:
        InputError: if no combination can exist, or a setting is both an axis and an option.
    """
    trials, left_out = expand(axes, words, recipe, batch_size, epochs)
    for text in left_out:
        log.warning(f"left out {text}")
    return trials


def expand(
    axes: Mapping[str, list[Any]],
    words: Sequence[str] = ("yes", "no"),
    recipe: str | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
) -> tuple[list[Trial], list[str]]:
    """Return what `plan` does, and the combinations that are left out, each with its reason."""
    given = {"recipe": None if "recipe" in axes else recipe or "plain", "batch_size": batch_size, "epochs": epochs}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if clash := next((name for name in axes if name in settings), None):
        raise InputError(f"{clash} is both an axis and an option: give it once")
    # In the order of the settings, front-end first: the features of one front-end are then needed in one go.
    ordered = {name: axes[name] for name in SETTINGS if name in axes}
    trials: list[Trial] = []
    impossible: list[tuple[dict[str, Any], InputError]] = []
    for values in itertools.product(*ordered.values()):
        chosen = dict(zip(ordered, values, strict=True))
        try:
            trials.append(configure(tuple(words), **settings, **chosen))
        except InputError as error:
            impossible.append((chosen, error))
    if not trials:
        raise impossible[0][1]
    if len({trial.canonical() for trial in trials}) < len(trials):
        raise InputError("the axes name a configuration twice, such as groups=1,01: name each once")
    # With one group there is nothing to exchange between groups.
    same = [t for t in trials if t.model.groups == 1 and t.model.variant in SHUFFLING_VARIANTS and _plain(t) in trials]
    named = descriptions(trials) if same else {}
    left_out = [f"{named[trial]}: of one group it is the plain network" for trial in same]
    left_out += [f"{' '.join(f'{k}={v}' for k, v in chosen.items())}: {error}" for chosen, error in impossible]
    return [trial for trial in trials if trial not in same], left_out


def _plain(trial: Trial) -> Trial:
    return trial.model_copy(update={"model": trial.model.model_copy(update={"variant": "plain"})})


def check_seeds(seeds: int) -> None:
    """Raise `InputError` unless so many seeds can be trained."""
    if not 1 <= seeds <= MAX_SEEDS:
        raise InputError(f"--seeds {seeds} is out of range: give 1 to {MAX_SEEDS}")
