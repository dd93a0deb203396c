"""Where the time of one clip goes, by hand: a measurement's medians, split by what its launches say of them."""

import pytest

from bench.measurement import workloads
from bench.measurement.workloads import Workload
from bench.report import time_breakdown
from bench.report.time_breakdown import PARTS
from tests.helpers.configurations import plain
from tests.helpers.records import measurement

ONE, FOUR = plain(), plain(groups=4)
FRONT_END = workloads.of_trial(ONE, ["front-end"])[0]
LATENCY = [workloads.of_trial(trial, ["latency"])[0] for trial in (ONE, FOUR)]


def points(of, seconds, shares=()):
    return time_breakdown.points(measurement(of, seconds, shares))


def test_a_clip_alone_by_hand():
    told = {"convolution": 0.5, "fused block": 0.25, "pooling": 0.1, "rest": 0.05, "Python and launching": 0.1}
    found = points([*LATENCY, FRONT_END], (2.0, 1.0, 0.1), [told, {"convolution": 1.0}])
    # Of two seconds 0.5 are convolution, 0.25 fused blocks, 0.1 + 0.05 other operators and 0.1 Python's; and of what
    # takes no time there is no part.
    assert [(p["configuration"], p["batch_size"], p["part"], p["time_s"]) for p in found] == [
        ("groups=1", 1, "front-end", 0.1),
        ("groups=1", 1, "convolution", pytest.approx(1.0)),
        ("groups=1", 1, "fused block", pytest.approx(0.5)),
        ("groups=1", 1, "other operators", pytest.approx(0.3)),
        ("groups=1", 1, "Python (between operators)", pytest.approx(0.2)),
        ("groups=4", 1, "front-end", 0.1),
        ("groups=4", 1, "convolution", 1.0),
    ]
    assert {p["bound_by"] for p in found} == {"arithmetic"}


def test_parts_stand_in_their_order_whatever_takes_longest():
    told = {"Python and launching": 0.4, "pooling": 0.3, "fused block": 0.2, "convolution": 0.1}
    assert [p["part"] for p in points([*LATENCY, FRONT_END], (1.0, 1.0, 1.0), [told])][:5] == list(PARTS[:5])


def test_what_binds_the_network_is_not_what_binds_the_front_end():
    found = measurement([LATENCY[0], FRONT_END], (1.0, 1.0))
    # By its floor the front-end waits for memory.
    facts = found.facts[1]
    memory = facts.floor.model_copy(update={"bound": "memory", "bound_when_busy": "memory"})
    bounded = found.model_copy(update={"facts": [found.facts[0], facts.model_copy(update={"floor": memory})]})
    assert {p["part"]: p["bound_by"] for p in time_breakdown.points(bounded)} == {
        "front-end": "memory", "network, not split": "arithmetic",
    }  # fmt: skip


def test_in_a_batch_a_clip_takes_its_share():
    front_end, network = (
        Workload(what=what, clips=64, batch_size=64, trial=ONE) for what in ("front-end", "throughput")
    )
    found = points([network, front_end], (1.0, 3.0), [{"convolution": 0.25, "rest": 0.75}])
    assert [(p["part"], p["batch_size"]) for p in found] == [
        ("front-end", 64), ("convolution", 64), ("other operators", 64),
    ]  # fmt: skip
    assert [p["time_s"] for p in found] == pytest.approx([3 / 64, 0.25 / 64, 0.75 / 64], rel=1e-5)


def test_the_network_is_whole_where_nobody_says_how_it_splits():
    found = points(LATENCY, (1.0, 0.5))
    assert [(p["configuration"], p["part"]) for p in found] == [
        ("groups=1", "network, not split"), ("groups=4", "network, not split"),
    ]  # fmt: skip
    assert [p["time_s"] for p in found] == [1.0, 0.5]


def test_a_front_end_belongs_to_networks_that_hear_it_in_batches_of_its_size():
    other = Workload(what="front-end", clips=1, batch_size=1, trial=plain(n_mels=40))
    large = Workload(what="front-end", clips=64, batch_size=64, trial=ONE)
    assert {p["part"] for p in points([LATENCY[0], other, large], (1.0,) * 3)} == {"network, not split"}


def test_nothing_of_what_was_not_timed():
    step, epoch = (workloads.of_trial(ONE, [what])[0] for what in ("step", "epoch"))
    sixteen = Workload(what="throughput", clips=16, batch_size=16, trial=ONE)  # no front-end is timed in such batches
    anybodys = Workload(what="latency", clips=1, batch_size=1, model="theirs:Net", input_shapes=((1, 80, 101),))
    assert points([step, epoch, sixteen, anybodys, FRONT_END], (1.0,) * 5) == []
    # A work that was cut short in every launch has no samples.
    cut = measurement(LATENCY, (1.0, 1.0))
    for launch in cut.launches:
        launch.samples[0] = None
    assert {p["configuration"] for p in time_breakdown.points(cut)} == {"groups=4"}
