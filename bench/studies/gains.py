"""Measure the gains of recipes and variants, paired and with intervals: on the test split, and by ingredient.

    python -m bench.studies.gains test go-stop.csv --data speech_commands_v0.02 --words go,stop --out records
    python -m bench.studies.gains ingredients ingredients.csv --data speech_commands_v0.02 --out records

test trains the study's configurations in three ways: network and recipe plain, recipe default, and recipe default with
the variant shuffle. ingredients cross-validates the recipe default as it is and with one change at a time (an
ingredient left out, exchanged or added); it does not look at the test split.
"""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench.analysis import summary
from bench.cli import options
from bench.cli.output import keep
from bench.cli.progress import SweepProgress
from bench.cli.terminal import finish, split_words, stderr
from bench.executors.threads import Threads
from bench.formats import Sheet, show
from bench.records import RecordFolder
from bench.records.failures import as_error
from bench.stats.clustered import paired_interval
from bench.stats.intervals import accuracy_over_seeds
from bench.sweep.crossval import out_of_fold
from bench.sweep.run import train_missing
from bench.system.environment import pick_device
from melcnn.config import Trial, configure, settings_of
from melcnn.data.loading import load_clips
from melcnn.files import check_writable

# n_mels and groups of the study's networks.
NETWORKS = [*((80, groups) for groups in (1, 2, 4, 8, 16)), (40, 1), (20, 1)]
# Changes of the recipe default: an ingredient left out, exchanged or added.
CHANGES: dict[str, dict[str, Any]] = {
    "a constant rate": {"schedule": "constant"},
    "30 epochs": {"epochs": 30},
    "no shift": {"shift": 0.0},
    "no masks": {"time_mask": 0.0, "mel_mask": 0.0},
    "no change of speed": {"speed": 0.0},
    "no noise": {"noise": False},
    "no label smoothing": {"label_smoothing": 0.0},
    "weight_decay=0.05": {"weight_decay": 0.05},
    "ema_decay=0.998": {"ema_decay": 0.998},
    "normalize=none": {"normalize": "none"},
    "normalize=clip": {"normalize": "clip"},
}
# The network of one group mixes all mels; that of 16 needs the variant for it.
ABLATED: list[dict[str, Any]] = [{"groups": 1}, {"groups": 16, "variant": "shuffle"}]

app = typer.Typer(no_args_is_help=True)
File = Annotated[Path, typer.Argument(help="The CSV file to write; a Markdown file is written beside it.")]


@app.command()
def test(
    file: File,
    data: options.Data = "auto",
    words: options.Words = "yes,no",
    seeds: options.Seeds = 10,
    device: options.Device = "auto",
    out: options.Out = Path("runs"),
) -> None:
    """Measure the study's networks by both recipes on the test split, and the gain of recipe and variant."""
    check_writable(file)
    chosen = split_words(words)
    settings: list[dict[str, Any]] = [{"n_mels": n_mels, "groups": groups} for n_mels, groups in NETWORKS]
    sets = [
        [configure(chosen, recipe="plain", **each) for each in settings],
        [configure(chosen, recipe="default", **each) for each in settings],
        # With one group there is nothing to shuffle.
        [configure(chosen, recipe="default", variant="shuffle", **each) for each in settings if each["groups"] > 1],
    ]
    trials = [trial for each in sets for trial in each]
    clips = load_clips(data, chosen)
    with SweepProgress(stderr) as on_event:
        # Earlier failures are trained again: without them nothing is paired.
        found, failed = train_missing(
            trials, seeds, clips, RecordFolder(out), Threads(pick_device(device)), on_event, retry_failed=True
        )
    if failed:
        raise as_error(failed)
    by_trial = {trial: found[i * seeds : (i + 1) * seeds] for i, trial in enumerate(trials)}
    plain = {(t.front_end.n_mels, t.model.groups): t for t in sets[0]}
    speakers = found[0].test.speakers
    rows: list[dict[str, Any]] = []
    for trial, records in by_trial.items():
        mean, half = accuracy_over_seeds([record.test.accuracy for record in records], len(speakers))
        before = by_trial[plain[trial.front_end.n_mels, trial.model.groups]]
        gain = _gain([r.test.correct for r in before], [r.test.correct for r in records], speakers)
        about = {"dataset": clips.dataset, **_about(trial, ("words", "n_mels", "groups", "variant", "recipe"))}
        costs = records[0].complexity
        about |= {"seeds": seeds, "params": costs.params, "macs": costs.macs, "test_clips": len(speakers)}
        about |= {"test_accuracy": round(mean, 6), "test_accuracy_ci95": half and round(half, 6)}
        rows.append(about | (gain if trial not in sets[0] else dict.fromkeys(gain)))
    cells = [
        [
            *(str(row[name]) for name in ("n_mels", "groups", "variant", "recipe")),
            f"{row['macs']:,}",
            summary.accuracy(row["test_accuracy"], row["test_accuracy_ci95"]),
            *_gain_cells(row),
        ]
        for row in rows
    ]
    sheet = Sheet(
        title=f"{clips.dataset}: {','.join(chosen)} ({clips.split('train').stop} training and {len(speakers)} test "
        f"clips), {seeds} seeds",
        headings=["n_mels", "groups", "variant", "recipe", "MACs", "test accuracy", "gain (95%)", "errors"],
        cells=cells,
        records=rows,
        notes=[
            "± 95% interval of the mean over seeds, on these test clips.",
            "gain: over variant and recipe plain, paired; its 95% interval is for other speakers and other trainings.",
            "errors: as a share of those of variant and recipe plain.",
        ],
    )
    _deliver(sheet, file)


