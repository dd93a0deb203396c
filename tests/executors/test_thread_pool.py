"""Jobs in threads: results as they end, and an end to all when one fails."""

import signal
import threading
import time
from concurrent.futures import Future

import pytest
import torch

from bench.executors import thread_pool, threads
from bench.executors.jobs import TrainingJob
from bench.executors.threads import Threads
from tests.helpers.configurations import plain
from tests.helpers.stand_ins import on_events


def interrupt():
    """Ctrl-C, from another thread; as a simulated one it would not wake a thread that waits."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_every_result_is_taken_once_and_one_at_a_time(at_once):
    taken, taking = {}, threading.Lock()

    def take(number, result):
        assert threading.current_thread() is not threading.main_thread() and taking.acquire(blocking=False)
        taken[number] = result
        time.sleep(0.01)  # room for another one, if there were one
        taking.release()

    thread_pool.run([lambda check, i=i: i * i for i in range(7)], at_once, take)
    assert taken == {i: i * i for i in range(7)}


def test_each_job_computes_on_one_core():
    before, seen = torch.get_num_threads(), []
    thread_pool.run([lambda check: seen.append(torch.get_num_threads())] * 4, 2, lambda *a: None)
    assert seen == [1] * 4 and torch.get_num_threads() == before


def test_jobs_run_at_the_same_time():
    both = threading.Barrier(2, timeout=60)
    thread_pool.run([lambda check: both.wait()] * 2, 2, lambda *a: None)


def test_a_failure_ends_the_others_at_their_next_check():
    started, ended = threading.Event(), []

    def fails(check):
        started.wait(60)
        raise ValueError("no luck")

    def long(check):
        started.set()
        try:
            while True:
                check()
        finally:
            ended.append(True)

    with pytest.raises(ValueError, match="no luck"):
        thread_pool.run([fails, long], 2, lambda *a: None)
    assert ended == [True]


def test_an_interruption_ends_all_and_begins_no_more():
    both, begun = threading.Barrier(2, timeout=60), []

    def long(check, number):
        begun.append(number)
        if both.wait() == 0:
            interrupt()
        while True:
            check()

    with pytest.raises(KeyboardInterrupt):
        thread_pool.run([lambda check, i=i: long(check, i) for i in range(5)], 2, lambda *a: None)
    assert sorted(begun) == [0, 1]


def test_what_has_ended_when_an_interruption_comes_is_taken():
    interrupted, taken = threading.Event(), []

    def ends(check):
        interrupt()
        assert interrupted.wait(60)  # which is said before any job is waited for
        return "good"

    def long(check):
        while True:
            check()

    with pytest.raises(KeyboardInterrupt):
        thread_pool.run([long, ends], 2, lambda *result: taken.append(result), interrupted.set)
    assert taken == [(1, "good")]


@pytest.mark.parametrize("at_once", [1, 2])
def test_an_interruption_breaks_off_nothing_that_is_being_taken(at_once):
    taken = []

    def take(number, result):
        taken.append("begun")
        interrupt()
        time.sleep(0.1)  # time for the interruption to arrive
        taken.append("whole")

    with pytest.raises(KeyboardInterrupt):
        thread_pool.run([lambda check: None], at_once, take)
    assert taken == ["begun", "whole"]


@pytest.mark.parametrize("at_once", [1, 2])
def test_what_cannot_be_taken_ends_all(at_once):
    begun = []

    def take(number, result):
        raise OSError("no space left")

    def job(check, number):
        begun.append(number)
        if number:
            while True:
                check()

    with pytest.raises(OSError, match="no space left"):
        thread_pool.run([lambda check, i=i: job(check, i) for i in range(4)], at_once, take)
    assert 3 not in begun  # of two at once, 1 and 2 may have begun


def test_what_ended_before_a_failure_is_taken():
    good, taken = threading.Event(), []

    def fails(check):
        good.wait(60)
        raise ValueError("no luck")

    def ends(check):
        good.set()
        return "good"

    with pytest.raises(ValueError, match="no luck"):
        thread_pool.run([fails, ends], 2, lambda *result: taken.append(result))
    assert taken == [(1, "good")]


def test_nothing_is_trained_on_features_that_are_no_longer_wanted(monkeypatch):
    both, ending, trained = threading.Barrier(2, timeout=60), threading.Event(), []

    def extract(clips, front_end, device):
        assert ending.wait(60)  # which is said once the other job has failed

    def work(job, features, on_epoch, environment):
        both.wait()
        if job.seeds == (0,):
            raise ValueError("no luck")
        with features(job.trial.front_end):
            trained.append(job.seeds)

    monkeypatch.setattr(threads, "extract", extract)
    jobs = [TrainingJob(plain(), (seed,)) for seed in (0, 1)]
    with pytest.raises(ValueError, match="no luck"):
        Threads("cpu", work).run(jobs, 2, None, on_events(stage=lambda text: ending.set()))
    assert trained == []


def test_a_signal_that_arrives_before_the_wait_is_noticed(monkeypatch):
    # Python notices a signal between two steps of this thread. One that arrives just before a wait is as one that
    # arrives in a step which nothing interrupts: the wait must end by itself.
    asked = []

    def no_news(pending, seconds, when):
        asked.append(seconds)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return set(), pending

    monkeypatch.setattr(thread_pool, "wait", no_news)
    with pytest.raises(KeyboardInterrupt):
        thread_pool.wait_for([Future()])
    assert asked == [thread_pool.AWAKE_SECONDS] * 3


def test_the_first_error_is_raised_and_all_is_waited_for():
    done, failed = Future(), Future()
    done.set_result(1)
    thread_pool.wait_for([done, done])
    failed.set_exception(OSError("no space left"))
    with pytest.raises(OSError, match="no space left"):
        thread_pool.wait_for([Future(), failed])
