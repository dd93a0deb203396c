"""The contents of a report about one data set: tables, the recommendation, the points of its figures, caveats.

Computed from records by the functions that make the terminal's tables, so that all numbers agree.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.analysis import recommendation, summary
from bench.analysis.published import STUDY
from bench.counting import profile
from bench.formats import Point, Sheet
from bench.records import FailureRecord, Predictions, TimingRecord, TrialRecord
from bench.records.folds import OutOfFold, by_fold, common_seeds, join_folds, missing_seeds, out_of_fold_predictions
from bench.report.caveats import caveats
from bench.report.configurations import KeyTitles, Sweep, about, sweeps
from bench.report.confusions import confusion, most_wrong
from bench.report.load import Chapter
from bench.stats.clustered import crossed_interval
from bench.stats.intervals import significant
from bench.stats.noninferiority import MARGIN, Recommendation, pareto
from melcnn.config import Data, FrontEnd, Model, Trial, settings_of

VALIDATION, TEST, OUT_OF_FOLD = "validation", "test", "out-of-fold"

CURVES = ("train_loss", "validation_loss", "validation_accuracy")


@dataclass(frozen=True)
class Findings:
    """The contents of one chapter.

    Points are what figures draw, with raw values. Each names its `configuration` (None for the study's own points), its
    `groups` and `n_mels`; ours also the other settings that tell it apart, without groups and without n_mels
    (`beside_groups`, `beside_n_mels`), and the values of its two keys (`colour`, `shape`).

    Attributes:
        keys: the titles of the keys to the configurations' colours and shapes.
        sweeps: what the configurations were made by.
        configurations: as text, each once.
        decided: the recommendation.
        basis: the predictions that it rests on.
        undecided: why there is none.
        answer, answer_trial: the recommended configuration, or else the best one; empty and None where there is no
            choice.
        best: the configuration with the best accuracy.
        sheets: the tables, by name.
        curves, confusion, wrong: of the networks on the data set's own splits or, without any, of those on folds.
        shown_in_confusion: the configuration that `confusion` shows.
    """

    chapter: Chapter
    keys: KeyTitles
    sweeps: tuple[Sweep, ...]
    configurations: tuple[str, ...]
    decided: Recommendation | None
    basis: str
    undecided: str
    answer: str
    answer_trial: Trial | None
    best: str
    sheets: dict[str, Sheet]
    accuracies: tuple[Point, ...]
    costs: tuple[Point, ...]
    curves: tuple[Point, ...]
    confusion: tuple[Point, ...]
    shown_in_confusion: str
    wrong: Sheet | None
    remarks: tuple[str, ...]


def parts(found: Findings) -> list[tuple[str, Findings]]:
    """Return the contents of each sweep with the sweep's name; of a single sweep what was found."""
    if len(found.sweeps) == 1:
        return [(found.sweeps[0].name, found)]

    def of(sweep: Sweep) -> Chapter:
        own, chapter = {*sweep.trials}, found.chapter
        trials, folds = ([r for r in records if r.trial in own] for records in (chapter.trials, chapter.folds))
        return replace(chapter, trials=tuple(trials), folds=tuple(folds))

    return [(sweep.name, find(of(sweep))) for sweep in found.sweeps]


def find(chapter: Chapter) -> Findings:
    """Return the contents of a report about the records of one data set."""
    groups, crossings = _ordered(chapter.trials), _ordered(chapter.folds)
    # Of seeds that a fold lacks nothing is shown.
    complete = [parts for records in crossings if (parts := common_seeds(by_fold(records)))[0]]
    folds = [join_folds(parts[0][0].trial, parts) for parts in complete]
    own = [group[0].trial for group in groups]
    trials = list(dict.fromkeys([*own, *(one.trial for one in folds)]))
    made = sweeps(trials)
    named, keys = about(trials, made)
    timed = timing_of(groups, chapter.timings)
    decided = summary.recommended([record for group in groups for record in group]) if groups else None
    rows = summary.marked([summary.rows(group, timed.get(group[0].trial.canonical()))[0] for group in groups], decided)
    sheets: dict[str, Sheet] = {}
    if rows:
        sheets["configurations"] = summary.sheet(rows, decided)
    undecided = _not_by_folds(own, folds, crossings, chapter.failures)
    basis, crossed = VALIDATION, list[recommendation.CandidateRow]()
    if folds:
        costs = {one.trial: profile.NetworkCost(**one.complexity.model_dump()) for one in folds}
        chosen, crossed = recommendation.choose(folds, costs, MARGIN)
        sheets[OUT_OF_FOLD] = recommendation.sheet(chosen, crossed, chapter.dataset, not undecided)
    if not undecided or not groups:
        basis, decided = OUT_OF_FOLD, None if undecided else chosen
    candidates = [one.trial for one in folds] if basis == OUT_OF_FOLD else own
    best = candidates[decided.results.index(decided.best)] if decided else None
    answer = candidates[decided.results.index(decided.chosen)] if decided and decided.chosen else best
    in_folds = [[record for part in parts for record in part] for parts in complete]
    said = {group[0].trial: [record.test for record in group] for group in groups}
    said = said or {parts[0][0].trial: out_of_fold_predictions(parts) for parts in complete}
    shown = answer if answer in said else next(iter(said), None)
    return Findings(
        chapter=chapter,
        keys=keys,
        sweeps=tuple(made),
        configurations=tuple(named[trial]["configuration"] for trial in trials),
        decided=decided,
        basis=basis,
        undecided="" if decided else undecided if basis == OUT_OF_FOLD else _not_by_validation(groups),
        answer=named[answer]["configuration"] if answer else "",
        answer_trial=answer,
        best=named[best]["configuration"] if best else "",
        sheets=sheets,
        accuracies=(
            *_accuracies(groups, rows, crossed, basis, named),
            *_of_the_study([*groups, *in_folds]),
        ),
        costs=tuple(_costs(groups, rows, folds, named)),
        curves=tuple(point for group in groups or in_folds for point in _curves(group, named)),
        confusion=tuple(confusion(said[shown] if shown else [], chapter.words)),
        shown_in_confusion=named[shown]["configuration"] if shown else "",
        wrong=most_wrong(
            [one for networks in said.values() for one in networks],
            chapter.words,
            "test clips" if groups else "out-of-fold clips",
        ),
        remarks=(
            *chapter.remarks,
            *([f"validation decides: {undecided}"] if groups and crossings and undecided else []),
            *caveats(groups, crossings, timed, chapter.failures),
        ),
    )


def _not_by_folds(
    own: Sequence[Trial],
    folds: Sequence[OutOfFold],
    crossings: Sequence[Sequence[TrialRecord]],
    failures: Sequence[FailureRecord],
) -> str:
    """Return why the cross-validation decides nothing; empty if it decides, with nothing left to train.

    Args:
        own: the configurations that were trained on the data set's own splits.
        folds: those that have a seed in all folds.
    """
    candidates = {one.trial for one in folds}
    begun = [records for records in crossings if records[0].trial not in candidates]
    if any(missing_seeds(records, {record.seed for record in records}, failures) for records in begun):
        return "the cross-validation is unfinished"
    failed = {failure.trial for failure in failures if failure.fold}
    if missing := [trial for trial in own if trial not in candidates | failed]:
        return f"{len(missing)} of {len(own)} configurations were not cross-validated"
    return "" if len(folds) > 1 else "a single configuration was cross-validated"


def _not_by_validation(groups: Sequence[Sequence[TrialRecord]]) -> str:
    """Return why `summary.recommended` recommends nothing."""
    if len(groups) == 1:
        return "there is one configuration"
    if len(groups) > summary.MOST_CANDIDATES:
        return f"there are more than {summary.MOST_CANDIDATES} configurations"
    if not groups[0][0].validation.names:
        return "there are no validation clips"
    return "the configurations were validated on different clips, or on those of one speaker"


def _ordered(records: Sequence[TrialRecord]) -> list[list[TrialRecord]]:
    """Return the records by configuration, in the order of their settings; seeds rise."""

    def place(group: Sequence[TrialRecord]) -> list:
        # A setting may be None, which cannot be compared.
        return [(value is not None, value) for value in settings_of(group[0].trial).values()]

    groups = summary.by_configuration(
        sorted(records, key=lambda record: (record.fold.index if record.fold else -1, record.seed))
    )
    return sorted(groups.values(), key=place)


def timing_of(groups: Sequence[Sequence[TrialRecord]], timings: Sequence[TimingRecord]) -> dict[str, TimingRecord]:
    """Return the timing run that supplies each configuration's epoch time, by its canonical text.

    It ran the kernels that trained the configuration; among several it is the one with most configurations, then with
    most rounds, then the one of the machine that trained. No clock decides, because clocks go back.
    """
    wanted = {group[0].trial.canonical(): group for group in groups}
    found = {}
    for canonical, group in wanted.items():
        runs = [timing for timing in timings if any(one.trial.canonical() == canonical for one in timing.timed)]
        kernels, devices = {record.kernels for record in group}, {record.environment.device for record in group}

        def worth(
            timing: TimingRecord, kernels: set[str] = kernels, devices: set[str] = devices
        ) -> tuple[bool, int, int, bool, str]:
            together = len(wanted.keys() & {one.trial.canonical() for one in timing.timed})
            rounds = len(timing.timed[0].epoch_seconds)
            return timing.kernels in kernels, together, rounds, timing.environment.device in devices, timing.file_name

        if runs:
            found[canonical] = max(runs, key=worth)
    return found


def _accuracies(
    groups: Sequence[Sequence[TrialRecord]],
    rows: Sequence[summary.SummaryRow],
    crossed: Sequence[recommendation.CandidateRow],
    basis: str,
    about: Mapping[Trial, Point],
) -> list[Point]:
    """Return a point for each configuration and measure, with its interval over speakers and trainings.

    `on_front`: no other configuration is cheaper and better, by the measure that decides.
    """
    points = []
    fronts = _front(rows) if basis == VALIDATION else [False] * len(rows)
    for group, row, on_front in zip(groups, rows, fronts, strict=True):
        for measure, accuracy, predictions in (
            (VALIDATION, row.val_accuracy_max, [record.validation for record in group]),
            (TEST, row.test_accuracy, [record.test for record in group]),
        ):
            low, high = _over_speakers(predictions)
            figures = {"accuracy": accuracy, "low": low, "high": high, "on_front": on_front and measure == VALIDATION}
            points.append(about[group[0].trial] | {"measure": measure, "macs": row.macs} | figures)
    for one in crossed:
        figures = {"accuracy": one.result.accuracy, "low": one.low, "high": one.high}
        figures["on_front"] = one.on_front and basis == OUT_OF_FOLD
        points.append(about[one.found.trial] | {"measure": OUT_OF_FOLD, "macs": one.cost.macs} | figures)
    return [
        point | {name: None if point[name] is None else round(point[name], 6) for name in ("accuracy", "low", "high")}
        for point in points
        if not math.isnan(point["accuracy"])
    ]


def _over_speakers(predictions: Sequence[Predictions]) -> tuple[float | None, float | None]:
    """Return the interval of an accuracy; None for a single seed and for seeds that saw different clips."""
    first = predictions[0]
    if not first.names or any(one.names != first.names for one in predictions):
        return None, None
    return crossed_interval(np.stack([one.correct for one in predictions]), first.speakers) or (None, None)


def _front(rows: Sequence[summary.SummaryRow]) -> list[bool]:
    """Return for each row whether it is on the Pareto front by validation; rows without validation are not."""
    known = [row for row in rows if not math.isnan(row.val_accuracy_max)]
    front = pareto([row.macs for row in known], [row.val_accuracy_max for row in known]) if known else []
    best = [row for row, on_front in zip(known, front, strict=True) if on_front]
    return [any(row is one for one in best) for row in rows]


def _of_the_study(groups: Sequence[Sequence[TrialRecord]]) -> list[Point]:
    """Return the study's accuracies, at the MACs of the same networks in these records."""
    points = []
    for first in (group[0] for group in groups):
        trial = first.trial
        study = STUDY.get((trial.front_end.n_mels, trial.model.groups))
        same = trial.model == Model(groups=trial.model.groups) and trial.front_end.frames == FrontEnd().frames
        if study is None or not same or trial.data != Data() or not first.dataset.startswith("speech_commands"):
            continue
        place: Point = {"configuration": None, "groups": trial.model.groups, "n_mels": trial.front_end.n_mels}
        place |= dict.fromkeys(("beside_groups", "beside_n_mels", "colour", "shape"), "") | {
            "macs": first.complexity.macs,
            "on_front": False,
        }
        for measure, accuracy in ((VALIDATION, study.val_accuracy_max), (TEST, study.test_accuracy)):
            point = place | {"measure": measure, "accuracy": accuracy, "low": None, "high": None}
            if accuracy is not None and point not in points:
                points.append(point)
    return [point | {"accuracy": round(point["accuracy"], 6)} for point in points]


def _costs(
    groups: Sequence[Sequence[TrialRecord]],
    rows: Sequence[summary.SummaryRow],
    folds: Sequence[OutOfFold],
    about: Mapping[Trial, Point],
) -> list[Point]:
    """Return the points of all configurations; only those that were timed, which folds alone are not, have an epoch
    time.
    """
    own = {group[0].trial for group in groups}
    counted = [one for one in folds if one.trial not in own]
    points = [
        about[group[0].trial]
        | {
            "params": row.params,
            "macs": row.macs,
            "epoch_time_s": row.epoch_time_s,
            "held_up": bool(row.epoch_time_held_up),
        }
        for group, row in zip(groups, rows, strict=True)
    ]
    return points + [
        about[one.trial]
        | {"params": one.complexity.params, "macs": one.complexity.macs, "epoch_time_s": None, "held_up": False}
        for one in counted
    ]


def _curves(group: Sequence[TrialRecord], about: Mapping[Trial, Point]) -> list[Point]:
    """Return a point for each epoch and curve: mean, lowest and highest over the networks that reached it."""
    points = []
    for curve in CURVES:
        for epoch in range(max(len(getattr(record, curve)) for record in group)):
            values = [getattr(record, curve)[epoch] for record in group if epoch < len(getattr(record, curve))]
            values = [value for value in values if math.isfinite(value)]
            if values:
                figures = (statistics.fmean(values), min(values), max(values))
                named = zip(("mean", "lowest", "highest"), map(significant, figures), strict=True)
                own = {name: about[group[0].trial][name] for name in ("configuration", "colour", "shape")}
                points.append(own | {"curve": curve, "epoch": epoch + 1} | dict(named) | {"networks": len(values)})
    return points
