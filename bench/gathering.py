"""What a report is made of: the records of several folders and files, put together by data set.

What cannot stand side by side is parted or left out, and said. Reads records and runs nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import reading
from bench.measurements import Measurement
from bench.records import RecordFolder, TimingRecord, TrialRecord
from melcnn.data.folds import fold_named
from melcnn.errors import InputError


@dataclass(frozen=True)
class Chapter:
    """The records of one data set and its words, on the same test clips.

    trials: of the data set's own splits; folds: of its cross-validation. timings: those that timed a configuration of
    `trials`. remarks: what was left out of it.
    """

    dataset: str
    words: tuple[str, ...]
    trials: tuple[TrialRecord, ...]
    folds: tuple[TrialRecord, ...]
    timings: tuple[TimingRecord, ...]
    remarks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.dataset}: {', '.join(self.words)}"


@dataclass(frozen=True)
class Gathered:
    """chapters: by data set. measurements: of `melbench time -o`, by the files they were in."""

    chapters: tuple[Chapter, ...]
    measurements: dict[str, Measurement]


def gather(paths: Sequence[Path], note: Callable[[str], None]) -> Gathered:
    """Reads folders of records (with measurements in them, if any) and files of measurements.

    note hears of files in a folder that are neither. Raises `InputError` for a path without a record, or for a record
    that cannot be trusted.
    """
    trials: dict[str, TrialRecord] = {}
    timings: dict[str, TimingRecord] = {}
    measurements: dict[str, Measurement] = {}
    for path in paths:
        if not path.exists():
            raise InputError(f"there is no {path}: name a folder of records, as --out of a sweep made it")
        if path.is_dir():
            found = _of_folder(path, note)
            if not any(found):
                raise InputError(f"{path} holds no records{_nearby(path)}")
            trials, timings = found[0] | trials, found[1] | timings
            measurements |= found[2]
        else:
            measurements[str(path)] = reading.read(path)
    if not trials and not measurements:
        raise InputError("there are timing runs alone: name a folder that holds the networks' records, too")
    return Gathered(tuple(_chapters(list(trials.values()), list(timings.values()))), measurements)


def _of_folder(
    path: Path, note: Callable[[str], None]
) -> tuple[dict[str, TrialRecord], dict[str, TimingRecord], dict[str, Measurement]]:
    folder = RecordFolder(path)
    measurements = {}
    for file in sorted(path.glob("*.json")):
        if not file.name.startswith(("trial-", "timing-")):
            try:
                measurements[str(file)] = reading.read(file)
            except InputError as error:
                note(f"left out: {error}")
    return folder.trials(), folder.timings(), measurements


def _nearby(path: Path) -> str:
    homes = sorted({file.parent for file in path.rglob("trial-*.json")})
    return f": name {' '.join(map(str, homes[:5]))}" if homes else ": name a folder that --out of a sweep made"


def _chapters(trials: Sequence[TrialRecord], timings: Sequence[TimingRecord]) -> list[Chapter]:
    own: dict[tuple, list[TrialRecord]] = {}
    folds: dict[tuple, list[TrialRecord]] = {}
    for record in trials:
        words = record.trial.data.words
        if fold := fold_named(record.dataset):
            folds.setdefault((fold[0], words), []).append(record)
        else:
            own.setdefault((record.dataset, words, tuple(record.test.names)), []).append(record)
    chapters = [
        _chapter(dataset, words, records, folds.pop((dataset, words), []), timings)
        for (dataset, words, _), records in own.items()
    ]
    chapters += [_chapter(dataset, words, [], records, ()) for (dataset, words), records in folds.items()]
    if len(names := [(c.dataset, c.words) for c in chapters]) > len(set(names)):
        chapters = [
            c if names.count((c.dataset, c.words)) == 1 else _remarked(c, f"one of several sets of clips of {c.name}")
            for c in chapters
        ]
    return chapters


def _remarked(chapter: Chapter, remark: str) -> Chapter:
    return Chapter(**{**vars(chapter), "remarks": (*chapter.remarks, remark)})


def _chapter(
    dataset: str,
    words: tuple[str, ...],
    trials: Sequence[TrialRecord],
    folds: Sequence[TrialRecord],
    timings: Sequence[TimingRecord],
) -> Chapter:
    newest = max(record.results_version for record in (*trials, *folds))

    def new(records: Sequence) -> list:
        return [record for record in records if record.results_version >= newest]

    kept_trials, kept_folds = _latest(new(trials)), _latest(_of_one_data_set(new(folds)))
    # A timing does not name its data set: it is of as many clips as are trained on here.
    here = {(record.trial.canonical(), record.train_clips) for record in kept_trials}
    timed = [t for t in timings if here & {(one.trial.canonical(), one.train_clips) for one in t.timed}]
    old = sum(len(records) - len(new(records)) for records in (trials, folds, timed))
    changed = len(new(trials)) + len(new(folds)) - len(kept_trials) - len(kept_folds)
    remarks = (
        *_left_out(old, "of an earlier version of melbench's numbers"),
        *_left_out(changed, "the data has changed since, and newer ones are here"),
    )
    return Chapter(dataset, words, kept_trials, kept_folds, tuple(new(timed)), remarks)


def _left_out(number: int, why: str) -> list[str]:
    return [f"{number:,} record{' is' if number == 1 else 's are'} left out: {why}"] if number else []


def _of_one_data_set(folds: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those on the clips that the last one is of: a clip more or less moves others from fold to fold."""
    ordered = sorted(folds, key=lambda record: record.finished_at)
    heard = {record.dataset: record.test.names for record in ordered}

    def clips(record: TrialRecord) -> int:
        return record.train_clips + len(record.validation.names) + len(record.test.names)

    return [r for r in ordered if r.test.names == heard[r.dataset] and clips(r) == clips(ordered[-1])]


def _latest(records: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
    """The last record of each configuration and seed, and fold."""
    ordered = sorted(records, key=lambda record: record.finished_at)
    return tuple({(record.dataset, record.trial.canonical(), record.seed): record for record in ordered}.values())
