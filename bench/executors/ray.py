"""Training as tasks of Ray: on this machine, or on the nodes of a running cluster."""

import contextlib
import itertools
import logging
import os
import signal
import socket
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, TypeVar

import torch

from bench.executors import ray_worker
from bench.executors.base import Capacity
from bench.executors.events import EpochDone, OnEvent
from bench.executors.jobs import TrainFunction, TrainingJob, train_job
from bench.executors.ray_mailbox import Mailbox
from bench.executors.retry import Lost, PoolEvent, dispatch
from bench.records import RESULTS_VERSION
from melcnn.data.clips import ClipSet
from melcnn.errors import Failed, InputError, first_line
from melcnn.kernels import cuda
from melcnn.training import Epoch

log = logging.getLogger(__name__)

T = TypeVar("T")

# Tries of one job: machines that can be taken away at any time are, more than once.
TRIES = 4
# Tasks queued for each slot: the next is there before one ends, and a cluster that scales by itself sees the demand.
QUEUED = 2
CONNECT_SECONDS = 10
# Seconds to learn where a lost worker was.
REPORT_SECONDS = 1
# Seconds between two notices that nothing can run.
PATIENCE_SECONDS = 60


class Ray:
    """The executor of Ray tasks: on the CPU each takes one core of a node, on CUDA a GPU of its own.

    A context; at its end nothing of it is left.

    Args:
        device: "auto", "cpu" or "cuda".
        address: a running cluster, which is neither started nor stopped, or "auto" for the one that this machine is
            part of; None: Ray is started here, and stopped.

    Raises:
        InputError: without Ray, without such a cluster, and for a device that it lacks.
    """

    def __init__(self, device: str = "auto", address: str | None = None, train: TrainFunction = train_job):
        self.ray = _imported()
        if address is not None:
            _check_reachable(address)
        self.wanted, self.address, self.train = device, address, train

    def __enter__(self) -> "Ray":
        self._context = contextlib.ExitStack()
        with self._context:
            # Ray reports on its workers at length, on standard output, which carries the result alone.
            silence = self._context.enter_context(open(os.devnull, "w"))
            self._context.enter_context(contextlib.redirect_stdout(silence))
            if not self.ray.is_initialized():
                self._connect()
                self._context.callback(self.ray.shutdown)
            # A worker runs any number of tasks: by default a GPU's ends after one, and the next imports all again.
            self._remote = self.ray.remote(num_cpus=1, max_retries=0, max_calls=0)(ray_worker.on_worker)
            self.device = self._device()
            self._slot_bytes = self._probe()
            self._context = self._context.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.close()

    def _connect(self) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address is None:
            # Nothing leaves this machine.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            options |= {"address": "local", "num_cpus": torch.get_num_threads(), "include_dashboard": False}
        else:
            options |= {"address": self.address}
        # Ray has a handler of its own for SIGTERM, which would break off what is being written.
        handler = signal.getsignal(signal.SIGTERM)
        try:
            self.ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            where = f"--ray-address {self.address}" if self.address else "Ray could not be started here"
            # Ray's own message names options that are not ours.
            none = self.address == "auto" and isinstance(error, ConnectionError)
            reason = "this machine is part of no Ray cluster" if none else first_line(error)
            raise InputError(
                f"{where}: {reason}; 'ray start --head' on one machine and 'ray start --address' on others "
                "make a cluster"
            ) from None
        finally:
            with contextlib.suppress(ValueError):  # not in this thread
                signal.signal(signal.SIGTERM, handler)

    def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes that are alive and can train, those with the most cores first."""
        kind = "GPU" if self.device == "cuda" else "CPU"
        alive = [node for node in self.ray.nodes() if node["Alive"] and node["Resources"].get(kind, 0) >= 1]
        return sorted(alive, key=lambda node: (-node["Resources"].get("CPU", 0), node["NodeID"]))

    @property
    def slots(self) -> int:
        kind = "GPU" if self.device == "cuda" else "CPU"
        return sum(int(node["Resources"][kind]) for node in self.nodes())

    @property
    def capacity(self) -> Capacity:
        return Capacity(self.device, self.slots, self._slot_bytes)

    def _device(self) -> str:
        gpus = self.ray.cluster_resources().get("GPU", 0)
        if self.wanted == "cuda" and not gpus:
            raise InputError("--device cuda: the Ray cluster has no GPU; use --device cpu or auto")
        return "cuda" if gpus and self.wanted != "cpu" else "cpu"

    def _probe(self) -> int:
        """Return the free bytes for each task of one node, which stands for all. Raises `InputError` if the node cannot
        run our tasks."""
        if not self.slots:
            raise InputError("the Ray cluster has no node that can train: start one with --num-cpus or --num-gpus")
        try:
            task = self.task(ray_worker.free_bytes, self.device)
            return self._waited(task, "core" if self.device == "cpu" else "GPU")
        except Failed as error:
            raise InputError(f"the Ray cluster cannot run melbench ({error}): install the same on each node") from None

    def run(self, jobs: Sequence[TrainingJob], at_once: int, clips: ClipSet, on_event: OnEvent) -> None:
        dispatch(jobs, _Pool(self, clips), on_event)

    def run_alone(self, function: Callable[..., T], *arguments: object) -> T:
        """Take a GPU, or all cores of the node that has the most; a node that is lost meanwhile costs another try."""
        if self.address is None and self.device == "cpu":
            return function(*arguments)  # Nothing else uses the Ray that was started here.
        for left in reversed(range(TRIES)):
            options: dict[str, Any] = {}
            if self.device == "cpu":
                node = next(iter(self.nodes()), None)
                if node is None:
                    raise Failed("no node of the Ray cluster is left to time epochs on: run the same again")
                options["num_cpus"] = int(node["Resources"]["CPU"])
                options["scheduling_strategy"] = _on_node(node["NodeID"])
            try:
                what = "whole node" if options else "GPU"
                return self._waited(self.task(ray_worker.run_alone, function, arguments, **options), what)
            except _WorkerLost:
                if not left:
                    raise Failed("the timing of epochs lost its worker again and again: run the same again") from None
        raise AssertionError("not reached")

    def task(self, function: Callable[..., object], *arguments: object, **options: object) -> Any:
        """Return a reference to the function's result on a worker; a lost worker is reported, not tried again."""
        needs: dict[str, object] = {"num_gpus": 1} if self.device == "cuda" else {}
        remote = self._remote.options(**{**needs, **options}).remote
        return remote(RESULTS_VERSION, cuda.precision(), function, *arguments)

    def _waited(self, reference: Any, what: str) -> Any:
        """Return a task's result; it waits while others hold the resource that it needs, which `what` names."""
        try:
            for times in itertools.count(1):
                if self.ray.wait([reference], timeout=PATIENCE_SECONDS)[0]:
                    break
                waited = f"{times * PATIENCE_SECONDS:g} s"
                log.warning(f"waiting for a free {what} of the Ray cluster ({waited} so far)")
            found = self.result(reference)
        except BaseException:
            self.ray.cancel(reference, force=True)
            raise
        if isinstance(found, Lost):
            raise _WorkerLost(found.why)
        if isinstance(found, Exception):
            raise found
        return found

    def result(self, reference: Any) -> Any:
        """Return a task's result, a `Lost`, or the error that it raised: our own as it is, others as a `Failed`."""
        exceptions = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except exceptions.RayTaskError as error:
            cause = error.cause
            ours = isinstance(cause, (InputError, Failed))
            return cause if ours else Failed(f"a worker failed: {first_line(cause)}")
        except exceptions.OutOfMemoryError:
            return Lost("out of memory", "took more memory than its node has left, and was killed by Ray")
        except exceptions.RayError as error:
            return Lost("lost", f"was lost ({type(error).__name__})")


