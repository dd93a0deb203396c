"""What a report is made of: the records of several folders and files, put together by data set.

What cannot stand side by side is parted or left out, and said. Reads records and runs nothing.
"""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.measurement import reader
from bench.measurement.measurements import Measurement
from bench.records import RESULTS, FailureRecord, RecordFolder, TimingRecord, TrialRecord
from melcnn.data.folds import fold_named
from melcnn.errors import InputError


@dataclass(frozen=True)
class Chapter:
    """The records of one data set and its words, on the same clips.

    trials: of the data set's own splits; folds: of its cross-validation. timings: those that timed a configuration of
    `trials`. remarks: what was left out of it. failures: the last ones of trials of either that have no record. apart:
    what tells it from other chapters of that data set, if there are any.
    """

    dataset: str
    words: tuple[str, ...]
    trials: tuple[TrialRecord, ...]
    folds: tuple[TrialRecord, ...]
    timings: tuple[TimingRecord, ...]
    remarks: tuple[str, ...] = ()
    failures: tuple[FailureRecord, ...] = ()
    apart: str = ""

    @property
    def name(self) -> str:
        return f"{self.dataset}: {', '.join(self.words)}" + (f" ({self.apart})" if self.apart else "")


@dataclass(frozen=True)
class ReportInput:
    """chapters: by data set and its clips. measurements: of `melbench time -o`, by the files they were in."""

    chapters: tuple[Chapter, ...]
    measurements: dict[str, Measurement]


def load_report(paths: Sequence[Path], note: Callable[[str], None]) -> ReportInput:
    """Reads folders of records (with measurements in them, if any) and files of measurements.

    note hears of files in a folder that are neither. Raises `InputError` for a path without a record, for a record that
    cannot be trusted, and for folds alone that do not belong together.
    """
    trials: dict[str, TrialRecord] = {}
    timings: dict[str, TimingRecord] = {}
    failures: dict[str, FailureRecord] = {}
    measurements: dict[str, Measurement] = {}
    contested: set[str] = set()
    for path in paths:
        if not path.exists():
            raise InputError(f"there is no {path}: name a folder of records, as --out of a sweep made it")
        if path.is_dir():
            found = _of_folder(path, note)
            if not any(found):
                raise InputError(f"{path} holds no records{_nearby(path)}")
            contested |= {name for name, record in found[0].items() if name in trials and _differ(record, trials[name])}
            trials, timings = found[0] | trials, found[1] | timings
            measurements |= found[2]
            for identity, failure in found[3].items():
                if identity not in failures or failures[identity].attempt < failure.attempt:
                    failures[identity] = failure
        else:
            measurements[str(path)] = reader.read(path)
    if not trials and not measurements:
        what = "failures" if failures else "timing runs"
        raise InputError(f"there are {what} alone: name a folder that holds the networks' records, too")
    failed = [failure for identity, failure in failures.items() if identity not in trials]
    chapters = _chapters(list(trials.values()), list(timings.values()), failed)
    return ReportInput(tuple(_with_contested(chapter, contested) for chapter in chapters), measurements)


def _of_folder(
    path: Path, note: Callable[[str], None]
) -> tuple[dict[str, TrialRecord], dict[str, TimingRecord], dict[str, Measurement], dict[str, FailureRecord]]:
    folder = RecordFolder(path)
    measurements = {}
    for file in sorted(path.glob("*.json")):
        if not file.name.startswith(("trial-", "timing-", "failure-")):
            try:
                measurements[str(file)] = reader.read(file)
            except InputError as error:
                note(f"left out: {error}")
    return folder.trials(), folder.timings(), measurements, folder.failures()


def _nearby(path: Path) -> str:
    homes = sorted({file.parent for file in path.rglob("trial-*.json")})
    return f": name {' '.join(map(str, homes[:5]))}" if homes else ": name a folder that --out of a sweep made"


