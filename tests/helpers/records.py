"""Records made for tests: small and whole, with what a test says of them."""

import math
from collections.abc import Sequence

from bench.counting.profile import Complexity
from bench.measurement.measurements import Launch, Measurement, Samples
from bench.measurement.peaks import Peaks
from bench.measurement.roofline import Floor
from bench.measurement.workloads import Workload, WorkloadFacts
from bench.records import FailureRecord, Predictions, RecordFolder, TimedTrial, TimingRecord, TrialRecord
from bench.report.load import Chapter
from bench.system.environment import collect
from bench.system.monitor import Conditions
from melcnn.config import Trial
from melcnn.data.clips import Fold
from tests.helpers.configurations import plain

ENVIRONMENT = collect("cpu")


def trial_record(seed=0, logits=((0.1, 0.9), (0.7, 0.3)), **changes) -> TrialRecord:
    predictions = Predictions(names=["a/1", "b/2"], speakers=["1", "2"], labels=[1, 0], logits=logits)
    values = {
        "trial": plain(),
        "seed": seed,
        "stack": [0, 1],
        "kernels": "torch",
        "dataset": "speech_commands",
        "data_fingerprint": "f00",
        "train_clips": 20,
        "complexity": Complexity(params=1, macs=2, macs_all_layers=3),
        "train_loss": [0.5],
        "validation_loss": [0.4],
        "validation_accuracy": [1.0],
        "kept_epoch": 1,
        "validation": predictions,
        "test": predictions,
        "environment": ENVIRONMENT,
        "finished_at": "2026-01-01T00:00:00+00:00",
    }
    return TrialRecord(**{**values, **changes})


def failure_record(seed=3, trial: Trial | None = None, **changes) -> FailureRecord:
    values = {
        "trial": trial or plain(),
        "seed": seed,
        "stack": [seed],
        "dataset": "speech_commands",
        "data_fingerprint": "f00",
        "kind": "out of memory",
        "message": "MemoryError: no more is said",
        "log": "",
        "epoch": 0,
        "attempt": 1,
        "environment": ENVIRONMENT,
        "finished_at": "2026-01-01T00:00:00+00:00",
    }
    return FailureRecord(**{**values, **changes})


def timing_record(*trials, seconds=(1.0, 2.0, 4.0), **changes) -> TimingRecord:
    clips = changes.pop("train_clips", 20)
    timed = [TimedTrial(trial=trial, train_clips=clips, epoch_seconds=list(seconds)) for trial in trials]
    values = {"timed": timed, "environment": ENVIRONMENT, "finished_at": "2026-01-01T00:00:00+00:00"}
    return TimingRecord(**{**values, **changes})


def heard(clips=20, wrong=(), of="clip", n_words=2, first=0) -> Predictions:
    """Of `clips` clips from number `first` on, the words by turns, each of a speaker of its own; those of the numbers
    `wrong` are heard as the word that follows theirs."""
    numbers = range(first, first + clips)
    labels = [number % n_words for number in numbers]
    guesses = [(label + (number in wrong)) % n_words for number, label in zip(numbers, labels, strict=True)]
    return Predictions(
        names=[f"{of}/{number}.wav" for number in numbers],
        speakers=[f"{of}'s {number}" for number in numbers],
        labels=labels,
        logits=[[float(word == guess) for word in range(n_words)] for guess in guesses],
    )


def network(trial: Trial | None = None, seed=0, wrong=(), wrong_in_test=(), epochs=3, **changes) -> TrialRecord:
    """A network that costs 1,000,000 MACs over its groups, trained for some epochs on 20 clips; it hears as many of
    validation, and of test, right but for those at the places `wrong` and `wrong_in_test`."""
    trial = trial or plain()
    share = 1 / trial.model.groups
    values = {
        "complexity": Complexity(params=16_000 * share, macs=1_000_000 * share, macs_all_layers=1_200_000 * share),
        "train_loss": [1 / epoch for epoch in range(1, epochs + 1)],
        "validation_loss": [2 / epoch for epoch in range(1, epochs + 1)],
        "validation_accuracy": [1 - 0.1 / epoch for epoch in range(1, epochs + 1)],
        "kept_epoch": epochs,
        "validation": heard(20, wrong, "validation", len(trial.data.words)),
        "test": heard(20, wrong_in_test, "test", len(trial.data.words)),
    }
    return trial_record(seed, trial=trial, **{**values, **changes})


def folds(trial: Trial, seed=0, wrong=(), clips=8, dataset="speech_commands", **changes) -> list[TrialRecord]:
    """The networks of a cross-validation, each fold of `clips` clips; by default they are those that `network` hears in
    training and validation. wrong: places among the clips of all folds."""
    nothing = Predictions(names=[], speakers=[], labels=[], logits=[])
    return [
        network(
            trial,
            seed,
            dataset=dataset,
            fold=Fold(fold, 5),
            data_fingerprint=f"{clips} clips, fold {fold + 1}",
            train_clips=4 * clips,
            validation=nothing,
            validation_loss=[],
            validation_accuracy=[],
            test=heard(clips, wrong, "validation", len(trial.data.words), first=fold * clips),
            **changes,
        )
        for fold in range(5)
    ]


def diverged(trial: Trial, seed=0) -> TrialRecord:
    return network(trial, seed, validation_loss=[1.0, math.nan, math.inf])


def measurement(
    works: Sequence[Workload], seconds: Sequence[float], shares: Sequence[dict[str, float]] = ()
) -> Measurement:
    """Two launches of works each of which takes its seconds, throughout; shares: where these go, of the first works."""
    calm = Conditions(threads=2, affinity=[0, 1], load=0.1, cpu_mhz=3000.0)
    floor = Floor(seconds=0.001, bound="arithmetic", bound_when_busy="arithmetic", operators=1, flops=1e6, bytes=1000)
    known = [*shares, *[{}] * (len(works) - len(shares))]
    samples = [
        Samples(cold_seconds=9.0, seconds=[time] * 30, waited=[0.0] * 30, shares=split)
        for time, split in zip(seconds, known, strict=True)
    ]
    return Measurement(
        works=list(works),
        facts=[WorkloadFacts(params=1, macs=2, floor=floor)] * len(works),
        ceilings=Peaks(flops_per_second=1e9, bytes_per_second={2**20: 1e9}, launch_seconds=1e-6),
        launches=[Launch(samples=samples, before=calm, after=calm)] * 2,
        environment=ENVIRONMENT,
        finished_at="2026-01-01T00:00:00+00:00",
    )


def chapter(
    trials: Sequence[TrialRecord], folds: Sequence[TrialRecord] = (), timings: Sequence[TimingRecord] = ()
) -> Chapter:
    """A chapter as `bench.report.load` would make it of records that all belong to it."""
    first = [*trials, *folds][0]
    return Chapter(first.dataset, first.trial.data.words, tuple(trials), tuple(folds), tuple(timings))


def written(path, *records) -> RecordFolder:
    """A folder that holds `records`."""
    folder = RecordFolder(path)
    folder.prepare()
    for record in records:
        folder.write(record)
    return folder
