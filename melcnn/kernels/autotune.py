"""Which of several ways to compute the same thing is the fastest on this machine: measured once, and kept in the cache.

The first way is the one to beat: another must be faster by a margin that noise does not make, so that what is chosen is
never slower.
"""

import functools
import hashlib
import json
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from melcnn import files, native
from melcnn.errors import first_line
from melcnn.files import cache_folder

# The time of a way to that of the first, above which the first is kept.
MARGIN = 0.95
FEWEST_ROUNDS, MOST_ROUNDS = 7, 25
SECONDS = 0.1  # of all rounds together, once there are enough of them
SHORTEST = 2e-4  # of what is timed at once: a call that is shorter is repeated

# What decides how long our ways take, beside the kernels.
CODE = ("grouped_conv.py", "trunk.py", "triton_conv.py")

_known: dict[tuple, str] = {}
_lock = threading.Lock()  # One measurement at a time: two would slow each other.
_measuring = threading.local()


def choose(key: tuple, ways: Callable[[], Mapping[str, Callable[[], object]]], device: str = "cpu") -> str:
    """The name of the fastest of `ways()`, which is asked only if nothing is known of `key` yet: numbers, flags and
    texts. Any number of threads may ask. What is asked while a measurement runs, and by it, is the first way."""
    if key not in _known:
        if getattr(_measuring, "now", False):
            return next(iter(ways()))
        with _lock:
            if key not in _known:
                _known[key] = _stored(key) or _measured(key, ways, device)
    return _known[key]


def _measured(key: tuple, ways: Callable[[], Mapping[str, Callable[[], object]]], device: str) -> str:
    _measuring.now = True
    try:
        # In this very thread: another one's team of threads would compete with this one's, and be slower than it. So
        # what listens here must not hear of it: a compiler's modes, and hooks that keep tensors for a backward pass.
        with (
            _disable_current_modes(),
            torch.autograd.graph.saved_tensors_hooks(_as_it_is, _as_it_is),
            torch.cuda.device(device) if torch.device(device).type == "cuda" else nullcontext(),
        ):
            found = measure(ways(), device)
    finally:
        _measuring.now = False
    _keep(key, found)
    return found["chosen"]


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def noise(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    """Data to measure with, that takes nothing from the caller's random numbers, which all threads share."""
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0)).to(device)


def measure(ways: Mapping[str, Callable[[], object]], device: str = "cpu") -> dict:
    """The fastest of `ways` and the seconds of each, the median over interleaved rounds. A way that fails is left out,
    with a warning, unless it is the first: what it raises is raised."""
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None

    def seconds(call: Callable[[], object], calls: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        return (time.perf_counter() - start) / calls

    calls: dict[str, int] = {}
    for name, way in ways.items():
        try:
            seconds(way, 1)  # The first call also starts libraries.
            calls[name] = max(1, int(SHORTEST / max(seconds(way, 1), 1e-9)))
        except Exception as error:
            if not calls:
                raise
            _warn(f"kernels of {name} fail and are not used: {first_line(error)}")
    ways = {name: way for name, way in ways.items() if name in calls}
    found: dict[str, list[float]] = {name: [] for name in ways}
    begin = time.perf_counter()
    while len(next(iter(found.values()))) < MOST_ROUNDS:
        for name, way in ways.items():
            found[name].append(seconds(way, calls[name]))
        if time.perf_counter() - begin > SECONDS and len(found[name]) >= FEWEST_ROUNDS:
            break
    first, *others = found
    ratios = {
        name: statistics.median(one / base for one, base in zip(found[name], found[first], strict=True))
        for name in others
    }
    best = min(ratios, key=ratios.get, default=first)
    return {
        "chosen": best if ratios and ratios[best] < MARGIN else first,
        "seconds": {name: statistics.median(times) for name, times in found.items()},
    }


def _stored(key: tuple) -> str | None:
    try:
        entry = json.loads(_path(key).read_text())
        return entry["chosen"] if entry["key"] == list(key) and entry["chosen"] in entry["seconds"] else None
    except (OSError, ValueError, TypeError, KeyError):
        return None  # Nothing there, or nothing of ours: then it is measured anew.


def _keep(key: tuple, found: dict) -> None:
    text = json.dumps({"key": key, **found})
    try:
        files.make_folder(_path(key).parent)
        files.write_whole(_path(key), lambda file: file.write(text.encode()))
    except OSError as error:
        _warn(f"the choice of kernels cannot be kept ({error.strerror}): it is measured in each process")


@functools.cache
def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)


def _path(key: tuple) -> Path:
    return cache_folder() / "choices" / f"{hashlib.sha256(f'{_here()} {key}'.encode()).hexdigest()[:16]}.json"


@functools.cache
def _here() -> str:
    """This machine, this torch and this code."""
    digest = hashlib.sha256(f"{native.identity()} {torch.__version__} {torch.version.cuda}".encode())
    for name in CODE:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()
