import random

from bench.measurement import diagnostics
from bench.measurement.measurements import Samples
from bench.system.monitor import Conditions


def samples(seconds, **changes):
    return Samples(cold_seconds=1.0, seconds=seconds, waited=[0.0] * len(seconds)).model_copy(update=changes)


def around(middle, spread, n, seed=0):
    rng = random.Random(seed)
    return [middle * (1 + spread * rng.uniform(-1, 1)) for _ in range(n)]


def only(found, start):
    assert len(found) == 1 and found[0].startswith(start), found


def test_calm_samples_call_for_no_remark():
    assert diagnostics.of_samples(samples(around(1.0, 0.1, 90))) == []
    assert diagnostics.of_samples(samples([1.0] * 90)) == []


def test_drifting():
    # Medians of the thirds: 1 + 14.5 / 300 and 1 + 74.5 / 300, and 0.01 each: 1.258 / 1.058.
    found = diagnostics.of_samples(samples([1 + i / 300 + x for i, x in enumerate(around(0.01, 0.5, 90))]))
    only(found, "drifting: the last third took +19% against the first")


def test_a_trend_within_the_noise_is_no_drift():
    assert diagnostics.of_samples(samples([t * (1 + i / 1500) for i, t in enumerate(around(1.0, 0.3, 90))])) == []


def test_bimodal():
    mixed = around(1.0, 0.02, 60) + around(1.5, 0.02, 30)
    random.Random(2).shuffle(mixed)
    only(diagnostics.of_samples(samples(mixed)), "bimodal: about 1")
    # Humps without any width, where a robust spread is zero.
    mixed = [1.0, 1.0, 2.0] * 30
    only(diagnostics.of_samples(samples(mixed)), "bimodal: about 1 s and about 2 s")


def test_a_few_outliers_are_no_second_hump():
    assert diagnostics.of_samples(samples(around(1.0, 0.02, 95) + [9.0] * 5)) == []


def test_busy_machine():
    waited = [0.0] * 60 + [0.5] * 30
    random.Random(0).shuffle(waited)
    only(
        diagnostics.of_samples(samples([1.0] * 90, waited=waited)),
        "busy machine: others held it up in 33% of the rounds",
    )


def test_too_few_unsteady_imprecise_and_too_short():
    only(diagnostics.of_samples(samples([1.0] * 2)), "only 2 samples")
    only(diagnostics.of_samples(samples([1.0] * 9, steady=False)), "never got steady")
    only(diagnostics.of_samples(samples([1.0] * 9, unmet=["known to ±9%"])), "stopped before it was precise (known to")
    short = samples([1e-3] * 9, resolution_seconds=1e-3)
    only(diagnostics.of_samples(short), "hardly longer than a tick of the clock, 0.001 s")
    assert diagnostics.of_samples(samples([1e-3] * 9, resolution_seconds=1e-3, calls=100)) == []


def test_every_remark_says_what_to_do():
    everything = samples([1.0, 2.0] * 9, steady=False, unmet=["x"], waited=[0.5] * 18, resolution_seconds=1.0)
    found = diagnostics.of_samples(everything)
    assert len(found) == 5 and all(": " in text for text in found)


def conditions(**changes):
    return Conditions(threads=2, affinity=[0, 1], cores=2, load=0.5, cpu_mhz=3000.0).model_copy(update=changes)


def test_of_the_machine():
    of = diagnostics.of_machine
    assert of(conditions(), conditions(load=2.5)) == []  # the load at the end is the launch's own
    only(of(conditions(load=3.0), conditions()), "busy machine: a load of 3 on 2 cores")
    only(of(conditions(), conditions(cpu_mhz=2000.0)), "throttled: the CPU fell from 3000 to 2000 MHz")
    hot = samples([1.0] * 9, during=conditions(throttle=["power cap", "temperature"]))
    only(diagnostics.of_samples(hot), "throttled: the GPU ran slower than it can (power cap, temperature)")
    untold = samples([1.0] * 9, during=conditions(throttle=None))
    only(diagnostics.of_samples(untold), "unknown whether throttled: the GPU's driver does not tell")
    assert of(conditions(load=None, cpu_mhz=None), conditions(load=None, cpu_mhz=None)) == []
