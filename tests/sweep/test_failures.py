"""Failures are results: recorded with their reason, said, run again when asked, and nobody's but their own seed's."""

import contextlib
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from bench.analysis import summary
from bench.executors import jobs
from bench.executors.base import report_outcome
from bench.executors.events import Finished, Planned
from bench.executors.jobs import TrainingJob, train_job
from bench.executors.threads import Threads
from bench.records import RecordFolder
from bench.report.load import load_report
from bench.sweep import schedule
from bench.sweep.run import ignore, sweep
from bench.system.environment import collect
from melcnn import InputError, extract, steps
from melcnn.errors import Failed
from melcnn.training import Epoch
from tests.helpers.configurations import plain
from tests.helpers.records import failure_record, trial_record, written
from tests.helpers.stand_ins import run_of, stand_in

SMALL = {"n_mels": 16, "channels": 16, "hop_length": 800, "n_fft": 256, "batch_size": 16}
TRIAL, OTHER = (plain(groups=groups, epochs=2, **SMALL) for groups in (1, 2))
ENVIRONMENT = collect("cpu")
OUT_OF_MEMORY = {
    "Python's": MemoryError(),
    "CUDA's": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "torch's on the CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
    ),
    "a CUDA library's": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
}


@pytest.fixture(scope="module")
def features(clips):
    return extract(clips, TRIAL.front_end)


def done(features, seeds, trial=TRIAL, on_epoch=lambda seeds, epoch: None, kernels=None):
    job = TrainingJob(trial, tuple(seeds), kernels)
    return train_job(job, lambda front_end: contextlib.nullcontext(features), on_epoch, ENVIRONMENT)


def fits(most, error):
    """A training that needs more memory than there is for more than `most` seeds."""

    def training(trial, seeds, on_epoch):
        if len(seeds) > most:
            raise error
        return [run_of(seed) for seed in seeds]

    return training


def fails_for(bad, error=None):
    """A training that goes well for a whole stack but for that of the seeds `bad`, after one epoch."""

    def training(trial, seeds, on_epoch):
        on_epoch(Epoch(1, [0.5] * len(seeds), [True] * len(seeds)))
        if set(seeds) & set(bad):
            raise error or ZeroDivisionError("a bug\nof two lines")
        return [run_of(seed) for seed in seeds]

    return training


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_a_stack_that_does_not_fit_is_halved(monkeypatch, error):
    stand_in(monkeypatch, fits(2, error))
    outcome = done(None, range(7))
    # 7 are 3 and 4, and these 1, 2, 2 and 2.
    assert [stack.seeds for stack in outcome.stacks] == [(0,), (1, 2), (3, 4), (5, 6)]
    assert [network.seed for network in outcome.networks] == list(range(7))
    assert not outcome.failures and outcome.environment == ENVIRONMENT


def test_what_torch_says_where_there_is_no_memory_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 46)  # 256 TB
    assert jobs.is_out_of_memory(caught.value) and not jobs.is_out_of_memory(RuntimeError("shape mismatch"))


def test_a_single_seed_that_does_not_fit_failed(monkeypatch):
    stand_in(monkeypatch, fits(0, MemoryError()))
    outcome = done(None, [3, 4])
    assert [(f.seed, f.stack, f.kind, f.epoch) for f in outcome.failures] == [
        (3, (3,), "out of memory", 0), (4, (4,), "out of memory", 0),
    ]  # fmt: skip
    assert not outcome.stacks


def test_a_seed_that_raises_takes_no_other_with_it(monkeypatch):
    stand_in(monkeypatch, fails_for([2]))
    outcome = done(None, range(5))
    assert sorted(network.seed for network in outcome.networks) == [0, 1, 3, 4]
    (failure,) = outcome.failures
    assert (failure.seed, failure.stack, failure.kind, failure.epoch) == (2, (2,), "error", 1)
    assert failure.message == "ZeroDivisionError: a bug"
    assert failure.log.startswith("Traceback") and "in training" in failure.log and "of two lines" in failure.log


