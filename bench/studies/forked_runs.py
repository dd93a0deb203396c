"""Whole runs of `melbench` in processes of their own that cost no imports: cheap to start, to kill and to start again.

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

import numpy as np
import soundfile
import torch._dynamo  # noqa: F401 - as a sweep does when it trains

# What a sweep imports when it begins.
import bench.analysis.summary
import bench.cli.progress
import bench.sweep.run  # noqa: F401
import melcnn.data.loading  # noqa: F401
from melcnn.data import audio
from melcnn.data.source import LISTS
from melcnn.errors import Failed

WORDS = {"yes": 700.0, "no": 900.0}  # the pitch of each, in Hz
CLIPS = {"train": 8, "validation": 4, "test": 4}  # of each word

# A network and a front-end that are trained in milliseconds.
SMALL = ("n_mels=16", "n_fft=256", "hop_length=800", "channels=16", "batch_size=16")

# Of Linux: sched.h, sys/mount.h.
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 32, 16384, 1 << 18


def write_corpus(folder: Path) -> Path:
    """`CLIPS` of each word in the layout of Speech Commands: noisy tones of its pitch, each of another speaker."""
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


def nothing() -> None:
    """What a process does first that does nothing else first."""


@dataclass(frozen=True)
class ForkedRun:
    """A run of `melbench`: its process, and the file that standard output and error go to."""

    process: int
    log: Path

    def wait(self) -> int:
        """The exit code, once it has ended; of a process that was killed the signal's number, negative."""
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def ended(self) -> int | None:
        """As `wait`, or None while it runs."""
        process, status = os.waitpid(self.process, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if process else None

    def over(self) -> bool:
        """Whether it has ended; its exit code is still there for `wait`."""
        return os.waitid(os.P_PID, self.process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def resident_bytes(self) -> int:
        """Of memory that it has now; 0 once it has ended."""
        return int(Path(f"/proc/{self.process}/statm").read_text().split()[1]) * resource.getpagesize()

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")


def start(arguments: Sequence[str | Path], log: Path, first: Callable[[], object] = nothing) -> ForkedRun:
    """Starts `melbench` with these arguments. first: called in its process before it begins."""
    main = next(iter(entry_points(group="console_scripts", name="melbench"))).load()

    def run() -> int:
        descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        first()
        sys.argv = ["melbench", *map(str, arguments)]
        try:
            main()
        except SystemExit as end:
            return end.code or 0
        return 0

    return ForkedRun(_forked(run), log)


def _forked(call: Callable[[], int]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()  # Or each process would look through all that was imported before it times anything.
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


def on_a_disk_of_its_own(folder: Path, kilobytes: int, call: Callable[[], list]) -> list:
    """What `call` returns, in a process that sees an empty file system of this size, in memory, at `folder`; nobody
    else does, and it ends with the process. Raises `Failed` where the system does not let us, or `call` raises."""
    reading, writing = os.pipe()

    def work() -> int:
        mount(folder, kilobytes)
        with os.fdopen(writing, "w") as pipe:
            json.dump(call(), pipe)
        return 0

    process = _forked(work)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = pipe.read()
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
        raise Failed(f"what was to run on a disk of its own at {folder} failed: see above")
    return json.loads(found)


def mount(folder: Path, kilobytes: int) -> None:
    """Gives this process, which has one thread, a file system of its own at `folder`. Raises OSError if it may not."""
    user, group = os.getuid(), os.getgid()
    _system("unshare", CLONE_NEWNS | (CLONE_NEWUSER if user else 0))
    if user:  # Who is not root is so to itself.
        for name, text in {"setgroups": "deny", "uid_map": f"0 {user} 1", "gid_map": f"0 {group} 1"}.items():
            Path("/proc/self", name).write_text(text)
    _system("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    _system("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={kilobytes}k".encode())


def let_write(folder: Path, allowed: bool) -> None:
    """Makes the file system that `mount` gave one that can be written, or that cannot."""
    _system("mount", b"none", os.fsencode(folder), None, MS_REMOUNT | (0 if allowed else MS_RDONLY), None)


def _system(name: str, *arguments: int | bytes | None) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    # A flag of `mount` is a long.
    if getattr(library, name)(*(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
