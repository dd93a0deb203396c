"""Records, the truth that tables are made from: versioned JSON files, written whole, in one folder.

A trial record is one configuration and one seed; of one that failed there is a failure record. A timing record is one
interleaved run of candidates.
"""

import hashlib
import math
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.counting.profile import Complexity
from bench.records.arrays import FloatRows, Floats, SharedIntegers, SharedStrings
from bench.system.environment import Environment
from bench.system.monitor import Conditions
from melcnn.config import Trial

# Raise when the same configuration, data and seed give other numbers: older records are then not reused.
RESULTS_VERSION = 3
# Raise when the shape of the files changes; older files stay readable.
FORMAT_VERSION = 1


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
