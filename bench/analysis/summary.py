"""Tables from records: a row of summary figures for each configuration."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from bench.counting.profile import front_end_macs
from bench.formats import Sheet
from bench.records import TimedTrial, TimingRecord, TrialRecord
from bench.stats.intervals import accuracy_over_seeds
from bench.stats.noninferiority import Candidate, Recommendation, recommend
from melcnn.config import SETTINGS, descriptions, recipe_settings, settings_of, varying_settings

# Of a recommendation: each is compared with every other, and of twice as many that takes four times as long and as much
# memory. 320 take 22 s and 375 MB.
MOST_CANDIDATES = 200


class SummaryRow(BaseModel):
    """The summary of a configuration; the fields are the CSV's columns, in order, and are only ever added.

    Accuracies are fractions, means over seeds. A `_ci95` is the half-width of that mean's 95% interval, conditional on
    this very test set (`bench.stats.intervals.accuracy_over_seeds`), `_low95` and `_high95` are its ends within [0, 1];
    None for fewer than three seeds and for seeds that all agree.

    Attributes:
        epochs: the mean epoch kept, of at most `max_epochs`.
        epoch_time_s: median seconds of one training pass over `train_clips` by a single network.
        epoch_time_held_up: other processes held up the timing; None where that is unknown.
        reached_target: seeds whose validation accuracy reached `target`.
        time_to_target_s: the mean over these of the seconds from the start of their stack's training until it did,
            whatever else was in training meanwhile.
        pipeline_macs: of the front-end and the network, for one clip.
        told_from_best: shown, by validation, to be worse than the configuration with the best validation accuracy; None
            if that was not tested.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    words: str
    n_mels: int
    groups: int
    channels: int
    variant: str
    recipe: str
    batch_size: int
    seeds: int
    train_clips: int
    test_clips: int
    params: int
    macs: int
    macs_all_layers: int
    val_accuracy_max: float
    val_accuracy_ci95: float | None
    test_accuracy: float
    test_accuracy_ci95: float | None
    epochs: float
    epoch_time_s: float | None
    kernels: str
    device: str
    n_fft: int
    hop_length: int
    max_epochs: int
    target: float | None
    reached_target: int | None
    time_to_target_s: float | None
    normalize: str
    learning_rate: float
    patience: int | None
    keep: str
    schedule: str
    weight_decay: float
    label_smoothing: float
    ema_decay: float
    shift: float
    time_mask: float
    mel_mask: float
    speed: float
    noise: bool
    told_from_best: bool | None = None
    pipeline_macs: int
    val_accuracy_low95: float | None
    val_accuracy_high95: float | None
    test_accuracy_low95: float | None
    test_accuracy_high95: float | None
    epoch_time_held_up: bool | None = None


