"""Jobs for workers that may die: what is lost is tried again and what ends is taken once; no process is started."""

import threading
from dataclasses import replace

import pytest

from bench.executors.events import EpochDone
from bench.executors.jobs import Failure, JobOutcome, TrainingJob
from bench.executors.retry import Lost, dispatch
from melcnn import InputError
from melcnn.training import Epoch
from tests.executors.test_processes import TRIAL
from tests.executors.test_thread_pool import interrupt
from tests.helpers import stand_ins
from tests.helpers.stand_ins import PATIENCE_SECONDS, on_events

GONE = Lost("lost", "was killed")
EPOCH = Epoch(1, [0.5], [True])


class FakePool:
    """Takes so many jobs at once and answers by `happens(job, try)`, in the order in which they began."""

    def __init__(self, happens, slots=2, most=2, tries=3):
        self.happens, self.slots, self.most, self.tries = happens, slots, most, tries
        self.going, self.begun, self.tried, self.ended, self.largest = {}, [], {}, False, 0

    def begin(self, job):
        self.begun.append(job.seeds)
        self.tried[job] = self.tried.get(job, 0) + 1
        self.going[len(self.begun)] = job
        self.largest = max(self.largest, len(self.going))
        return len(self.begun)

    def wait(self, seconds):
        key = next(iter(self.going))
        event = self.happens(self.going[key], self.tried[self.going[key]])
        if not isinstance(event, EpochDone):
            del self.going[key]
        return [(key, event)]

    def end(self):
        self.ended = True


def outcome_of(job):
    return stand_ins.learned(job, None, None, None)


@pytest.fixture
def dispatched(caplog):
    """Dispatches jobs of some seeds; gives what finished, the seeds that started, and the notices."""

    def run(pool, *seeds):
        took, began = [], []
        caplog.clear()
        on_event = on_events(lambda *what: took.append(what), lambda job: began.append(job.seeds))
        dispatch([TrainingJob(TRIAL, each) for each in seeds], pool, on_event)
        return took, began, list(caplog.messages)

    return run


def test_jobs_are_begun_in_order_and_not_all_at_once(dispatched):
    pool = FakePool(lambda job, tried: outcome_of(job), slots=2, most=3)
    took, began, _ = dispatched(pool, *((seed,) for seed in range(8)))
    assert [job.seeds for job, _ in took] == pool.begun == began == [(seed,) for seed in range(8)]
    assert pool.largest == 3 and pool.ended


def test_of_those_in_flight_the_first_ones_are_in_training():
    began_at = []
    pool = FakePool(lambda job, tried: outcome_of(job), slots=1, most=3)
    on_event = on_events(started=lambda job: began_at.append((job.seeds, len(pool.begun))))
    dispatch([TrainingJob(TRIAL, (seed,)) for seed in range(4)], pool, on_event)
    assert began_at == [((0,), 3), ((1,), 4), ((2,), 4), ((3,), 4)]


def test_a_lost_job_is_tried_again_and_noted(dispatched):
    pool = FakePool(lambda job, tried: GONE if job.seeds == (0,) and tried < 3 else outcome_of(job))
    took, _, noted = dispatched(pool, (0,), (1,), (2,))
    assert sorted(job.seeds for job, _ in took) == [(0,), (1,), (2,)] and not any(o.failures for _, o in took)
    assert pool.tried[TrainingJob(TRIAL, (0,))] == 3 and len(noted) == 2
    assert noted[0].endswith(" seed 0: its worker was killed; it is tried again")


def test_a_job_that_loses_every_worker_failed(dispatched):
    took, _, noted = dispatched(FakePool(lambda job, tried: GONE if job.seeds == (0,) else outcome_of(job)), (0,), (1,))
    failures = [failure for _, outcome in took for failure in outcome.failures]
    assert [(f.seed, f.stack, f.kind, f.message) for f in failures] == [
        (0, (0,), "lost", "its worker was killed, 3 times")
    ]
    assert noted[-1].endswith(" seed 0: its worker was killed; it failed")


