"""Our C kernels, compiled for this very machine by its C compiler at first use, and kept in the cache.

Without a compiler `library` returns None, and its callers use torch.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from melcnn.files import cache_folder, make_folder

log = logging.getLogger(__name__)

SOURCES = ("log_mel.c", "trunk.c", "grouped_conv.c", "grouped_conv_double.c")
HEADERS = ("lanes.h", "rows.h", "trunk.h")

FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
# Tried in this order: for this very processor, as GCC or as Clang spells it, and with threads if there is OpenMP.
ATTEMPTS = (
    ("-march=native", "-fopenmp"),
    ("-mcpu=native", "-fopenmp"),
    ("-march=native", "-fopenmp-simd"),
    ("-mcpu=native", "-fopenmp-simd"),
    (),
)

# The environment variable that disables our kernels if it is "torch".
SWITCH = "MELBENCH_KERNELS"

COMPILE_SECONDS = 120


_thread = threading.local()


@contextmanager
def without_kernels() -> Iterator[None]:
    """Disable our kernels in this thread, so that counters of operators see torch's."""
    before, _thread.disabled = getattr(_thread, "disabled", False), True
    try:
        yield
    finally:
        _thread.disabled = before


def call(kernel: Callable[..., int], *arguments: ctypes.Structure | ctypes.Array | torch.Tensor | None) -> None:
    """Call a kernel with the addresses of tensors and structures.

    Raises:
        MemoryError: if the kernel found no memory.
        IndexError: if it was given an index out of range.
    """

    def address(argument: ctypes.Structure | ctypes.Array | torch.Tensor | None) -> object:
        if argument is None or isinstance(argument, ctypes.Array):
            return argument
        return argument.data_ptr() if isinstance(argument, torch.Tensor) else ctypes.byref(argument)

    if code := kernel(*map(address, arguments)):
        raise IndexError("index out of range") if code == 2 else MemoryError("no memory for the rows of a convolution")


def library() -> ctypes.CDLL | None:
    """Return the kernels; None if no compiler can make them, or if they are `disabled`."""
    return None if disabled() else _load()


def disabled() -> bool:
    """Return whether `MELBENCH_KERNELS=torch` is set, or this thread is in `without_kernels`."""
    return getattr(_thread, "disabled", False) or _switch() == "torch"


@functools.cache
def _switch() -> str | None:
    return os.environ.get(SWITCH)  # Reading it takes as long as a small kernel.


def is_eager() -> bool:
    """Return whether torch runs operators eagerly here: nothing traces, transforms, casts or intercepts them.

    Otherwise operators must do the work, because our kernels cannot be seen by any of these.
    """
    return not (
        torch.jit.is_tracing()  # type: ignore[attr-defined]  # public, but not in torch.jit.__all__
        or torch.compiler.is_compiling()
        or is_in_torch_dispatch_mode()
        or _is_transforming()
        or torch.is_autocast_enabled("cpu")
        or torch.is_autocast_enabled("cuda")
    )


def _is_transforming() -> bool:
    """Return whether a transform of `torch.func` (vmap, grad, jvp, ...) or forward-mode differentiation is active."""
    # torch has no public question for either.
    return torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0


@functools.cache
def _load() -> ctypes.CDLL | None:
    try:
        compiler = _compiler()
        path = cache_folder() / "kernels" / f"{_key(compiler)}.so"
        if not path.exists():
            make_folder(path.parent)
            path.parent.chmod(0o700)  # Whatever the umask: see `_check_ours`.
            _compile(compiler, path)
        _check_ours(path)
        return _declared(ctypes.CDLL(str(path)))
    except (OSError, ValueError, AttributeError, subprocess.SubprocessError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        log.warning(
            f"no kernels of our own ({reason}): torch's convolutions are used, which are slower; install a C compiler, "
            f"or set {SWITCH}=torch to silence this warning"
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
    """Raise `PermissionError` if somebody else could have put the library there: loading it runs its code."""
    if not hasattr(os, "getuid"):
        return
    for place in (path, path.parent):
        status = place.stat()
        shared = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in (os.getuid(), 0) or shared:
            raise PermissionError(f"{place} belongs to others or can be written by them")


def identity() -> str:
    """Return a text that changes with the kernels' speed: for the processor, their sources and the compiler."""
    try:
        return _key(_compiler())
    except (OSError, ValueError):
        return _processor()


def _key(compiler: list[str]) -> str:
    """Return a hash of all that the library depends on: the sources, the compiler, the flags and the processor."""
    here = Path(__file__).parent
    digest = hashlib.sha256("\n".join([*compiler, *FLAGS, str(ATTEMPTS), _processor()]).encode())
    for name in (*SOURCES, *HEADERS):
        digest.update((here / name).read_bytes())
    digest.update(Path(shutil.which(compiler[0]) or compiler[0]).resolve().as_posix().encode())
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
