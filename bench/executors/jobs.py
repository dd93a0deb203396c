"""A stack of networks in training, wherever it runs, and its outcome: failures are results like others.

Knows no executor; executors bring jobs here.
"""

import gc
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch

from bench.records import FailureKind
from bench.system.environment import Environment
from melcnn.config import FrontEnd, Trial
from melcnn.data.clips import ClipSet, Fold
from melcnn.errors import InputError, TrainingDiverged, first_line, visible
from melcnn.features import Features, extract
from melcnn.training import Curves, Epoch, TrainedNetwork, fit

# How errors without a type of their own say that memory is short: torch's CPU allocator, CUDA, its libraries.
NO_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")

# Characters of a log that are kept: the cause stands at its end.
MAX_LOG_CHARACTERS = 20_000


@dataclass(frozen=True)
class TrainingJob:
    """Seeds of one configuration to train side by side.

    Attributes:
        kernels: the kernels that train them, "melcnn" or "torch"; None: the faster.
        fold: the fold that its clips are, if they are one.
    """

    trial: Trial
    seeds: tuple[int, ...]
    kernels: str | None = None
    fold: Fold | None = None


@dataclass(frozen=True)
class TrainedStack:
    """Networks that were trained side by side.

    Attributes:
        seeds: all seeds of the stack, failed ones included.
        networks: those that did not fail.
        elapsed: seconds from the start of the training to the end of each epoch.
    """

    seeds: tuple[int, ...]
    networks: list[TrainedNetwork]
    elapsed: list[float]


@dataclass(frozen=True)
class Failure:
    """A seed that gave no network.

    Attributes:
        stack: the seeds that it was trained with.
        message: one line.
        log: where the error was raised, or the training's curves.
        epoch: the last epoch that ended well; 0 if none did.
    """

    seed: int
    stack: tuple[int, ...]
    kind: FailureKind
    message: str
    log: str = ""
    epoch: int = 0


@dataclass(frozen=True)
class JobOutcome:
    """The outcome of a job: each of its seeds has a network or a failure.

    Attributes:
        environment: where it was trained; None if that is unknown.
        device_lost: the error after which the device of this process stopped to answer; empty if it answers. Seeds that
            shared the device then have neither network nor failure: another seed may be to blame.
        where: the machine of a lost device, if it is another one.
    """

    stacks: list[TrainedStack]
    failures: list[Failure]
    environment: Environment | None = None
    device_lost: str = ""
    where: str = ""

    @property
    def networks(self) -> list[TrainedNetwork]:
        """All networks, of all stacks."""
        return [network for stack in self.stacks for network in stack.networks]

    def settled(self, job: TrainingJob) -> tuple[int, ...]:
        """Return the seeds of the job that have a network or a failure."""
        done = {network.seed for network in self.networks} | {failure.seed for failure in self.failures}
        return tuple(seed for seed in job.seeds if seed in done)

    def without_networks(self) -> "JobOutcome":
        """Return the outcome as a worker sends it: weights stay where they were trained."""

        def without(network: TrainedNetwork) -> TrainedNetwork:
            return replace(network, network=None)  # type: ignore[arg-type]  # records need no weights

        return replace(
            self, stacks=[replace(s, networks=[without(network) for network in s.networks]) for s in self.stacks]
        )


# Opens the features of a front-end for as long as a job needs them.
FeatureSource = Callable[[FrontEnd], AbstractContextManager[Features]]
# Called after each epoch with the seeds that are trained side by side.
OnEpoch = Callable[[Sequence[int], Epoch], None]
# Trains a job: `train_job`, or a stand-in.
TrainFunction = Callable[[TrainingJob, FeatureSource, OnEpoch, Environment], JobOutcome]


def train_job(
    job: TrainingJob,
    features: FeatureSource,
    on_epoch: OnEpoch,
    environment: Environment,
    now: Callable[[], float] = time.perf_counter,
) -> JobOutcome:
    """Train the networks of a job.

    A stack that does not fit into the memory, or raises, is trained in halves, down to single seeds, so that no seed
    fails because of another.

    Args:
        environment: where this runs; it goes into the outcome.
        now: the clock, in seconds.

    Raises:
        InputError: for data that nothing can be trained on.
        Exception: whatever `on_epoch` raises.
    """
    import_compiler()
    try:
        with features(job.trial.front_end) as opened:
            return _train_in_parts(job, opened, on_epoch, environment, now)
    except InputError:
        raise
    except _CallbackFailed as error:
        raise error.error from None
    except Exception as error:  # The features failed, so no stack can be trained.
        kind, message, log = _described(error)
    if _device_lost():
        return JobOutcome([], [], environment, message)
    return JobOutcome([], [Failure(seed, job.seeds, kind, message, log) for seed in job.seeds], environment)


def import_compiler() -> None:
    """Import torch's compiler, as the first optimiser would: that second belongs to no training's time."""
    import torch._dynamo  # noqa: F401