def test_a_message_is_one_line_that_commands_no_terminal(monkeypatch):
    stand_in(monkeypatch, fails_for([0], ValueError("\x1b[2J")))
    assert done(None, [0]).failures[0].message == "ValueError: \\x1b[2J"


def test_a_network_that_diverges_is_named_with_its_losses(features):
    outcome = done(features, [0, 1], plain(epochs=3, learning_rate=1e30, **SMALL))
    assert not outcome.stacks and [f.seed for f in outcome.failures] == [0, 1]
    for failure in outcome.failures:
        # The first epoch's mean loss is infinite or none, as its first batches saw.
        assert (failure.kind, failure.stack, failure.epoch) == ("diverged", (0, 1), 0)
        assert failure.message == "the loss is not finite from epoch 1 on: lower learning_rate (it is 1e+30)"
        assert failure.log.startswith("epoch 1: training loss ") and len(failure.log.splitlines()) == 3


@pytest.mark.parametrize("keep, kernels", [("best", "torch"), ("last", "torch"), ("last", "melcnn")])
def test_a_network_that_diverges_disturbs_no_neighbour(features, monkeypatch, keep, kernels):
    trial = plain(epochs=3, keep=keep, groups=2, **SMALL)
    (good,) = done(features, [0, 1, 2], trial, kernels=kernels).stacks
    original = steps._initial

    def poisoned(trial, seed):
        made = original(trial, seed)
        if seed == 1:
            for parameter in made.parameters():
                torch.nn.init.constant_(parameter, math.nan)
        return made

    monkeypatch.setattr(steps, "_initial", poisoned)
    outcome = done(features, [0, 1, 2], trial, kernels=kernels)
    (stack,) = outcome.stacks
    assert [(f.seed, f.kind) for f in outcome.failures] == [(1, "diverged")]
    assert stack.seeds == (0, 1, 2) and [network.seed for network in stack.networks] == [0, 2]
    for ours, theirs in zip(stack.networks, [good.networks[0], good.networks[2]], strict=True):
        assert torch.equal(ours.test_logits, theirs.test_logits) and ours.curves == theirs.curves


def test_a_network_that_ends_without_numbers_diverged(monkeypatch):
    ending, late = run_of(0), run_of(1)
    ending.curves.train_loss.append(math.nan)
    ending.curves.validation_loss.append(0.5)
    late.curves.validation_loss[0:0] = [math.inf]  # at first, but not in the end
    late.curves.train_loss[0:0] = [0.7]
    silent = replace(run_of(2), test_logits=torch.full((16, 2), math.inf))
    stand_in(monkeypatch, lambda trial, seeds, on_epoch: [ending, late, silent])
    outcome = done(None, [0, 1, 2])
    assert [network.seed for network in outcome.networks] == [1]
    assert [(f.seed, f.epoch, f.message.split(":")[0]) for f in outcome.failures] == [
        (0, 1, "the loss is not finite from epoch 2 on"), (2, 1, "the outputs are not finite"),
    ]  # fmt: skip


def test_bad_data_and_interruptions_are_no_failures(monkeypatch):
    for error in (InputError("training needs clips"), KeyboardInterrupt()):
        stand_in(monkeypatch, fails_for([0], error))
        with pytest.raises(type(error)):
            done(None, [0])


def test_what_the_listener_raises_is_no_failure(monkeypatch):
    def broken(stack, epoch):
        raise BrokenPipeError("nobody reads")

    stand_in(monkeypatch, fails_for([]))
    with pytest.raises(BrokenPipeError, match="nobody reads"):
        done(None, [0], on_epoch=broken)


def test_features_that_cannot_be_made_fail_all_seeds_at_once():
    @contextlib.contextmanager
    def none(front_end):
        raise torch.OutOfMemoryError("CUDA out of memory")
        yield

    outcome = train_job(TrainingJob(TRIAL, (0, 1)), none, lambda stack, epoch: None, ENVIRONMENT)
    assert [(f.seed, f.stack, f.kind) for f in outcome.failures] == [
        (0, (0, 1), "out of memory"), (1, (0, 1), "out of memory"),
    ]  # fmt: skip


