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

from melcnn.data.clips import cache_folder

SOURCES = ("log_mel.c", "blocks.c")
HEADERS = ("lanes.h",)

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


def library() -> ctypes.CDLL | None:
    """The kernels; None if there is no compiler that can make them, or if `MELBENCH_KERNELS=torch` says so."""
    return None if getattr(_switched_off, "now", False) else _load()


@functools.cache
def _load() -> ctypes.CDLL | None:
    if os.environ.get(SWITCH) == "torch":
        return None
    try:
        compiler = _compiler()
        path = cache_folder() / f"kernels-{_key(compiler)}.so"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
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


def _key(compiler: list[str]) -> str:
    """What the result depends on: the sources, the compiler, the flags and the processor."""
    here = Path(__file__).parent
    digest = hashlib.sha256("\n".join([*compiler, *FLAGS, str(ATTEMPTS), platform.machine()]).encode())
    for name in (*SOURCES, *HEADERS):
        digest.update((here / name).read_bytes())
    digest.update(Path(shutil.which(compiler[0])).resolve().as_posix().encode())
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        digest.update(next((line for line in lines if line.startswith(("flags", "Features"))), "").encode())
    except OSError:
        digest.update(platform.processor().encode())
    return digest.hexdigest()[:16]


def _compile(compiler: list[str], path: Path) -> None:
    sources = [str(Path(__file__).parent / name) for name in SOURCES]
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".kernels-") as temporary:
        made = Path(temporary) / "kernels.so"
        for extra in ATTEMPTS:
            command = [*compiler, *FLAGS, *extra, *sources, "-o", str(made), "-lm"]
            done = subprocess.run(command, capture_output=True, timeout=COMPILE_SECONDS)
            if done.returncode == 0:
                made.replace(path)
                return
    raise OSError(f"{compiler[0]} cannot compile them")


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    p, n, i, f, d = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_float, ctypes.c_double
    found.padded.argtypes, found.padded.restype = [n], n
    found.supports.argtypes, found.supports.restype = [n], i
    found.log_mel.argtypes = [p, n, n, n, n, p, n, p, p, p, d, p]
    found.block_forward.argtypes = [p, p, n, *[p] * 4, f, *[n] * 5, i, i, i, *[p] * 4]
    found.block_backward.argtypes = [p, p, p, n, *[p] * 5, f, *[n] * 5, i, i, *[p] * 5]
    return found
