"""What a sweep tells of its training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from melcnn.config import Trial


@dataclass(frozen=True)
class Standing:
    """A configuration before training begins: the networks wanted of it, and the validation accuracies (NaN without
    validation clips) of those that are finished already, by fold ("" where there are none) and seed."""

    trial: Trial
    networks: int
    finished: Mapping[tuple[str, int], float]


@dataclass(frozen=True)
class Status:
    """Where a stack is: epochs done, and the best validation accuracies so far, by seed (NaN without validation clips).

    ended: it is trained and its results are kept; the accuracies are those of what is kept, NaN for the seeds that
    failed. fold: as `Standing` says.
    """

    trial: Trial
    seeds: tuple[int, ...]
    epoch: int
    accuracies: tuple[float, ...]
    ended: bool = False
    fold: str = ""
    failed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Listener:
    """Whom a sweep tells what it does, one call at a time but from several threads.

    note hears one-line notices; begin, all configurations before any is trained; status, each stack as it begins, after
    each epoch or now and then, and as it ends; stage, what is done instead of training.
    """

    note: Callable[[str], None] = lambda text: None
    begin: Callable[[Sequence[Standing]], None] = lambda standings: None
    status: Callable[[Status], None] = lambda status: None
    stage: Callable[[str], None] = lambda text: None