class _WorkerLost(Failed):
    pass


class _Pool:
    """Tasks for one clip set, which goes to each node once; the reference to its outcome is a job's key."""

    tries = TRIES

    def __init__(self, executor: Ray, clips: ClipSet):
        self.executor, self.ray = executor, executor.ray
        self.clips = self.ray.put(clips)
        self.key = self.clips.hex()
        here = _on_node(self.ray.get_runtime_context().get_node_id())
        self.mailbox = self.ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()
        self.asked: Any = None  # the reference to its next answer
        self.numbers = itertools.count()  # they name jobs there
        self.going: dict[Any, tuple[int, TrainingJob]] = {}  # by reference
        self.hosts: dict[int, str] = {}
        self.slots = executor.slots
        self.waited = 0.0

    @property
    def most(self) -> int:
        return max(1, QUEUED * self.slots)

    def begin(self, job: TrainingJob) -> Hashable:
        number, of = next(self.numbers), self.executor
        task = of.task(ray_worker.train, number, self.mailbox, self.key, self.clips, job, of.device, of.train)
        self.going[task] = number, job
        return task

    def wait(self, seconds: float) -> list[tuple[Hashable, PoolEvent]]:
        going = list(self.going)
        ended, _ = self.ray.wait(going, num_returns=1, timeout=seconds)
        epochs = self._reports()
        if ended:  # others may have, too
            ended, _ = self.ray.wait(going, num_returns=len(going), timeout=0)
        results = [(reference, self.executor.result(reference)) for reference in ended]
        if any(isinstance(result, Lost) for _, result in results):
            # The answer that was asked for before, and the reports since.
            epochs += self._reports(REPORT_SECONDS) + self._reports(REPORT_SECONDS)
        outcomes = [(reference, self._located(self.going.pop(reference)[0], result)) for reference, result in results]
        self._look(seconds, [outcome for _, outcome in outcomes])
        return [*epochs, *outcomes]

    def _reports(self, seconds: float = 0.0) -> list[tuple[Hashable, PoolEvent]]:
        """Return the workers' progress, if the mailbox answers within so many seconds; without it less is shown."""
        self.asked = self.asked or self.mailbox.take.remote()
        if not self.ray.wait([self.asked], timeout=seconds)[0]:
            return []
        asked, self.asked = self.asked, None
        try:
            reports = self.ray.get(asked)
        except self.ray.exceptions.RayError:
            return []
        events: list[tuple[Hashable, PoolEvent]] = []
        for reference, (number, job) in self.going.items():
            if number in reports:
                self.hosts[number], progress = reports[number]
                if progress:
                    events.append((reference, EpochDone(job, progress[0], Epoch(*progress[1]))))
        return events

    def _located(self, number: int, result: T) -> T:
        """Return a job's result; a loss with its machine, if that is known."""
        host = self.hosts.pop(number, "")
        return replace(result, where=host) if isinstance(result, Lost) else result

    def _look(self, seconds: float, events: Sequence[object]) -> None:
        """Count the slots anew when a worker was lost, or nothing has ended for a while: nodes come and go."""
        self.waited = 0.0 if events else self.waited + seconds
        if any(isinstance(event, Lost) for event in events) or self.waited >= PATIENCE_SECONDS:
            self.waited = 0.0
            self.slots = self.executor.slots
            if not self.slots:
                log.warning("no node of the Ray cluster can train any more: waiting for one")

    def end(self) -> None:
        for reference in self.going:
            self.ray.cancel(reference, force=True)
        if self.going:
            self.ray.wait(list(self.going), num_returns=len(self.going), timeout=CONNECT_SECONDS)
        self.ray.kill(self.mailbox)


def _on_node(name: str) -> object:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(name, soft=False)


def _imported() -> ModuleType:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise InputError("--executor ray needs Ray, which is not installed: pip install 'melbench[ray]'") from None
    return ray


def _check_reachable(address: str) -> None:
    """Raise `InputError` for a text that is no address, and for an address without an answer, which Ray would try for
    minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"--ray-address {address} is no address: give auto, or host:port, such as 192.168.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"--ray-address {address}: nothing answers there ({reason}); 'ray status' on a node of the cluster tells "
            "its address"
        ) from None