@app.command()
def ingredients(
    file: File,
    data: options.Data = "auto",
    words: options.Words = "yes,no",
    seeds: options.Seeds = 2,
    device: options.Device = "auto",
    out: options.Out = Path("runs"),
) -> None:
    """Measure the gain of each ingredient of the recipe default, by out-of-fold predictions."""
    check_writable(file)
    chosen = split_words(words)
    clips = load_clips(data, chosen)
    recipes: dict[str, dict[str, Any]] = {"all": {}, **CHANGES}
    make = functools.partial(configure, chosen, recipe="default")
    names = {make(**(network | change)): name for network in ABLATED for name, change in recipes.items()}
    with SweepProgress(stderr) as on_event:
        found, failed = out_of_fold(
            list(names), seeds, clips, RecordFolder(out), Threads(pick_device(device)), on_event, retry_failed=True
        )
    if failed:
        raise as_error(failed)
    whole = {one.trial.model: one for one in found if names[one.trial] == "all"}
    rows = []
    for one in found:
        base = whole[one.trial.model]
        row = {
            "dataset": clips.dataset,
            **_about(one.trial, ("words", "groups", "variant")),
            "change": names[one.trial],
        }
        row |= {"seeds": seeds, "clips": len(one.speakers), "accuracy": round(float(one.correct.mean()), 6)}
        gain = _gain(base.correct, one.correct, one.speakers)
        rows.append(row | (gain if one is not base else dict.fromkeys(gain)))
    cells = [
        [str(row["groups"]), str(row["variant"]), str(row["change"]), f"{row['accuracy']:.4f}", *_gain_cells(row)]
        for row in rows
    ]
    sheet = Sheet(
        title=f"{clips.dataset}: {','.join(chosen)}, out-of-fold predictions of {rows[0]['clips']} clips, {seeds} "
        "seeds a fold, recipe default and changes of it",
        headings=["groups", "variant", "change", "accuracy", "gain (95%)", "errors"],
        cells=cells,
        records=rows,
        notes=[
            "gain: over the whole recipe, paired; its 95% interval is for other speakers and other trainings, not "
            f"corrected for {len(rows) - len(whole)} comparisons.",
            "errors: as a share of those of the whole recipe.",
        ],
    )
    _deliver(sheet, file)


def _about(trial: Trial, names: Sequence[str]) -> dict[str, Any]:
    """Return the settings of these names, as columns of the CSV."""
    settings = settings_of(trial) | {"words": ",".join(trial.data.words)}
    return {name: settings[name] for name in names}


def _gain(
    before: Iterable[np.ndarray], after: Iterable[np.ndarray], speakers: Sequence[str]
) -> dict[str, float | None]:
    """Return the gain of `after` over `before`, as columns of the CSV.

    Args:
        before, after: for each seed whether each clip is right, bool `(clips,)`.
    """
    a, b = np.stack(list(before)), np.stack(list(after))
    gain, low, high = paired_interval(a, b, speakers)
    known = len(a) > 1 and len(b) > 1
    wrong = 1 - a.mean()
    return {
        "gain": round(gain, 6),
        "gain_low95": round(low, 6) if known else None,
        "gain_high95": round(high, 6) if known else None,
        "error_ratio": round(float((1 - b.mean()) / wrong), 4) if wrong else None,
    }


def _gain_cells(row: dict[str, Any]) -> list[str]:
    if row["gain"] is None:
        return ["", ""]
    known = row["gain_low95"] is not None
    interval = f" ({row['gain_low95']:+.4f} to {row['gain_high95']:+.4f})" if known else ""
    ratio = "" if row["error_ratio"] is None else f"x {row['error_ratio']:.2f}"
    return [f"{row['gain']:+.4f}{interval}", ratio]


def _deliver(sheet: Sheet, file: Path) -> None:
    """Write the sheet to CSV and Markdown files, and print it."""
    keep(sheet, file)
    show([sheet], "table")


if __name__ == "__main__":
    finish(lambda: app(standalone_mode=False))
