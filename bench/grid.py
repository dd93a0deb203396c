"""Axes of a grid, as people write them, to configurations."""

import itertools
from collections.abc import Callable, Sequence

from melcnn.config import SETTINGS, SHUFFLING_VARIANTS, Trial, configure, descriptions
from melcnn.errors import InputError

# The study's two axes, by the names that the command line knows them by.
PRESETS = {"groups": ("groups", (1, 2, 4, 8, 16)), "mels": ("n_mels", (20, 40, 80))}

# More would be a slip of the keyboard: at a second a seed, three hours.
MOST_SEEDS = 10_000


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
    same = [t for t in trials if t.model.groups == 1 and t.model.variant in SHUFFLING_VARIANTS and _plain(t) in trials]
    named = descriptions(trials) if same else {}
    for trial in same:
        note(f"left out {named[trial]}: of one group it is the plain network")
        trials.remove(trial)
    for chosen, error in impossible:
        note(f"left out {' '.join(f'{k}={v}' for k, v in chosen.items())}: {error}")
    return trials


def _plain(trial: Trial) -> Trial:
    return trial.model_copy(update={"model": trial.model.model_copy(update={"variant": "plain"})})


def check_seeds(seeds: int) -> None:
    if not 1 <= seeds <= MOST_SEEDS:
        raise InputError(f"--seeds {seeds} is out of range: give 1 to {MOST_SEEDS}")
