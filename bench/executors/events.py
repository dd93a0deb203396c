"""Progress events of trainings: executors and sweeps emit them, a progress view shows them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.executors.jobs import JobOutcome, TrainingJob
from melcnn.config import Trial
from melcnn.data.clips import Fold
from melcnn.training import Epoch


@dataclass(frozen=True)
class PlannedTrial:
    """A configuration before training begins.

    Attributes:
        networks: networks wanted, over all seeds and folds.
        finished: validation accuracies of the networks that exist already, by fold (None: no cross-validation) and
            seed; NaN without validation clips.
    """

    trial: Trial
    networks: int
    finished: Mapping[tuple[Fold | None, int], float]


@dataclass(frozen=True)
class Planned:
    """The first event: all configurations."""

    trials: tuple[PlannedTrial, ...]


@dataclass(frozen=True)
class Started:
    """A job begins."""

    job: TrainingJob


@dataclass(frozen=True)
class EpochDone:
    """A job has finished an epoch; `seeds` are those that it trains side by side."""

    job: TrainingJob
    seeds: tuple[int, ...]
    epoch: Epoch


@dataclass(frozen=True)
class Finished:
    """A job has ended; every seed of it is in the outcome."""

    job: TrainingJob
    outcome: JobOutcome


@dataclass(frozen=True)
class Stage:
    """Work other than training begins."""

    text: str


Event = Planned | Started | EpochDone | Finished | Stage
OnEvent = Callable[[Event], None]
