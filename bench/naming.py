"""Configurations by what tells them apart: what all have in common is known to whoever asked for them."""

from collections.abc import Sequence

from melcnn.config import Trial, descriptions, settings_of, telling


def names(trials: Sequence[Trial]) -> dict[Trial, str]:
    """Each configuration's name among `trials`, such as `groups=4 n_mels=80`."""
    settings = {trial: settings_of(trial) for trial in trials}
    shown = telling(list(settings.values())) if trials else []
    if not shown:
        return descriptions(trials)
    return {trial: " ".join(f"{name}={own[name]}" for name in shown) for trial, own in settings.items()}