def _chapters(
    trials: Sequence[TrialRecord], timings: Sequence[TimingRecord], failures: Sequence[FailureRecord]
) -> list[Chapter]:
    """By clips, the newest first; synthetic words, which are no measure of real speech, after all others."""
    own = _grouped((record for record in trials if not fold_named(record.dataset)), _clips)
    folds = _grouped((record for record in trials if fold_named(record.dataset)), _clips_of_fold)
    # What could be of several is of none: each has its own answer.
    matches = {key: [of for of, found in own.items() if _same_clips(found[0], folds[key])] for key in folds}
    of_own = {fitting[0]: key for key, fitting in matches.items() if len(fitting) == 1}
    chapters = [
        _chapter(key[0], key[1], records, folds.pop(of_own[key], []) if key in of_own else [], timings)
        for key, records in own.items()
    ]
    chapters += [_chapter(dataset, words, [], records, ()) for (dataset, words, *_), records in folds.items()]
    chapters.sort(key=lambda one: max(record.finished_at for record in (*one.trials, *one.folds)), reverse=True)
    chapters.sort(key=lambda one: one.dataset == "synthetic")
    return _with_failures(_told_apart(chapters), failures)


def _grouped(records: Iterable[TrialRecord], key: Callable[[TrialRecord], Hashable]) -> dict:
    groups: dict = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def _clips(record: TrialRecord) -> tuple:
    """What tells the clips of a data set's own splits from others, as far as its records say."""
    return (
        record.dataset,
        record.trial.data.words,
        record.train_clips,
        tuple(record.validation.names),
        tuple(record.test.names),
    )


def _clips_of_fold(record: TrialRecord) -> tuple:
    """Likewise of a fold: a clip more or less moves others from fold to fold."""
    dataset, _, folds = fold_named(record.dataset)
    return dataset, record.trial.data.words, folds, _number(record)


def _number(fold: TrialRecord) -> int:
    """The clips of all folds together."""
    return fold.train_clips + len(fold.validation.names) + len(fold.test.names)


def _same_clips(own: TrialRecord, folds: Sequence[TrialRecord]) -> bool:
    """Whether nothing speaks against that the folds are made of the training and validation clips of `own`."""
    dataset, _, _ = fold_named(folds[0].dataset)
    number, validation = _number(folds[0]), set(own.validation.names)
    if (dataset, folds[0].trial.data.words) != (own.dataset, own.trial.data.words):
        return False
    held_out = {name for names in {tuple(record.test.names) for record in folds} for name in names}
    # Of clips of training the records tell only the number; clips of folds that are not there yet may be any.
    return (
        number == own.train_clips + len(validation)
        and len(validation - held_out) <= max(0, number - len(held_out))
        and held_out.isdisjoint(own.test.names)
    )


def _differ(one: TrialRecord, other: TrialRecord) -> bool:
    return one.model_dump(include=RESULTS) != other.model_dump(include=RESULTS)


def _with_contested(chapter: Chapter, contested: Collection[str]) -> Chapter:
    """contested: the identities of records that are in several folders, with different results."""
    number = sum(record.identity in contested for record in _records(chapter))
    if not number:
        return chapter
    remark = f"in several folders, with other results: {number:,} of the networks; the folder named first counts"
    return replace(chapter, remarks=(*chapter.remarks, remark))


def _told_apart(chapters: Sequence[Chapter]) -> list[Chapter]:
    """With what tells those of one data set and words from each other, if only a number."""
    alike = Counter((one.dataset, one.words) for one in chapters)
    counted: Counter[str] = Counter()
    found = []
    for chapter in chapters:
        if alike[chapter.dataset, chapter.words] > 1:
            apart = _counts(chapter)
            counted[chapter.name + apart] += 1
            if (number := counted[chapter.name + apart]) > 1:
                apart += f", set {number}"
            remark = f"one of several sets of clips of {chapter.name}: what they say is not to be compared"
            chapter = replace(chapter, apart=apart, remarks=(*chapter.remarks, remark))
        found.append(chapter)
    return found


def _counts(chapter: Chapter) -> str:
    first = _records(chapter)[0]
    if not chapter.trials:
        return f"{_number(first):,} clips in folds"
    counts = first.train_clips, len(first.validation.names), len(first.test.names)
    return f"{counts[0]:,} clips for training, {counts[1]:,} for validation, {counts[2]:,} for testing"


