"""Several jobs at once, each in a thread that computes on one core: the best use of a CPU for small networks.

Threads of one operator would wait for each other thousands of times a second; jobs never do. Torch and our kernels
release Python's lock while they compute.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")

# A job calls it now and then; it ends a job that is no longer wanted.
Check = Callable[[], None]


# Seconds after which a wait ends and begins again: a signal that arrives just before a wait does not end it.
AWAKE_SECONDS = 0.5


class _Cancelled(BaseException):
    """Not an `Exception`, which a job may take for a failure of its own."""


def run(
    jobs: Sequence[Callable[[Check], T]],
    at_once: int,
    on_result: Callable[[int, T], None],
    on_interrupt: Callable[[], None] = lambda: None,
) -> None:
    """Run `jobs`, `at_once` at a time, started in their order.

    A job or an `on_result` that raises, or an interruption, ends all jobs at their next check and is raised. An
    interruption reaches this thread alone and `on_result` runs in others, so no result is handled by half.

    With `at_once` 1 jobs run in this thread, with all of torch's threads. An interruption then breaks off the job where
    it is: its check does nothing, nothing is waited for, and `on_interrupt` is not called.

    Args:
        on_result: called with the number and the result of each job as it ends, one call at a time.
        on_interrupt: called before the jobs in flight are waited for.
    """
    if at_once == 1:
        with ThreadPoolExecutor(1) as other:
            other.submit(int).result()  # Starts the thread before there is something to lose, as below.
            for number, job in enumerate(jobs):
                wait_for([other.submit(on_result, number, job(lambda: None))])
        return
    started, ended, reporting = threading.Event(), threading.Event(), threading.Lock()

    def check() -> None:
        if ended.is_set():
            raise _Cancelled

    def work(number: int, job: Callable[[Check], T]) -> None:
        started.wait()
        check()
        result = job(check)
        with reporting:
            on_result(number, result)

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures = [pool.submit(work, number, job) for number, job in enumerate(jobs)]
        # Only now: the pool does not wait for a thread whose start was interrupted.
        started.set()
        wait_for(futures)
    except BaseException:
        ended.set()
        on_interrupt()
        raise
    finally:
        started.set()
        pool.shutdown()
        torch.set_num_threads(threads)


def wait_for(futures: Sequence[Future]) -> None:
    """Wait for all futures, and raise the first error as it happens; an interruption is noticed meanwhile."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, AWAKE_SECONDS, FIRST_COMPLETED)
        for future in done:
            future.result()
