"""What is missing or doubtful in a report's records, as sentences that say what to do: a page must not look complete
where it is not."""

import math
from collections.abc import Sequence

from bench.environment import Environment
from bench.records import TimingRecord, TrialRecord
from melcnn.config import describe

# Configurations named before the rest are counted.
NAMED = 4


def amiss(groups: Sequence[Sequence[TrialRecord]], timings: Sequence[TimingRecord]) -> list[str]:
    """groups: the records of each configuration."""
    if not groups:
        return ["no records of the data set's own splits: accuracies are out-of-fold alone, and there are no curves"]
    trials = [group[0].trial for group in groups]
    names = [describe(trial, trials) for trial in trials]
    every = [record for group in groups for record in group]
    return [
        *_seeds(groups, names),
        *_diverged(groups, names),
        *_times(groups, names, timings),
        *_environments(every),
        *_clips(every),
    ]


def _seeds(groups: Sequence[Sequence[TrialRecord]], names: Sequence[str]) -> list[str]:
    most = {record.seed for group in groups for record in group}
    if len(most) == 1:
        return ["a single seed: no intervals, and no telling how much is chance; train more with --seeds"]
    lacking = [
        f"{name} lacks {len(most - own)} of {len(most)}"
        for name, group in zip(names, groups, strict=True)
        if (own := {record.seed for record in group}) < most
    ]
    return (
        [f"not all seeds are there: {_listed(lacking)}; the same sweep again trains what is missing"] if lacking else []
    )


def _diverged(groups: Sequence[Sequence[TrialRecord]], names: Sequence[str]) -> list[str]:
    def failed(record: TrialRecord) -> bool:
        return not all(math.isfinite(value) for value in [*record.train_loss, *record.validation_loss])

    lines = [
        f"{name} seed {record.seed}"
        for name, group in zip(names, groups, strict=True)
        for record in group
        if failed(record)
    ]
    return (
        [f"losses that are no number (diverged): {_listed(lines)}; its accuracies count in the means"] if lines else []
    )


def _times(groups: Sequence[Sequence[TrialRecord]], names: Sequence[str], timings: Sequence[TimingRecord]) -> list[str]:
    timed = [{one.trial.canonical() for one in timing.timed} for timing in timings]
    wanted = {group[0].trial.canonical(): name for name, group in zip(names, groups, strict=True)}
    untimed = [name for canonical, name in wanted.items() if not any(canonical in some for some in timed)]
    if len(untimed) == len(wanted):
        return ["no epoch times: these records hold no timing run; the same sweep again makes one"]
    lines = [f"no epoch times of {_listed(untimed)}"] if untimed else []
    if not untimed and not any(set(wanted) <= some for some in timed):
        lines.append(
            "epoch times are of several timing runs: compare only those of one run; one sweep over all makes one"
        )
    devices = sorted({timing.environment.device for timing in timings})
    return lines + ([f"epoch times were taken on different devices: {_listed(devices)}"] if len(devices) > 1 else [])


def _environments(records: Sequence[TrialRecord]) -> list[str]:
    def several(what: str, values: set[str]) -> list[str]:
        return [f"trained {what}: {_listed(sorted(values))}; accuracies may differ in their last digits"] * (
            len(values) > 1
        )

    environments: list[Environment] = [record.environment for record in records]
    return [
        *several("on different devices", {e.device for e in environments}),
        *several("by different kernels", {record.kernels for record in records}),
        *several("with different versions of torch", {e.packages.get("torch", "unknown") for e in environments}),
    ]


def _clips(records: Sequence[TrialRecord]) -> list[str]:
    lines = []
    if left_out := max(record.left_out_clips for record in records):
        lines.append(f"{left_out} files gave no clip and were left out")
    if len({record.train_clips for record in records}) > 1:
        counts = sorted({record.train_clips for record in records})
        lines.append(f"trained on different numbers of clips ({_listed([f'{n:,}' for n in counts])}): not comparable")
    if any(set(record.test.names) == set(record.test.speakers) for record in records):
        lines.append("the speakers are unknown: one may be in two splits, which makes accuracy look better than it is")
    return lines


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - NAMED
    return ", ".join(texts[:NAMED]) + (f" and {more} more" if more > 0 else "")
