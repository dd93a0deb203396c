"""The study's two tables beside ours, and its claims: holds, does not, cannot tell. Sees records and runs nothing.

The study: log-mel filter banks and a convolutional network on the words yes and no of Speech Commands v0.02, official
splits; one run a row, on one RTX 3090. Every interval here is over seeds, for the clips of the records.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from bench.analysis import summary
from bench.analysis.published import STUDY, STUDY_CLIPS, STUDY_DEVICE
from bench.formats import Sheet
from bench.records import TimingRecord, TrialRecord
from bench.stats.intervals import difference_interval, median_interval, prediction_interval, significant
from bench.stats.noninferiority import MARGIN

GROUPS = [(80, groups) for groups in (1, 2, 4, 8, 16)]
MELS = [(n_mels, 1) for n_mels in (20, 40, 80)]

HOLDS, DOES_NOT, CANNOT_TELL = "holds", "does not", "cannot tell"

# Chance that any interval within one claim misses, all together.
ERROR = 0.05
# "Comparable": half a point, four of the 824 test clips. (The study's single runs differ by up to 1.5 points, which
# would not be comparable if means over seeds did.)
COMPARABLE = 0.005
# The reading of its optimum leaves room for the study's own figures, so that it could be shown to hold. To 4 groups,
# where that begins, it gives up 0.6 points (796 - 791 of 803 clips), to 8 groups 2.0: between the two.
WORTH_IT = 0.01
# "At about the same speed", read off curves over epochs. Epochs are whole: with the study's 6358 clips the second or
# the third may be the first good one, a factor of 1.5. (A factor, because fewer clips need more epochs throughout.)
AS_FAST = 1.5
# Of the final validation accuracy.
CONVERGED = 0.99
# "Hardly changes": the study's own times differ by 3%, printed with two digits.
FLAT = 1.1

Key = tuple[int, int]  # (n_mels, groups)
Found = Mapping[Key, Sequence[TrialRecord]]
Interval = tuple[float, float, float]  # middle, low, high; infinite where nothing is known


def sheets(trials: Sequence[TrialRecord], timing: TimingRecord | None, by_torch: TimingRecord | None) -> list[Sheet]:
    """Return the study's tables of groups and of n_mels beside the records, and its claims.

    Args:
        trials: records of one recipe; configurations that the study lacks are left out, and so is an empty table.
        timing: the epochs of all of them, in one interleaved run.
        by_torch: the same by torch's kernels, which the study's claim about time is about.

    Raises:
        ValueError: two configurations have the same n_mels and groups, or none is in the study.
    """
    found: dict[Key, list[TrialRecord]] = {}
    for record in trials:
        if (key := (record.trial.front_end.n_mels, record.trial.model.groups)) in STUDY:
            found.setdefault(key, []).append(record)
    if not found:
        raise ValueError("no trial is of a configuration that the study has")
    if any(len({record.trial.canonical() for record in records}) > 1 for records in found.values()):
        raise ValueError("two configurations have the same n_mels and groups: reproduce the study with one at a time")
    ratios = _time_ratios(timing)
    made = [
        _table(axis, {key: found[key] for key in keys if key in found}, timing, ratios)
        for axis, keys in (("groups", GROUPS), ("n_mels", MELS))
        if any(key in found for key in keys)
    ]
    return [*made, _claims(found, timing, by_torch)]


def _validation(record: TrialRecord) -> float:
    # What the study printed: the best of all epochs, whichever epoch the recipe keeps.
    return max(record.validation_accuracy)


def _epochs(record: TrialRecord) -> int:
    """Return the epochs until the validation accuracy first reached 99% of the last epoch's."""
    enough = CONVERGED * record.validation_accuracy[-1]
    return next(number for number, value in enumerate(record.validation_accuracy, 1) if value >= enough)


