"""The truth on disk: one file a trial, a failure or a timing run, in a folder that is locked while it is written."""

from bench.records.folder import KINDS, AnyRecord, RecordFolder, Untrusted, kind_of, read
from bench.records.schema import (
    FORMAT_VERSION,
    RESULTS,
    RESULTS_VERSION,
    FailureKind,
    FailureRecord,
    Predictions,
    TimedTrial,
    TimingRecord,
    TrialRecord,
    timing_identity,
    trial_identity,
)

__all__ = [
    "FORMAT_VERSION",
    "KINDS",
    "RESULTS",
    "RESULTS_VERSION",
    "AnyRecord",
    "FailureKind",
    "FailureRecord",
    "Predictions",
    "RecordFolder",
    "TimedTrial",
    "TimingRecord",
    "TrialRecord",
    "Untrusted",
    "kind_of",
    "read",
    "timing_identity",
    "trial_identity",
]