def by_configuration(records: Sequence[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Group records by configuration, in the order in which the configurations first appear."""
    found: dict[str, list[TrialRecord]] = {}
    for record in records:
        found.setdefault(record.trial.canonical(), []).append(record)
    return found


def recommended(records: Sequence[TrialRecord]) -> Recommendation | None:
    """Recommend by validation predictions.

    Returns:
        None for a single configuration, for more than `MOST_CANDIDATES`, and if clips differ or are of one speaker.
    """
    groups = list(by_configuration(records).values())
    first = groups[0][0].validation
    if not 2 <= len(groups) <= MOST_CANDIDATES:
        return None
    if len(set(first.speakers)) < 2 or any(r.validation.names != first.names for r in records):
        return None
    named = descriptions(group[0].trial for group in groups)
    candidates = [
        Candidate(
            named[group[0].trial],
            group[0].complexity.macs,
            np.stack([record.validation.correct for record in group]),
        )
        for group in groups
    ]
    return recommend(candidates, first.speakers)


def rows(
    records: Sequence[TrialRecord],
    timing: TimingRecord | None = None,
    target: float | None = None,
    decided: Recommendation | None = None,
) -> list[SummaryRow]:
    """Return a row for each configuration, in the order in which they first appear.

    Args:
        target: a validation accuracy; rows then show the time to reach it.
        decided: the result of `recommended` for these records.
    """
    times = {timed.trial.canonical(): timed for timed in timing.timed} if timing else {}
    timed_on = {timing.environment.device} if timing else set()
    groups = by_configuration(records)
    found = [_row(group, times.get(canonical), timed_on, target) for canonical, group in groups.items()]
    return marked(found, decided)


def marked(rows: Sequence[SummaryRow], decided: Recommendation | None) -> list[SummaryRow]:
    """Mark in each row what `decided`, made from the rows in this order, cannot distinguish from the best."""
    if decided is None:
        return list(rows)
    results = zip(rows, decided.results, strict=True)
    return [row.model_copy(update={"told_from_best": result.told_from_best}) for row, result in results]


def _row(
    records: Sequence[TrialRecord], timed: TimedTrial | None, timed_on: set[str], target: float | None
) -> SummaryRow:
    first = records[0]
    trial = first.trial
    validation, validation_ci = accuracy_over_seeds(
        [r.validation.accuracy for r in records], len(first.validation.labels)
    )
    test, test_ci = accuracy_over_seeds([r.test.accuracy for r in records], len(first.test.labels))
    to_target = [s for r in records if target is not None and (s := r.seconds_to(target)) is not None]
    clocked = target is not None and all(r.elapsed_seconds for r in records)
    (val_low, val_high), (test_low, test_high) = _ends(validation, validation_ci), _ends(test, test_ci)
    return SummaryRow(
        dataset=first.dataset,
        words=",".join(trial.data.words),
        **{name: value for name, value in settings_of(trial).items() if name != "epochs"},
        seeds=len(records),
        train_clips=first.train_clips,
        test_clips=len(first.test.labels),
        params=first.complexity.params,
        macs=first.complexity.macs,
        macs_all_layers=first.complexity.macs_all_layers,
        pipeline_macs=first.complexity.macs + front_end_macs(trial.front_end),
        val_accuracy_max=_rounded(validation),
        val_accuracy_ci95=_rounded(validation_ci),
        val_accuracy_low95=_rounded(val_low),
        val_accuracy_high95=_rounded(val_high),
        test_accuracy=_rounded(test),
        test_accuracy_ci95=_rounded(test_ci),
        test_accuracy_low95=_rounded(test_low),
        test_accuracy_high95=_rounded(test_high),
        epochs=_rounded(statistics.mean(r.kept_epoch for r in records)),
        epoch_time_s=_rounded(statistics.median(timed.epoch_seconds)) if timed else None,
        epoch_time_held_up=timed.held_up if timed else None,
        kernels=" + ".join(sorted({r.kernels for r in records})),
        device=" + ".join(sorted({r.environment.device for r in records} | (timed_on if timed else set()))),
        max_epochs=trial.training.epochs,
        target=target,
        reached_target=len(to_target) if clocked else None,
        time_to_target_s=_rounded(statistics.mean(to_target)) if clocked and to_target else None,
    )


def _ends(mean: float, half: float | None) -> tuple[float | None, float | None]:
    return (None, None) if half is None else (max(0.0, mean - half), min(1.0, mean + half))


def _rounded(value: float | None) -> float | None:
    # Six digits tell one clip in a million apart; more would be noise in a spreadsheet.
    return None if value is None else round(value, 6)


# What a person reads: heading, and a row's text under it. The heading of validation accuracy depends on the recipe.
VAL_ACCURACY = "val accuracy"
_FIGURES = {
    "params": lambda row: f"{row.params:,}",
    "MACs": lambda row: f"{row.macs:,}",
    "MACs (all layers)": lambda row: f"{row.macs_all_layers:,}",
    "MACs (with front-end)": lambda row: f"{row.pipeline_macs:,}",
    VAL_ACCURACY: lambda row: (
        accuracy(row.val_accuracy_max, row.val_accuracy_ci95) + " ≈" * (row.told_from_best is False)
    ),
    "test accuracy": lambda row: accuracy(row.test_accuracy, row.test_accuracy_ci95),
    "epochs": lambda row: f"{row.epochs:.1f}",
    "epoch time": lambda row: (
        "" if row.epoch_time_s is None else f"{row.epoch_time_s:.3f} s" + " !" * bool(row.epoch_time_held_up)
    ),
}
# What to do where the validation split leaves no clear winner.
BY_CROSS_VALIDATION = "cross-validate with 'melbench recommend', which tells more"
# Left out where there is no room, in this order.
_SPARE = ("MACs (all layers)", "MACs (with front-end)", "epochs", "params", "epoch time")
_KEPT = {"last": "last epoch", "best": "best epoch"}


def accuracy(mean: float, half_width: float | None) -> str:
    """Format an accuracy with its interval, which ends at 0 and 1: `0.9900 ±0.0024` or `0.9990 (≥0.9954)`."""
    if half_width is None:
        return f"{mean:.4f}"
    low, high = mean - half_width, mean + half_width
    if low < 0:
        return f"{mean:.4f} (≤{min(1.0, high):.4f})"
    return f"{mean:.4f} (≥{low:.4f})" if high > 1 else f"{mean:.4f} ±{half_width:.4f}"


def _to_target(row: SummaryRow) -> str:
    if row.reached_target is None:  # of records that tell no times
        return ""
    time = "never" if row.time_to_target_s is None else f"{row.time_to_target_s:.2f} s"
    return time if row.reached_target == row.seeds else f"{time} ({row.reached_target} of {row.seeds})"


def settings_shown(settings: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the settings that vary, which become columns, and the fixed ones that differ from the recipe's."""
    varying = varying_settings(settings) or ["groups"]
    expected = {recipe: recipe_settings(recipe) for recipe in {each["recipe"] for each in settings}}
    fixed = [
        name
        for name in SETTINGS
        if name not in (*varying, "recipe") and any(each[name] != expected[each["recipe"]][name] for each in settings)
    ]
    return varying, fixed


def sheet(rows: Sequence[SummaryRow], decided: Recommendation | None = None) -> Sheet:
    """Return the rows as a sheet; what all rows share is in the title, and what `decided` says is the verdict."""
    # The column `epochs` is the mean epoch kept.
    columns = {name: "max_epochs" if name == "epochs" else name for name in SETTINGS}
    shown = settings_shown([{name: getattr(row, column) for name, column in columns.items()} for row in rows])
    varying, silent = ([columns[name] for name in names] for names in shown)

    def shared(name: str) -> str:
        return " / ".join(dict.fromkeys(str(getattr(row, name)) for row in rows))

    figures = dict(_FIGURES)
    if (target := rows[0].target) is not None:
        figures[f"time to {target:g}"] = _to_target
    fixed = [f"{name}={getattr(rows[0], name)}" for name in silent]
    if len({row.epochs for row in rows}) == 1:
        del figures["epochs"]
        # Where the last epoch is kept and only their number was set, that has said it.
        if "max_epochs" not in silent:
            fixed.append(f"{rows[0].epochs:g} epochs")
    kept = {_KEPT[row.keep] for row in rows}
    headings = [
        f"{VAL_ACCURACY} ({kept.pop() if len(kept) == 1 else 'kept epoch'})" if name == VAL_ACCURACY else name
        for name in figures
    ]
    cells = [[str(getattr(r, name)) for name in varying] + [text(r) for text in figures.values()] for r in rows]
    notes = []
    if any(row.test_accuracy_ci95 is not None for row in rows):
        notes.append("± 95% interval of the mean over seeds, for these clips; ≥: where it ends at 1.")
    if any(row.told_from_best is False for row in rows):
        notes.append("≈ statistically tied with the best in validation.")
    if any(row.epoch_time_held_up for row in rows):
        notes.append("! Other processes held up this time: it is too long. Time it on a quiet machine (melbench time).")
    if len(rows) > MOST_CANDIDATES:
        notes.append(f"No recommendation for more than {MOST_CANDIDATES} configurations: sweep fewer.")
    seeds = "seed" if all(row.seeds == 1 for row in rows) else "seeds"
    return Sheet(
        title=(
            f"{shared('dataset')}: {shared('words')} ({shared('train_clips')} training and {shared('test_clips')} "
            f"test clips), recipe {shared('recipe')}, {shared('seeds')} {seeds}, "
            f"{', '.join([*fixed, shared('device')])}"
        ),
        headings=varying + headings,
        cells=cells,
        records=[row.model_dump() for row in rows],
        verdict=decided.describe("MACs", BY_CROSS_VALIDATION) if decided else "",
        notes=notes,
        spare=_SPARE,
    )
