"""Tables from records: rows of summary figures, shown with rich or as CSV, JSON, Markdown or LaTeX."""

import csv
import io
import json
import statistics
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict
from rich import box
from rich.table import Table

from bench.records import TimingRecord, TrialRecord
from bench.statistics import mean_interval

FORMATS = ("table", "json", "csv", "markdown", "latex")


class Row(BaseModel):
    """One configuration's summary; the fields are the CSV's columns, in order, and are only ever added.

    Accuracies are fractions, means over seeds; `_ci95` is the half-width of Student's t interval of that
    mean, conditional on this very test set, None for one seed. epochs: mean epoch kept. epoch_time_s:
    median seconds of one training pass over `train_clips` by a single network.
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


def rows(records: Sequence[TrialRecord], timing: TimingRecord | None = None) -> list[Row]:
    """A row for each configuration, in the order in which the configurations first appear."""
    times = {t.trial.canonical(): statistics.median(t.epoch_seconds) for t in timing.timed} if timing else {}
    by_trial: dict[str, list[TrialRecord]] = {}
    for record in records:
        by_trial.setdefault(record.trial.canonical(), []).append(record)
    return [_row(group, times.get(canonical)) for canonical, group in by_trial.items()]


def _row(records: Sequence[TrialRecord], epoch_time: float | None) -> Row:
    first = records[0]
    trial = first.trial
    validation, validation_ci = mean_interval([r.validation.accuracy for r in records])
    test, test_ci = mean_interval([r.test.accuracy for r in records])
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
        device=" + ".join(sorted({r.environment.device for r in records})),
        n_fft=trial.front_end.n_fft,
        hop_length=trial.front_end.hop_length,
    )


def _rounded(value: float | None) -> float | None:
    # Six digits tell one clip in a million apart; more would be noise in a spreadsheet.
    return None if value is None else round(value, 6)


# What a person reads: heading, and a row's text under it. Settings that do not vary stand in the title.
_SETTINGS = ("n_mels", "n_fft", "hop_length", "groups", "channels", "variant", "recipe", "batch_size")
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


def _cells(rows: Sequence[Row], leave_out: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    figures = {heading: text for heading, text in _FIGURES.items() if heading not in leave_out}
    varying = [name for name in _SETTINGS if len({getattr(row, name) for row in rows}) > 1] or ["groups"]
    body = [[str(getattr(r, name)) for name in varying] + [text(r) for text in figures.values()] for r in rows]
    return varying + list(figures), body


def title(rows: Sequence[Row]) -> str:
    """What all rows share: data set, words, clips, seeds, device."""

    def shared(name: str) -> str:
        return " / ".join(dict.fromkeys(str(getattr(row, name)) for row in rows))

    return (
        f"{shared('dataset')}: {shared('words')} ({shared('train_clips')} training and {shared('test_clips')} "
        f"test clips), recipe {shared('recipe')}, {shared('seeds')} seeds, {shared('device')}"
    )


NOTE = "± is the 95% interval of the mean over seeds, for this very set of clips"


def table(rows: Sequence[Row], width: int = 80) -> Table:
    """The rich table, for a terminal of `width` columns; a narrow one is spared the second convention."""
    headings, body = _cells(rows, leave_out=["MACs, all layers"] if width < 100 else [])
    rendered = Table(
        title=title(rows),
        caption=NOTE,
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    for heading in headings:
        rendered.add_column(heading, justify="right")
    for cells in body:
        rendered.add_row(*cells)
    return rendered


def to_csv(rows: Iterable[Row]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Row.model_fields)
    writer.writerows([["" if v is None else v for v in row.model_dump().values()] for row in rows])
    return out.getvalue()


def to_json(rows: Iterable[Row]) -> str:
    return json.dumps([row.model_dump() for row in rows], indent=2) + "\n"


def to_markdown(rows: Sequence[Row]) -> str:
    headings, body = _cells(rows)
    lines = [headings, ["---:"] * len(headings), *body]
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"{title(rows)}\n\n{text}\n\n{NOTE}\n"


def to_latex(rows: Sequence[Row]) -> str:
    """A booktabs table."""
    headings, body = _cells(rows)
    special = {"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "±": r"$\pm$"}

    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(special.get(c, c) for c in cell) for cell in cells) + r" \\"

    return "\n".join(
        [
            rf"\begin{{tabular}}{{{'r' * len(headings)}}}",
            r"\toprule",
            line(headings),
            r"\midrule",
            *map(line, body),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )
