"""Jobs in threads: results as they end, and an end to all when one fails."""

import threading

import pytest
import torch

from bench import in_flight


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_every_result_is_taken_once_in_this_thread(at_once):
    taken, here = {}, threading.get_ident()

    def take(number, result):
        assert threading.get_ident() == here
        taken[number] = result

    in_flight.run([lambda check, i=i: i * i for i in range(7)], at_once, take)
    assert taken == {i: i * i for i in range(7)}


def test_each_job_computes_on_one_core():
    before, seen = torch.get_num_threads(), []
    in_flight.run([lambda check: seen.append(torch.get_num_threads())] * 4, 2, lambda *a: None)
    assert seen == [1] * 4 and torch.get_num_threads() == before


def test_jobs_run_at_the_same_time():
    both = threading.Barrier(2, timeout=60)
    in_flight.run([lambda check: both.wait()] * 2, 2, lambda *a: None)


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
        in_flight.run([fails, long], 2, lambda *a: None)
    assert ended == [True]


def test_an_interruption_ends_all():
    def long(check):
        while True:
            check()

    def take(number, result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_flight.run([lambda check: None, long, long], 2, take)


def test_what_ended_before_a_failure_is_taken():
    good, taken = threading.Event(), []

    def fails(check):
        good.wait(60)
        raise ValueError("no luck")

    def ends(check):
        good.set()
        return "good"

    def slow_take(number, result):
        taken.append((number, result))

    with pytest.raises(ValueError):
        in_flight.run([fails, ends], 2, slow_take)
    assert taken in ([(1, "good")], [])  # [] only if it ended after the failure was seen
