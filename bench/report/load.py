"""The contents of a report: the records of several folders and files, put together by data set.

Records that cannot be compared go into different chapters or are left out, with a remark.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from bench.measurement import reader
from bench.measurement.measurements import Measurement
from bench.records import RESULTS, FailureRecord, RecordFolder, TimingRecord, TrialRecord
from bench.records.folds import fold_of_record
from melcnn.errors import InputError

log = logging.getLogger(__name__)

AnyRecord = TypeVar("AnyRecord", TrialRecord, TimingRecord)


@dataclass(frozen=True)
class Chapter:
    """The records of one data set and its words, on the same clips.

    Attributes:
        trials: records of the data set's own splits.
        folds: records of its cross-validation.
        timings: those that timed a configuration of `trials`.
        remarks: what was left out of it.
        failures: the last ones of trials of either kind that have no record.
        apart: what tells it from other chapters of that data set, if there are any.
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
    """Everything that a report is made of.

    Attributes:
        chapters: by data set and its clips.
        measurements: of `melbench time -o`, by the files they were in.
    """

    chapters: tuple[Chapter, ...]
    measurements: dict[str, Measurement]


def load_report(paths: Sequence[Path]) -> ReportInput:
    """Read folders of records, with the measurements in them if any, and files of measurements.

    Files in a folder that are neither are left out with a warning.

    Raises:
        InputError: for a path without a record, for a record that cannot be trusted, and for folds without the data
            set's own splits that do not belong together.
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
            found = _of_folder(path)
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
    path: Path,
) -> tuple[dict[str, TrialRecord], dict[str, TimingRecord], dict[str, Measurement], dict[str, FailureRecord]]:
    folder = RecordFolder(path)
    measurements = {}
    for file in sorted(path.glob("*.json")):
        if not file.name.startswith(("trial-", "timing-", "failure-")):
            try:
                measurements[str(file)] = reader.read(file)
            except InputError as error:
                log.warning(f"left out: {error}")
    return folder.trials(), folder.timings(), measurements, folder.failures()


def _nearby(path: Path) -> str:
    homes = sorted({file.parent for file in path.rglob("trial-*.json")})
    return f": name {' '.join(map(str, homes[:5]))}" if homes else ": name a folder that --out of a sweep made"


def _chapters(
    trials: Sequence[TrialRecord], timings: Sequence[TimingRecord], failures: Sequence[FailureRecord]
) -> list[Chapter]:
    """Return chapters by clips; synthetic words, which are no measure of real speech, come last."""
    own = _by_clips([record for record in trials if not record.fold], _clips)
    folds = _by_clips([record for record in trials if record.fold], _clips_of_fold)
    # Folds that could be of several clip sets are joined to none: each has its own answer.
    matches = {key: [of for of, found in own.items() if _same_clips(found, folds[key])] for key in folds}
    of_own = {fitting[0]: key for key, fitting in matches.items() if len(fitting) == 1}
    chapters = [
        _chapter(key[0], key[1], records, folds.pop(of_own[key], []) if key in of_own else [], timings)
        for key, records in own.items()
    ]
    chapters += [_chapter(dataset, words, [], records, ()) for (dataset, words, *_), records in folds.items()]
    chapters.sort(key=lambda one: one.dataset == "synthetic")
    return _told_apart(_with_failures(chapters, failures))


def _by_clips(records: Sequence[TrialRecord], clips: Callable[[TrialRecord], tuple]) -> dict[tuple, list[TrialRecord]]:
    """Group records by their corpus, and by the clips that they name.

    A record of format 1 knows no corpus; it joins the corpus that has the same clips, if there is only one.
    """
    groups = _grouped(records, lambda record: (*clips(record), record.corpus))
    for key in [key for key in groups if not key[-1]]:
        known = [other for other in groups if other[:-1] == key[:-1] and other[-1]]
        if len(known) == 1:
            groups[known[0]] += groups.pop(key)
    return groups


def _grouped(records: Iterable[TrialRecord], key: Callable[[TrialRecord], Hashable]) -> dict:
    groups: dict = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def _clips(record: TrialRecord) -> tuple:
    """Return what a record says about the clips of a data set's own splits."""
    return (
        record.dataset,
        record.trial.data.words,
        record.train_clips,
        tuple(record.validation.names),
        tuple(record.test.names),
    )


def _clips_of_fold(record: TrialRecord) -> tuple:
    """Return what a record says about the clips of all folds: one clip more or less moves others between folds."""
    return record.dataset, record.trial.data.words, fold_of_record(record).of, _number(record)


def _number(fold: TrialRecord) -> int:
    """Return the number of clips of all folds together."""
    return fold.train_clips + len(fold.validation.names) + len(fold.test.names)


