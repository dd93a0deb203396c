"""Choose the fastest of several implementations of one computation on this machine: measured once, and cached.

The first candidate is the default. Another one must be faster by a margin beyond noise, so that the choice is never
slower.
"""

import functools
import hashlib
import json
import logging
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes  # torch has no public name for it

from melcnn import files, native
from melcnn.errors import first_line
from melcnn.files import cache_folder
from melcnn.kernels import cuda
from melcnn.scheduling import DISTURBED, run_queue_wait

log = logging.getLogger(__name__)

# The first candidate is kept unless another one's time is below this share of its time.
MARGIN = 0.95
MIN_ROUNDS, MAX_ROUNDS = 7, 25
SECONDS = 0.1  # for all rounds together, once there are enough of them
SHORTEST = 2e-4  # seconds of one timed reading: shorter calls are repeated
DISTURBED_FOR = 600  # seconds that a choice of a busy machine is used: the processes of one command agree

# The code beside the C kernels that decides how long our candidates take, and the code that measures it.
CODE = ("grouped_conv.py", "trunk.py", "triton_conv.py", "autotune.py", "cuda.py")

# Numbers, flags and texts that name a computation.
Key = tuple[object, ...]
Candidates = Mapping[str, Callable[[], object]]


class Choice(TypedDict):
    """The chosen candidate, and the seconds of each one: the median over rounds.

    Attributes:
        disturbed: other processes held up half of the rounds or more.
    """

    chosen: str
    seconds: dict[str, float]
    disturbed: bool


_known: dict[Key, str] = {}
_lock = threading.Lock()  # One measurement at a time: two would slow each other down.
_measuring = threading.local()


def choose(key: Key, candidates: Callable[[], Candidates], device: str = "cpu") -> str:
    """Return the name of the fastest of `candidates()`, which is called only if nothing is known of `key` yet.

    Any number of threads may ask. A question that a measurement itself asks is answered with the first candidate, and
    so is one where CUDA graphs cannot be captured: eager calls there would time Python.
    """
    if key not in _known:
        if getattr(_measuring, "now", False) or (_on_cuda(device) and not cuda.can_capture()):
            return next(iter(candidates()))
        with _lock:
            if key not in _known:
                _known[key] = _stored(key) or _measured(key, candidates, device)
    return _known[key]


def _measured(key: Key, candidates: Callable[[], Candidates], device: str) -> str:
    _measuring.now = True
    try:
        # In this very thread: the thread pool of another thread would compete with that of this one and be slower. So
        # observers of this thread are disabled: a compiler's modes, and hooks that keep tensors for a backward pass.
        with (
            _disable_current_modes(),
            torch.autograd.graph.saved_tensors_hooks(_identity, _identity),
            cuda.current(device),
        ):
            found = measure(candidates(), device)
    finally:
        _measuring.now = False
    _store(key, found)
    return found["chosen"]


def _identity(tensor: Tensor) -> Tensor:
    return tensor


def random_data(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    """Return data to measure with, drawn without a change to torch's random state, which all threads share."""
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0)).to(device)


def measure(candidates: Candidates, device: str = "cpu") -> Choice:
    """Time the candidates in interleaved rounds and return the fastest and the seconds of each.

    On CUDA the calls are replayed as a graph, as trainings do, and timed by the device's clock.

    A candidate that raises an exception is left out with a warning, unless it is the first: then the exception is
    raised.
    """
    timed: dict[str, Callable[[], float]] = {}
    for name, candidate in candidates.items():
        try:
            timed[name] = (_replayed if _on_cuda(device) else _called)(candidate)
        except Exception as error:
            if not timed:
                raise
            _warn(f"kernels of {name} fail and are not used: {first_line(error)}")
    found: dict[str, list[float]] = {name: [] for name in timed}
    disturbed: list[bool] = []
    begin = now = time.perf_counter()
    while len(disturbed) < MAX_ROUNDS:
        waited, start = run_queue_wait(), now
        for name, seconds in timed.items():
            found[name].append(seconds())
        now = time.perf_counter()
        disturbed.append(run_queue_wait() - waited > DISTURBED * (now - start))
        if now - begin > SECONDS and len(disturbed) >= MIN_ROUNDS:
            break
    first, *others = found
    ratios = {
        name: statistics.median(one / base for one, base in zip(found[name], found[first], strict=True))
        for name in others
    }
    best = min(ratios, key=ratios.__getitem__, default=first)
    return {
        "chosen": best if ratios and ratios[best] < MARGIN else first,
        "seconds": {name: statistics.median(times) for name, times in found.items()},
        # A replayed graph does not wait for the host's cores.
        "disturbed": not _on_cuda(device) and 2 * sum(disturbed) >= len(disturbed),
    }


def _called(candidate: Callable[[], object]) -> Callable[[], float]:
    """Return a function that times a candidate on the CPU: seconds a call."""

    def seconds(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            candidate()
        return (time.perf_counter() - start) / calls

    seconds(1)  # The first call also starts libraries.
    return functools.partial(seconds, _repeats(seconds(1)))


def _replayed(candidate: Callable[[], object]) -> Callable[[], float]:
    """Return a function that times a candidate on CUDA, captured: seconds a call."""
    once = cuda.captured(candidate)
    cuda.seconds(once)
    calls = _repeats(cuda.seconds(once))

    def repeated() -> None:
        for _ in range(calls):
            candidate()

    replay = cuda.captured(repeated, lambda: None)
    return lambda: cuda.seconds(replay) / calls


def _repeats(seconds: float) -> int:
    return max(1, int(SHORTEST / max(seconds, 1e-9)))


def _on_cuda(device: str) -> bool:
    return torch.device(device).type == "cuda"


def _stored(key: Key) -> str | None:
    path = _path(key)
    try:
        entry = json.loads(path.read_text())
        stale = entry["disturbed"] and not 0 <= time.time() - path.stat().st_mtime < DISTURBED_FOR
        known = entry["key"] == list(key) and entry["chosen"] in entry["seconds"]
        return entry["chosen"] if known and not stale else None
    except (OSError, ValueError, TypeError, KeyError):
        return None  # There is no file, or not one of ours: it is measured anew.


def _store(key: Key, found: Choice) -> None:
    text = json.dumps({"key": key, **found})
    try:
        files.make_folder(_path(key).parent)
        files.write_whole(_path(key), lambda file: file.write(text.encode()))
    except OSError as error:
        _warn(f"the choice of kernels cannot be kept ({error.strerror}): it is measured in each process")


@functools.cache
def _warn(text: str) -> None:  # Once per text.
    log.warning(text)


def _path(key: Key) -> Path:
    return cache_folder() / "choices" / f"{hashlib.sha256(f'{_environment()} {key}'.encode()).hexdigest()[:16]}.json"


@functools.cache
def _environment() -> str:
    """Return a hash of this machine, this torch and this code."""
    digest = hashlib.sha256(f"{native.identity()} {torch.__version__} {torch.version.cuda}".encode())
    for name in CODE:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()
