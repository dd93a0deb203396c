"""Records of anybody's making: what they are mutated from, and how the commands read them, beside others of their kind.

A record that is read is put to all uses that others make of it: in a table, a check, a merge, a report.
"""

import functools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.analysis import summary
from bench.counting.profile import Complexity
from bench.formats import to_csv, to_json
from bench.records import (
    AnyRecord,
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
from melcnn.data.folds import FOLDS
from melcnn.files import opener

WORDS = ("yes", "no")
DATASET = "synthetic"

ENVIRONMENT = Environment(
    device="a CPU", cpu="a CPU", cores=2, threads=2, system="Linux", python="3", cuda=None, packages={"torch": "2"}
)


def _trials() -> list[Trial]:
    return [configure(WORDS, recipe="default", epochs=2, groups=groups) for groups in (1, 4)]


def _said(of: str) -> Predictions:
    names = [f"{word}/{of}" for word in WORDS]
    return Predictions(names=names, speakers=["1", "2"], labels=[0, 1], logits=[[0.9, 0.1], [0.7, 0.3]])


def _trained(trial: Trial, seed: int, **changes: object) -> TrialRecord:
    values = {
        "trial": trial,
        "seed": seed,
        "stack": [0, 1],
        "kernels": "torch",
        "dataset": DATASET,
        "data_fingerprint": "f00",
        "train_clips": 8,
        "complexity": Complexity(params=1, macs=8 // trial.model.groups, macs_all_layers=9),
        "train_loss": [0.5, 0.4],
        "validation_loss": [0.4, 0.3],
        "validation_accuracy": [0.5, 1.0],
        "elapsed_seconds": [1.0, 2.0],
        "kept_epoch": 2,
        "validation": _said("fold-1"),
        "test": _said("test"),
        "environment": ENVIRONMENT,
        "finished_at": "2026-01-01T00:00:00+00:00",
    }
    return TrialRecord(**values | changes)


def _fold(trial: Trial, fold: int) -> TrialRecord:
    """Of the training and validation clips of `_trained`: two are held out in each fold."""
    return _trained(
        trial,
        0,
        dataset=f"{DATASET}, fold {fold} of {FOLDS}",
        data_fingerprint=f"fold {fold}",
        train_clips=6,
        validation=_said(f"fold-{fold % FOLDS + 1}"),
        test=_said(f"fold-{fold}"),
    )


def _failed() -> FailureRecord:
    known = _trained(_trials()[0], 7).model_dump(include={"trial", "dataset", "data_fingerprint", "finished_at"})
    said = {"kind": "error", "message": "ValueError: no", "log": "a\nb", "epoch": 0, "attempt": 1}
    return FailureRecord(**known, **said, seed=7, stack=[7], environment=ENVIRONMENT)


def _timed() -> TimingRecord:
    calm = Conditions(threads=2, affinity=[0, 1], load=0.1, cpu_mhz=3000.0)
    timed = [TimedTrial(trial=trial, train_clips=8, epoch_seconds=[1.0, 2.0, 4.0]) for trial in _trials()]
    return TimingRecord(timed=timed, environment=ENVIRONMENT, before=calm, after=calm, finished_at="2026-01-01")


def _content(record: AnyRecord) -> dict:
    return json.loads(record.model_dump_json())


@functools.cache
def own() -> dict:
    """On the data set's own splits."""
    return _content(_trained(_trials()[0], 0))


@functools.cache
def failure() -> dict:
    return _content(_failed())


@functools.cache
def timing() -> dict:
    return _content(_timed())


@functools.cache
def _of_fold() -> dict:
    return _content(_fold(_trials()[0], 1))


def a_fold(rng: random.Random) -> bytes:
    """A fold's record, changed; of some the fold is one that there cannot be."""

    def seed() -> dict:
        fold, folds = (rng.choice(["1", "5", "01", "9" * 5000, *map(str, mutators.INTEGERS)]) for _ in range(2))
        odd = {"dataset": f"{DATASET}, fold {fold} of {folds}"}
        return _of_fold() | (odd if rng.random() < 0.2 else {})

    return mutators.json_of(seed)(rng)


@functools.cache
def _others() -> dict[str, bytes]:
    """Records that a mutated one is read beside, by the names of their files."""

    def records() -> Iterator[AnyRecord]:
        for trial in _trials():
            yield from (_trained(trial, seed) for seed in range(2))
            yield from (_fold(trial, fold) for fold in range(1, FOLDS + 1))
        yield from (_failed(), _timed())

    return {record.file_name: record.model_dump_json().encode() for record in records()}


def named(kind: type[AnyRecord]) -> Callable[[bytes], str]:
    """The name that belongs to a record of such content, which whoever makes one up can work out too."""
    usual = {TrialRecord: "trial-a.json", FailureRecord: "failure-a.json", TimingRecord: "timing-a.json"}[kind]

    def of(content: bytes) -> str:
        try:
            name = kind.model_validate_json(content).file_name
        except (ValueError, OverflowError):
            return usual
        return name if len(name) < 200 else usual  # no file is named with a seed of a thousand digits

    return of


def read_trial(path: Path) -> object:
    records = list(RecordFolder(path.parent).trials().values())
    return to_csv(summary.sheet(summary.rows(records, target=0.9))), _used(path)


def read_failure(path: Path) -> object:
    return RecordFolder(path.parent).failures(), _used(path)


def read_timing(path: Path) -> object:
    (timing,) = RecordFolder(path.parent).timings().values()
    records = [_trained(t.trial, 0) for t in timing.timed]
    return to_csv(summary.sheet(summary.rows(records, timing))), _used(path)


def _used(path: Path) -> object:
    """As `results check`, `results merge` and `report` use the record, which lies beside others then."""
    folder = path.parent
    for name, content in _others().items():
        if name != path.name:
            with open(folder / name, "wb", opener=opener) as file:
                file.write(content)
    checked = [to_json(sheet) for sheet in audit.sheets(folder, audit.inspect(folder), {})]
    chapters = [find(chapter) for chapter in load_report([folder], lambda text: None).chapters]
    # Figures themselves take a second; where their axes have marks is what they make of values.
    marks = [round_numbers([cost[name] for cost in found.costs]) for found in chapters for name in ("params", "macs")]
    # All is there already: nothing is written, which would take as long as all the rest.
    return checked, chapters, marks, merging.merge([folder], RecordFolder(folder), mix_timings=True)
