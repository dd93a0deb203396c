"""Records, the truth that tables are made from: versioned JSON files, written whole, in one folder.

A trial record is one configuration and one seed; of one that failed there is a failure record. A timing record is one
interleaved run of candidates.
"""

import hashlib
import math
import os
import shlex
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.counting.profile import Complexity
from bench.json_reading import read_json
from bench.records.arrays import FloatRows, Floats, SharedIntegers, SharedStrings
from bench.system.environment import Environment
from bench.system.monitor import Conditions
from melcnn import locking
from melcnn.config import Trial
from melcnn.errors import InputError, first_problem
from melcnn.files import make_folder, write_whole

# Raise when the same configuration, data and seed give other numbers: older records are then not reused.
RESULTS_VERSION = 3
# Raise when the shape of the files changes; older files stay readable.
FORMAT_VERSION = 1

# Of a few records: a disk without that much room is full before the training, not after.
PROBE_BYTES = 1 << 20


class _Record(BaseModel):
    # A loss that is no number stays one: JSON as Python writes and reads it.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Predictions(_Record):
    """What a network said of every clip of one split, at the kept epoch: logits `(clips, n_classes)`."""

    names: SharedStrings
    speakers: SharedStrings
    labels: SharedIntegers
    logits: FloatRows

    @model_validator(mode="after")
    def _check(self) -> "Predictions":
        lengths = {len(self.names), len(self.speakers), len(self.labels), len(self.logits)}
        if len(lengths) > 1:
            raise ValueError("names, speakers, labels and rows of logits differ in number")
        if self.labels and not 0 <= min(self.labels) <= max(self.labels) < len(self.logits[0]):
            raise ValueError("a label has no logit")
        return self

    @property
    def accuracy(self) -> float:
        """The fraction of clips whose largest logit is the label's; NaN of no clips."""
        return float(np.mean(self.correct)) if self.labels else math.nan

    @property
    def correct(self) -> np.ndarray:
        """Whether the largest logit is the label's: bool `(clips,)`."""
        return np.argmax(self.logits, axis=1) == np.array(self.labels)


# What a training gave. Configuration, data and seed are in the identity; the rest says how it went.
RESULTS = {"train_loss", "validation_loss", "validation_accuracy", "kept_epoch", "validation", "test"}


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
    train_loss: Floats
    validation_loss: Floats
    validation_accuracy: Floats
    elapsed_seconds: Floats = []
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


FailureKind = Literal["out of memory", "diverged", "lost", "error"]


class FailureRecord(_Record):
    """One configuration and one seed that gave no network, and why.

    kind: "lost" where the process or the machine that trained it died. message: one line. log: where the error came up,
    or what was heard of the training. epoch: the last one that ended well; 0: none. attempt: counts from 1.
    environment: where it was trained; None: nobody knows. Whatever succeeds later counts instead.
    """

    format_version: int = FORMAT_VERSION
    results_version: int = RESULTS_VERSION
    trial: Trial
    seed: int
    stack: list[int]
    dataset: str
    data_fingerprint: str
    kind: FailureKind
    message: str
    log: str
    epoch: int
    attempt: int
    environment: Environment | None
    finished_at: str

    @property
    def identity(self) -> str:
        """Of the trial that failed."""
        return trial_identity(self.trial, self.data_fingerprint, self.seed, self.results_version)

    @property
    def file_name(self) -> str:
        n_mels, groups = self.trial.front_end.n_mels, self.trial.model.groups
        return f"failure-mels{n_mels}-groups{groups}-seed{self.seed}-{self.identity}-{self.attempt}.json"


class TimedTrial(_Record):
    """Seconds of one training pass over `train_clips` by a single network, round by round."""

    trial: Trial
    train_clips: int
    epoch_seconds: Annotated[list[Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=1)]


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


Record = TypeVar("Record", TrialRecord, FailureRecord, TimingRecord)

AnyRecord = TrialRecord | FailureRecord | TimingRecord
# By how the names of their files begin.
KINDS: dict[str, type[AnyRecord]] = {"trial": TrialRecord, "failure": FailureRecord, "timing": TimingRecord}


def kind_of(name: str) -> type[AnyRecord] | None:
    """What a file of this name holds; None if it is no record's."""
    return KINDS.get(name.partition("-")[0]) if "-" in name and name.endswith(".json") else None


class Untrusted(InputError):
    """A file that is no record to rely on. kind: "unreadable", "truncated" or "foreign". reason: what is wrong with it,
    after its name. belongs_to: the file that its content belongs into, if it is a record in another's name."""

    def __init__(self, path: Path, kind: str, reason: str, advice: str = "", belongs_to: str = ""):
        check = shlex.join(["melbench", "results", "check", str(path.parent)])
        super().__init__(f"{path} {reason}: {advice or f'{check!r} moves it aside, and its sweep makes it again'}")
        self.kind, self.reason, self.belongs_to = kind, reason, belongs_to


