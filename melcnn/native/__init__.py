"""Our C kernels, compiled for this very machine by its C compiler at first use, and kept in the cache.

Without a compiler `library` is None, and what calls it goes on with torch.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from melcnn.files import cache_folder, make_folder

SOURCES = ("log_mel.c", "trunk.c", "grouped_conv.c", "grouped_conv_double.c")
HEADERS = ("lanes.h", "rows.h", "trunk.h")

FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
# For this very processor, in the spelling of one compiler or the other; with threads if the compiler knows OpenMP.
ATTEMPTS = (
    ("-march=native", "-fopenmp"),
    ("-mcpu=native", "-fopenmp"),
    ("-march=native", "-fopenmp-simd"),
    ("-mcpu=native", "-fopenmp-simd"),
    (),
)

# Set to "torch" to do without.
SWITCH = "MELBENCH_KERNELS"

COMPILE_SECONDS = 120


_switched_off = threading.local()


@contextmanager
def switched_off() -> Iterator[None]:
    """A context in which this thread does without: what counts operators sees torch's."""
    before, _switched_off.now = getattr(_switched_off, "now", False), True
    try:
        yield
    finally:
        _switched_off.now = before


def call(kernel, *arguments: ctypes.Structure | ctypes.Array | torch.Tensor | None) -> None:
    """Calls a kernel, tensors by their addresses. Raises what it says: `MemoryError`, or `IndexError` of an index."""

    def address(argument):
        if argument is None or isinstance(argument, ctypes.Array):
            return argument
        return argument.data_ptr() if isinstance(argument, torch.Tensor) else ctypes.byref(argument)

    if said := kernel(*map(address, arguments)):
        raise IndexError("index out of range") if said == 2 else MemoryError("no memory for the rows of a convolution")


def library() -> ctypes.CDLL | None:
    """The kernels; None if there is no compiler that can make them, or if they are `unwanted`."""
    return None if unwanted() else _load()


def unwanted() -> bool:
    """Whether `MELBENCH_KERNELS=torch` says so, or this thread has them `switched_off`."""
    return getattr(_switched_off, "now", False) or _switch() == "torch"


@functools.cache
def _switch() -> str | None:
    return os.environ.get(SWITCH)  # which takes as long as a small kernel


def unobserved() -> bool:
    """Whether nothing traces, transforms or listens to torch's operators here: else what calls our kernels leaves the
    work to operators."""
    return not (
        torch.jit.is_tracing()
        or torch.compiler.is_compiling()
        or is_in_torch_dispatch_mode()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or torch.is_autocast_enabled("cpu")
        or torch.is_autocast_enabled("cuda")
    )


@functools.cache
def _load() -> ctypes.CDLL | None:
    try:
        compiler = _compiler()
        path = cache_folder() / "kernels" / f"{_key(compiler)}.so"
        if not path.exists():
            make_folder(path.parent)
            path.parent.chmod(0o700)  # whatever the caller's mask: see `_check_ours`
            _compile(compiler, path)
        _check_ours(path)
        return _declared(ctypes.CDLL(str(path)))
    except (OSError, ValueError, AttributeError, subprocess.SubprocessError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        warnings.warn(
            f"no kernels of our own ({reason}): torch's convolutions are used, which are slower; install a C compiler, "
            f"or set {SWITCH}=torch to hear no more of it",
            stacklevel=2,
        )
        return None


def _compiler() -> list[str]:
    wanted = shlex.split(os.environ.get("CC", ""))
    commands = [wanted] if wanted else [["cc"], ["gcc"], ["clang"]]
    for command in commands:
        if shutil.which(command[0]):
            return command
    raise FileNotFoundError(f"there is no C compiler {' or '.join(command[0] for command in commands)}")


def _check_ours(path: Path) -> None:
    """Raises `PermissionError` if somebody else could have put the library there: loading it runs its code."""
    if not hasattr(os, "getuid"):
        return
    for place in (path, path.parent):
        status = place.stat()
        shared = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in (os.getuid(), 0) or shared:
            raise PermissionError(f"{place} belongs to others or can be written by them")


def identity() -> str:
    """What the speed of kernels depends on: the processor, and ours with the compiler that makes them."""
    try:
        return _key(_compiler())
    except (OSError, ValueError):
        return _processor()


def _key(compiler: list[str]) -> str:
    """What the result depends on: the sources, the compiler, the flags and the processor."""
    here = Path(__file__).parent
    digest = hashlib.sha256("\n".join([*compiler, *FLAGS, str(ATTEMPTS), _processor()]).encode())
    for name in (*SOURCES, *HEADERS):
        digest.update((here / name).read_bytes())
    digest.update(Path(shutil.which(compiler[0])).resolve().as_posix().encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = platform.processor()
    return f"{platform.machine()} {flags}"


def _compile(compiler: list[str], path: Path) -> None:
    sources = [str(Path(__file__).parent / name) for name in SOURCES]
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".kernels-") as temporary:
        made = Path(temporary) / "kernels.so"
        for extra in ATTEMPTS:
            command = [*compiler, *FLAGS, *extra, *sources, "-o", str(made), "-lm"]
            done = subprocess.run(command, capture_output=True, timeout=COMPILE_SECONDS)
            if done.returncode == 0:
                made.chmod(0o700)
                made.replace(path)
                return
    raise OSError(f"{compiler[0]} cannot compile them")


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    p, n, i, d = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_double
    found.supports.argtypes, found.supports.restype = [n], i
    found.log_mel.argtypes = [p, n, n, n, n, p, n, p, p, p, d, p]
    found.trunk_workspace.argtypes, found.trunk_workspace.restype = [p], n
    found.trunk_forward.argtypes = [p] * 7
    found.trunk_infer.argtypes = [p] * 6
    found.trunk_backward.argtypes = [p] * 4
    for kind in ("float", "double"):
        getattr(found, f"conv_forward_{kind}").argtypes = [p] * 5
        getattr(found, f"conv_input_gradient_{kind}").argtypes = [p] * 4
        getattr(found, f"conv_weight_gradient_{kind}").argtypes = [p] * 5
    return found
