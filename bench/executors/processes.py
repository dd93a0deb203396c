"""Stacks trained in processes of their own, on this machine: one that dies takes nothing with it but its own stack."""

import multiprocessing
import os
import pickle
import signal
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

import torch

from bench.executors.base import Audience, Capacity
from bench.executors.jobs import JobOutcome, LatestFeatures, TrainFunction, TrainingJob, train_job
from bench.executors.retry import Heard, Lost, dispatch, sent
from bench.system import environment, monitor
from melcnn.data.clips import ClipSet
from melcnn.errors import Failed, InputError, first_line

T = TypeVar("T")

# Once for whoever killed it, or took the memory; a second time it is likely to be the job's own fault.
TRIES = 2
# Of a process that has closed its end of the pipe, until it is gone: its exit code tells why.
ENDING_SECONDS = 30


@dataclass(eq=False)
class _Worker:
    """A process and the pipe to it. ready: it has come up. has: the clips that it was given."""

    process: BaseProcess
    pipe: Connection
    ready: bool = False
    has: ClipSet | None = None


class Processes:
    """`count` processes: on the CPU each computes on one core, on CUDA each on a device of its own.

    A context, at whose end no process is left. Raises `InputError` for more processes than there are CUDA devices.
    """

    def __init__(self, device: str, count: int, work: TrainFunction = train_job):
        self.devices = _visible_devices() if device == "cuda" else [None] * count
        if count > len(self.devices):
            raise InputError(
                f"--jobs {count}: torch sees {len(self.devices)} CUDA devices, and each process needs one of its own; "
                f"give --jobs {len(self.devices)} or fewer"
            )
        self.device, self.count, self.work = device, count, work
        self.workers: dict[int, _Worker] = {}

    @property
    def room(self) -> Capacity:
        free = monitor.free_bytes(self.device)
        return Capacity(self.device, self.count, free // self.count if self.device == "cpu" else free)

    def run(self, waiting: Sequence[TrainingJob], at_once: int, clips: ClipSet, audience: Audience) -> None:
        dispatch(waiting, _Pool(self, min(at_once, len(waiting)), clips, audience.note), audience)

    def alone(self, function: Callable[..., T], *arguments: object) -> T:
        return function(*arguments)  # Nothing is in training between two runs.

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *exception: object) -> None:
        for number in list(self.workers):
            self.end(number)

    def start(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        arguments = (there, self.device, self.devices[number], torch.get_num_threads(), self.work)
        process = context.Process(target=_serve, args=arguments, daemon=True)
        # Which the first one to be started would start, and which would have it hear of Ctrl-C again.
        resource_tracker.ensure_running()
        with _deaf():
            process.start()
            self.workers[number] = _Worker(process, here)
        there.close()  # Only then the pipe ends with the process.

    def end(self, number: int, seconds: float = 0.0) -> int | None:
        """Ends a worker, after so many seconds if it does not end by itself; its exit code if it did, negative for a
        signal."""
        worker = self.workers.pop(number, None)
        if worker is None:  # After a second interruption the thread that ends it, too, is not waited for.
            return None
        worker.process.join(seconds)
        code = worker.process.exitcode
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        return code


class _Pool:
    """The processes for one clip set; a job is named by the number of its process."""

    tries = TRIES

    def __init__(self, processes: Processes, count: int, clips: ClipSet, note: Callable[[str], None]):
        self.processes, self.clips, self.note = processes, clips, note
        self.most = self.slots = count
        self.busy: set[int] = set()
        # Processes in a row that ended before they had come up, and how many had when each was started: one of before
        # the last that failed proves nothing by coming up.
        self.not_started = 0
        self.not_started_before: dict[int, int] = {}
        self.noted: set[str] = set()
        for number in range(count):  # All at once: each takes seconds to import what it needs.
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
        with suppress(OSError):  # That it is dead, `wait` tells.
            if worker.has is not self.clips:
                worker.pipe.send_bytes(pickle.dumps(self.clips))
                worker.has = self.clips
            worker.pipe.send_bytes(pickle.dumps(job))
        return number

    def wait(self, seconds: float) -> list[tuple[Hashable, Heard | JobOutcome | Lost | Exception]]:
        pipes = {self.processes.workers[number].pipe: number for number in self.busy}
        events = []
        for pipe in wait(list(pipes), seconds):
            number = pipes[pipe]
            worker = self.processes.workers[number]
            try:
                message = pickle.loads(pipe.recv_bytes())
            except (EOFError, OSError):
                why = _told(self.processes.end(number, ENDING_SECONDS))
                self.not_started += not worker.ready
                message = Lost("lost", why)
                # What befalls each of them is nothing that a job could be to blame for.
                if self.not_started >= TRIES:
                    message = Failed(f"a process could not be started (it {why}): try fewer --jobs")
            else:
                if not worker.ready and self.not_started_before[number] == self.not_started:
                    self.not_started = 0
                worker.ready = True
            if isinstance(message, str):
                if message not in self.noted:
                    self.noted.add(message)
                    self.note(message)
                continue
            if message is None:
                continue
            if not isinstance(message, Heard):
                self.busy.discard(number)
                # In another process the device may answer again.
                if isinstance(message, JobOutcome) and message.device_lost:
                    self.processes.end(number)
            events.append((number, message))
        return events

    def end(self) -> None:
        for number in self.busy & self.processes.workers.keys():
            self.processes.end(number)


def _told(code: int | None) -> str:
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
def _deaf() -> Iterator[None]:
    """What this thread starts meanwhile does not hear of Ctrl-C and SIGTERM, which also come to all processes of a
    terminal or a scheduler's job: their parent hears, and ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, device: str, only: str | None, threads: int, work: TrainFunction) -> None:
    """A worker's life: clips or a job arrive, epochs, outcomes and warnings leave, until the other end is closed.

    only: the CUDA device that it sees. threads: of the process that it works for, which records tell.
    """
    if only is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = only

    def send(message: object) -> None:
        pipe.send_bytes(pickle.dumps(message))

    warnings.showwarning = lambda message, *_, **__: send(" ".join(str(message).split()))
    try:
        torch.set_num_threads(threads)
        env = environment.collect(device)
        torch.set_num_threads(1)
        send(None)  # It has come up.
        latest = None
        while True:
            message = pickle.loads(pipe.recv_bytes())
            if isinstance(message, ClipSet):
                latest = LatestFeatures(message, device)
            else:
                send(sent(work(message, latest.of, lambda stack, epoch: send(Heard(tuple(stack), epoch)), env)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        send(error if isinstance(error, InputError) else Failed(f"a process failed: {first_line(error)}"))
