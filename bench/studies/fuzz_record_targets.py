"""Fuzz targets for records: the contents that are mutated, and how the commands read them beside other records.

A record that is read is then used as the commands use it: in a table, a check, a merge, a report.
"""

import functools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.analysis import summary
from bench.counting.profile import Complexity
from bench.formats import to_csv, to_json
from bench.records import (
    FailureRecord,
    Predictions,
    RecordFolder,
    TimedTrial,
    TimingRecord,
    TrialRecord,
    audit,
    merging,
)
from bench.report.findings import find
from bench.report.load import load_report
from bench.report.style import round_numbers
from bench.studies import mutators
from bench.system.environment import Environment
from bench.system.monitor import Conditions
from melcnn.config import Trial, configure
from melcnn.data.clips import Fold
from melcnn.data.folds import FOLDS
from melcnn.files import opener

Record = TrialRecord | FailureRecord | TimingRecord

WORDS = ("yes", "no")
DATASET, CORPUS = "synthetic", "c0"

ENVIRONMENT = Environment(
    device="a CPU", cpu="a CPU", cores=2, threads=2, system="Linux", python="3", cuda=None, packages={"torch": "2"}
)


def _trials() -> list[Trial]:
    return [configure(WORDS, recipe="default", epochs=2, groups=groups) for groups in (1, 4)]


def _predictions(split: str) -> Predictions:
    names = [f"{word}/{split}" for word in WORDS]
    return Predictions(names=names, speakers=["1", "2"], labels=[0, 1], logits=[[0.9, 0.1], [0.7, 0.3]])