def test_a_lost_device_ends_the_sweep_and_nobody_is_blamed_for_a_neighbour(clips, monkeypatch):
    stand_in(monkeypatch, fails_for([0], RuntimeError("CUDA error: an illegal memory access was encountered")))
    monkeypatch.setattr(jobs, "_device_lost", lambda: True)
    kept = []
    planned = schedule.StackPlan([(TRIAL, [0, 1]), (OTHER, [0])], 1, 0)
    with pytest.raises(Failed, match="answers no more .*illegal memory access.*the same command goes on"):
        schedule.train(planned, clips, Threads("cpu"), ignore, lambda *what: kept.append(what))
    # No part of the stack is tried, nothing could be trained any more; nor is any of it to blame as yet.
    assert not kept


def test_who_loses_the_device_alone_failed_and_who_comes_after_is_not_judged(monkeypatch):
    lost = []

    def training(trial, seeds, on_epoch):
        if len(seeds) > 1:
            raise ValueError("of one of them")
        if seeds == (1,):
            lost.append(seeds)
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return [run_of(seed) for seed in seeds]

    stand_in(monkeypatch, training)
    monkeypatch.setattr(jobs, "_device_lost", lambda: bool(lost))
    job, took = TrainingJob(TRIAL, (0, 1, 2, 3)), []
    outcome = train_job(job, lambda front_end: contextlib.nullcontext(None), lambda stack, epoch: None, ENVIRONMENT)
    assert [(f.seed, f.stack, f.kind) for f in outcome.failures] == [(1, (1,), "error")]
    assert "illegal memory access" in outcome.device_lost and outcome.settled(job) == (0, 1)
    # Only the seeds that the outcome settles are reported as finished.
    assert report_outcome(job, outcome, took.append) == (2, 3)
    assert took == [Finished(replace(job, seeds=(0, 1)), outcome)]


# In a sweep.


def swept(clips, folder, trials=(TRIAL, OTHER), seeds=2, **more):
    events = []
    result = sweep(list(trials), seeds, clips, RecordFolder(folder), Threads("cpu"), events.append, **more)
    return result, events


def only(bad, error=None):
    """A training of which the configuration and seed `bad` fail."""

    def training(trial, seeds, on_epoch):
        if any((trial, seed) in bad for seed in seeds):
            raise error or ValueError("no luck")
        return [run_of(seed) for seed in seeds]

    return training


def places(records):
    return [(record.trial, record.seed) for record in records]


def test_a_failure_is_recorded_and_not_run_again_unless_asked(clips, tmp_path, monkeypatch):
    stand_in(monkeypatch, only([(OTHER, 1)]))
    result, _ = swept(clips, tmp_path)
    assert places(result.trials) == [(TRIAL, 0), (TRIAL, 1), (OTHER, 0)]
    assert [timed.trial for timed in result.timing.timed] == [TRIAL, OTHER]
    (failure,) = result.failures
    assert (failure.trial, failure.seed, failure.stack, failure.kind, failure.attempt) == (OTHER, 1, [1], "error", 1)
    assert failure.environment == ENVIRONMENT and failure.dataset == clips.dataset and "no luck" in failure.log
    assert RecordFolder(tmp_path).failures() == {failure.identity: failure}

    trained = []
    stand_in(monkeypatch, lambda trial, seeds, on_epoch: trained.append((trial, seeds)) or [run_of(s) for s in seeds])
    result, events = swept(clips, tmp_path)
    assert not trained and result.failures == [failure] and len(result.trials) == 3
    # What was given up is not waited for.
    (begun,) = [event for event in events if isinstance(event, Planned)]
    assert [(one.networks, len(one.finished)) for one in begun.trials] == [(2, 2), (1, 1)]

    result, _ = swept(clips, tmp_path, retry_failed=True)
    assert trained == [(OTHER, (1,))] and not result.failures
    assert places(result.trials) == [(TRIAL, 0), (TRIAL, 1), (OTHER, 0), (OTHER, 1)]
    # The old record is kept, and not reported: not by a sweep, nor by a report.
    assert (tmp_path / failure.file_name).exists() and not swept(clips, tmp_path)[0].failures
    assert not load_report([tmp_path]).chapters[0].failures


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), Failed("groups=2 raised")])
def test_what_is_trained_is_told_without_times_where_the_timing_fails(clips, tmp_path, monkeypatch, caplog, error):
    def build(workload, device, **more):
        raise error

    stand_in(monkeypatch, only([]))
    monkeypatch.setattr("bench.measurement.builders.build", build)
    result, _ = swept(clips, tmp_path)
    assert len(result.trials) == 4 and result.timing is None
    assert [row.epoch_time_s for row in summary.rows(result.trials, result.timing)] == [None, None]
    assert any(text.startswith("epochs could not be timed (") and str(error) in text for text in caplog.messages)