def _spreadless(values: Sequence[float]) -> str | None:
    """Return why values say nothing about the next one, or None: no spread would make any other value impossible."""
    if len(values) < 2:
        return "one seed"
    if min(values) == max(values):
        return "saturated" if values[0] == 1 else "all seeds agree"
    return None


_SHARED = ("dataset", "words", "n_mels", "groups", "recipe", "seeds", "params", "macs_all_layers", "kernels", "device")
_HEADINGS = ("params", "MACs (all layers)", "val accuracy (best epoch)", "test accuracy", "epoch time")


def _table(axis: str, found: Found, timing: TimingRecord | None, ratios: Mapping[Key, Sequence[float]]) -> Sheet:
    rows = summary.rows([record for records in found.values() for record in records], timing)
    records, cells = [], []
    reference = STUDY[80, 1].epoch_time_s
    for row, (key, seeds) in zip(rows, found.items(), strict=True):
        study = STUDY[key]
        validation = _beside("val_accuracy_max", [_validation(r) for r in seeds], study.val_accuracy_max)
        test = _beside("test_accuracy", [r.test.accuracy for r in seeds], study.test_accuracy)
        # Of the ratios within rounds, which a machine that drifts leaves alone.
        ratio = statistics.median(ratios[key]) if key in ratios else None
        study_ratio = study.epoch_time_s / reference if study.epoch_time_s and reference else None
        theirs = {**study._asdict(), "epoch_time_ratio": study_ratio, **STUDY_CLIPS, "device": STUDY_DEVICE}
        records.append(
            {
                **{name: getattr(row, name) for name in _SHARED},
                **_clips(seeds[0]),
                **validation[0],
                **test[0],
                "epoch_time_s": row.epoch_time_s,
                "epoch_time_ratio": significant(ratio),
                **{f"study_{n}": significant(v) if isinstance(v, float) else v for n, v in theirs.items()},
            }
        )
        cells.append(
            [
                str(getattr(row, axis)),
                _count(row.params),
                _count(study.params),
                _count(row.macs_all_layers),
                _count(study.macs_all_layers),
                *validation[1],
                *test[1],
                _time(row.epoch_time_s, ratio, 3),
                _time(study.epoch_time_s, study_ratio, 2),
            ]
        )
    return Sheet(
        title=f"{axis} beside the study's, {summary.sheet(rows).title}",
        headings=[axis, *(who + what for what in _HEADINGS for who in ("", "study's "))],
        cells=cells,
        records=records,
        notes=[
            "± 95% prediction interval of one run, t s sqrt(1 + 1/n) over seeds, on these clips.",
            "inside, outside: where the study's single run lies. Outside may be due to other validation clips or more "
            "training clips alone. Without a spread over seeds (saturated: all at 1) this cannot be told.",
            f"{_clips_text(next(iter(found.values()))[0])}.",
            "x: relative to n_mels 80 and groups 1, ours in the same rounds. Compare only these ratios: the study's "
            f"seconds are for its clips on an {STUDY_DEVICE}.",
        ],
        spare=[
            "study's params",
            "study's MACs (all layers)",
            "study's epoch time",
            "params",
            "MACs (all layers)",
            "epoch time",
        ],
        key=axis,
    )


def _beside(name: str, values: Sequence[float], study: float | None) -> tuple[dict[str, object], list[str]]:
    """Return the columns of an accuracy, and its cells: ours, and the study's with where it lies."""
    (mean, half), why = prediction_interval(values), _spreadless(values)
    lies = None
    if study is not None:
        lies = CANNOT_TELL if half is None or why else "inside" if abs(study - mean) <= half else "outside"
    ours = {name: significant(mean), f"{name}_prediction95": None if why else significant(half)}
    cells = [f"{mean:.4f} ({why})" if why else f"{mean:.4f} ±{half:.4f}", f"{study:.4f} {lies}" if lies else ""]
    return {**ours, f"study_{name}_lies": lies}, cells


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _time(seconds: float | None, ratio: float | None, digits: int) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.{digits}f} s" + ("" if ratio is None else f" (x {ratio:.2f})")


