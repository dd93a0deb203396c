"""Is B faster or slower than A? Two stored measurements of the same workloads, compared."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.measurement import reference, workloads
from bench.measurement.measurements import Measurement, Samples
from bench.system.environment import Environment
from bench.timing.verdicts import (
    EFFECT,
    FEWEST_LAUNCHES,
    UNCLEAR,
    Comparison,
    compare_launches,
)
from melcnn.errors import InputError


@dataclass(frozen=True)
class ComparedWorkload:
    """The comparison of a workload, and the seconds that each side took."""

    label: str
    comparison: Comparison
    time_a: float
    time_b: float


def stored(a: Measurement, b: Measurement, effect: float, across: Sequence[str] = ()) -> list[ComparedWorkload]:
    """Compare the workloads that both measurements hold, through the reference work timed beside each.

    Args:
        across: names from `differences` that are allowed to differ.

    Raises:
        InputError: other differences, no workload in common, or no reference beside it.
    """
    if other := {name: both for name, both in differences(a, b).items() if name not in across}:
        found = "; ".join(f"{name}: {one} / {two}" for name, (one, two) in other.items())
        raise InputError(
            f"A and B are not of the same machine and settings ({found}): measure both alike, or compare all the same "
            f"with --across {','.join([*across, *other])}"
        )
    here = {work.canonical(): index for index, work in enumerate(b.works)}
    labels = workloads.labels(a.works)
    pairs = [(i, here[work.canonical()]) for i, work in enumerate(a.works) if work.canonical() in here]
    if not pairs:
        raise InputError(
            f"A and B are of different work ({labels[0]} ... / {workloads.labels(b.works)[0]} ...): measure the same"
        )
    return [_compare(labels[i], a.of(i), b.of(j), effect) for i, j in pairs]


def caveats(a: Measurement, b: Measurement) -> list[str]:
    """Return the reasons why a comparison of the two is weaker than it could be, each with its remedy."""
    found = []
    if {work.canonical() for work in a.works} != {work.canonical() for work in b.works}:
        found.append(
            "A and B timed different works, only what both hold is compared, and what runs between two calls changes "
            "what the caches hold: measure the same works"
        )
    for name, one in (("A", a), ("B", b)):
        if len(one.launches) < FEWEST_LAUNCHES:
            found.append(
                f"{name} has {len(one.launches)} launches and a verdict needs {FEWEST_LAUNCHES}: measure with "
                f"--launches {FEWEST_LAUNCHES}, or run the suite that often into one folder"
            )
        if busy := sum(any(s and s.held_up for s in launch.samples) for launch in one.launches):
            found.append(
                f"{name}: other processes held up {busy} of {len(one.launches)} launches, in part or whole; these "
                f"do not count, and fewer than {FEWEST_LAUNCHES} others leave a verdict UNCLEAR: measure on a quiet "
                "machine, or compare two configurations side by side, which bears it"
            )
        if one.stopped:
            found.append(f"{name} was stopped early: {one.stopped}")
    return found


def _compare(label: str, a: Sequence[Samples], b: Sequence[Samples], effect: float) -> ComparedWorkload:
    if any(one.log_to_reference is None for side in (a, b) for one in side):
        raise InputError(f"{label} was timed without reference work: measure with 'melbench time -o FILE'")
    if not (a and b):
        raise InputError(f"{label} has no samples in {'A' if not a else 'B'}: measure it again")
    *counted, _ = _counted(a, b)
    times = [statistics.mean(statistics.median(one.seconds) for one in side) for side in counted]
    return ComparedWorkload(label, judge(a, b, effect), *times)


def judge(a: Sequence[Samples], b: Sequence[Samples], effect: float = EFFECT) -> Comparison:
    """Compare B with A for one workload, by the launches that other processes did not hold up.

    If fewer than `FEWEST_LAUNCHES` of either remain, the ratio is of all launches and the verdict UNCLEAR.
    """
    *counted, enough = _counted(a, b)
    logs_a, logs_b = ([log for one in side if (log := one.log_to_reference) is not None] for side in counted)
    found = compare_launches(logs_a, logs_b, effect)
    return found if enough else replace(found, verdict=UNCLEAR)


def _counted(a: Sequence[Samples], b: Sequence[Samples]) -> tuple[Sequence[Samples], Sequence[Samples], bool]:
    """Return the samples of A and B that count, and whether these are enough for a verdict."""
    calm_a, calm_b = ([one for one in side if not one.held_up] for side in (a, b))
    enough = min(len(calm_a), len(calm_b)) >= FEWEST_LAUNCHES
    return (calm_a, calm_b, True) if enough else (a, b, False)


def differences(a: Measurement, b: Measurement) -> dict[str, tuple[object, object]]:
    """Return what differs between two measurements and could change times, by name: (of A, of B).

    melbench itself may differ: that is what a comparison is for.
    """
    if a.reference_version != b.reference_version:
        raise InputError(
            f"A and B were timed beside reference work of versions {a.reference_version} and {b.reference_version} "
            f"(this melbench has {reference.VERSION}): measure both with one version"
        )

    def settings(measurement: Measurement) -> dict[str, object]:
        env: Environment = measurement.environment
        launches = measurement.launches
        packages = {name: number for name, number in env.packages.items() if name in ("torch", "torchaudio")}
        affinity = sorted({str(launch.before.affinity) for launch in launches})
        fields = {
            name: getattr(env, name) for name in ("device", "cpu", "cores", "threads", "system", "python", "cuda")
        }
        return fields | packages | {"affinity": " ".join(affinity)}

    one, two = settings(a), settings(b)
    return {name: (one[name], two.get(name)) for name in one if one[name] != two.get(name)}
