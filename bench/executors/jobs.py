"""A stack of networks in training, wherever that is, and what comes of it: failures are results like others.

Knows no executor, which brings jobs here; records are made of what comes of them.
"""

import gc
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest

import torch

from bench.records import FailureKind
from bench.system.environment import Environment
from melcnn.config import FrontEnd, Trial
from melcnn.data.clips import ClipSet
from melcnn.errors import InputError, TrainingDiverged, first_line, visible
from melcnn.features import Features, extract
from melcnn.training import Curves, Epoch, TrainedNetwork, fit

# What says that memory is short in errors without a type of their own: of torch's CPU allocator, CUDA, its libraries.
NO_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")

# Of a log: where the error came up stands at its end.
LONGEST_LOG = 20_000


@dataclass(frozen=True)
class TrainingJob:
    """Seeds of one configuration to train side by side. kernels: whose convolutions train them; None: the faster."""

    trial: Trial
    seeds: tuple[int, ...]
    kernels: str | None = None


@dataclass(frozen=True)
class TrainedStack:
    """The runs of a stack, of the seeds that were trained side by side, less those that failed; and the seconds from
    the beginning of its training to the end of each epoch."""

    stack: tuple[int, ...]
    runs: list[TrainedNetwork]
    elapsed: list[float]


@dataclass(frozen=True)
class Failure:
    """A seed that gave no network, and the stack that it was in. message: one line. log: where the error came up, or
    what was heard of the training. epoch: the last one that ended well; 0: none."""

    seed: int
    stack: tuple[int, ...]
    kind: FailureKind
    message: str
    log: str = ""
    epoch: int = 0


@dataclass(frozen=True)
class JobOutcome:
    """What came of a job: each of its seeds is in a run or failed.

    environment: where it was trained; None: nobody knows. device_lost: what was said as the device ceased to answer in
    this process; empty: it answers. Seeds that were not trained alone then are in neither: it may be another's fault.
    where: the machine, of a lost device, if it may be another one.
    """

    trained: list[TrainedStack]
    failures: list[Failure]
    environment: Environment | None = None
    device_lost: str = ""
    where: str = ""

    def settled(self, job: TrainingJob) -> tuple[int, ...]:
        """The seeds of the job that are in a run or failed."""
        done = {run.seed for trained in self.trained for run in trained.runs} | {each.seed for each in self.failures}
        return tuple(seed for seed in job.seeds if seed in done)


# Where a job finds the features of a front-end, for as long as it needs them.
FeatureSource = Callable[[FrontEnd], AbstractContextManager[Features]]
# Hears after each epoch which seeds are trained side by side, and how far they are.
Hear = Callable[[Sequence[int], Epoch], None]
# Does a job; `do`, but for simulations.
TrainFunction = Callable[[TrainingJob, FeatureSource, Hear, Environment], JobOutcome]


def train_job(
    job: TrainingJob,
    features: FeatureSource,
    hear: Hear,
    environment: Environment,
    now: Callable[[], float] = time.perf_counter,
) -> JobOutcome:
    """Trains the job's networks, in `environment`. A stack that does not fit into the memory, or raises, is trained in
    halves, down to single seeds, so that no seed fails for another's sake.

    Raises `InputError` for data that nothing can be trained on, and whatever `hear` raises.
    """
    import_compiler()
    try:
        with features(job.trial.front_end) as found:
            return _in_parts(job, found, hear, environment, now)
    except InputError:
        raise
    except _NotHeard as error:
        raise error.__cause__ from None
    except Exception as error:  # Of the features, without which no stack is trained.
        told = _told(error)
    if _device_lost():
        return JobOutcome([], [], environment, told[1])
    return JobOutcome([], [Failure(seed, job.seeds, *told) for seed in job.seeds], environment)


def import_compiler() -> None:
    """Has imported what torch imports with the first optimiser, its compiler: a second that is no training's."""
    import torch._dynamo  # noqa: F401


