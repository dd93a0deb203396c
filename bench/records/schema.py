"""Records as types: a trial, a failure, a timing run. Their fields are the files' contents."""

import hashlib
import math
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bench.counting.profile import Complexity
from bench.records.arrays import FloatRows, Floats, SharedIntegers, SharedStrings
from bench.system.environment import Environment
from bench.system.monitor import Conditions
from melcnn.config import Trial
from melcnn.data.clips import Fold

# Raise when the same configuration, data and seed give other numbers: older records are then not reused.
RESULTS_VERSION = 3
# Raise when the shape of the files changes, and teach `bench.records.migration` the older one.
FORMAT_VERSION = 2

# Tables are made with a place for each fold, and a file may claim any number of them.
MAX_FOLDS = 999


class _Record(BaseModel):
    # A loss that is not finite is written as Python's JSON writes it: NaN, Infinity.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Predictions(_Record):
    """The logits `(clips, n_classes)` of one network for every clip of one split, at the epoch that was kept."""

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
        """The fraction of clips whose largest logit is the label's; NaN without clips."""
        return float(np.mean(self.correct)) if self.labels else math.nan

    @property
    def correct(self) -> np.ndarray:
        """Whether the largest logit is the label's: bool `(clips,)`."""
        return np.argmax(self.logits, axis=1) == np.array(self.labels)


# The fields that hold results. Configuration, data and seed are in the identity; the rest describes the run.
RESULTS = {"train_loss", "validation_loss", "validation_accuracy", "kept_epoch", "validation", "test"}

FailureKind = Literal["out of memory", "diverged", "lost", "error"]


class _OfTrial(_Record):
    """The fields that records of a trained and of a failed trial share.

    Attributes:
        stack: the seeds that were trained side by side.
        dataset: the name of the data set, without its fold.
        fold: the fold of a cross-validation; None for the data set's own splits.
        corpus: fingerprint of the clip set before folds and noise; empty in records of format 1, which lack it.
        data_fingerprint: fingerprint of the clips and the noise that this very training used.
    """

    format_version: int = FORMAT_VERSION
    results_version: int = RESULTS_VERSION
    trial: Trial
    seed: int
    stack: list[int]
    dataset: str
    fold: Fold | None = None
    corpus: str = ""
    data_fingerprint: str

    @field_validator("fold")
    @classmethod
    def _check_fold(cls, fold: Fold | None) -> Fold | None:
        if fold and not 0 <= fold.index < fold.of <= MAX_FOLDS:
            raise ValueError(f"there is no fold {fold.index} of {fold.of}")
        return fold

    @property
    def identity(self) -> str:
        """The identity of the trial: equal for equal configuration, data, seed and version of the numbers."""
        return trial_identity(self.trial, self.data_fingerprint, self.seed, self.results_version)

    def _file_stem(self, kind: str) -> str:
        n_mels, groups = self.trial.front_end.n_mels, self.trial.model.groups
        return f"{kind}-mels{n_mels}-groups{groups}-seed{self.seed}-{self.identity}"


class TrialRecord(_OfTrial):
    """The record of one configuration and one seed: everything that is known of its training.

    Attributes:
        kernels: the kernels that trained it, "melcnn" or "torch".
        left_out_clips: files of these words that gave no clip.
        train_loss, validation_loss, validation_accuracy: one value an epoch.
        elapsed_seconds: from the start of the stack's training to the end of each epoch, evaluation included; empty in
            older files.
        kept_epoch: the epoch that was kept, counted from 1.
    """

    kernels: str
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
        """Return the seconds of training until the validation accuracy first reached `target`; None if it never did."""
        reached = (t for t, a in zip(self.elapsed_seconds, self.validation_accuracy, strict=False) if a >= target)
        return next(reached, None)

    @property
    def file_name(self) -> str:
        return f"{self._file_stem('trial')}.json"


class FailureRecord(_OfTrial):
    """The record of one configuration and one seed that gave no network, and why. A later success replaces it.

    Attributes:
        kind: "lost" if the process or the machine that trained it died.
        message: one line.
        log: where the error was raised, or the training's curves.
        epoch: the last epoch that ended well; 0 if none did.
        attempt: counts from 1.
        environment: where it was trained; None if that is unknown.
    """

    kind: FailureKind
    message: str
    log: str
    epoch: int
    attempt: int
    environment: Environment | None
    finished_at: str

    @property
    def file_name(self) -> str:
        return f"{self._file_stem('failure')}-{self.attempt}.json"


class TimedTrial(_Record):
    """Seconds of one training pass over `train_clips` clips by a single network, round by round.

    Attributes:
        held_up: other processes held up more than a tenth of the rounds; None in older files.
    """

    trial: Trial
    train_clips: int
    held_up: bool | None = None
    epoch_seconds: Annotated[list[Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=1)]


class TimingRecord(_Record):
    """Configurations timed in one interleaved run; entry i of every list is from the same round.

    Attributes:
        dataset, corpus: as in `TrialRecord`; empty in older files.
        kernels: the kernels that ran; "melcnn": wherever they are the faster.
        before, after: the machine's state around the run; None in older files.
    """

    format_version: int = FORMAT_VERSION
    results_version: int = RESULTS_VERSION
    timed: Annotated[list[TimedTrial], Field(min_length=1)]
    dataset: str = ""
    corpus: str = ""
    kernels: str = "torch"
    environment: Environment
    before: Conditions | None = None
    after: Conditions | None = None
    finished_at: str

    @property
    def file_name(self) -> str:
        trials, clips = [t.trial for t in self.timed], self.timed[0].train_clips
        identity = timing_identity(trials, clips, self.environment, self.kernels, self.corpus, self.results_version)
        return f"timing-{identity}.json"


def trial_identity(trial: Trial, data_fingerprint: str, seed: int, results_version: int = RESULTS_VERSION) -> str:
    """Return a hash of configuration, data, seed and version of the numbers: equal identities, equal results."""
    return _hash(trial.canonical(), data_fingerprint, seed, results_version)


def timing_identity(
    trials: list[Trial],
    train_clips: int,
    environment: Environment,
    kernels: str = "torch",
    corpus: str = "",
    results_version: int = RESULTS_VERSION,
) -> str:
    """Return a hash of the work, the machine, its versions and the kernels: equal identities, comparable times."""
    # Older files know neither kernels nor corpus; without them their identities stay.
    later = [*([] if kernels == "torch" else [kernels]), *([corpus] if corpus else [])]
    configurations = sorted(t.canonical() for t in trials)
    # Nor do they know a precision.
    machine = environment.model_dump_json(exclude={"precision"} if environment.precision is None else None)
    return _hash(*configurations, train_clips, machine, results_version, *later)


def _hash(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:12]
