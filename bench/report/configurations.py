"""Names and looks of the configurations of a figure, and the sweeps that they were made by.

Records do not tell which command made them; their settings do.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.formats import Point
from bench.grid import axes_of
from bench.report.style import MOST_SHAPES
from melcnn.config import DEFAULT_RECIPE, SETTINGS, Trial, recipe_settings, settings_of, short_names, varying_settings

# The study's two axes, which figures stand over.
AXES = ("groups", "n_mels")

# A sweep has more than this share of the combinations of its settings: some cannot exist. Two sweeps of two values each
# that share a configuration have exactly this share, and are no sweep of two settings.
DENSE = 0.75
# More settings in one sweep would need hundreds of networks.
MOST_AXES = 3


@dataclass(frozen=True)
class Sweep:
    """Configurations that belong together, and what they are called."""

    name: str
    trials: tuple[Trial, ...]


def sweeps(trials: Sequence[Trial]) -> list[Sweep]:
    """Return the sweeps that the configurations are of, the largest first; a configuration may be in several.

    A sweep is a set that varies in few settings and has nearly all combinations of their values. Sweeps of two
    configurations stand together, and so does what is in no sweep.
    """
    settings = {trial: settings_of(trial) for trial in trials}
    names = varying_settings(list(settings.values())) if trials else []
    if len(names) <= 1 or _dense(names, settings):
        return [Sweep(", ".join(names), tuple(trials))]
    found: list[tuple[str, list[Trial]]] = []
    for size in range(1, MOST_AXES + 1):
        for axes in itertools.combinations(names, size):
            alike: dict[tuple, list[Trial]] = {}
            for trial, own in settings.items():
                alike.setdefault(tuple(own[name] for name in names if name not in axes), []).append(trial)
            found += [
                (_name(axes, names, settings[members[0]]), members)
                for members in alike.values()
                if _dense(axes, {trial: settings[trial] for trial in members})
            ]
    found.sort(key=lambda one: -len(one[1]))
    covered: set[Trial] = set()
    chosen = []
    for name, members in found:
        if not covered.issuperset(members):
            chosen.append(Sweep(name, tuple(members)))
            covered |= {*members}
    pairs = [one for one in chosen if len(one.trials) == 2]
    if len(pairs) > 1:
        together = {trial for one in pairs for trial in one.trials}
        chosen = [one for one in chosen if one not in pairs]
        chosen.append(Sweep("one setting at a time", tuple(trial for trial in trials if trial in together)))
    if rest := tuple(trial for trial in trials if trial not in covered):
        chosen.append(Sweep("other configurations", rest))
    return chosen if len(chosen) > 1 else [Sweep(", ".join(names), tuple(trials))]


def _dense(axes: Sequence[str], settings: Mapping[Trial, Mapping[str, Any]]) -> bool:
    """Return whether all axes vary, and nearly all combinations of their values are there, or all that can exist."""
    counts = [len({own[name] for own in settings.values()}) for name in axes]
    if min(counts) == 1 or len(counts) == 1:
        return min(counts) > 1
    return len(settings) > DENSE * math.prod(counts) or axes_of(list(settings)) is not None


def _differing(own: Mapping[str, Any], varying: Sequence[str]) -> str:
    """Return the groups, and what of the varying settings is not the default."""
    expected = recipe_settings(own["recipe"]) | {"recipe": DEFAULT_RECIPE}
    shown = [name for name in SETTINGS if name == "groups" or (name in varying and own[name] != expected[name])]
    return " ".join(f"{name}={own[name]}" for name in shown)


def _name(axes: Sequence[str], varying: Sequence[str], own: Mapping[str, Any]) -> str:
    """Return the axes, with the values of what varies elsewhere and is not the default here."""
    expected = recipe_settings(own["recipe"]) | {"recipe": DEFAULT_RECIPE}
    fixed = [f"{name}={own[name]}" for name in varying if name not in axes and own[name] != expected[name]]
    return ", ".join(axes) + (f" ({' '.join(fixed)})" if fixed else "")


@dataclass(frozen=True)
class KeyTitles:
    """The titles of the two keys that tell configurations apart in figures; equal where both are one."""

    colour: str
    shape: str


def about(trials: Sequence[Trial], made: Sequence[Sweep]) -> tuple[dict[Trial, Point], KeyTitles]:
    """Return what a point says of its configuration, and the titles of its keys.

    Colour and shape are the same in all figures. Both are of the one setting that varies; else the setting with most
    values has the colour, and the others have the shape. Of several sweeps both are the sweep's.

    Args:
        made: the sweeps of the configurations.
    """
    settings = {trial: settings_of(trial) for trial in trials}
    names = varying_settings(list(settings.values())) if trials else []
    named, (titles, looks) = short_names(trials), _looks(settings, names, made)
    if len(made) > 1:
        # Most settings of most configurations are the defaults.
        named = {trial: _differing(own, names) for trial, own in settings.items()}

    def beside(axis: str, own: Mapping[str, Any]) -> str:
        return " ".join(f"{name}={own[name]}" for name in names if name != axis)

    return {
        trial: {
            "configuration": named[trial],
            "groups": own["groups"],
            "n_mels": own["n_mels"],
            **{f"beside_{axis}": beside(axis, own) for axis in AXES},
            "colour": looks[trial][0],
            "shape": looks[trial][1],
        }
        for trial, own in settings.items()
    }, titles


def _looks(
    settings: Mapping[Trial, Mapping[str, Any]], names: Sequence[str], made: Sequence[Sweep]
) -> tuple[KeyTitles, dict[Trial, tuple[str, str]]]:
    if len(made) > 1:
        sweep = {trial: one.name for one in reversed(made) for trial in one.trials}
        return KeyTitles("sweep", "sweep"), {trial: (sweep[trial],) * 2 for trial in settings}
    if len(names) == 1:
        return KeyTitles(names[0], names[0]), {trial: (str(own[names[0]]),) * 2 for trial, own in settings.items()}
    if names:
        first = max(names, key=lambda name: len({own[name] for own in settings.values()}))
        others = [name for name in names if name != first]

        def shape(own: Mapping[str, Any]) -> str:
            return str(own[others[0]]) if len(others) == 1 else " ".join(f"{name}={own[name]}" for name in others)

        if len({shape(own) for own in settings.values()}) <= MOST_SHAPES:
            looks = {trial: (str(own[first]), shape(own)) for trial, own in settings.items()}
            return KeyTitles(first, ", ".join(others)), looks
    return KeyTitles("", ""), {trial: (name, name) for trial, name in short_names(list(settings)).items()}
