"""Front-end, inference, a training step and a training epoch, by groups and by mel filters."""

from collections.abc import Callable

import pytest

from bench.grid import PRESETS
from bench.measurement import workloads
from bench.measurement.workloads import Workload
from bench.suite.conftest import timer
from melcnn.config import Trial, configure

pytestmark = pytest.mark.benchmark(timer=timer, disable_gc=True)

GROUPS = [configure(groups=groups) for groups in PRESETS["groups"][1]]
# The study's second axis; 80 mel filters and one group stand in the first already.
MELS = [configure(n_mels=n_mels) for n_mels in PRESETS["mels"][1] if n_mels != 80]
FRONT_ENDS = [configure(n_mels=n_mels) for n_mels in PRESETS["mels"][1]]


def name(trial: Trial) -> str:
    return f"mels{trial.front_end.n_mels}-groups{trial.model.groups}"


@pytest.mark.parametrize("trial", FRONT_ENDS, ids=lambda trial: f"mels{trial.front_end.n_mels}")
def test_front_end(time_work: Callable[[Workload], None], trial: Trial) -> None:
    time_work(workloads.of_trial(trial, ["front-end"])[-1])


@pytest.mark.parametrize("trial", GROUPS + MELS, ids=name)
def test_forward(time_work: Callable[[Workload], None], trial: Trial) -> None:
    time_work(workloads.of_trial(trial, ["latency"])[0])


@pytest.mark.parametrize("trial", GROUPS + MELS, ids=name)
def test_training_step(time_work: Callable[[Workload], None], trial: Trial) -> None:
    time_work(workloads.of_trial(trial, ["step"])[0])


@pytest.mark.parametrize("trial", GROUPS + MELS, ids=name)
def test_training_epoch(time_work: Callable[[Workload], None], trial: Trial) -> None:
    time_work(workloads.of_trial(trial, ["epoch"])[0])
