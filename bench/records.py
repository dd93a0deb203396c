"""Records, the truth that tables are made from: versioned JSON files, written whole, in one folder.

A trial record is one configuration and one seed. A timing record is one interleaved run of candidates.
"""

import hashlib
import json
import math
import tempfile
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from bench.complexity import Complexity
from bench.environment import Environment
from bench.machine import Conditions
from melcnn.config import Trial
from melcnn.errors import InputError
from melcnn.files import write_whole

# Raise when the same configuration, data and seed give other numbers: older records are then not reused.
RESULTS_VERSION = 3
# Raise when the shape of the files changes; older files stay readable.
FORMAT_VERSION = 1


def _shortest(row: list[float]) -> list[float]:
    # The fewest digits that give the same float32 again: half the size of the float64 text.
    return [float(str(np.float32(value))) for value in row]


Logits = list[Annotated[list[float], PlainSerializer(_shortest)]]


class _Record(BaseModel):
    # A loss that is no number stays one: JSON as Python writes and reads it.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Predictions(_Record):
    """What a network said of every clip of one split, at the kept epoch: logits `(clips, n_classes)`."""

    names: list[str]
    speakers: list[str]
    labels: list[int]
    logits: Logits

    @model_validator(mode="after")
    def _check(self) -> "Predictions":
        lengths = {len(self.names), len(self.speakers), len(self.labels), len(self.logits)}
        if len(lengths) > 1 or len({len(row) for row in self.logits}) > 1:
            raise ValueError("names, speakers, labels and rows of logits differ in number")
        return self

    @property
    def accuracy(self) -> float:
        """The fraction of clips whose largest logit is the label's; NaN of no clips."""
        return float(np.mean(self.correct)) if self.labels else math.nan

    @property
    def correct(self) -> np.ndarray:
        """Whether the largest logit is the label's: bool `(clips,)`."""
        return np.argmax(self.logits, axis=1) == np.array(self.labels)


class TrialRecord(_Record):
    """One configuration and one seed: everything that is known of its training.

    left_out_clips: files of these words that gave no clip. stack: the seeds that were trained side by side.
    kernels: whose convolutions ran. Curves hold one value an epoch; kept_epoch counts from 1. elapsed_seconds: from
    the beginning of the stack's training to the end of each epoch, evaluation included (older files do not tell).
    """

    format_version: int = FORMAT_VERSION
    results_version: int = RESULTS_VERSION
    trial: Trial
    seed: int
    stack: list[int]
    kernels: str
    dataset: str
    data_fingerprint: str
    train_clips: int
    left_out_clips: int = 0
    complexity: Complexity
    train_loss: list[float]
    validation_loss: list[float]
    validation_accuracy: list[float]
    elapsed_seconds: list[float] = []
    kept_epoch: int
    validation: Predictions
    test: Predictions
    environment: Environment
    finished_at: str

    def seconds_to(self, target: float) -> float | None:
        """Seconds of training until the validation accuracy first was `target` or more; None if it never was."""
        reached = (t for t, a in zip(self.elapsed_seconds, self.validation_accuracy, strict=False) if a >= target)
        return next(reached, None)

    @property
    def identity(self) -> str:
        return trial_identity(self.trial, self.data_fingerprint, self.seed, self.results_version)

    @property
    def file_name(self) -> str:
        n_mels, groups = self.trial.front_end.n_mels, self.trial.model.groups
        return f"trial-mels{n_mels}-groups{groups}-seed{self.seed}-{self.identity}.json"


class TimedTrial(_Record):
    """Seconds of one training pass over `train_clips` by a single network, round by round."""

    trial: Trial
    train_clips: int
    epoch_seconds: Annotated[list[float], Field(min_length=1)]


class TimingRecord(_Record):
    """Configurations timed in one interleaved run; entry i of every list is of the same round. kernels: whose
    convolutions ran, "melcnn" where these are the faster. before, after: the machine's state then (older files do not
    tell)."""

    format_version: int = FORMAT_VERSION
    results_version: int = RESULTS_VERSION
    timed: Annotated[list[TimedTrial], Field(min_length=1)]
    kernels: str = "torch"
    environment: Environment
    before: Conditions | None = None
    after: Conditions | None = None
    finished_at: str

    @property
    def file_name(self) -> str:
        trials, clips = [t.trial for t in self.timed], self.timed[0].train_clips
        return f"timing-{timing_identity(trials, clips, self.environment, self.kernels, self.results_version)}.json"


def trial_identity(trial: Trial, data_fingerprint: str, seed: int, results_version: int = RESULTS_VERSION) -> str:
    """Equal identities, equal results: configuration, data, seed and the version of our numbers."""
    return _hash(trial.canonical(), data_fingerprint, seed, results_version)


def timing_identity(
    trials: list[Trial],
    train_clips: int,
    environment: Environment,
    kernels: str = "torch",
    results_version: int = RESULTS_VERSION,
) -> str:
    """Equal identities, comparable times: the same work on the same machine with the same versions and kernels."""
    others = [] if kernels == "torch" else [kernels]  # older files know of no others
    works = sorted(t.canonical() for t in trials)
    return _hash(*works, train_clips, environment.model_dump_json(), results_version, *others)


def _hash(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:12]


Record = TypeVar("Record", TrialRecord, TimingRecord)


class RecordFolder:
    """The folder that holds the records of one or more sweeps."""

    def __init__(self, path: Path):
        self.path = path

    def prepare(self) -> None:
        """Makes the folder. Raises `InputError` if files cannot be written in it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise InputError(
                f"the output folder {self.path} cannot be written ({error.strerror}): choose another with --out"
            ) from None

    def trials(self) -> dict[str, TrialRecord]:
        """All trial records by identity. Raises `InputError` for a file that cannot be trusted."""
        records = [_read(path, TrialRecord) for path in sorted(self.path.glob("trial-*.json"))]
        return {record.identity: record for record in records}

    def timings(self) -> dict[str, TimingRecord]:
        """All timing records by file name. Raises `InputError` for a file that cannot be trusted."""
        records = [_read(path, TimingRecord) for path in sorted(self.path.glob("timing-*.json"))]
        return {record.file_name: record for record in records}

    def write(self, record: TrialRecord | TimingRecord) -> None:
        """Writes one file, whole or not at all."""
        write_whole(self.path / record.file_name, lambda file: file.write(record.model_dump_json().encode()))


def _read(path: Path, kind: type[Record]) -> Record:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        written_by = content["format_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a whole melbench record ({type(error).__name__}): move it away; the same command "
            "makes it again"
        ) from None
    if not isinstance(written_by, int) or written_by > FORMAT_VERSION:
        raise InputError(
            f"{path} has record format {written_by!r}, and this melbench reads up to {FORMAT_VERSION}: "
            "upgrade melbench or choose another --out"
        )
    try:
        record = kind.model_validate(content)
        if record.file_name != path.name:
            raise InputError(
                f"{path} holds what belongs into {record.file_name}: it was changed or renamed; move it away, and the "
                "same command makes it again"
            )
        return record
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path} is no melbench {kind.__name__} ({where}: {first['msg']}): move it away; the same command "
            "makes it again"
        ) from None
