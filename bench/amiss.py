"""What is missing or doubtful in a report's records, as sentences that say what to do: a page must not look complete
where it is not."""

import math
from collections.abc import Iterable, Sequence

from bench.crossval import by_fold
from bench.environment import Environment
from bench.failures import told
from bench.records import FailureRecord, TimingRecord, TrialRecord
from melcnn.config import Trial, describe
from melcnn.data.folds import fold_named

# Configurations named before the rest are counted.
NAMED = 4

# By configuration.
Groups = Sequence[Sequence[TrialRecord]]


def amiss(
    groups: Groups,
    crossings: Groups,
    timings: Sequence[TimingRecord],
    failures: Sequence[FailureRecord] = (),
) -> list[str]:
    """groups: the records of each configuration on the data set's own splits; crossings: those on folds. failures: of
    trials without a record, of either."""
    trials = list(dict.fromkeys(group[0].trial for group in (*groups, *crossings)))
    every = [record for group in (*groups, *crossings) for record in group]
    lines = _failed(failures, trials)
    if groups:
        lines += _seeds(groups, trials, failures)
    else:
        lines.append(
            "no records of the data set's own splits: accuracies are out-of-fold alone, and there are no curves"
        )
    return [
        *lines,
        *_unfinished(crossings, trials, failures),
        *_diverged(every, trials),
        *_times(groups, trials, timings),
        *_environments(every),
        *_clips(every),
    ]


def speakers_known(records: Iterable[TrialRecord]) -> bool:
    """Whether each clip's speaker is; one who is not is named as the clip."""
    return not any(
        name == speaker
        for record in records
        for name, speaker in zip(record.test.names, record.test.speakers, strict=True)
    )


def _failed(failures: Sequence[FailureRecord], trials: Sequence[Trial]) -> list[str]:
    every = list(dict.fromkeys([*trials, *(failure.trial for failure in failures)]))
    texts = told(failures, every)
    return [f"failed: {_listed(texts)}; --retry-failed runs them again"] if texts else []


def _seeds(groups: Groups, trials: Sequence[Trial], failures: Sequence[FailureRecord]) -> list[str]:
    most = {record.seed for group in groups for record in group}
    # What failed is said, and trained by another option. A fold's seeds are not these.
    failed: dict[Trial, set[int]] = {}
    for failure in failures:
        if not fold_named(failure.dataset):
            failed.setdefault(failure.trial, set()).add(failure.seed)
    if len(most) == 1:
        return ["a single seed: no intervals, and no telling how much is chance; train more with --seeds"]
    lacking = [
        f"{describe(group[0].trial, trials)} lacks {len(most - own)} of {len(most)}"
        for group in groups
        if (own := most & ({record.seed for record in group} | failed.get(group[0].trial, set()))) < most
    ]
    return (
        [f"not all seeds are there: {_listed(lacking)}; the same sweep again trains what is missing"] if lacking else []
    )


def _unfinished(crossings: Groups, trials: Sequence[Trial], failures: Sequence[FailureRecord]) -> list[str]:
    """Of the cross-validation: what is still to come, failures aside, and whether there is a second seed."""
    most = {record.seed for records in crossings for record in records}
    failed = {(f.trial, fold[1], f.seed) for f in failures if (fold := fold_named(f.dataset))}
    lacking = [
        describe(records[0].trial, trials)
        for records in crossings
        if any(
            (records[0].trial, fold, seed) not in failed
            for fold, own in enumerate(by_fold(records))
            for seed in most - {record.seed for record in own}
        )
    ]
    lines = []
    if lacking:
        lines.append(
            f"cross-validation is unfinished for {_listed(lacking)}: seeds that a fold lacks are left out, and "
            "configurations without any ('melbench recommend' goes on)"
        )
    if len(most) == 1:
        lines.append("cross-validated by a single seed: no intervals, and no telling how much is chance")
    return lines


def _diverged(records: Sequence[TrialRecord], trials: Sequence[Trial]) -> list[str]:
    def failed(record: TrialRecord) -> bool:
        return not all(math.isfinite(value) for value in [*record.train_loss, *record.validation_loss])

    lines = [
        f"{describe(record.trial, trials)} seed {record.seed}" + (f" of fold {fold[1] + 1}" if fold else "")
        for record in records
        for fold in [fold_named(record.dataset)]
        if failed(record)
    ]
    if not lines:
        return []
    whose = "its" if len(lines) == 1 else "their"
    return [f"losses that are no number (diverged): {_listed(lines)}; {whose} accuracies count in the means"]


def _times(groups: Groups, trials: Sequence[Trial], timings: Sequence[TimingRecord]) -> list[str]:
    timed = [{one.trial.canonical() for one in timing.timed} for timing in timings]
    wanted = {group[0].trial.canonical(): describe(group[0].trial, trials) for group in groups}
    untimed = [name for canonical, name in wanted.items() if not any(canonical in some for some in timed)]
    if len(untimed) == len(wanted):
        return ["no epoch times: these records hold no timing run; the same sweep again makes one"] * bool(wanted)
    lines = [f"no epoch times of {_listed(untimed)}"] if untimed else []
    if not untimed and not any(set(wanted) <= some for some in timed):
        lines.append(
            "epoch times are of several timing runs: compare only those of one run; one sweep over all makes one"
        )
    devices = sorted({timing.environment.device for timing in timings})
    return lines + ([f"epoch times were taken on different devices: {_listed(devices)}"] if len(devices) > 1 else [])


def _environments(records: Sequence[TrialRecord]) -> list[str]:
    def several(what: str, values: set[str]) -> list[str]:
        return [f"trained {what}: {_listed(sorted(values))}; accuracies may differ as those of other seeds do"] * (
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
    if not speakers_known(records):
        lines.append(
            "not all speakers are known: one may be in two splits or folds, which makes accuracy look better than it is"
        )
    return lines


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - NAMED
    return ", ".join(texts[:NAMED]) + (f" and {more} more" if more > 0 else "")