class RecordFolder:
    """The folder that holds the records of one or more sweeps."""

    def __init__(self, path: Path):
        self.path = path
        # Within `locked`: what is undone at its end, and the folder, opened, so that another one in its place is known.
        self._held: ExitStack | None = None
        self._opened: int | None = None
        self._written: list[AnyRecord] = []
        self._left_behind = False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A context in which no other process trains, times or tidies up here; it may be entered again within itself.
        Makes the folder.

        Raises `InputError` if the folder cannot be made or locked, or another process is at work in it.
        """
        if self._held is not None:
            yield
            return
        with ExitStack() as held:
            try:
                make_folder(self.path)
                self._lock(held)
            except OSError as error:
                raise self._not_writable(error) from None
            self._held = held
            try:
                yield
            finally:
                self._held = self._opened = None

    def _lock(self, held: ExitStack) -> None:
        held.enter_context(locking.held(self.path, "choose another folder with --out"))
        self._opened = os.open(self.path, os.O_RDONLY)
        held.callback(os.close, self._opened)

    def prepare(self) -> None:
        """Makes the folder. Raises `InputError` if records cannot be written in it, or another process is at work in
        it."""
        with self.locked():
            try:
                with tempfile.TemporaryFile(dir=self.path) as probe:
                    probe.write(bytes(PROBE_BYTES))
            except OSError as error:
                raise self._not_writable(error) from None

    def _not_writable(self, error: OSError) -> InputError:
        return InputError(
            f"the output folder {self.path} cannot be written ({error.strerror}): choose another with --out"
        )

    def trials(self) -> dict[str, TrialRecord]:
        """All trial records by identity. Raises `Untrusted` for a file that is none."""
        records = [read(path, TrialRecord) for path in sorted(self.path.glob("trial-*.json"))]
        return {record.identity: record for record in records}

    def failures(self) -> dict[str, FailureRecord]:
        """The last failure of each trial, by identity. Raises `Untrusted` for a file that is none."""
        records = [read(path, FailureRecord) for path in sorted(self.path.glob("failure-*.json"))]
        return {record.identity: record for record in sorted(records, key=lambda record: record.attempt)}

    def timings(self) -> dict[str, TimingRecord]:
        """All timing records by file name. Raises `Untrusted` for a file that is none."""
        records = [read(path, TimingRecord) for path in sorted(self.path.glob("timing-*.json"))]
        return {record.file_name: record for record in records}

    def write(self, record: AnyRecord) -> None:
        """Writes one file, whole or not at all.

        If the folder is gone, or another one is in its place, what was written to it from here is written again. What
        fails is tried once more. Raises `InputError` if that fails too, or if another process is at work in the folder
        by then.
        """
        try:
            self._follow()
            self._write(record)
        except OSError:
            try:
                self._follow()
                self._write(record)
            except OSError as error:
                raise InputError(
                    f"{self.path / record.file_name} cannot be written ({error.strerror or error}): what was still in "
                    "training is lost, what is in the folder is kept; once it can be written the same command goes on"
                ) from None
        self._written.append(record)

    def _follow(self) -> None:
        if not self._is_in_place():
            make_folder(self.path)
            if self._held is not None:
                self._lock(self._held)
            self._left_behind = True
        if not self._left_behind:
            return
        for record in self._written:
            self._write(record)
        self._left_behind = False
        warnings.warn(
            f"{self.path} was gone and is there again, with the {len(self._written)} records of this run; older ones "
            "are missing from it",
            stacklevel=3,
        )

    def _is_in_place(self) -> bool:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        return self._opened is None or os.path.samestat(found, os.fstat(self._opened))

    def _write(self, record: AnyRecord) -> None:
        write_whole(self.path / record.file_name, lambda file: file.write(record.model_dump_json().encode()))


def read(path: Path, kind: type[Record]) -> Record:
    """The record of this kind in a file. Raises `Untrusted`."""
    try:
        content = read_json(path)
    except OSError as error:
        raise Untrusted(path, "unreadable", f"cannot be read ({error.strerror})") from None
    except ValueError as error:
        # Our own limits say what they are; of the library's complaints the kind is enough.
        reason = error if type(error) is ValueError else type(error).__name__
        raise Untrusted(path, "truncated", f"is not a whole melbench record ({reason})") from None
    try:
        written_by = content["format_version"]
    except (KeyError, TypeError):
        raise Untrusted(path, "foreign", "is no melbench record (it has no format_version)") from None
    if not isinstance(written_by, int) or not 1 <= written_by <= FORMAT_VERSION:
        raise Untrusted(
            path,
            "foreign",
            f"has record format {written_by!r:.60}, and this melbench reads up to {FORMAT_VERSION}",
            "upgrade melbench or choose another --out",
        )
    try:
        record = kind.model_validate(content)
    except ValidationError as error:
        raise Untrusted(path, "foreign", f"is no melbench {kind.__name__} ({first_problem(error):.260})") from None
    if isinstance(record, TrialRecord) and (reason := _contradiction(record)):
        raise Untrusted(path, "foreign", f"contradicts itself ({reason})")
    if record.file_name != path.name:
        reason = f"holds what belongs into {record.file_name}: it was changed or renamed"
        raise Untrusted(path, "foreign", reason, belongs_to=record.file_name)
    return record


def _contradiction(record: TrialRecord) -> str:
    """What a record says that cannot be, where others rely on it; empty if nothing."""
    epochs, words = len(record.train_loss), len(record.trial.data.words)
    # Without validation clips there are no curves of them.
    if {*map(len, (record.validation_loss, record.validation_accuracy, record.elapsed_seconds))} - {0, epochs}:
        return "its curves are of different numbers of epochs"
    if any(said.labels and len(said.logits[0]) != words for said in (record.validation, record.test)):
        return f"it has other logits than one for each of {words} words"
    if not record.test.labels:
        return "it has no test clips"
    # Logarithms are taken of them, and ratios made; a network of ours has a convolution.
    if min(record.complexity.model_dump().values()) < 1:
        return "its network has no parameters or does nothing"
    return ""
