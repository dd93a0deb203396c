"""Stand-ins for trainings, for tests of what becomes of them."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.executors import jobs, processes
from bench.executors.events import EpochDone, Finished, Planned, Stage, Started
from bench.executors.jobs import Failure, JobOutcome, TrainedStack
from melcnn import InputError
from melcnn.kernels import cuda
from melcnn.training import Curves, Epoch, TrainedNetwork

# Seconds after which a test fails for want of what should have happened long before: the machine may be busy.
PATIENCE_SECONDS = 300


def on_events(finished=None, started=None, epoch=None, stage=None, planned=None):
    """A receiver of events that passes their fields on: `finished(job, outcome)`, `started(job)`, `epoch(job, seeds,
    epoch)`, `stage(text)` and `planned(trials)`."""

    def on_event(event):
        match event:
            case Finished(job, outcome):
                return finished and finished(job, outcome)
            case Started(job):
                return started and started(job)
            case EpochDone(job, seeds, done):
                return epoch and epoch(job, seeds, done)
            case Stage(text):
                return stage and stage(text)
            case Planned(trials):
                return planned and planned(trials)

    return on_event


def run_of(seed, clips=16, loss=0.5, accuracy=0.75) -> TrainedNetwork:
    """A network that nobody trained, with logits for so many clips in validation and in test."""
    logits = torch.zeros(clips, 2)
    return TrainedNetwork(
        seed=seed,
        kernels="torch",
        network=None,
        curves=Curves([loss], [loss], [accuracy]),
        kept_epoch=1,
        validation_logits=logits,
        test_logits=logits,
        validation_accuracy=accuracy,
        test_accuracy=accuracy,
    )


def stand_in(monkeypatch, training):
    """Trains by `training(trial, seeds, on_epoch)`, which returns the runs."""
    monkeypatch.setattr(jobs, "fit", lambda trial, x, seeds, on_epoch, kernels: training(trial, seeds, on_epoch))


# What workers do in place of training: named by functions, which processes find again.


def learned(job, features, on_epoch, environment) -> JobOutcome:
    """All goes well, at once."""
    return JobOutcome([TrainedStack(job.seeds, [run_of(seed) for seed in job.seeds], [0.1])], [], environment)


def killed_by_seed_1(job, features, on_epoch, environment) -> JobOutcome:
    """Whatever process trains seed 1 is killed."""
    if 1 in job.seeds:
        os.kill(os.getpid(), signal.SIGKILL)
    return learned(job, features, on_epoch, environment)


def killed_once(job, features, on_epoch, environment) -> JobOutcome:
    """The first process that trains seed 1 is killed. That there was one, a file says, in the folder that the words of
    the trial name."""
    mark = Path(job.trial.data.words[0])
    if 1 in job.seeds and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return learned(job, features, on_epoch, environment)


def endless(job, features, on_epoch, environment) -> JobOutcome:
    """Trains until it is ended."""
    number = 0
    while True:
        number += 1
        time.sleep(0.01)
        on_epoch(job.seeds, Epoch(number, [0.5] * len(job.seeds), [True] * len(job.seeds)))


@dataclass(frozen=True)
class HeldOn:
    """Trains on all nodes of a Ray cluster but one, where jobs begin and do not end; none begins elsewhere before one
    has begun there, as the file `begun` says."""

    node: str
    begun: Path

    def __call__(self, job, features, on_epoch, environment) -> JobOutcome:
        import ray

        deadline = time.monotonic() + PATIENCE_SECONDS
        if ray.get_runtime_context().get_node_id() == self.node:
            self.begun.touch()
            time.sleep(PATIENCE_SECONDS)
        while not self.begun.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return jobs.train_job(job, features, on_epoch, environment)


def refused(job, features, on_epoch, environment) -> JobOutcome:
    raise InputError("of these data nothing can be trained")


# The variable that names a file, which says that a process was started before.
MARK = "MELBENCH_TEST_MARK"
_serve = processes._serve


def come_up_the_second_time(*arguments) -> None:
    """A worker's life, of which the first one ends at once."""
    mark = Path(os.environ[MARK])
    if not mark.exists():
        mark.touch()
        os._exit(1)
    _serve(*arguments)


def come_up_the_first_time(*arguments) -> None:
    """A worker's life, of which only the first one begins."""
    try:
        Path(os.environ[MARK]).touch(exist_ok=False)
    except FileExistsError:
        os._exit(1)
    _serve(*arguments)


def precise(job, features, on_epoch, environment) -> JobOutcome:
    """It fails, and says in which precision CUDA computes here."""
    return JobOutcome([], [Failure(seed, job.seeds, "error", cuda.precision()) for seed in job.seeds], environment)
