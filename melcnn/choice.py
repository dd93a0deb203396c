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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from melcnn import files
from melcnn.data.clips import cache_folder

# The time of a way to that of the first, above which the first is kept.
MARGIN = 0.95
FEWEST_ROUNDS, MOST_ROUNDS = 5, 25
SECONDS = 0.05  # of all rounds together, once there are enough of them
SHORTEST = 2e-4  # of what is timed at once: a call that is shorter is repeated

# What decides how long our ways take, beside the kernels.
CODE = ("ops.py", "trunk.py", "triton_conv.py")

_lock = threading.RLock()  # One measurement at a time: two would slow each other.


def made(key: tuple, ways: Callable[[], Mapping[str, Callable[[], object]]], device: str = "cpu") -> str:
    """The name of the fastest of `ways()`, which is asked only if nothing is known of `key` yet. Any number of threads
    may ask; what a way raises is raised."""
    known = _known()
    if key not in known:
        with _lock:
            if key not in known:
                # In a thread of its own: hooks, modes and tracers of whoever asks are of the thread that asks.
                threads = torch.get_num_threads()
                with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,)) as apart:
                    known[key] = apart.submit(lambda: measure(ways(), device)).result()
                _keep(known)
    return known[key]["chosen"]


def noise(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    """Data to measure with, that takes nothing from the caller's random numbers, which all threads share."""
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0)).to(device)


def measure(ways: Mapping[str, Callable[[], object]], device: str = "cpu") -> dict:
    """The fastest of `ways` and the seconds of each, the median over interleaved rounds."""
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None

    def seconds(call: Callable[[], object], calls: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        return (time.perf_counter() - start) / calls

    calls = {}
    for name, way in ways.items():
        seconds(way, 1)  # The first call also starts libraries.
        calls[name] = max(1, int(SHORTEST / max(seconds(way, 1), 1e-9)))
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


@functools.cache
def _known() -> dict[tuple, dict]:
    try:
        stored = json.loads(_path().read_text())
        return {
            tuple(entry["key"]): entry
            for entry in stored
            if isinstance(entry["chosen"], str) and isinstance(entry["seconds"], dict)
        }
    except (OSError, ValueError, TypeError, KeyError):
        return {}  # Nothing there, or nothing of ours: then it is measured anew.


def _keep(known: dict[tuple, dict]) -> None:
    text = json.dumps(
        [{"key": list(key), **{k: v for k, v in one.items() if k != "key"}} for key, one in known.items()]
    )
    try:
        _path().parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(_path(), lambda file: file.write(text.encode()))
    except OSError as error:
        _warn(str(error.strerror))


@functools.cache
def _warn(reason: str) -> None:
    warnings.warn(f"the choice of kernels cannot be kept ({reason}): it is measured in each process", stacklevel=2)


@functools.cache
def _path() -> Path:
    """A file for this machine, this torch and this code."""
    from melcnn import native

    digest = hashlib.sha256(f"{native.identity()} {torch.__version__} {torch.version.cuda}".encode())
    for name in CODE:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return cache_folder() / f"choices-{digest.hexdigest()[:16]}.json"
