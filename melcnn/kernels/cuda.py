"""CUDA: the precision of its arithmetic, graphs of work that replay without Python, and times by the device's clock."""

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import torch

from melcnn.errors import InputError

PRECISIONS = ("fp32", "tf32", "mixed")

# The host queues the work to be timed while the device spins for so long; a graph is queued in a tenth of it.
SPIN_SECONDS = 5e-4
_MEASURED_CYCLES = 10_000_000

# Whether a capture has failed in this process. torch 2.11 then leaves its allocator and its generators in the state of
# a capture, and the next capture would fail too.
_broken = False


def set_precision(name: str) -> None:
    """Set how this process computes float32 convolutions and products on CUDA.

    Args:
        name: "fp32"; "tf32", which is faster and rounds factors to 10 bits; or "mixed", torch's own default.

    Raises:
        InputError: for another name.
    """
    if name not in PRECISIONS:
        raise InputError(f"there is no precision {name!r}: use {' or '.join(PRECISIONS[:2])}")
    torch.backends.cudnn.allow_tf32 = name != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"


def precision() -> str:
    """Return how this process computes on CUDA: "fp32", "tf32", or "mixed", which is TF32 for convolutions alone."""
    if torch.backends.cuda.matmul.allow_tf32:
        return "tf32"
    return "mixed" if torch.backends.cudnn.allow_tf32 else "fp32"


@contextmanager
def computing_in(name: str) -> Iterator[None]:
    """Compute in a precision, and restore the former one at the end."""
    before = precision()
    set_precision(name)
    try:
        yield
    finally:
        set_precision(before)


def current(device: str | torch.device) -> AbstractContextManager:
    """Make a device the current one, on which graphs and kernels run; a CPU changes nothing."""
    return torch.cuda.device(device) if torch.device(device).type == "cuda" else nullcontext()


def can_capture() -> bool:
    """Return whether this process can capture graphs: not within a capture, nor after one that failed."""
    return not (_broken or torch.cuda.is_current_stream_capturing())


def captured(work: Callable[[], object], warm_up: Callable[[], object] | None = None) -> Callable[[], None]:
    """Capture `work` as a CUDA graph and return its replay; the graph's memory is freed with it.

    After a failed capture `can_capture` is false, and work runs call by call.

    Args:
        warm_up: runs first, uncaptured, to start libraries and make what the work keeps; None: `work` itself.

    Raises:
        Exception: whatever `work` or the capture raises; the current stream is what it was.
    """
    global _broken
    # One stream for all captures: libraries keep a workspace for each stream that they ever ran on.
    before, beside = torch.cuda.current_stream(), _stream(torch.cuda.current_device())
    beside.wait_stream(before)
    with torch.cuda.stream(beside):
        (warm_up or work)()
    before.wait_stream(beside)
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    cause: Exception | None = None
    try:
        with torch.cuda.graph(graph, pool=pool, stream=beside):
            try:
                work()
            except Exception as error:
                cause = error  # Ending the capture may raise an error of its own, which says less.
                raise
    except Exception as error:
        _broken = True
        cause = (cause or error).with_traceback(None)  # Frames of the traceback hold what the work holds.
        torch.cuda.set_stream(before)  # torch leaves it at the capture's.
        for release in ("_cuda_endAllocateToPool", "_cuda_releasePool"):  # Else its memory is never freed.
            with suppress(Exception):
                getattr(torch._C, release)(torch.cuda.current_device(), pool)
        # torch ends the process when such a graph is freed, so it is kept for ever.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(graph))
    if cause:
        try:
            raise cause
        finally:
            del cause  # Else it and this frame would hold each other.
    return graph.replay


def seconds(call: Callable[[], object], ahead: float = SPIN_SECONDS) -> float:
    """Return the seconds that the device takes for `call`, between two events; the host waits for it.

    The device spins first, so that it does not wait between the events for what the host queues within `ahead` seconds.
    What the call reads may lie in the device's caches from calls before.
    """
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    spin(ahead)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def spin(seconds: float) -> None:
    """Queue a kernel that keeps one of the device's processors busy for about so long."""
    torch.cuda._sleep(int(seconds * _cycles_a_second(torch.cuda.current_device())))  # torch has no public name for it


@functools.cache
def _cycles_a_second(device: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(_MEASURED_CYCLES)  # An idle device needs a while to raise its clock rate.
    start.record()
    torch.cuda._sleep(_MEASURED_CYCLES)
    end.record()
    end.synchronize()
    return _MEASURED_CYCLES / (start.elapsed_time(end) / 1e3)


@functools.cache
def _stream(device: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