def _train_in_parts(
    job: TrainingJob, features: Features, on_epoch: OnEpoch, environment: Environment, now: Callable[[], float]
) -> JobOutcome:
    trained: list[TrainedStack] = []
    failures: list[Failure] = []
    waiting, lost = [job.seeds], ""
    while waiting and not lost:
        seeds = waiting.pop(0)
        stack, failed = _train_stack(job, seeds, features, on_epoch, now)
        trained += [stack] * bool(stack.networks)
        lost = failed[0].message if failed and _device_lost() else ""
        # A network that diverged did so by itself; another error of the stack need not concern each of its seeds.
        if len(seeds) > 1 and failed and failed[0].kind != "diverged":
            waiting[:0] = [seeds[: len(seeds) // 2], seeds[len(seeds) // 2 :]]
            continue
        failures += failed
    return JobOutcome(trained, failures, environment, lost)


def _train_stack(
    job: TrainingJob, seeds: tuple[int, ...], features: Features, on_epoch: OnEpoch, now: Callable[[], float]
) -> tuple[TrainedStack, list[Failure]]:
    """Train one stack; each seed has a network or a failure."""
    start = now()
    elapsed: list[float] = []

    def epoch_done(epoch: Epoch) -> None:
        elapsed.append(now() - start)
        try:
            on_epoch(seeds, epoch)
        except Exception as error:  # An error of the callback is no failure of the training.
            raise _CallbackFailed(error) from error

    diverged: Mapping[int, Curves] = {}
    networks: list[TrainedNetwork] | None = None
    try:
        networks = fit(job.trial, features, seeds, epoch_done, job.kernels)
    except InputError:
        raise
    except TrainingDiverged as error:
        networks, diverged = error.runs, error.curves
    except Exception as error:
        kind, message, log = _described(error)
    if networks is None:
        # Only here: until the handler's end the error held all that the training held.
        gc.collect()
        if torch.cuda.is_initialized():
            with suppress(RuntimeError):
                torch.cuda.empty_cache()
        return TrainedStack(seeds, [], elapsed), [Failure(s, seeds, kind, message, log, len(elapsed)) for s in seeds]
    diverged = {**diverged, **{network.seed: network.curves for network in networks if not _finite(network)}}
    failures = [_diverged(seed, seeds, curves, job.trial) for seed, curves in diverged.items()]
    kept = [network for network in networks if network.seed not in diverged]
    return TrainedStack(seeds, kept, elapsed), failures


class _CallbackFailed(BaseException):
    """Carries an exception of a callback past the handlers of training errors."""

    def __init__(self, error: Exception):
        super().__init__()
        self.error = error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory was short, on the device or on the host."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)


def _described(error: Exception) -> tuple[FailureKind, str, str]:
    """Return kind, message and log as texts, which keep nothing alive that the error holds."""
    kind: FailureKind = "out of memory" if is_out_of_memory(error) else "error"
    return kind, visible(first_line(error)), "".join(traceback.format_exception(error))[-MAX_LOG_CHARACTERS:]


def _device_lost() -> bool:
    """Return whether CUDA, if this process uses it, answers every call with an error, as after one in a kernel."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _finite(network: TrainedNetwork) -> bool:
    """Return whether a network's last losses and its logits are finite."""
    ends = [*network.curves.train_loss[-1:], *network.curves.validation_loss[-1:]]
    return all(map(math.isfinite, ends)) and all(
        bool(logits.isfinite().all()) for logits in (network.validation_logits, network.test_logits)
    )


def _diverged(seed: int, stack: tuple[int, ...], curves: Curves, trial: Trial) -> Failure:
    names = ("training loss", "validation loss", "validation accuracy")
    # Without validation clips the last two are empty.
    epochs = list(zip_longest(curves.train_loss, curves.validation_loss, curves.validation_accuracy))
    log = [
        f"epoch {number}: {', '.join(f'{n} {v:.6g}' for n, v in zip(names, values, strict=True) if v is not None)}"
        for number, values in enumerate(epochs, 1)
    ]
    good = [all(v is None or math.isfinite(v) for v in values) for values in epochs]
    epoch = good.index(False) if False in good else len(good)
    what = f"the loss is not finite from epoch {epoch + 1} on" if False in good else "the outputs are not finite"
    message = f"{what}: lower learning_rate (it is {trial.training.learning_rate:g})"
    return Failure(seed, stack, "diverged", message, "\n".join(log)[-MAX_LOG_CHARACTERS:], epoch)


class LatestFeatures:
    """The features of one clip set on one device, for the front-end that was asked for last; a worker's own."""

    def __init__(self, clips: ClipSet, device: str):
        self.clips, self.device = clips, device
        self.made: Features | None = None

    @contextmanager
    def of(self, front_end: FrontEnd) -> Iterator[Features]:
        """Open the features of a front-end."""
        if self.made is None or self.made.front_end != front_end:
            self.made = None  # Freed before the next ones are made: both may not fit.
            self.made = extract(self.clips, front_end, self.device)
        yield self.made