def test_what_is_lost_tells_each_try_and_its_last_epoch(dispatched):
    def happens(job, tried):
        own = [EpochDone(job, job.seeds, EPOCH), GONE] if job.seeds == (0, 1) else [GONE]
        return next(events.setdefault(job, iter(own)))

    events = {}
    took, _, _ = dispatched(FakePool(happens, tries=1), (0, 1))
    assert [(f.seed, f.epoch) for _, outcome in took for f in outcome.failures] == [(0, 0), (1, 0)]
    assert took[1][1].failures[0].log.splitlines() == [
        "try 1, seeds 0 to 1: its worker was killed, after epoch 1",
        "try 2, seed 1: its worker was killed, before its first epoch was reported",
    ]
    told = iter([GONE, EpochDone(TrainingJob(TRIAL, (7,)), (7,), EPOCH), GONE])
    ((_, outcome),), _, _ = dispatched(FakePool(lambda job, tried: next(told), tries=2), (7,))
    (failure,) = outcome.failures
    assert failure.epoch == 1 and len(failure.log.splitlines()) == 2


def test_a_stack_that_loses_its_device_is_tried_like_one_that_loses_its_worker(dispatched):
    def happens(job, tried):
        if 2 not in job.seeds:
            return outcome_of(job)
        alone = [Failure(2, (2,), "error", "a kernel's", "its log")] if job.seeds == (2,) else []
        return JobOutcome([], alone, device_lost="a kernel's")

    pool = FakePool(happens)
    took, _, noted = dispatched(pool, (0, 1, 2, 3))
    assert pool.begun == [(0, 1, 2, 3)] * 3 + [(0, 1), (2, 3), (2,), (3,)]
    assert [(job.seeds, [f.log for f in outcome.failures]) for job, outcome in took] == [
        ((0, 1), []), ((2,), ["its log"]), ((3,), []),
    ]  # fmt: skip
    assert noted[0].endswith(" seeds 0 to 3: its worker lost its device (a kernel's); it is tried again")


def test_what_ended_well_before_the_device_was_lost_is_kept(dispatched):
    def happens(job, tried):
        good = outcome_of(replace(job, seeds=job.seeds[:1]))
        return replace(good, device_lost="a kernel's") if len(job.seeds) > 1 else good

    pool = FakePool(happens)
    took, _, _ = dispatched(pool, (0, 1, 2))
    assert pool.begun == [(0, 1, 2), (1, 2), (2,)] and [job.seeds for job, _ in took] == [(0,), (1,), (2,)]


def test_a_stack_that_loses_every_worker_is_tried_in_halves(dispatched):
    pool = FakePool(lambda job, tried: GONE if 2 in job.seeds else outcome_of(job))
    took, _, _ = dispatched(pool, (0, 1, 2, 3))
    # Three times whole, then each half once, and so on: only the seed that kills its workers fails.
    assert pool.begun == [(0, 1, 2, 3)] * 3 + [(0, 1), (2, 3), (2,), (3,)]
    assert [(job.seeds, len(outcome.failures)) for job, outcome in took] == [((0, 1), 0), ((2,), 1), ((3,), 0)]


def test_a_stack_that_is_killed_for_its_memory_is_halved_at_once(dispatched):
    lost = Lost("out of memory", "took more memory than there is")
    pool = FakePool(lambda job, tried: lost if len(job.seeds) > 2 else outcome_of(job))
    took, _, _ = dispatched(pool, (0, 1, 2, 3))
    assert pool.begun == [(0, 1, 2, 3), (0, 1), (2, 3)] and not any(outcome.failures for _, outcome in took)


def test_a_loss_says_where_it_was(dispatched):
    where = iter(["first", "second", ""])
    pool = FakePool(lambda job, tried: replace(GONE, where=next(where)))
    took, _, noted = dispatched(pool, (0,))
    (failure,) = took[0][1].failures
    assert [text.partition(": ")[2].partition(" was")[0] for text in noted] == [
        "its worker on first",
        "its worker on second",
        "its worker",
    ]
    # All three are in the log, and none is named for all.
    assert failure.message == "its worker was killed, 3 times"
    assert ["first" in failure.log, "second" in failure.log] == [True, True]
    pool = FakePool(lambda job, tried: replace(GONE, where="here"), tries=1)
    assert dispatched(pool, (0,))[0][0][1].failures[0].message == "its worker on here was killed"


