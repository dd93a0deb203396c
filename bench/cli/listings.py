"""Sheets of commands other than sweeps: the contents of a data set, the training of a checkpoint, its predictions."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.formats import Sheet, sheet_of
from bench.stats.intervals import accuracy_interval
from melcnn.config import Trial
from melcnn.data.clips import SPLITS, ClipSet
from melcnn.evaluation import Evaluation
from melcnn.model import n_params
from melcnn.training import TrainedNetwork

# A clip whose loudest sample stays under a hundredth of full scale looks like one without a word.
NEARLY_SILENT = 327


def contents(clips: ClipSet) -> list[Sheet]:
    """Return sheets of a clip set: its clips by word and split, and what looks broken in it."""
    counts = []
    for label, word in enumerate(clips.words):
        for number, split in enumerate(SPLITS):
            chosen = (clips.labels == label) & (clips.splits == number)
            counts.append(
                {
                    "word": word,
                    "split": split,
                    "clips": int(chosen.sum()),
                    "speakers": _n_speakers(clips.speakers[chosen].tolist(), clips.names[chosen].tolist()),
                    "seconds": round(int(clips.lengths[chosen].sum()) / clips.sample_rate),
                }
            )
    samples = clips.waveforms.shape[1]
    findings: dict[str, list[str] | int] = {
        "left out": list(clips.left_out),
        "same recording in two splits": _across_splits(clips),
        "nearly silent": clips.names[np.abs(clips.waveforms.astype(np.int32)).max(1) < NEARLY_SILENT].tolist(),
        "shorter than a second (padded)": clips.names[clips.lengths < samples].tolist(),
        "longer than a second (cut)": clips.names[clips.lengths > samples].tolist(),
        "resampled to 16 kHz": clips.resampled,
        "mixed down to mono": clips.mixed_down,
    }
    checks: list[dict[str, object]] = [
        {"finding": finding, "clips": found, "such_as": ""}
        if isinstance(found, int)
        else {"finding": finding, "clips": len(found), "such_as": "; ".join(found[:3])}
        for finding, found in findings.items()
    ]
    about: dict[str, object] = {
        "dataset": clips.dataset,
        "words": ",".join(clips.words),
        "fingerprint": clips.fingerprint,
    }
    about["noise_seconds"] = round(len(clips.noise) / clips.sample_rate)
    return [sheet_of("data", [about], single=True), sheet_of("clips", counts), sheet_of("checks", checks)]


def words(counts: Mapping[str, int], source: str) -> Sheet:
    """Return a sheet of the words of a data set, with their numbers of recordings."""
    records: list[dict[str, object]] = [{"word": word, "recordings": number} for word, number in counts.items()]
    return sheet_of(f"words of {source}", records)


def _n_speakers(speakers: Sequence[str], names: Sequence[str]) -> int | str:
    # A recording whose name does not tell the speaker has its file name in that place.
    return "unknown" if list(speakers) == list(names) else len(set(speakers))


def _across_splits(clips: ClipSet) -> list[str]:
    homes: dict[bytes, tuple[int, str]] = {}
    twice = []
    for waveform, split, name in zip(clips.waveforms, clips.splits, clips.names, strict=True):
        first_split, first_name = homes.setdefault(hashlib.sha256(waveform).digest(), (int(split), str(name)))
        if first_split != split:
            twice.append(f"{first_name} = {name}")
    return twice


def trained(runs: Sequence[TrainedNetwork], kept: TrainedNetwork, trial: Trial, dataset: str, path: Path) -> Sheet:
    """Return a sheet of the networks that were trained, with the one that was kept."""
    records = [
        {
            "dataset": dataset,
            "seed": run.seed,
            "val_accuracy_max": round(run.validation_accuracy, 6),
            "test_accuracy": round(run.test_accuracy, 6),
            "epochs": run.kept_epoch,
            "checkpoint": str(path) if run is kept else "",
        }
        for run in runs
    ]
    about = f"{','.join(trial.data.words)}: n_mels={trial.front_end.n_mels} groups={trial.model.groups}"
    return sheet_of(
        "trained", records, f"{about} channels={trial.model.channels}, {n_params(kept.network):,} parameters"
    )


def evaluated(evaluation: Evaluation, about: Mapping[str, object]) -> list[Sheet]:
    """Return sheets of an evaluation.

    Args:
        about: describes the evaluated data; it stands before the figures.
    """
    right, confusion = evaluation.correct, evaluation.confusion
    low, high = accuracy_interval(right.tolist(), evaluation.speakers)
    summary = {
        **about,
        "clips": len(right),
        "speakers": _n_speakers(evaluation.speakers, evaluation.names),
        "accuracy": round(float(right.mean()), 6),
        "accuracy_low95": round(low, 6),
        "accuracy_high95": round(high, 6),
    }
    words = []
    for label, word in enumerate(evaluation.words):
        spoken, predicted, hit = confusion[label].sum(), confusion[:, label].sum(), confusion[label, label]
        words.append(
            {
                "word": word,
                "clips": int(spoken),
                # A word that was never predicted has no precision.
                "precision": round(float(hit / predicted), 6) if predicted else "",
                "recall": round(float(hit / spoken), 6) if spoken else "",
            }
        )
    matrix = [
        {"spoken": word, **{f"heard_{other}": int(n) for other, n in zip(evaluation.words, row, strict=True)}}
        for word, row in zip(evaluation.words, confusion, strict=True)
    ]
    wrong = [
        {
            "clip": evaluation.names[i],
            "heard": evaluation.words[evaluation.predicted[i]],
            "probability_of_spoken": round(float(evaluation.probabilities[i, evaluation.labels[i]]), 6),
        }
        for i in evaluation.most_wrong()
    ]
    known = "by speaker" if summary["speakers"] != "unknown" else "taking each clip for another speaker's"
    note = f"low95, high95: 95% interval for other clips of other speakers (Korn and Graubard, {known})."
    sheets = [
        sheet_of("evaluation", [summary], [note], single=True),
        sheet_of("words", words),
        _predicted(sheet_of("confusion", matrix)),
    ]
    return [*sheets, _predicted(sheet_of("most wrong", wrong))]


def _predicted(sheet: Sheet) -> Sheet:
    """Return the sheet with headings in the field's term; the columns of JSON keep their names."""
    return replace(sheet, headings=[heading.replace("heard", "predicted") for heading in sheet.headings])


def predicted(names: Sequence[str], words: Sequence[str], probabilities: np.ndarray) -> Sheet:
    """Return a sheet with the word predicted for each file, and its probability."""
    records = [
        {"file": name, "word": words[int(row.argmax())], "probability": round(float(row.max()), 6)}
        for name, row in zip(names, probabilities, strict=True)
    ]
    return sheet_of("predictions", records)