def _trial_record(trial: Trial, seed: int, **changes: Any) -> TrialRecord:
    values: dict[str, Any] = {
        "trial": trial,
        "seed": seed,
        "stack": [0, 1],
        "kernels": "torch",
        "dataset": DATASET,
        "corpus": CORPUS,
        "data_fingerprint": "f00",
        "train_clips": 8,
        "complexity": Complexity(params=1, macs=8 // trial.model.groups, macs_all_layers=9),
        "train_loss": [0.5, 0.4],
        "validation_loss": [0.4, 0.3],
        "validation_accuracy": [0.5, 1.0],
        "elapsed_seconds": [1.0, 2.0],
        "kept_epoch": 2,
        "validation": _predictions("fold-0"),
        "test": _predictions("test"),
        "environment": ENVIRONMENT,
        "finished_at": "2026-01-01T00:00:00+00:00",
    }
    return TrialRecord(**values | changes)


def _fold_record(trial: Trial, index: int) -> TrialRecord:
    """Return the record of a fold of `_trial_record`'s training and validation clips: two are held out in each."""
    return _trial_record(
        trial,
        0,
        fold=Fold(index, FOLDS),
        data_fingerprint=f"fold {index}",
        train_clips=6,
        validation=_predictions(f"fold-{(index + 1) % FOLDS}"),
        test=_predictions(f"fold-{index}"),
    )


def _failure_record() -> FailureRecord:
    shared = {"trial", "dataset", "corpus", "data_fingerprint", "finished_at"}
    known = _trial_record(_trials()[0], 7).model_dump(include=shared)
    failure = {"kind": "error", "message": "ValueError: no", "log": "a\nb", "epoch": 0, "attempt": 1}
    return FailureRecord(**known, **failure, seed=7, stack=[7], environment=ENVIRONMENT)


def _timing_record() -> TimingRecord:
    calm = Conditions(threads=2, affinity=[0, 1], load=0.1, cpu_mhz=3000.0)
    timed = [TimedTrial(trial=trial, train_clips=8, epoch_seconds=[1.0, 2.0, 4.0]) for trial in _trials()]
    return TimingRecord(
        timed=timed,
        dataset=DATASET,
        corpus=CORPUS,
        environment=ENVIRONMENT,
        before=calm,
        after=calm,
        finished_at="2026-01-01",
    )


def _content(record: Record) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(record.model_dump_json())
    return content


@functools.cache
def trial_content() -> dict[str, Any]:
    """Return a record on the data set's own splits, as JSON has it."""
    return _content(_trial_record(_trials()[0], 0))


@functools.cache
def failure_content() -> dict[str, Any]:
    """Return a record of a failure, as JSON has it."""
    return _content(_failure_record())


@functools.cache
def timing_content() -> dict[str, Any]:
    """Return a record of a timing run, as JSON has it."""
    return _content(_timing_record())


@functools.cache
def fold_content() -> dict[str, Any]:
    """Return a record of a fold, as JSON has it."""
    return _content(_fold_record(_trials()[0], 0))


def mutate_fold(rng: random.Random) -> bytes:
    """Return a fold's record with random changes; some name a fold that cannot exist, in either format."""

    def seed() -> dict[str, Any]:
        index, of = (rng.choice([0, 1, 5, *mutators.INTEGERS]) for _ in range(2))
        number, folds = (rng.choice(["1", "5", "01", "9" * 5000, *map(str, mutators.INTEGERS)]) for _ in range(2))
        odd = {"fold": {"index": index, "of": of}}
        old = {"format_version": 1, "dataset": f"{DATASET}, fold {number} of {folds}", "fold": None}
        return fold_content() | rng.choice([{}] * 8 + [odd, old])

    return mutators.json_mutator(seed)(rng)


@functools.cache
def _others() -> dict[str, bytes]:
    """Return the records that a mutated one is read beside, by file name."""

    def records() -> Iterator[Record]:
        for trial in _trials():
            yield from (_trial_record(trial, seed) for seed in range(2))
            yield from (_fold_record(trial, index) for index in range(FOLDS))
        yield from (_failure_record(), _timing_record())

    return {record.file_name: record.model_dump_json().encode() for record in records()}


def file_name_of(kind: type[Record]) -> Callable[[bytes], str]:
    """Return a function that gives the file name that fits a record's content; a forger can work it out too."""
    usual = {TrialRecord: "trial-a.json", FailureRecord: "failure-a.json", TimingRecord: "timing-a.json"}[kind]

    def file_name(content: bytes) -> str:
        try:
            name = kind.model_validate_json(content).file_name
        except (ValueError, OverflowError):
            return usual
        return name if len(name) < 200 else usual  # a seed of a thousand digits fits into no file name

    return file_name


def read_trial(path: Path) -> object:
    """Read a trial's record and use it."""
    records = list(RecordFolder(path.parent).trials().values())
    return to_csv(summary.sheet(summary.rows(records, target=0.9))), _use(path)


def read_failure(path: Path) -> object:
    """Read a failure's record and use it."""
    return RecordFolder(path.parent).failures(), _use(path)


def read_timing(path: Path) -> object:
    """Read a timing run's record and use it."""
    (timing,) = RecordFolder(path.parent).timings().values()
    records = [_trial_record(t.trial, 0) for t in timing.timed]
    return to_csv(summary.sheet(summary.rows(records, timing))), _use(path)


def _use(path: Path) -> object:
    """Use the record as `results check`, `results merge` and `report` do, beside other records."""
    folder = path.parent
    for name, content in _others().items():
        if name != path.name:
            with open(folder / name, "wb", opener=opener) as file:
                file.write(content)
    checked = [to_json(sheet) for sheet in audit.sheets(folder, audit.inspect(folder), {})]
    chapters = [find(chapter) for chapter in load_report([folder]).chapters]
    # Drawing figures takes a second; the marks of their axes are all that they compute from values.
    marks = [round_numbers([cost[name] for cost in found.costs]) for found in chapters for name in ("params", "macs")]
    # Everything is there already, so nothing is written: writing would take as long as all the rest.
    return checked, chapters, marks, merging.merge([folder], RecordFolder(folder), mix_timings=True)
