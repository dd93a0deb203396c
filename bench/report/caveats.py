"""Gaps and doubts in a report's records, as sentences that say what to do: a page must not look complete where it is
not.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from bench.records import FailureRecord, TimingRecord, TrialRecord
from bench.records.failures import describe_failures
from bench.records.folds import missing_seeds
from bench.system.environment import Environment
from melcnn.config import Trial, descriptions

# Configurations named before the rest are counted.
NAMED = 4

# By configuration.
Groups = Sequence[Sequence[TrialRecord]]


def caveats(
    groups: Groups,
    crossings: Groups,
    timed: Mapping[str, TimingRecord],
    failures: Sequence[FailureRecord] = (),
) -> list[str]:
    """Return the gaps and doubts of one data set's records.

    Args:
        groups: the records of each configuration on the data set's own splits.
        crossings: those on folds.
        timed: the run of each epoch time of `groups`, by canonical text.
        failures: of trials without a record, of either kind.
    """
    trials = list(dict.fromkeys(group[0].trial for group in (*groups, *crossings)))
    every = [record for group in (*groups, *crossings) for record in group]
    named = descriptions(trials)
    lines = _failed(failures, trials)
    if groups:
        lines += _seeds(groups, named, failures)
    else:
        lines.append("no records of the data set's own splits: all that is shown is of the cross-validation")
    return [
        *lines,
        *_unfinished(crossings, named, failures),
        *_diverged(every, named),
        *_times(groups, named, timed),
        *_environments(every),
        *_clips(every),
    ]


def speakers_known(records: Iterable[TrialRecord]) -> bool:
    """Return whether the speaker of each clip is known; an unknown one has the clip's name."""
    return not any(
        name == speaker
        for record in records
        for name, speaker in zip(record.test.names, record.test.speakers, strict=True)
    )


def _failed(failures: Sequence[FailureRecord], trials: Sequence[Trial]) -> list[str]:
    every = list(dict.fromkeys([*trials, *(failure.trial for failure in failures)]))
    texts = describe_failures(failures, every)
    return [f"failed: {_listed(texts)}; --retry-failed runs them again"] if texts else []


def _seeds(groups: Groups, named: Mapping[Trial, str], failures: Sequence[FailureRecord]) -> list[str]:
    most = {record.seed for group in groups for record in group}
    # What failed is said, and trained by another option. A fold's seeds are not these.
    failed: dict[Trial, set[int]] = {}
    for failure in failures:
        if not failure.fold:
            failed.setdefault(failure.trial, set()).add(failure.seed)
    if len(most) == 1:
        return ["a single seed: no intervals, and no telling how much is chance; train more with --seeds"]
    lacking = [
        f"{named[group[0].trial]} lacks {len(most - own)} of {len(most)}"
        for group in groups
        if (own := most & ({record.seed for record in group} | failed.get(group[0].trial, set()))) < most
    ]
    return (
        [f"not all seeds are there: {_listed(lacking)}; the same sweep again trains what is missing"] if lacking else []
    )


def _unfinished(crossings: Groups, named: Mapping[Trial, str], failures: Sequence[FailureRecord]) -> list[str]:
    """Return remarks on the cross-validation: what is still to come, failures aside, and whether there is a second
    seed.
    """
    most = {record.seed for records in crossings for record in records}
    names = [named[records[0].trial] for records in crossings if missing_seeds(records, most, failures)]
    lines = []
    if names:
        lines.append(
            f"cross-validation is unfinished for {_listed(names)}: seeds that a fold lacks are left out, and "
            "configurations without any ('melbench recommend' goes on)"
        )
    if len(most) == 1:
        lines.append("cross-validated by a single seed: no intervals, and no telling how much is chance")
    return lines


def _diverged(records: Sequence[TrialRecord], named: Mapping[Trial, str]) -> list[str]:
    def failed(record: TrialRecord) -> bool:
        return not all(math.isfinite(value) for value in [*record.train_loss, *record.validation_loss])

    lines = [
        f"{named[record.trial]} seed {record.seed}" + (f" of fold {record.fold.index + 1}" if record.fold else "")
        for record in records
        if failed(record)
    ]
    if not lines:
        return []
    whose = "its" if len(lines) == 1 else "their"
    return [f"losses that are no number (diverged): {_listed(lines)}; {whose} accuracies count in the means"]


def _times(groups: Groups, named: Mapping[Trial, str], timed: Mapping[str, TimingRecord]) -> list[str]:
    if not groups:
        return []
    if not timed:
        return ["no epoch times: these records hold no timing run; the same sweep again makes one"]
    lines = []
    if untimed := [named[g[0].trial] for g in groups if g[0].trial.canonical() not in timed]:
        lines.append(f"no epoch times of {_listed(untimed)}")
    if len({timing.file_name for timing in timed.values()}) > 1:
        lines.append(
            "epoch times are of several timing runs: compare only those of one run; one sweep over all makes one"
        )
    devices = sorted({timing.environment.device for timing in timed.values()})
    if len(devices) > 1:
        lines.append(f"epoch times were taken on different devices: {_listed(devices)}")
    others = [
        f"{named[group[0].trial]} ({timing.kernels})"
        for group in groups
        if (timing := timed.get(group[0].trial.canonical())) and timing.kernels not in {r.kernels for r in group}
    ]
    if others:
        lines.append(f"epoch times are by other kernels than the training was: {_listed(others)}")
    return lines


def _environments(records: Sequence[TrialRecord]) -> list[str]:
    def several(what: str, values: set[str]) -> list[str]:
        return [f"trained {what}: {_listed(sorted(values))}; accuracies may differ as those of other seeds do"] * (
            len(values) > 1
        )

    environments: list[Environment] = [record.environment for record in records]
    return [
        *several("on different devices", {e.device for e in environments}),
        *several("by different kernels", {record.kernels for record in records}),
        *several("in different precisions", {e.precision or "fp32" for e in environments}),
        *several("with different versions of torch", {e.packages.get("torch", "unknown") for e in environments}),
    ]


def _clips(records: Sequence[TrialRecord]) -> list[str]:
    lines = []
    if left_out := max(record.left_out_clips for record in records):
        lines.append(f"{left_out} files gave no clip and were left out")
    if not speakers_known(records):
        lines.append(
            "not all speakers are known: one may be in two splits or folds, which makes accuracy look better than it is"
        )
    return lines


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - NAMED
    return ", ".join(texts[:NAMED]) + (f" and {more} more" if more > 0 else "")