def test_a_command_of_which_the_timing_fails_shows_its_table(melbench, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.measurement.builders.build", lambda workload, device, **more: 1 / 0)
    arguments = ["groups=1", *(f"{name}={value}" for name, value in SMALL.items()), "--data", corpus, "--epochs", 1]
    code, out, err = melbench("sweep", *arguments, "--seeds", 1, "--out", tmp_path, "--format", "csv")
    assert code == 1 and len(out.splitlines()) == 2 and "Traceback" not in err
    assert "epochs could not be timed (ZeroDivisionError: division by zero)" in " ".join(err.split())


def test_a_second_failure_is_written_beside_the_first(clips, tmp_path, monkeypatch):
    stand_in(monkeypatch, only([(OTHER, 1)]))
    (first,) = swept(clips, tmp_path)[0].failures
    stand_in(monkeypatch, only([(OTHER, 1)], MemoryError()))
    (second,) = swept(clips, tmp_path, retry_failed=True)[0].failures
    assert (second.kind, second.attempt, second.identity) == ("out of memory", 2, first.identity)
    assert RecordFolder(tmp_path).failures() == {first.identity: second}
    assert len(list(tmp_path.glob("failure-*.json"))) == 2


def test_a_neighbour_that_is_trained_again_fails_no_second_time(clips, tmp_path, monkeypatch):
    def diverges(trial, seeds, on_epoch):
        return [replace(run_of(seed), test_logits=torch.full((16, 2), math.nan if seed == 1 else 0)) for seed in seeds]

    stand_in(monkeypatch, diverges)
    swept(clips, tmp_path, [TRIAL], 8)  # of one configuration on two cores stacks of two
    gone = next(path for path in tmp_path.glob("trial-*-seed0-*"))
    stack = next(iter(RecordFolder(tmp_path).failures().values())).stack
    assert 0 in stack and 1 in stack
    gone.unlink()
    result, _ = swept(clips, tmp_path, [TRIAL], 8)
    assert gone.exists() and [failure.attempt for failure in result.failures] == [1]
    assert len(list(tmp_path.glob("failure-*.json"))) == 1


def test_a_failure_record_is_read_as_it_was_written(tmp_path):
    record = failure_record(environment=None, log="Traceback\nValueError: no luck")
    folder = written(tmp_path, record)
    assert folder.failures() == {record.identity: record} and not folder.trials() and not folder.timings()
    assert record.identity == trial_record(3).identity
    assert record.file_name == f"failure-mels80-groups1-seed3-{record.identity}-1.json"


def test_what_torch_imports_for_the_first_optimiser_is_in_no_trainings_time():
    code = """
import contextlib, sys
from bench.executors import jobs
from melcnn import configure

def now():
    print("torch._dynamo" in sys.modules)
    return 0.0

jobs.fit = lambda *_: []
print("torch._dynamo" in sys.modules)
job = jobs.TrainingJob(configure(recipe="plain"), (0,))
jobs.train_job(job, lambda front_end: contextlib.nullcontext(), print, None, now)
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert found[0] == "False" and found[1:] and set(found[1:]) == {"True"}