def _clips(record: TrialRecord) -> dict[str, int]:
    counts = record.train_clips, len(record.validation.labels), len(record.test.labels)
    return dict(zip(STUDY_CLIPS, counts, strict=True))


def _clips_text(record: TrialRecord) -> str:
    return "; ".join(
        f"{n} {name.replace('_', ' ')} (the study {STUDY_CLIPS[name]})" for name, n in _clips(record).items()
    )


def _time_ratios(timing: TimingRecord | None) -> dict[Key, list[float]]:
    """Return epoch times relative to n_mels 80 and groups 1, round by round; empty if that one was not timed."""
    timed = timing.timed if timing else []
    seconds = {(t.trial.front_end.n_mels, t.trial.model.groups): np.array(t.epoch_seconds) for t in timed}
    return {key: (times / seconds[80, 1]).tolist() for key, times in seconds.items() if (80, 1) in seconds}


# The claims. Intervals within one claim hold together with 95% (Bonferroni: each with 1 - 0.05 / their number), and
# each verdict is read off whole intervals, as FASTER, SAME and SLOWER are: what an interval leaves open is open.


def _claims(found: Found, timing: TimingRecord | None, by_torch: TimingRecord | None) -> Sheet:
    judged: list[tuple[str, list[Key], Callable[[], tuple[str, str]]]] = [
        ("the three n_mels converge equally fast", MELS, lambda: _equally_fast(found)),
        ("n_mels 20 is best", MELS, lambda: _twenty_best(found)),
        ("quality is comparable over n_mels", MELS, lambda: _comparable(found)),
        ("params and MACs fall with groups", GROUPS, lambda: _fall(found)),
        ("epoch time stays flat over groups", GROUPS, lambda: _flat(by_torch, timing)),
        ("the optimum lies at 4 to 8 groups", [(80, g) for g in (1, 4, 8, 16)], lambda: _optimum(found)),
        ("16 groups are still good", [(80, 1), (80, 16)], lambda: _still_good(found)),
    ]
    records = []
    for claim, needed, judge in judged:
        missing = [f"n_mels {n_mels} groups {groups}" for n_mels, groups in needed if (n_mels, groups) not in found]
        verdict, evidence = (CANNOT_TELL, f"no records of {', '.join(missing)}") if missing else judge()
        records.append({"claim": claim, "verdict": verdict, "evidence": evidence})
    first = next(iter(found.values()))[0]
    title = summary.sheet(summary.rows([record for records in found.values() for record in records], timing)).title
    return Sheet(
        title=f"the study's claims, {title}",
        headings=list(records[0]),
        cells=[list(record.values()) for record in records],
        records=records,
        notes=[
            "± and (low to high): 95% intervals over seeds; for epoch times, over the rounds of one timing run. They "
            "are corrected for the comparisons within a claim (Bonferroni), and hold for these clips, not for other "
            "speakers.",
            f"{_clips_text(first)}.",
        ],
        key="claims",
    )


def _verdict(holds: bool, fails: bool) -> str:
    return HOLDS if holds else DOES_NOT if fails else CANNOT_TELL


def _equivalent(intervals: Collection[Interval], bound: float) -> str:
    """Return whether all intervals lie within ±bound (holds) or one lies wholly beyond it (does not)."""
    within = all(-bound <= low and high <= bound for _, low, high in intervals)
    return _verdict(within, any(low > bound or high < -bound for _, low, high in intervals))


def _differences(values: Sequence[tuple[Sequence[float], Sequence[float]]]) -> list[Interval]:
    """Return mean(b) - mean(a) of each pair (a, b) with simultaneous intervals (Welch, Bonferroni).

    An interval is infinite where the seeds of either show no spread.
    """
    intervals = [difference_interval(a, b, 1 - ERROR / len(values)) for a, b in values]
    return [
        (middle, -math.inf, math.inf) if _spreadless(a) or _spreadless(b) else (middle, low, high)
        for (middle, low, high), (a, b) in zip(intervals, values, strict=True)
    ]


