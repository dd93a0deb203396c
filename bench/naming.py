"""Configurations by what tells them apart: what all have in common is known to whoever asked for them."""

from collections.abc import Sequence

from melcnn.config import Trial, describe, settings_of, telling


def names(trials: Sequence[Trial]) -> dict[Trial, str]:
    """Each configuration's name among `trials`, such as `groups=4 n_mels=80`."""
    settings = {trial: settings_of(trial) for trial in trials}
    shown = telling(list(settings.values())) if trials else []
    return {
        trial: " ".join(f"{name}={own[name]}" for name in shown) or describe(trial, trials)
        for trial, own in settings.items()
    }
