"""The machine's state while something is timed: load, clock rates, throttling, memory, energy. Only reads."""

import contextlib
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict

CPU_INFO = Path("/proc/cpuinfo")
STATUS = Path("/proc/self/status")
MEMORY = Path("/proc/meminfo")
CONTROL_GROUP = Path("/sys/fs/cgroup")
CLEAR_REFS = Path("/proc/self/clear_refs")

T = TypeVar("T")


class Conditions(BaseModel):
    """The machine's state at one moment; None where the system does not tell.

    Attributes:
        threads: of torch.
        affinity: the cores that this process may use.
        load: processes that run or wait to run on all `cores`, the mean of a minute.
        cpu_mhz: the fastest core's.
        throttle: the reasons why the GPU runs slower than it could; none on the CPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int
    affinity: list[int] | None
    cores: int | None = None
    load: float | None
    cpu_mhz: float | None
    gpu_mhz: int | None = None
    gpu_celsius: int | None = None
    throttle: list[str] | None = []


def conditions(device: str) -> Conditions:
    """Return the conditions now, of the CPU and of `device`."""
    on_gpu = device == "cuda"
    return Conditions(
        threads=torch.get_num_threads(),
        affinity=sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        cores=os.cpu_count(),
        load=_unless_missing(lambda: round(os.getloadavg()[0], 2)),
        cpu_mhz=_unless_missing(_cpu_mhz),
        gpu_mhz=_nvml(lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)) if on_gpu else None,
        gpu_celsius=_nvml(lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))
        if on_gpu
        else None,
        throttle=_nvml(_throttle_reasons) if on_gpu else [],
    )


class PeakMemory:
    """The most memory since it was made, in bytes above what was in use then; None where the system does not tell.

    On the CPU the process's resident memory, in CUDA what torch has allocated.
    """

    def __init__(self, device: str):
        self.before: int | None
        self.on_gpu = device == "cuda"
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            self.before = _unless_missing(_reset_peak)

    def bytes(self) -> int | None:
        if self.on_gpu:
            peak: int | None = torch.cuda.max_memory_allocated()
        else:
            peak = _unless_missing(lambda: _status_bytes("VmHWM"))
        return None if peak is None or self.before is None else max(0, peak - self.before)


def peak_bytes_of(call: Callable[[], object], device: str) -> int | None:
    """Return the most memory of a second call, as `PeakMemory` tells it; the first may start libraries."""
    call()
    memory = PeakMemory(device)
    call()
    return memory.bytes()


def free_bytes(device: str) -> int:
    """Return the free memory of `device`, reclaimable memory included; on the CPU also within a container's limit.

    Where the system does not tell, half of the machine's memory.
    """
    if device == "cuda":  # What torch has freed it keeps for its own later use.
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    known = [_unless_missing(lambda: _kilobytes(MEMORY, "MemAvailable")), _unless_missing(_free_in_container)]
    found = [size for size in known if size is not None]
    return min(found) if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _free_in_container() -> int:
    """Return the bytes left within the limit of Linux's control group (version 2), file caches counted as free."""
    used = int((CONTROL_GROUP / "memory.current").read_text())
    files = next(line for line in (CONTROL_GROUP / "memory.stat").read_text().splitlines() if "inactive_file" in line)
    return int((CONTROL_GROUP / "memory.max").read_text()) - used + int(files.split()[1])


def energy_joules() -> float | None:
    """Return the energy that the GPU has used since its driver was loaded; None without NVML or a counter."""
    return _nvml(lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3)


def _cpu_mhz() -> float | None:
    lines = CPU_INFO.read_text().splitlines()
    rates = [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]
    return max(rates, default=None)


def _reset_peak() -> int | None:
    """Set the process's peak back to what is resident now, and return that in bytes."""
    with contextlib.suppress(AttributeError):  # Of the GNU library only: gives back what was freed.
        ctypes.CDLL(None).malloc_trim(0)
    CLEAR_REFS.write_text("5")
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int | None:
    return _kilobytes(STATUS, name)


def _kilobytes(file: Path, name: str) -> int | None:
    """Return the bytes of a line such as `VmRSS:  123 kB`."""
    for line in file.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return None


def _nvml(ask: Callable[..., T]) -> T | None:
    """Ask NVML about torch's current GPU; return None without nvidia-ml-py or the driver's answer."""
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        return ask(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
    except Exception:  # Whatever is missing, timing goes on without.
        return None


# NVML's bits that mean slower than asked for; idle and set clocks are no throttling.
THROTTLE = {
    "nvmlClocksThrottleReasonSwPowerCap": "power cap",
    "nvmlClocksThrottleReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksThrottleReasonSwThermalSlowdown": "temperature",
    "nvmlClocksThrottleReasonHwThermalSlowdown": "temperature",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": "power brake",
}


def _throttle_reasons(nvml: Any, gpu: Any) -> list[str]:
    bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    return sorted({text for name, text in THROTTLE.items() if bits & getattr(nvml, name, 0)})


def _unless_missing(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except (OSError, ValueError, IndexError):
        return None