def _between_mels(found: Found, figure: Callable[[TrialRecord], float]) -> dict[Key, Interval]:
    """Return b - a for each pair (a, b) of n_mels."""
    pairs = list(itertools.combinations((20, 40, 80), 2))
    values = {n_mels: [figure(r) for r in found[n_mels, 1]] for n_mels in (20, 40, 80)}
    return dict(zip(pairs, _differences([(values[a], values[b]) for a, b in pairs]), strict=True))


def _to_groups_1(found: Found, groups: Sequence[int], figure: Callable[[TrialRecord], float]) -> dict[int, Interval]:
    values = {g: [figure(r) for r in found[80, g]] for g in (1, *groups)}
    return dict(zip(groups, _differences([(values[1], values[g]) for g in groups]), strict=True))


def _equally_fast(found: Found) -> tuple[str, str]:
    """Test whether epochs to 99% of the final validation accuracy agree within a factor of 1.5.

    As logarithms, because a few seeds take far longer than the rest.
    """
    intervals = _between_mels(found, lambda record: math.log(_epochs(record)))
    means = [f"{n}: {math.exp(statistics.mean(math.log(_epochs(r)) for r in found[n, 1])):.1f}" for n in (20, 40, 80)]
    return (
        _equivalent(intervals.values(), math.log(AS_FAST)),
        f"equally fast: within a factor of {AS_FAST:g}; epochs to {CONVERGED:.0%} of the final validation accuracy "
        f"(geometric means) at n_mels {', '.join(means)}; ratios "
        + ", ".join(f"{b} / {a}: {_ratio_text(interval)}" for (a, b), interval in intervals.items()),
    )


def _twenty_best(found: Found) -> tuple[str, str]:
    """Test whether 20 mel filters have the best test accuracy, by however little.

    The study also calls all three comparable: a margin would make its claims contradict each other. The claim fails
    if 20 is surely worse than 40 or 80.
    """
    test = {n_mels: [r.test.accuracy for r in found[n_mels, 1]] for n_mels in (20, 40, 80)}
    intervals = dict(zip((40, 80), _differences([(test[other], test[20]) for other in (40, 80)]), strict=True))
    means = ", ".join(f"{n_mels}: {statistics.mean(values):.4f}" for n_mels, values in test.items())
    texts = ", ".join(f"20 - {other}: {_difference_text(interval)}" for other, interval in intervals.items())
    return (
        _verdict(all(low > 0 for _, low, _ in intervals.values()), any(high < 0 for _, _, high in intervals.values())),
        f"best: above both others in test accuracy; at n_mels {means}; {texts}",
    )


def _comparable(found: Found) -> tuple[str, str]:
    """Test whether the test accuracies agree within half a point."""
    intervals = _between_mels(found, lambda record: record.test.accuracy)
    texts = ", ".join(f"{b} - {a}: {_difference_text(interval)}" for (a, b), interval in intervals.items())
    return _equivalent(
        intervals.values(), COMPARABLE
    ), f"comparable: within {COMPARABLE:g} in test accuracy; n_mels {texts}"


def _fall(found: Found) -> tuple[str, str]:
    """Check exact figures: parameters and multiply-accumulates each fall at every step of groups."""
    counts = [(c.params, c.macs_all_layers) for c in (found[key][0].complexity for key in GROUPS)]
    falls = all(after[i] < before[i] for before, after in itertools.pairwise(counts) for i in (0, 1))
    same = sum(
        ours == (STUDY[key].params, STUDY[key].macs_all_layers) for ours, key in zip(counts, GROUPS, strict=True)
    )
    params, macs = (", ".join(f"{count:,}" for count in column) for column in zip(*counts, strict=True))
    return (
        _verdict(falls, not falls),
        f"at groups 1 to 16 params {params}; MACs (all layers) {macs}: {same} of {len(GROUPS)} exactly the study's",
    )


