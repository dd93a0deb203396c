"""How long this process waited for a core: whether others disturbed a measurement."""

import contextlib
import os

THREADS = "/proc/self/task"
# A call that waited for a core for longer than this share of its time was disturbed by another process.
DISTURBED = 0.01


def run_queue_wait() -> float:
    """Return the seconds for which this process's threads were ready and had no core; 0 where the system does not tell.

    The second number of Linux's /proc/PID/task/TID/schedstat, in nanoseconds, summed over threads.
    """
    total = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(THREADS):
            # A thread may have ended meanwhile.
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"{THREADS}/{thread}/schedstat", "rb") as f:
                total += int(f.read().split()[1])
    return total * 1e-9
