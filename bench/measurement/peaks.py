"""The best that the device can do, as measured: matmul rate, copy bandwidth by size, the cost of one launch.

Measured once and kept in the cache folder, for each machine, thread count and torch version. To measure again, after a
busy machine for example, delete the cache's folder `ceilings`.
"""

import contextlib
import hashlib
from collections.abc import Callable
from functools import partial

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from bench.system.environment import Environment
from bench.timing.clocks import HostClock, clock_for
from melcnn.files import cache_folder, make_folder, write_whole
from melcnn.kernels import cuda
from melcnn.scheduling import DISTURBED

# Raise when they are measured differently: kept ceilings are then measured anew.
VERSION = 3

MATMUL_SIZES = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192)}
# Bytes read plus written: from what fits a cache to what lies in memory alone. Smaller ones would time the launch.
COPY_BYTES = {"cpu": (2**20, 2**23, 2**28), "cuda": (2**26, 2**30)}
LAUNCHES = 200  # of an operator that does nearly nothing, in a row
# A ceiling is the best of several tries: whatever disturbs a machine makes it slower, never faster.
TRIES = 15
TRY_SECONDS = 0.01  # of calls in a row, at the least


class Peaks(BaseModel):
    """The best rates of a device.

    Attributes:
        flops_per_second: for a float32 matrix product, on a GPU in the environment's precision.
        bytes_per_second: for a copy, by the bytes that it reads and writes.
        launch_seconds: for one small operator, called from Python; on a GPU replayed in a graph, as trainings are.
        disturbed: other processes held up every try at one of these; floors from them would be far too high.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flops_per_second: float
    bytes_per_second: dict[int, float]
    launch_seconds: float
    disturbed: bool = False

    def bandwidth(self, size: int) -> float:
        """Return the best bytes per second for moving `size` bytes: the fastest measured size at least as large."""
        largest = max(self.bytes_per_second)
        return max(rate for measured, rate in self.bytes_per_second.items() if measured >= min(size, largest))


def device_peaks(env: Environment, device: str) -> Peaks:
    """Return the peaks of `device`, cached or measured now (some seconds). A disturbed measurement is not cached."""
    key = f"{VERSION} {env.device} {env.cpu} {env.threads} {env.cuda} {env.precision} {env.packages.get('torch')}"
    path = cache_folder() / "ceilings" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    try:
        return Peaks.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        pass
    found = measure(device, clock_for(device))
    if found.disturbed:
        return found
    with contextlib.suppress(OSError):  # A cache that cannot be written costs the next command some seconds.
        make_folder(path.parent)
        write_whole(path, lambda file: file.write(found.model_dump_json().encode()))
    return found


@torch.inference_mode()
def measure(device: str, clock: HostClock) -> Peaks:
    """Measure the peaks now."""
    calm: list[bool] = []

    def fastest(call: Callable[[], object]) -> float:
        """Return the least seconds of a call, of the undisturbed tries if there are any."""
        clock.read(call)
        calls = max(1, int(TRY_SECONDS / max(clock.read(call).host, 1e-7)))
        readings = [clock.read(call, calls) for _ in range(TRIES)]
        undisturbed = [one.host for one in readings if one.waited <= DISTURBED * one.host]
        calm.append(bool(undisturbed))
        return min(undisturbed or [one.host for one in readings])

    rates = []
    for n in MATMUL_SIZES[device]:
        a, b = torch.randn(2, n, n, device=device)
        out = torch.empty_like(a)
        rates.append(2 * n**3 / fastest(partial(torch.mm, a, b, out=out)))
    copies = {}
    for size in COPY_BYTES[device]:
        source = torch.zeros(size // 2, dtype=torch.uint8, device=device)
        target = torch.zeros_like(source)
        copies[size] = size / fastest(partial(target.copy_, source))
    one = torch.zeros(1, device=device)

    def launches() -> None:
        for _ in range(LAUNCHES):
            one.add_(1)

    launch_seconds = fastest(cuda.captured(launches) if device == "cuda" else launches) / LAUNCHES
    return Peaks(
        flops_per_second=max(rates),
        bytes_per_second=copies,
        launch_seconds=launch_seconds,
        disturbed=not all(calm),
    )
