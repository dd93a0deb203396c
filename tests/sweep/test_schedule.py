"""Which seeds are trained side by side, how many stacks at once."""

import functools
import threading
from dataclasses import replace

import pytest
import torch

from bench.executors import jobs
from bench.executors.base import Capacity
from bench.executors.events import Finished, Started
from bench.executors.jobs import TrainingJob
from bench.executors.threads import Threads
from bench.sweep import schedule
from bench.sweep.run import ignore
from bench.sweep.schedule import MAX_STACK, missing_stacks, plan_stacks
from bench.system import monitor
from melcnn.steps import bytes_to_train
from melcnn.training import Epoch
from tests.executors.test_thread_pool import interrupt
from tests.helpers.configurations import plain
from tests.helpers.records import trial_record
from tests.helpers.stand_ins import on_events, run_of

TRIALS = [plain(groups=groups) for groups in (1, 4)]
PLENTY, CLIPS = 10**12, 1328
TWO_CORES = Capacity("cpu", 2, PLENTY)


def planned(seeds, trials=TRIALS, present=lambda trial: {}, capacity=TWO_CORES, again=lambda trial: ()):
    return plan_stacks(trials, seeds, CLIPS, present, capacity, again)


def test_stacks_of_one_configuration():
    assert missing_stacks(3, 16, {}) == [[0, 1, 2]]
    assert missing_stacks(3, 16, {s: trial_record(s, stack=[0, 1, 2]) for s in range(3)}) == []
    # more seeds later are a stack of their own
    assert missing_stacks(5, 16, {s: trial_record(s, stack=[0, 1]) for s in range(2)}) == [[2, 3, 4]]
    # a stack whose writing was cut short is trained as it was planned
    assert missing_stacks(6, 16, {0: trial_record(0, stack=[0, 1, 2])}) == [[0, 1, 2], [3, 4, 5]]
    assert missing_stacks(5, 2, {}) == [[0], [1, 2], [3, 4]]


def test_what_is_present_changes_no_stack_of_what_is_missing():
    whole = missing_stacks(11, 3, {})
    for done in whole:
        rest = missing_stacks(11, 3, {s: trial_record(s, stack=done) for s in done})
        assert rest == [stack for stack in whole if stack != done]


def test_a_seed_that_failed_is_trained_without_its_neighbours():
    stack = [0, 1, 2, 3]
    present = {seed: trial_record(seed, stack=stack) for seed in (0, 1, 3)}
    # Its failure was written, and with it all of the stack; unless some other seed's record is missing.
    assert missing_stacks(4, 16, present, again=[2]) == [[2]]
    assert missing_stacks(4, 16, {0: present[0], 1: present[1]}, again=[2]) == [stack]


def test_every_core_has_work_and_the_longest_begin():
    # 2 x 5 trainings on two cores, two stacks for each core: ceil(10 / 4) = 3 seeds at the most.
    found = planned(5)
    assert [(trial.model.groups, seeds) for trial, seeds in found.stacks] == [
        (1, [2, 3, 4]), (4, [2, 3, 4]), (1, [0, 1]), (4, [0, 1]),
    ]  # fmt: skip
    assert found.at_once == 2
    assert found.bytes == 3 * bytes_to_train(TRIALS[0], CLIPS) + 3 * bytes_to_train(TRIALS[1], CLIPS)
    assert "training 10 networks in 4 stacks of at most 3, 2 at a time (about 0." in found.describe()
    assert planned(1, TRIALS[:1]).describe().startswith("training 1 networks in one stack (about")
    largest = max(len(seeds) for _, seeds in planned(1000).stacks)
    assert largest <= MAX_STACK["cpu"]


def test_one_stack_after_another_on_a_gpu():
    found = planned(32, capacity=Capacity("cuda", 1, PLENTY))
    assert found.at_once == 1 and [len(seeds) for _, seeds in found.stacks] == [32, 32]


def test_every_gpu_has_work():
    # 2 x 32 trainings on eight, two stacks for each: ceil(64 / 16) = 4 seeds.
    found = planned(32, capacity=Capacity("cuda", 8, PLENTY))
    assert found.at_once == 8 and {len(seeds) for _, seeds in found.stacks} == {4}


def test_stacks_are_split_when_the_memory_is_small():
    # Half of what is free for a core holds two replicas of groups 1 and somewhat more of groups 4.
    free = int(2.5 * bytes_to_train(TRIALS[0], CLIPS) / schedule.MEMORY_SHARE)
    assert max(len(seeds) for _, seeds in planned(8, capacity=Capacity("cpu", 2, free)).stacks) == 2
    # One replica is always tried.
    assert {len(seeds) for _, seeds in planned(8, capacity=Capacity("cpu", 2, 1)).stacks} == {1}


def test_bytes_to_train_by_hand():
    # At groups 1, batch 64: autograd keeps for each clip, in floats: input 80 x 101, ReLU 32 x 101, BatchNorm's input
    # (the same), its output 32 x 101, pooled 32 x 50 with int64 indices, and so on with 50 and 25 frames: about 20,000
    # floats, 80 kB; twice, times 64, is about 11 MB.
    assert 8e6 < bytes_to_train(plain(), CLIPS) < 16e6
    assert bytes_to_train(plain(batch_size=128), CLIPS) == pytest.approx(2 * bytes_to_train(plain(), CLIPS), rel=0.05)
    # A batch holds no more clips than there are.
    assert bytes_to_train(plain(batch_size=10_000), 64) == bytes_to_train(plain(), 64)


