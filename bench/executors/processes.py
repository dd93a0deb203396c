"""Training in processes of their own on this machine: a process that dies loses nothing but its own stack."""

import functools
import logging
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

import torch

from bench.executors.base import Capacity
from bench.executors.events import EpochDone, OnEvent
from bench.executors.jobs import JobOutcome, LatestFeatures, TrainFunction, TrainingJob, train_job
from bench.executors.retry import Lost, PoolEvent, dispatch
from bench.system import environment, monitor
from melcnn.data.clips import ClipSet
from melcnn.errors import Failed, InputError, first_line
from melcnn.kernels import cuda
from melcnn.training import Epoch

log = logging.getLogger(__name__)

T = TypeVar("T")

# A first loss may be due to whoever killed the process or took the memory; a second is likely the job's own fault.
TRIES = 2
# Wait for a process that has closed its pipe to exit: its exit code tells why.
ENDING_SECONDS = 30


@dataclass(eq=False)
class _Worker:
    """A process and the pipe to it.

    Attributes:
        ready: it has started up.
        has: the clips that it was given.
    """

    process: BaseProcess
    pipe: Connection
    ready: bool = False
    has: ClipSet | None = None


class Processes:
    """The executor of `count` processes: on the CPU each computes on one core, on CUDA each on a device of its own.

    A context; at its end no process is left.

    Raises:
        InputError: for more processes than there are CUDA devices.
    """

    def __init__(self, device: str, count: int, train: TrainFunction = train_job):
        self.devices = _visible_devices() if device == "cuda" else [None] * count
        if count > len(self.devices):
            raise InputError(
                f"--jobs {count}: torch sees {len(self.devices)} CUDA devices, and each process needs one of its own; "
                f"give --jobs {len(self.devices)} or fewer"
            )
        self.device, self.count, self.train = device, count, train
        self.workers: dict[int, _Worker] = {}

    @property
    def capacity(self) -> Capacity:
        free = monitor.free_bytes(self.device)
        return Capacity(self.device, self.count, free // self.count if self.device == "cpu" else free)

    def run(self, jobs: Sequence[TrainingJob], at_once: int, clips: ClipSet, on_event: OnEvent) -> None:
        dispatch(jobs, _Pool(self, min(at_once, len(jobs)), clips), on_event)

    def run_alone(self, function: Callable[..., T], *arguments: object) -> T:
        return function(*arguments)  # Nothing is in training between two runs.

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *exception: object) -> None:
        for number in list(self.workers):
            self.end(number)

    def start(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        arguments = (there, self.device, self.devices[number], torch.get_num_threads(), cuda.precision(), self.train)
        process = context.Process(target=_serve, args=arguments, daemon=True)
        # The first process would start the tracker, which would make it receive Ctrl-C again.
        resource_tracker.ensure_running()
        with _signals_blocked():
            process.start()
            self.workers[number] = _Worker(process, here)
        there.close()  # Else the pipe would not end with the process.

    def end(self, number: int, seconds: float = 0.0) -> int | None:
        """End a worker, after so many seconds if it does not end by itself.

        Returns:
            its exit code if it ended by itself, negative for a signal; else None.
        """
        worker = self.workers.pop(number, None)
        if worker is None:  # After a second interruption another thread may have ended it.
            return None
        worker.process.join(seconds)
        code = worker.process.exitcode
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        return code


class _Pool:
    """The processes for one clip set; the number of its process is a job's key."""

    tries = TRIES

    def __init__(self, processes: Processes, count: int, clips: ClipSet):
        self.processes, self.clips = processes, clips
        self.most = self.slots = count
        self.busy: set[int] = set()
        # Processes in a row that ended before they had started up, and their number when each process was started: a
        # process from before the last failure proves nothing by starting up.
        self.not_started = 0
        self.not_started_before: dict[int, int] = {}
        self.logged: set[str] = set()
        for number in range(count):  # All at once: each needs seconds for its imports.
            self._start(number)

    def _start(self, number: int) -> None:
        if number not in self.processes.workers:
            self.not_started_before[number] = self.not_started
            self.processes.start(number)

    def begin(self, job: TrainingJob) -> Hashable:
        number = next(number for number in range(self.most) if number not in self.busy)
        self.busy.add(number)
        self._start(number)
        worker = self.processes.workers[number]
        with suppress(OSError):  # If it is dead, `wait` reports that.
            if worker.has is not self.clips:
                worker.pipe.send_bytes(pickle.dumps(self.clips))
                worker.has = self.clips
            worker.pipe.send_bytes(pickle.dumps(job))
        return number

    def wait(self, seconds: float) -> list[tuple[Hashable, PoolEvent]]:
        pipes = {self.processes.workers[number].pipe: number for number in self.busy}
        events: list[tuple[Hashable, PoolEvent]] = []
        for pipe in [pipe for pipe in wait(list(pipes), seconds) if isinstance(pipe, Connection)]:
            number = pipes[pipe]
            worker = self.processes.workers[number]
            try:
                message = pickle.loads(pipe.recv_bytes())
            except (EOFError, OSError):
                why = _exit_reason(self.processes.end(number, ENDING_SECONDS))
                self.not_started += not worker.ready
                message = Lost("lost", why)
                # Processes that all fail to start up are no job's fault.
                if self.not_started >= TRIES:
                    message = Failed(f"a process could not be started (it {why}): try fewer --jobs")
            else:
                if not worker.ready and self.not_started_before[number] == self.not_started:
                    self.not_started = 0
                worker.ready = True
            if isinstance(message, str):
                if message not in self.logged:
                    self.logged.add(message)
                    log.warning(message)
                continue
            if message is None:
                continue
            if not isinstance(message, EpochDone):
                self.busy.discard(number)
                # In another process the device may answer again.
                if isinstance(message, JobOutcome) and message.device_lost:
                    self.processes.end(number)
            events.append((number, message))
        return events

    def end(self) -> None:
        for number in self.busy & self.processes.workers.keys():
            self.processes.end(number)


def _exit_reason(code: int | None) -> str:
    if code is None:
        return "fell silent"
    if code >= 0:
        return f"ended with exit code {code}"
    if -code == signal.SIGKILL:
        return "was killed (SIGKILL, with which the system ends what takes too much memory)"
    return f"was killed by {signal.strsignal(-code) or f'signal {-code}'}"


def _visible_devices() -> list[str]:
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return chosen.split(",")[:count] if chosen else [str(number) for number in range(count)]


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block Ctrl-C and SIGTERM for the processes that this thread starts: terminals and schedulers send them to all
    processes of a job, and the parent ends its workers itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _SendRecords(logging.Handler):
    """Sends a worker's log records to its parent."""

    def __init__(self, send: Callable[[object], None]):
        super().__init__(logging.WARNING)
        self.send = send

    def emit(self, record: logging.LogRecord) -> None:
        self.send(" ".join(record.getMessage().split()))


def _serve(pipe: Connection, device: str, only: str | None, threads: int, precision: str, train: TrainFunction) -> None:
    """Run a worker: clips and jobs arrive, epochs, outcomes and warnings leave, until the other end is closed.

    Args:
        only: the CUDA device that it sees.
        threads: the threads of the parent, which records name.
        precision: the parent's, of CUDA.
    """
    if only is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = only

    def send(message: object) -> None:
        pipe.send_bytes(pickle.dumps(message))

    logging.captureWarnings(True)
    logging.getLogger().addHandler(_SendRecords(send))
    try:
        cuda.set_precision(precision)
        torch.set_num_threads(threads)
        env = environment.collect(device)
        torch.set_num_threads(1)
        send(None)  # It has started up.
        latest: LatestFeatures | None = None
        while True:
            message = pickle.loads(pipe.recv_bytes())
            if isinstance(message, ClipSet):
                latest = LatestFeatures(message, device)
                continue
            assert latest is not None  # clips come before their first job
            on_epoch = functools.partial(_send_epoch, send, message)
            send(train(message, latest.of, on_epoch, env).without_networks())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        send(error if isinstance(error, InputError) else Failed(f"a process failed: {first_line(error)}"))


def _send_epoch(send: Callable[[object], None], job: TrainingJob, seeds: Sequence[int], epoch: Epoch) -> None:
    send(EpochDone(job, tuple(seeds), epoch))
