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


class _NotWanted(BaseException):
    """No `Exception`, which a job may take for a failure of its own."""


def run(
    jobs: Sequence[Callable[[Check], T]],
    at_once: int,
    take: Callable[[int, T], None],
    ending: Callable[[], None] = lambda: None,
) -> None:
    """Runs `jobs`, `at_once` at a time, begun in their order; take hears each one's number and result as it ends, one
    after another.

    A job or a take that raises, or an interruption here, ends all jobs at their next check and is raised; ending is
    called before these are waited for, and what has ended is taken. An interruption reaches this thread alone, and take
    is called in others: nothing is taken by half.

    at_once 1 is no such crowd: jobs run in this thread, with all of torch's threads. An interruption breaks one off
    where it is, so their check does nothing, nobody waits, and ending is not called.
    """
    if at_once == 1:
        with ThreadPoolExecutor(1) as other:
            other.submit(int).result()  # As below: its thread is there before there is something to lose.
            for number, job in enumerate(jobs):
                other.submit(take, number, job(lambda: None)).result()
        return
    begun, ended, taking = threading.Event(), threading.Event(), threading.Lock()

    def check() -> None:
        if ended.is_set():
            raise _NotWanted

    def work(number: int, job: Callable[[Check], T]) -> None:
        begun.wait()
        check()
        result = job(check)
        with taking:
            take(number, result)

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures = [pool.submit(work, number, job) for number, job in enumerate(jobs)]
        # Not before: the pool does not wait for a thread whose start was interrupted.
        begun.set()
        for future in as_completed(futures):
            future.result()
    except BaseException:
        ended.set()
        ending()
        raise
    finally:
        begun.set()
        pool.shutdown()
        torch.set_num_threads(threads)
