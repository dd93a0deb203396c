"""The environment of a run: versions, machine and device, one small collector each; and the choice of a device."""

import importlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from melcnn.data import prepared
from melcnn.errors import InputError
from melcnn.kernels import cuda


class Environment(BaseModel):
    """The machine and the versions that a result was made with.

    Attributes:
        device: the processor that computed, by the name that tables show.
        precision: of float32 convolutions and products on a GPU (`melcnn.kernels.cuda`); None on the CPU and in older
            files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    cpu: str
    cores: int
    threads: int
    system: str
    python: str
    cuda: str | None
    packages: dict[str, str]
    precision: str | None = None


def collect(device: str) -> Environment:
    """Return the environment of a computation on `device`, "cpu" or "cuda"."""
    threads = torch.get_num_threads()
    on_gpu = device == "cuda"
    return Environment(
        device=torch.cuda.get_device_name() if on_gpu else f"{_cpu()} CPU, {threads} threads",
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=threads,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        cuda=torch.version.cuda if on_gpu else None,
        packages={name: _version(name) for name in ("melbench", "torch", "torchaudio", "numpy", "soundfile")},
        precision=cuda.precision() if on_gpu else None,
    )


def describe() -> str:
    """Return versions, device, threads and prepared data, for people."""
    env = collect(pick_device("auto"))
    packages = ", ".join(f"{name} {number}" for name, number in env.packages.items() if name != "melbench")
    try:
        importlib.import_module("torchaudio")
        audio = ""
    except (ImportError, OSError) as error:
        audio = f"\ntorchaudio cannot be imported: {str(error).splitlines()[0]}"
    words = prepared.words()
    where = f"{prepared.folder()} ({', '.join(words)})" if words else "none (see: melbench data prepare)"
    return (
        f"melbench {env.packages['melbench']}\npython {env.python}, {packages}{audio}\n"
        f"device: {env.device} ({env.cores} cores, {env.threads} threads, {env.system})\nprepared speech: {where}"
    )


def pick_device(name: str, precision: str = "fp32") -> str:
    """Return "cpu" or "cuda" for auto, cpu or cuda, and set the precision in which CUDA computes.

    Raises:
        InputError: for an unknown name, and for cuda where there is none.
    """
    cuda.set_precision(precision)
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"there is no device {name!r}: use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device here; use --device cpu or auto")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
