"""Tables from records: a row of summary figures for each configuration."""

import statistics
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from bench.formats import Sheet
from bench.records import TimingRecord, TrialRecord
from bench.statistics import mean_interval
from melcnn.config import SETTINGS, Trial


class Row(BaseModel):
    """One configuration's summary; the fields are the CSV's columns, in order, and are only ever added.

    Accuracies are fractions, means over seeds; `_ci95` is the half-width of Student's t interval of that
    mean, conditional on this very test set, None for one seed. epochs: mean epoch kept, of at most
    `max_epochs`. epoch_time_s: median seconds of one training pass over `train_clips` by a single network.
    reached_target: seeds whose validation accuracy reached `target`; time_to_target_s: the mean over these of the
    seconds from the beginning of their stack's training until it did, whatever else was in training meanwhile.
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


def rows(records: Sequence[TrialRecord], timing: TimingRecord | None = None, target: float | None = None) -> list[Row]:
    """A row for each configuration, in the order in which the configurations first appear. target: a validation
    accuracy, to which rows then tell the time."""
    times = {t.trial.canonical(): statistics.median(t.epoch_seconds) for t in timing.timed} if timing else {}
    timed_on = {timing.environment.device} if timing else set()
    by_trial: dict[str, list[TrialRecord]] = {}
    for record in records:
        by_trial.setdefault(record.trial.canonical(), []).append(record)
    return [_row(group, times.get(canonical), timed_on, target) for canonical, group in by_trial.items()]


def _row(records: Sequence[TrialRecord], epoch_time: float | None, timed_on: set[str], target: float | None) -> Row:
    first = records[0]
    trial = first.trial
    validation, validation_ci = mean_interval([r.validation.accuracy for r in records])
    test, test_ci = mean_interval([r.test.accuracy for r in records])
    to_target = [s for r in records if target is not None and (s := r.seconds_to(target)) is not None]
    clocked = target is not None and all(r.elapsed_seconds for r in records)
    return Row(
        dataset=first.dataset,
        words=",".join(trial.data.words),
        n_mels=trial.front_end.n_mels,
        groups=trial.model.groups,
        channels=trial.model.channels,
        variant=trial.model.variant,
        recipe=trial.training.recipe,
        batch_size=trial.training.batch_size,
        seeds=len(records),
        train_clips=first.train_clips,
        test_clips=len(first.test.labels),
        params=first.complexity.params,
        macs=first.complexity.macs,
        macs_all_layers=first.complexity.macs_all_layers,
        val_accuracy_max=_rounded(validation),
        val_accuracy_ci95=_rounded(validation_ci),
        test_accuracy=_rounded(test),
        test_accuracy_ci95=_rounded(test_ci),
        epochs=_rounded(statistics.mean(r.kept_epoch for r in records)),
        epoch_time_s=_rounded(epoch_time),
        kernels=" + ".join(sorted({r.kernels for r in records})),
        device=" + ".join(sorted({r.environment.device for r in records} | timed_on)),
        n_fft=trial.front_end.n_fft,
        hop_length=trial.front_end.hop_length,
        max_epochs=trial.training.epochs,
        target=target,
        reached_target=len(to_target) if clocked else None,
        time_to_target_s=_rounded(statistics.mean(to_target)) if clocked and to_target else None,
    )


def _rounded(value: float | None) -> float | None:
    # Six digits tell one clip in a million apart; more would be noise in a spreadsheet.
    return None if value is None else round(value, 6)


# What a person reads: heading, and a row's text under it.
_SETTINGS = ("n_mels", "n_fft", "hop_length", "groups", "channels", "variant", "recipe", "batch_size", "max_epochs")
_DEFAULTS = {name: getattr(getattr(Trial(), section), name) for name, section in SETTINGS.items()}
_DEFAULTS["max_epochs"] = _DEFAULTS.pop("epochs")  # the column `epochs` is the mean epoch kept
_FIGURES = {
    "params": lambda row: f"{row.params:,}",
    "MACs": lambda row: f"{row.macs:,}",
    "MACs, all layers": lambda row: f"{row.macs_all_layers:,}",
    "max val accuracy": lambda row: _with_interval(row.val_accuracy_max, row.val_accuracy_ci95),
    "test accuracy": lambda row: _with_interval(row.test_accuracy, row.test_accuracy_ci95),
    "epochs": lambda row: f"{row.epochs:.1f}",
    "epoch time": lambda row: "" if row.epoch_time_s is None else f"{row.epoch_time_s:.3f} s",
}


def _with_interval(mean: float, half_width: float | None) -> str:
    return f"{mean:.4f}" if half_width is None else f"{mean:.4f} ±{half_width:.4f}"


def _to_target(row: Row) -> str:
    if row.reached_target is None:  # of records that tell no times
        return ""
    time = "never" if row.time_to_target_s is None else f"{row.time_to_target_s:.2f} s"
    return time if row.reached_target == row.seeds else f"{time} ({row.reached_target} of {row.seeds})"


def sheet(rows: Sequence[Row]) -> Sheet:
    """The rows as a sheet: the settings that vary, then the figures. What all rows share is in the title, and
    so are settings that are not the defaults."""
    values = {name: {getattr(row, name) for row in rows} for name in _SETTINGS}
    varying = [name for name in _SETTINGS if len(values[name]) > 1] or ["groups"]
    # A setting that is in no column and not the default must be said; the recipe always is.
    silent = [name for name in _SETTINGS if name not in (*varying, "recipe") and values[name] != {_DEFAULTS[name]}]
    fixed = [f"{name}={getattr(rows[0], name)}" for name in silent]

    def shared(name: str) -> str:
        return " / ".join(dict.fromkeys(str(getattr(row, name)) for row in rows))

    seeds = "seed" if all(row.seeds == 1 for row in rows) else "seeds"
    figures = dict(_FIGURES)
    if (target := rows[0].target) is not None:
        figures[f"time to {target:g}"] = _to_target
    return Sheet(
        title=(
            f"{shared('dataset')}: {shared('words')} ({shared('train_clips')} training and {shared('test_clips')} "
            f"test clips), recipe {shared('recipe')}, {shared('seeds')} {seeds}, "
            f"{', '.join([*fixed, shared('device')])}"
        ),
        headings=varying + list(figures),
        cells=[[str(getattr(r, name)) for name in varying] + [text(r) for text in figures.values()] for r in rows],
        records=[row.model_dump() for row in rows],
        note="± is the 95% interval of the mean over seeds, for this very set of clips" if rows[0].seeds > 1 else "",
        spare=["MACs, all layers"],
    )