def _same_clips(own: Sequence[TrialRecord], folds: Sequence[TrialRecord]) -> bool:
    """Return whether the folds are made of the training and validation clips of `own`, as far as the records say."""
    corpora = [{record.corpus for record in records} - {""} for records in (own, folds)]
    if all(corpora):
        return corpora[0] == corpora[1]
    first, fold = own[0], folds[0]
    number, validation = _number(fold), set(first.validation.names)
    if (fold.dataset, fold.trial.data.words) != (first.dataset, first.trial.data.words):
        return False
    held_out = {name for names in {tuple(record.test.names) for record in folds} for name in names}
    # Records tell only the number of training clips; clips of folds that are still missing may be any.
    return (
        number == first.train_clips + len(validation)
        and len(validation - held_out) <= max(0, number - len(held_out))
        and held_out.isdisjoint(first.test.names)
    )


def _differ(one: TrialRecord, other: TrialRecord) -> bool:
    return one.model_dump(include=RESULTS) != other.model_dump(include=RESULTS)


def _with_contested(chapter: Chapter, contested: Collection[str]) -> Chapter:
    """Return the chapter with a remark about records that several folders hold with different results.

    Args:
        contested: the identities of such records.
    """
    number = sum(record.identity in contested for record in _records(chapter))
    if not number:
        return chapter
    remark = f"in several folders, with other results: {number:,} of the networks; the folder named first counts"
    return replace(chapter, remarks=(*chapter.remarks, remark))


def _told_apart(chapters: Sequence[Chapter]) -> list[Chapter]:
    """Return the chapters; those of one data set and words get what tells them apart, if only a number."""
    alike = Counter((one.dataset, one.words) for one in chapters)
    counted: Counter[str] = Counter()
    found = []
    for chapter in chapters:
        if alike[chapter.dataset, chapter.words] > 1:
            apart = data_of(chapter)
            counted[chapter.name + apart] += 1
            if (number := counted[chapter.name + apart]) > 1:
                apart += f", set {number}"
            remark = f"one of several sets of clips of {chapter.name}: what they say is not to be compared"
            chapter = replace(chapter, apart=apart, remarks=(*chapter.remarks, remark))
        found.append(chapter)
    return found


def data_of(chapter: Chapter) -> str:
    """Return the numbers of clips of a chapter's data."""
    first = _records(chapter)[0]
    if not chapter.trials:
        return f"{_number(first):,} clips in folds"
    counts = first.train_clips, len(first.validation.names), len(first.test.names)
    return f"{counts[0]:,} training, {counts[1]:,} validation and {counts[2]:,} test clips"


def _with_failures(chapters: Sequence[Chapter], failures: Sequence[FailureRecord]) -> list[Chapter]:
    """Return the chapters with their failures: those of their very data; a failure of data that gave no record stands
    with the first chapter of its data set. Failures of earlier numbers than a chapter's are left out."""
    places: list[list[FailureRecord]] = [[] for _ in chapters]
    for failure in failures:
        of = failure.dataset, failure.trial.data.words
        own = [number for number, chapter in enumerate(chapters) if (chapter.dataset, chapter.words) == of]
        same = [n for n in own if any(_same_data(record, failure) for record in _records(chapters[n]))]
        for number in (same or own)[:1]:
            if failure.results_version >= max(record.results_version for record in _records(chapters[number])):
                places[number].append(failure)
    return [replace(chapter, failures=tuple(found)) for chapter, found in zip(chapters, places, strict=True)]


def _same_data(record: TrialRecord, failure: FailureRecord) -> bool:
    if record.corpus and failure.corpus:
        return record.corpus == failure.corpus
    return record.data_fingerprint == failure.data_fingerprint


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

    def new(records: Sequence[AnyRecord]) -> list[AnyRecord]:
        return [record for record in records if record.results_version >= newest]

    kept_trials, kept_folds = _of_one_state(new(trials)), _of_one_state(new(folds))
    timed = [timing for timing in timings if _timed_here(timing, kept_trials)]
    old = len(trials) + len(folds) + len(timed) - len(new(trials)) - len(new(folds)) - len(new(timed))
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


def _timed_here(timing: TimingRecord, trials: Sequence[TrialRecord]) -> bool:
    """Return whether a run timed one of the trials, on as many clips and, if both are known, on the same corpus."""
    here = {(record.trial.canonical(), record.train_clips) for record in trials}
    corpora = {record.corpus for record in trials} - {""}
    if timing.corpus and corpora and timing.corpus not in corpora:
        return False
    return bool(here & {(one.trial.canonical(), one.train_clips) for one in timing.timed})


def _of_one_state(records: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
    """Return the records of one state of the data.

    Records of format 1 may share the names of clips and yet be of different recordings. Of each split or fold, and with
    and without noise, the fingerprint that most records have counts; among equals, the first.
    """

    def part(record: TrialRecord) -> Hashable:
        return record.fold, record.trial.training.noise, bool(record.validation.names)

    most: dict[Hashable, str] = {}
    for name, own in _grouped(records, part).items():
        by_fingerprint = _grouped(own, lambda record: record.data_fingerprint)
        most[name] = max(by_fingerprint, key=lambda fingerprint: len(by_fingerprint[fingerprint]))
    return tuple(record for record in records if record.data_fingerprint == most[part(record)])


def _overlap(folds: Sequence[TrialRecord]) -> bool:
    """Return whether a clip is held out in several folds."""
    names = {record.fold: record.test.names for record in folds}
    return len(set().union(*names.values())) < sum(map(len, names.values()))