def test_a_lost_device_says_where_it_was(dispatched):
    where = iter(["first", "second", "third"])
    took, _, noted = dispatched(
        FakePool(lambda job, tried: JobOutcome([], [], device_lost="a kernel's", where=next(where))), (0,)
    )
    assert noted[0].endswith(": its worker on first lost its device (a kernel's); it is tried again")
    assert took[0][1].failures[0].message == "its worker lost its device (a kernel's), 3 times"


def test_epochs_are_told():
    told = []
    pool = FakePool(lambda job, tried: EpochDone(job, (0,), EPOCH) if len(told) < 2 else outcome_of(job))
    job = TrainingJob(TRIAL, (0, 1))
    dispatch([job], pool, on_events(epoch=lambda *what: told.append(what)))
    assert told == [(job, (0,), EPOCH)] * 2


def test_what_is_heard_of_has_begun_even_if_more_is_in_training_than_was_known():
    told = []

    class Grown(FakePool):
        def wait(self, seconds):
            last = max(self.going)
            return (
                [(last, EpochDone(self.going[last], self.going[last].seeds, EPOCH))]
                if len(told) < 4
                else super().wait(seconds)
            )

    on_event = on_events(
        lambda job, outcome: told.append(("took", job.seeds)),
        lambda job: told.append(("began", job.seeds)),
        lambda job, stack, epoch: told.append(("epoch", stack)),
    )
    dispatch(
        [TrainingJob(TRIAL, (0,)), TrainingJob(TRIAL, (1,))],
        Grown(lambda job, tried: outcome_of(job), slots=1),
        on_event,
    )
    # Each once, before anything else of it.
    assert told == [("began", (0,)), ("began", (1,)), *[("epoch", (1,))] * 2, ("took", (0,)), ("took", (1,))]


def test_an_error_of_a_job_or_of_the_audience_ends_all(dispatched):
    def raises(job, tried):
        raise InputError("no data")

    pool = FakePool(raises)
    with pytest.raises(InputError, match="no data"):
        dispatched(pool, (0,), (1,), (2,))
    assert pool.ended and pool.begun == [(0,), (1,)]

    pool = FakePool(lambda job, tried: outcome_of(job))

    def take(job, outcome):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        dispatch([TrainingJob(TRIAL, (seed,)) for seed in range(3)], pool, on_events(take))
    assert pool.ended and len(pool.begun) == 2


def test_what_has_ended_is_taken_before_an_error_ends_all():
    class AllAtOnce(FakePool):
        def wait(self, seconds):
            return [event for _ in range(len(self.going)) for event in FakePool.wait(self, seconds)]

    pool, took = AllAtOnce(lambda job, tried: outcome_of(job) if job.seeds[0] else InputError("no data")), []
    with pytest.raises(InputError, match="no data"):
        dispatch(
            [TrainingJob(TRIAL, (seed,)) for seed in range(3)],
            pool,
            on_events(lambda job, outcome: took.append(job.seeds)),
        )
    assert took == [(1,)] and pool.ended and pool.begun == [(0,), (1,)]


def test_an_interruption_breaks_off_nothing_that_is_being_taken():
    pool, said, taken = FakePool(lambda job, tried: outcome_of(job)), threading.Event(), []

    def take(job, outcome):
        taken.append("begun")
        if len(taken) == 1:
            interrupt()
            assert said.wait(PATIENCE_SECONDS)
        taken.append("whole")

    with pytest.raises(KeyboardInterrupt):
        dispatch(
            [TrainingJob(TRIAL, (seed,)) for seed in range(9)], pool, on_events(take, stage=lambda text: said.set())
        )
    # What had ended besides is taken, and no more is begun.
    assert taken == ["begun", "whole"] * 2 and len(pool.begun) == 2 and pool.ended