def _in_parts(
    job: TrainingJob, features: Features, hear: Hear, environment: Environment, now: Callable[[], float]
) -> JobOutcome:
    trained: list[TrainedStack] = []
    failures: list[Failure] = []
    waiting, lost = [job.seeds], ""
    while waiting and not lost:
        stack = waiting.pop(0)
        found, failed = _side_by_side(job, stack, features, hear, now)
        trained += [found] * bool(found.runs)
        lost = failed[0].message if failed and _device_lost() else ""
        # A network that diverged did so by itself; what raises for one of a stack need not for its neighbours.
        if len(stack) > 1 and failed and failed[0].kind != "diverged":
            waiting[:0] = [stack[: len(stack) // 2], stack[len(stack) // 2 :]]
            continue
        failures += failed
    return JobOutcome(trained, failures, environment, lost)


def _side_by_side(
    job: TrainingJob, stack: tuple[int, ...], features: Features, hear: Hear, now: Callable[[], float]
) -> tuple[TrainedStack, list[Failure]]:
    """Trains a stack; what is not in the runs failed."""
    start, elapsed = now(), []

    def on_epoch(epoch: Epoch) -> None:
        elapsed.append(now() - start)
        try:
            hear(stack, epoch)
        except Exception as error:  # Of whoever listens: no failure of the training.
            raise _NotHeard from error

    diverged: Mapping[int, Curves] = {}
    try:
        runs = fit(job.trial, features, stack, on_epoch, job.kernels)
    except InputError:
        raise
    except TrainingDiverged as error:
        runs, diverged = error.runs, error.curves
    except Exception as error:
        told = _told(error)
        runs = None
    if runs is None:
        # Not before: until here the error held what the training held.
        gc.collect()
        if torch.cuda.is_initialized():
            with suppress(RuntimeError):
                torch.cuda.empty_cache()
        return TrainedStack(stack, [], elapsed), [Failure(seed, stack, *told, epoch=len(elapsed)) for seed in stack]
    diverged = {**diverged, **{run.seed: run.curves for run in runs if not _finite(run)}}
    failures = [_of_diverged(seed, stack, curves, job.trial) for seed, curves in diverged.items()]
    return TrainedStack(stack, [run for run in runs if run.seed not in diverged], elapsed), failures


class _NotHeard(BaseException):
    pass


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, on the device or beside it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)


def _told(error: Exception) -> tuple[FailureKind, str, str]:
    """Kind, message and log, which hold nothing of what the error holds."""
    kind = "out of memory" if is_out_of_memory(error) else "error"
    return kind, visible(first_line(error)), "".join(traceback.format_exception(error))[-LONGEST_LOG:]


def _device_lost() -> bool:
    """Whether CUDA, if this process uses it, answers every call with an error, as after one in a kernel."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _finite(run: TrainedNetwork) -> bool:
    """Whether a network's last losses and its logits are finite."""
    ends = [*run.curves.train_loss[-1:], *run.curves.validation_loss[-1:]]
    return all(map(math.isfinite, ends)) and all(
        bool(logits.isfinite().all()) for logits in (run.validation_logits, run.test_logits)
    )


def _of_diverged(seed: int, stack: tuple[int, ...], curves: Curves, trial: Trial) -> Failure:
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
    return Failure(seed, stack, "diverged", message, "\n".join(log)[-LONGEST_LOG:], epoch)


class LatestFeatures:
    """The features of one clip set on one device, of the front-end that was asked for last: a worker's only."""

    def __init__(self, clips: ClipSet, device: str):
        self.clips, self.device = clips, device
        self.made: Features | None = None

    @contextmanager
    def of(self, front_end: FrontEnd) -> Iterator[Features]:
        if self.made is None or self.made.front_end != front_end:
            self.made = None  # Before the next ones are there: two may be too many.
            self.made = extract(self.clips, front_end, self.device)
        yield self.made