def test_times_are_kept_by_epoch(clips):
    trials = [plain(n_mels=16, n_fft=256, hop_length=800, channels=8, epochs=2)]
    now, kept = iter(range(100)), []
    executor = Threads("cpu", functools.partial(jobs.train_job, now=lambda: float(next(now))))
    schedule.train(planned(1, trials), clips, executor, ignore, lambda *a: kept.append(a))
    ((job, outcome),) = kept
    (stack,) = outcome.stacks
    assert stack.elapsed == [1.0, 2.0] and job.seeds == stack.seeds == (0,)
    assert [network.seed for network in outcome.networks] == [0] and not outcome.failures


def test_what_is_told_of_a_stack(clips):
    trials = [plain(n_mels=16, n_fft=256, hop_length=800, channels=8, epochs=2)]
    one, events = replace(planned(2, trials), stacks=[(trials[0], [0, 1])], at_once=1), []

    def keep(job, outcome):
        events.append([network.validation_accuracy for network in outcome.networks])

    schedule.train(one, clips, Threads("cpu"), events.append, keep)
    started, first, second, kept, ended = events
    job = TrainingJob(trials[0], (0, 1))
    assert started == Started(job)
    assert [(e.job, e.seeds, e.epoch.number) for e in (first, second)] == [(job, (0, 1), 1), (job, (0, 1), 2)]
    # The recipe plain keeps the best epoch. The end is reported once the outcome is stored.
    assert isinstance(ended, Finished) and second.epoch.best_accuracy == kept
    assert [network.validation_accuracy for network in ended.outcome.networks] == kept


@pytest.mark.parametrize("stopped_early", [False, True])
def test_an_interruption_takes_what_has_done_its_last_epoch(clips, monkeypatch, stopped_early):
    trials = [plain(n_mels=16, n_fft=256, hop_length=800, channels=8, groups=g, epochs=3) for g in (1, 2)]
    interrupted, kept, lost = threading.Event(), [], []
    in_training = threading.Barrier(2, timeout=300)

    def fit(trial, features, seeds, on_epoch, kernels):
        in_training.wait()
        if trial == trials[0]:
            interrupt()
        assert interrupted.wait(300)
        try:
            # One has done its last epoch when the interruption is heard of, the other has not.
            last = trial == trials[0]
            on_epoch(Epoch(2 if stopped_early or not last else 3, [0.5], [not (stopped_early and last)]))
        except BaseException:
            lost.append(trial)
            raise
        return [run_of(seeds[0])]

    monkeypatch.setattr(jobs, "fit", fit)
    both = replace(planned(1, trials), at_once=2)
    on_event = on_events(stage=lambda text: interrupted.set())
    with pytest.raises(KeyboardInterrupt):
        schedule.train(both, clips, Threads("cpu"), on_event, lambda job, outcome: kept.append(job.trial))
    assert kept == trials[:1] and lost == trials[1:]


def test_how_many_run_at_once_does_not_change_a_result(clips):
    trials = [plain(n_mels=16, n_fft=256, hop_length=800, channels=8, groups=g, epochs=2) for g in (1, 2)]

    def logits(at_once):
        found = {}

        def keep(job, outcome):
            (stack,) = outcome.stacks
            found[job.trial, stack.seeds] = [network.test_logits for network in stack.networks]

        schedule.train(replace(planned(2, trials), at_once=at_once), clips, Threads("cpu"), ignore, keep)
        return found

    # One at a time has all of torch's threads, whose sums may differ in the last bits; several have one each.
    two, four = logits(2), logits(4)
    assert two.keys() == four.keys()
    for key in two:
        assert all(torch.equal(a, b) for a, b in zip(two[key], four[key], strict=True))


def test_what_is_present_changes_not_how_many_run_at_once():
    rest = planned(5, present=lambda trial: {s: trial_record(s, stack=[s]) for s in range(4)})
    assert len(rest.stacks) == 2 and rest.at_once == planned(5).at_once == 2
    last = planned(5, present=lambda t: {s: trial_record(s, stack=[s]) for s in range(5 - (t == TRIALS[0]))})
    assert len(last.stacks) == 1 and last.at_once == 2


def test_a_sweep_counts_while_it_trains_and_disturbs_no_weights(clips, tmp_path):
    from bench.records import RecordFolder
    from bench.sweep.run import sweep

    trials = [plain(n_mels=16, n_fft=256, hop_length=800, channels=8, groups=g, epochs=1) for g in (1, 2, 4)]
    found = [sweep(trials, 4, clips, RecordFolder(tmp_path / str(i)), Threads("cpu")).trials for i in range(3)]
    for first, *others in zip(*found, strict=True):
        assert all(other.test.logits == first.test.logits for other in others)


def test_what_torch_keeps_of_a_gpu_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 20)
    assert monitor.free_bytes("cuda") == 100 + (50 - 20)


def test_free_memory_by_hand(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable: 50 kB\n")
    monkeypatch.setattr(monitor, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(monitor, "CONTROL_GROUP", tmp_path)
    assert monitor.free_bytes("cpu") == 50 * 1024
    # A container's limit of 40 kB, 30 used, of which 10 are files that can be let go.
    for name, text in (("max", "40960"), ("current", "30720"), ("stat", "anon 20480\ninactive_file 10240\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert monitor.free_bytes("cpu") == 20 * 1024
    (tmp_path / "memory.max").write_text("max\n")  # none
    assert monitor.free_bytes("cpu") == 50 * 1024