def _flat(by_torch: TimingRecord | None, ours: TimingRecord | None) -> tuple[str, str]:
    """Test whether epoch times stay within 10% of those at groups 1, by medians of the ratios within rounds.

    By torch's kernels, which the study used; ours, if they are others, are shown beside them.
    """

    def intervals(timing: TimingRecord) -> dict[int, Interval]:
        ratios = _time_ratios(timing)
        return {g: median_interval([math.log(r) for r in ratios[80, g]], 1 - ERROR / 4) for g in (2, 4, 8, 16)}

    def text(timing: TimingRecord) -> str:
        return ", ".join(f"{g}: x {_ratio_text(interval)}" for g, interval in intervals(timing).items())

    if by_torch is None or any(key not in _time_ratios(by_torch) for key in GROUPS):
        return CANNOT_TELL, "epochs of all five groups were not timed in one run by torch's kernels"
    beside = ""
    if ours and ours.kernels != "torch" and all(key in _time_ratios(ours) for key in GROUPS):
        beside = f"; by melbench's kernels groups {text(ours)}"
    return (
        _equivalent(intervals(by_torch).values(), math.log(FLAT)),
        f"flat: within {FLAT - 1:.0%} of groups 1; torch's kernels on {by_torch.environment.device}, in the same "
        f"rounds, groups {text(by_torch)}{beside}",
    )


def _optimum(found: Found) -> tuple[str, str]:
    """Test whether the cheapest configuration with at most a point less validation accuracy than groups 1 is 4 or 8.

    Holds if 16 is surely below and 4 or 8 surely not; fails if 16 is surely not below, or 4 and 8 surely are.
    """
    intervals = _to_groups_1(found, (4, 8, 16), _validation)
    near = {g: low >= -WORTH_IT for g, (_, low, _) in intervals.items()}
    below = {g: high < -WORTH_IT for g, (_, _, high) in intervals.items()}
    verdict = _verdict(below[16] and (near[4] or near[8]), near[16] or (below[4] and below[8]))
    reading = f"optimum: the cheapest at most {WORTH_IT:g} below groups 1 in validation accuracy"
    return verdict, f"{reading}; {_losses(found, (4, 8, 16))}"


def _still_good(found: Found) -> tuple[str, str]:
    """Test whether the validation accuracy is at most half a point below that of groups 1, as `recommend` does."""
    _, low, high = _to_groups_1(found, [16], _validation)[16]
    reading = f"still good: at most {MARGIN:g} below groups 1 in validation accuracy, the margin of recommend"
    return _verdict(low >= -MARGIN, high < -MARGIN), f"{reading}; {_losses(found, [16])}"


def _losses(found: Found, groups: Sequence[int]) -> str:
    """Return the differences from groups 1 in validation accuracy and, for information, in test accuracy."""

    def differences(figure: Callable[[TrialRecord], float]) -> str:
        intervals = _to_groups_1(found, groups, figure)
        return ", ".join(f"{g}: {_difference_text(interval)}" for g, interval in intervals.items())

    whys = {g: _spreadless([_validation(r) for r in found[80, g]]) for g in (1, *groups)}
    silent = "".join(f" (groups {g}: {why})" for g, why in whys.items() if why)
    return f"groups {differences(_validation)}{silent}; test {differences(lambda record: record.test.accuracy)}"


def _difference_text(interval: Interval) -> str:
    middle, _, high = interval
    return f"{middle:+.4f} " + (f"±{high - middle:.4f}" if math.isfinite(high) else "(no interval)")


def _ratio_text(interval: Interval) -> str:
    middle, low, high = interval
    bounds = f"{math.exp(low):.2f} to {math.exp(high):.2f}" if math.isfinite(high) else "no interval"
    return f"{math.exp(middle):.2f} ({bounds})"
