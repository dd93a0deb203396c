"""Front-end, inference, a training step and a training epoch, by groups and by mel filters."""

from collections.abc import Callable

import pytest

from bench.grid import PRESETS
from bench.measurement import workloads
from bench.measurement.workloads import Workload
from bench.suite.conftest import timer
from melcnn.config import configure

pytestmark = pytest.mark.benchmark(timer=timer, disable_gc=True)

MELS = PRESETS["mels"][1]
# The study's two axes; they cross at one group and 80 mel filters.
NETWORKS = [(groups, 80) for groups in PRESETS["groups"][1]] + [(1, n_mels) for n_mels in MELS if n_mels != 80]
# `what` is named as by `melbench time --what`. No network follows a front-end: its groups are None, not left out, so
# that pytest-benchmark can group by them, and not a text, so that they are null among numbers in the JSON.
FRONT_ENDS = [("front-end", None, n_mels) for n_mels in MELS]
BENCHMARKS = FRONT_ENDS + [(what, *network) for what in ("latency", "step", "epoch") for network in NETWORKS]


def name(what: str, groups: int | None, n_mels: int) -> str:
    return f"{what}-mels{n_mels}" + (f"-groups{groups}" if groups else "")


@pytest.mark.parametrize(("what", "groups", "n_mels"), BENCHMARKS, ids=[name(*each) for each in BENCHMARKS])
def test_speed(time_work: Callable[[Workload], None], what: str, groups: int | None, n_mels: int) -> None:
    # The recipe of the study, which files of earlier versions are of: other works would not be comparable with them.
    trial = configure(recipe="plain", n_mels=n_mels, groups=groups or 1)
    time_work(workloads.of_trial(trial, [what])[-1])  # of the front-end's works the one of a batch
