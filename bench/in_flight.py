"""Several jobs at once, each in a thread that computes on one core: for small networks the best use of a CPU.

Threads of one operator would wait for each other thousands of times a second; jobs never do. Torch and our kernels
let go of Python's lock while they compute.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

T = TypeVar("T")

# What a job calls now and then; it ends a job that is no longer wanted.
Check = Callable[[], None]


class _NotWanted(Exception):
    pass


def run(jobs: Sequence[Callable[[Check], T]], at_once: int, take: Callable[[int, T], None]) -> None:
    """Runs `jobs`, `at_once` at a time, begun in their order; take hears, in this thread, each one's number and result
    as it ends.

    A job that raises, or an interruption here, ends all jobs at their next check and is raised; what ended before a job
    that raised is taken first.
    """
    if at_once == 1:  # in this thread, with all of torch's threads
        for number, job in enumerate(jobs):
            take(number, job(lambda: None))
        return
    ended = threading.Event()

    def check() -> None:
        if ended.is_set():
            raise _NotWanted

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,))
    futures = {pool.submit(job, check): number for number, job in enumerate(jobs)}
    try:
        for future in as_completed(list(futures)):
            result = future.result()
            take(futures.pop(future), result)  # and forget it: results of a long list would fill the memory
    except Exception:
        for future, number in futures.items():
            if future.done() and not future.cancelled() and not future.exception():
                take(number, future.result())
        raise
    finally:
        ended.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