def _with_failures(chapters: Sequence[Chapter], failures: Sequence[FailureRecord]) -> list[Chapter]:
    """Each failure stands with the records of its very data; where nothing of that has succeeded, with the first
    chapter of its data set. Of earlier numbers than a chapter's none is told."""
    places: list[list[FailureRecord]] = [[] for _ in chapters]
    for failure in failures:
        fold = fold_named(failure.dataset)
        of = (fold[0] if fold else failure.dataset, failure.trial.data.words)
        own = [number for number, chapter in enumerate(chapters) if (chapter.dataset, chapter.words) == of]
        same = [n for n in own if any(r.data_fingerprint == failure.data_fingerprint for r in _records(chapters[n]))]
        for number in (same or own)[:1]:
            if failure.results_version >= max(record.results_version for record in _records(chapters[number])):
                places[number].append(failure)
    return [replace(chapter, failures=tuple(found)) for chapter, found in zip(chapters, places, strict=True)]


def _records(chapter: Chapter) -> tuple[TrialRecord, ...]:
    return (*chapter.trials, *chapter.folds)


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

    kept_trials, kept_folds = _of_one_time(new(trials)), _of_one_time(new(folds))
    # A timing does not name its data set: it is of as many clips as are trained on here.
    here = {(record.trial.canonical(), record.train_clips) for record in kept_trials}
    timed = [t for t in timings if here & {(one.trial.canonical(), one.train_clips) for one in t.timed}]
    old = sum(len(records) - len(new(records)) for records in (trials, folds, timed))
    changed = len(new(trials)) + len(new(folds)) - len(kept_trials) - len(kept_folds)
    remarks = [
        *_left_out(old, "of an earlier version of melbench's numbers"),
        *_left_out(changed, "the data was another then, recordings or folds, by the same names"),
    ]
    if _overlap(kept_folds):
        if not kept_trials:
            raise InputError(
                f"the folds of {dataset} have clips in common, of several divisions of the data: cross-validate it "
                "into a folder of its own, with 'melbench recommend --out'"
            )
        remarks += _left_out(len(kept_folds), "folds with clips in common, of several divisions of the data")
        kept_folds = ()
    return Chapter(dataset, words, kept_trials, kept_folds, tuple(new(timed)), tuple(remarks))


def _left_out(number: int, why: str) -> list[str]:
    return [f"{number:,} record{' is' if number == 1 else 's are'} left out: {why}"] if number else []


def _of_one_time(records: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
    """Those of one state of the data, for other recordings may have had the same names, and other clips the same folds:
    the state in which most folds were trained; else of which there are most records; else the newest.

    A fingerprint is of one split, or fold, with the noise that a training asks for. When any of them changes, the data
    has, for all.
    """

    def split(record: TrialRecord) -> Hashable:
        return record.dataset, record.trial.training.noise, bool(record.validation.names)

    begun = [
        sorted(min(record.finished_at for record in own) for own in _grouped(of_split, _fingerprint).values())
        for of_split in _grouped(records, split).values()
    ]
    changes = [
        min(times[number] for times in begun if len(times) > number)
        for number in range(1, max(map(len, begun), default=0))
    ]
    states = _grouped(records, lambda record: sum(change <= record.finished_at for change in changes))
    if not states:
        return ()

    def worth(own: Sequence[TrialRecord]) -> tuple[int, int, str]:
        return len({record.dataset for record in own}), len(own), max(record.finished_at for record in own)

    return tuple(_of_most(max(states.values(), key=worth), split, _fingerprint))


def _fingerprint(record: TrialRecord) -> str:
    return record.data_fingerprint


def _overlap(folds: Sequence[TrialRecord]) -> bool:
    """Whether a clip is held out in several folds."""
    names = {record.dataset: record.test.names for record in folds}
    return len(set().union(*names.values())) < sum(map(len, names.values()))


def _of_most(
    records: Sequence[TrialRecord],
    part: Callable[[TrialRecord], Hashable],
    variant: Callable[[TrialRecord], Hashable],
) -> list[TrialRecord]:
    """Of each part the records of that variant of which there are most; of as many, the newest."""
    kept: dict[Hashable, Hashable] = {}
    for name, own in _grouped(records, part).items():
        variants = _grouped(own, variant)
        kept[name] = max(variants, key=lambda v: (len(variants[v]), max(record.finished_at for record in variants[v])))
    return [record for record in records if variant(record) == kept[part(record)]]
