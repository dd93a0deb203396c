"""Runs of `melbench` in processes that cost no imports: cheap to start, to kill and to start again.

They are forked from this process, which must not have computed anything with torch's threads.
"""

import ctypes
import gc
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
import torch._dynamo  # noqa: F401 - a sweep imports it when it trains

# A sweep imports these when it begins.
import bench.analysis.summary
import bench.cli.progress
import bench.sweep.run  # noqa: F401
import melcnn.data.loading  # noqa: F401
from melcnn.data import audio
from melcnn.data.source import LISTS
from melcnn.errors import Failed

T = TypeVar("T")

WORDS = {"yes": 700.0, "no": 900.0}  # the pitch of each, in Hz
CLIPS = {"train": 8, "validation": 4, "test": 4}  # of each word

# Axes of a network and a front-end that train in milliseconds.
SMALL = ("n_mels=16", "n_fft=256", "hop_length=800", "channels=16", "batch_size=16")

# Flags of Linux, from sched.h and sys/mount.h.
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 32, 16384, 1 << 18


def write_corpus(folder: Path) -> Path:
    """Write `CLIPS` of each word, in the layout of Speech Commands: noisy tones, each by another speaker."""
    rng = np.random.default_rng(0)
    time = np.arange(audio.SAMPLES) / audio.SAMPLE_RATE
    lists: dict[str, list[str]] = {split: [] for split in CLIPS}
    for number, (word, pitch) in enumerate(WORDS.items()):
        (folder / word).mkdir(parents=True)
        for split, count in CLIPS.items():
            for i in range(count):
                name = f"{word}/{number:02x}{i:04x}{list(CLIPS).index(split):02x}_nohash_0.wav"
                tone = 0.1 * np.sin(2 * np.pi * pitch * rng.uniform(0.8, 1.2) * time)
                soundfile.write(folder / name, tone + rng.normal(0, 0.15, time.size), audio.SAMPLE_RATE)
                lists[split].append(name)
    for split, file in LISTS.items():
        (folder / file).write_text("\n".join(lists[split]))
    return folder


def do_nothing() -> None:
    """Do nothing: the default setup of a run."""


@dataclass(frozen=True)
class ForkedRun:
    """A run of `melbench`.

    Attributes:
        process: process number.
        log: the file of standard output and standard error.
    """

    process: int
    log: Path

    def wait(self) -> int:
        """Wait for the end and return the exit code; after a kill, the negative number of the signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def exit_code(self) -> int | None:
        """Return the exit code as `wait` does, or None while it runs. It can be asked for once."""
        process, status = os.waitpid(self.process, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if process else None

    def has_ended(self) -> bool:
        """Return whether it has ended; `wait` can still ask for its exit code."""
        return os.waitid(os.P_PID, self.process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def resident_bytes(self) -> int:
        """Return the bytes of memory that are resident now; 0 once it has ended."""
        return int(Path(f"/proc/{self.process}/statm").read_text().split()[1]) * resource.getpagesize()

    @property
    def output(self) -> str:
        """The text of standard output and standard error."""
        return self.log.read_text(errors="replace")


def start(arguments: Sequence[object], log: Path, setup: Callable[[], object] = do_nothing) -> ForkedRun:
    """Start `melbench` with these arguments.

    Args:
        setup: called in its process before it begins.
    """
    main = next(iter(entry_points(group="console_scripts", name="melbench"))).load()

    def run() -> int:
        descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        setup()
        sys.argv = ["melbench", *map(str, arguments)]
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return ForkedRun(_fork(run), log)


def _fork(call: Callable[[], int]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()  # Otherwise each process would collect all that was imported before it times anything.
    process = os.fork()
    if process:
        return process
    code = 70  # sysexits.h: an internal error
    try:
        code = call()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def call_on_private_disk(folder: Path, kilobytes: int, call: Callable[[], list[T]]) -> list[T]:
    """Return what `call` returns, in a process that sees an empty file system, in memory, at `folder`.

    No other process sees it, and it ends with the process.

    Args:
        kilobytes: the size of the file system, in units of 1024 bytes.
        call: returns values that JSON keeps.

    Raises:
        Failed: if the system does not allow it, or `call` raises.
    """
    reading, writing = os.pipe()

    def work() -> int:
        mount(folder, kilobytes)
        with os.fdopen(writing, "w") as pipe:
            json.dump(call(), pipe)
        return 0

    process = _fork(work)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = pipe.read()
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
        raise Failed(f"the process with a disk of its own at {folder} failed: see above")
    returned: list[T] = json.loads(found)
    return returned


def mount(folder: Path, kilobytes: int) -> None:
    """Give this process, which has one thread, a file system of its own at `folder`.

    Raises:
        OSError: if the system does not allow it.
    """
    user, group = os.getuid(), os.getgid()
    _system("unshare", CLONE_NEWNS | (CLONE_NEWUSER if user else 0))
    if user:  # Inside its own user namespace any user is root.
        for name, text in {"setgroups": "deny", "uid_map": f"0 {user} 1", "gid_map": f"0 {group} 1"}.items():
            Path("/proc/self", name).write_text(text)
    _system("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    _system("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={kilobytes}k".encode())


def set_writable(folder: Path, writable: bool) -> None:
    """Make the file system that `mount` gave writable, or read-only."""
    _system("mount", b"none", os.fsencode(folder), None, MS_REMOUNT | (0 if writable else MS_RDONLY), None)


def _system(name: str, *arguments: int | bytes | None) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    # A flag of `mount` is a long.
    if getattr(library, name)(*(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
