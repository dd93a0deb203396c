import math
from types import SimpleNamespace

import pytest

from bench.measurement import builders, launcher, worker, workloads
from bench.measurement.measurements import Launch, Samples
from bench.measurement.worker import LaunchAnswer, LaunchJob
from bench.system import environment
from bench.system.monitor import Conditions
from melcnn import configure
from melcnn.errors import Failed, InputError
from melcnn.kernels import cuda
from tests.helpers.configurations import plain
from tests.helpers.machines import FakeMachine

MODELS = """
import random
import sys
import time
import torch
from torch import nn

Small = lambda: nn.Sequential(nn.Conv1d(4, 4, 3), nn.Flatten(), nn.Linear(24, 2))

class Chatty(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
    def forward(self, x):
        print("hello")
        return self.layer(x.flatten(1)[:, :8])

class Fails(Chatty):  # long after its warm-up, and in rounds that are too noisy to end before
    start = None
    def forward(self, x):
        Fails.start = Fails.start or time.perf_counter()
        if "pytest" not in sys.modules:  # in a process of its own
            time.sleep(0.002 * random.random())
            if time.perf_counter() - Fails.start > 2:
                raise RuntimeError("out of luck")
        return self.layer(x.flatten(1)[:, :8])

class Dies(Chatty):
    def forward(self, x):
        import os
        if self.training is False and Dies.ready:
            os._exit(3)
        return self.layer(x.flatten(1)[:, :8])
    ready = True

class DiesInTraining(Chatty):
    def forward(self, x):
        if self.training and "pytest" not in sys.modules:
            sys.stderr.flush()
            import os
            os._exit(4)
        return self.layer(x.flatten(1)[:, :8])

class Frozen(nn.Module):
    def forward(self, x):
        return x.sum()
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    (tmp_path / "timed_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "timed_models:{}".format


@pytest.fixture(scope="module")
def env():
    return environment.collect("cpu")


def of_model(name, what=("latency",), shape=(1, 4, 8)):
    return workloads.of_model(name, [shape], what, 4)


def test_a_measurement_of_two_launches(models, env):
    chosen = of_model(models("Chatty"), ["step", "latency"])
    heard, kept = [], []
    found = launcher.measure(chosen, "cpu", 2, 1.0, False, env, lambda *told: heard.append(told), kept.append)
    assert [len(found.of(i)) for i in range(2)] == [2, 2] and found.stopped == ""
    assert [len(one.launches) for one in kept] == [2]
    assert ("launch 2 of 2", "") in heard and ("launch 2 of 2", "1 of 2 timed") in heard
    one = found.of(1)[0]
    assert len(one.seconds) >= 9 and not one.reference_seconds and one.log_to_reference is None
    assert one.overhead_seconds > 0 and one.cold_seconds > 0
    # 8 x 8 + 8 weights, 64 macs
    assert [(fact.params, fact.macs) for fact in found.facts] == [(72, 64)] * 2


def test_reference_work_runs_beside(env):
    chosen = workloads.of_trial(configure(recipe="plain", groups=16, batch_size=2), ["latency", "front-end"])
    job = LaunchJob(works=chosen, device="cpu", referenced=True, max_seconds=3.0, seed=1)
    start, *answers, end = worker.launch_answers(job)
    assert start.before and end.after
    assert sorted(answer.index for answer in answers) == [0, 1, 2] and end.index is None and not end.error
    for answer in answers:
        assert len(answer.samples.reference_seconds) == len(answer.samples.seconds)
        assert math.isfinite(answer.samples.log_to_reference)


def test_reference_work_is_the_study_network():
    from bench.measurement import reference
    from melcnn.model import MelCNN

    ours, plain = MelCNN(40, 4, 32, 3), reference.network(40, 4, 32, 3)
    assert [tuple(p.shape) for p in ours.parameters()] == [tuple(p.shape) for p in plain.parameters()]


def test_launches_are_added_until_every_work_is_known(monkeypatch, env):
    # Means of five: s = 0.02 gives +-2.8 x 0.02 / sqrt(5) = 2.5%; s = 0.005 gives 0.6%.
    chosen = workloads.of_trial(configure(recipe="plain"), ["latency"])
    now = Conditions(threads=1, affinity=None, load=None, cpu_mhz=None)

    def launches(spread, held_up=()):
        def fake(job, progress):
            ratio = 1 + spread * (-1) ** job.seed
            waited = [0.5 * (job.seed in held_up)]
            one = Samples(cold_seconds=1, seconds=[ratio], waited=waited, reference_seconds=[1.0], reference_waited=[0])
            return Launch(samples=[one], before=now, after=now), LaunchAnswer(after=now)

        monkeypatch.setattr(launcher, "_launch", fake)
        return len(launcher.measure(chosen, "cpu", 5, 1.0, True, env).launches)

    assert launches(0.005) == 5
    assert launches(0.02) == 10  # the cap: +-1.5% even then
    assert 5 < launches(0.012) < 10
    # What other processes held up does not count. Five that count need two more, and of a machine where two of five
    # count, ten would bring four: none is added.
    assert launches(0.005, held_up=(2, 4)) == 7
    assert launches(0.005, held_up=(1, 2, 4)) == 5


def test_a_model_that_fails_in_the_middle_keeps_what_was_timed(models, env):
    chosen = of_model(models("Fails"), ["latency", "step"])
    found = launcher.measure(chosen, "cpu", 2, 5.0, False, env)
    assert "Fails raised in round" in found.stopped and "out of luck" in found.stopped
    assert sum(len(found.of(i)) for i in range(2)) >= 1
    assert all(one.seconds for i in range(2) for one in found.of(i))


def test_where_the_time_goes_is_asked_of_networks(monkeypatch):
    monkeypatch.setattr(worker.profiler, "of_call", lambda *_: {"rest": 1.0})
    chosen = workloads.of_trial(configure(recipe="plain", groups=16), ["latency", "front-end"])
    job = LaunchJob(works=chosen, device="cpu", referenced=False, max_seconds=3.0, seed=1)
    _, *answers, _ = worker.launch_answers(job)
    told = {chosen[answer.index].what: answer.samples.shares for answer in answers}
    assert told == {"latency": {"rest": 1.0}, "front-end": {}}


def test_a_call_that_fails_after_its_rounds_keeps_them(monkeypatch):
    def fails(*_):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(worker.profiler, "of_call", fails)
    chosen = workloads.of_trial(configure(recipe="plain", groups=16), ["latency"])
    job = LaunchJob(works=chosen, device="cpu", referenced=False, max_seconds=1.0, seed=1)
    _, answer, end = worker.launch_answers(job)
    assert answer.samples.seconds and answer.samples.shares == {}
    assert end.error == "latency groups=16 raised after its rounds RuntimeError: out of luck" and not end.bad_input


def test_a_process_that_dies_is_said(models, env, monkeypatch):
    monkeypatch.setattr(
        launcher,
        "facts",
        lambda *_: workloads.WorkloadFacts(params=1, macs=1, floor=workloads.roofline.floor([], None)),
    )
    with pytest.raises(Failed, match="a timing process ended with exit code 3"):
        launcher.measure(of_model(models("Dies")), "cpu", 2, 1.0, False, env)


def test_an_interruption_keeps_the_launches_before_it(env, monkeypatch):
    real, kept = launcher._launch, []
    chosen = workloads.of_trial(configure(recipe="plain", groups=16), ["latency"])

    def second_is_interrupted(job, progress):
        if job.seed == 2:
            raise KeyboardInterrupt
        return real(job, progress)

    monkeypatch.setattr(launcher, "_launch", second_is_interrupted)
    with pytest.raises(KeyboardInterrupt):
        launcher.measure(chosen, "cpu", 3, 1.0, False, env, keep=kept.append)
    assert [(len(one.launches), one.stopped) for one in kept] == [(1, "interrupted")]


def test_an_input_that_the_model_refuses(models, env):
    with pytest.raises(InputError, match=r"latency timed_models:Chatty cannot be run: RuntimeError"):
        launcher.measure(of_model(models("Chatty"), shape=(1, 2)), "cpu", 1, 1.0, False, env)


def test_a_process_that_dies_keeps_what_it_had_answered(models, env):
    # As when the device is lost: the process that trains ends without a word, after inference was timed.
    found = launcher.measure(of_model(models("DiesInTraining"), ["latency", "step"]), "cpu", 2, 1.0, False, env)
    assert "a timing process ended with exit code 4" in found.stopped
    assert len(found.of(0)) == 1 and found.of(1) == []


def test_a_model_that_cannot_be_trained(models, env):
    with pytest.raises(InputError, match="has no trainable parameters: time latency or throughput"):
        launcher.measure(of_model(models("Frozen"), ["step"]), "cpu", 1, 1.0, False, env)


def test_no_room_for_repetitions(env):
    chosen = workloads.of_trial(configure(recipe="plain", groups=16, batch_size=512), ["step"])
    with pytest.raises((InputError, Failed), match=r"the time allowed, 0.001 s, has no room for 9 rounds"):
        launcher.measure(chosen, "cpu", 1, 0.001, False, env)


def test_a_work_is_of_a_trial_or_a_model():
    with pytest.raises(ValueError, match="a trial or of a model"):
        workloads.Workload(what="step", clips=1, batch_size=1)
    with pytest.raises(ValueError, match="front-end is a trial's"):
        workloads.Workload(what="front-end", clips=1, batch_size=1, model="a:b")


def test_labels_tell_works_apart():
    chosen = [
        w for g in (1, 4) for w in workloads.of_trial(configure(recipe="plain", groups=g), ["step", "throughput"])
    ]
    labels = workloads.labels(chosen)
    assert len(set(labels)) == len(labels) == 8
    assert labels[0] == "step groups=1" and labels[1] == "throughput batch 16 groups=1"
    # One front-end, whatever networks follow.
    front_ends = {w for g in (1, 4) for w in workloads.of_trial(configure(recipe="plain", groups=g), ["front-end"])}
    assert len(front_ends) == len(workloads.FRONT_END_BATCHES)


def test_a_delay_is_a_share_of_the_call(monkeypatch):
    # The call takes 2 s of fake time; each look at the clock takes 1/64 s. Delayed by half: 3 s, up to a look more.
    machine = FakeMachine(reading=1 / 64)
    monkeypatch.setattr(builders, "time", SimpleNamespace(perf_counter=machine.now))
    builders._delayed(machine.work("a", 2.0), 0.5)()
    assert 3.0 <= machine.time <= 3.0 + 5 / 64


def test_a_launch_computes_in_the_precision_that_it_is_given(monkeypatch):
    asked = []
    monkeypatch.setattr(
        launcher, "_launch", lambda job, progress: asked.append(job) or (None, LaunchAnswer(error="no"))
    )
    env = environment.collect("cpu")
    with cuda.computing_in("tf32"), pytest.raises(Failed):
        works = workloads.of_trial(plain(), ["latency"])
        launcher.measure(works, "cpu", 1, None, False, env)
    with cuda.computing_in("fp32"):
        assert asked[0].precision == "tf32"
        list(worker.launch_answers(asked[0].model_copy(update={"works": []}), FakeMachine().clock))
        assert cuda.precision() == "tf32"
