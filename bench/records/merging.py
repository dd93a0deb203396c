"""Merge folders of records into one: nothing is overwritten, and times of different machines are not mixed.

Accuracies may come from anywhere: each record names its machine.
"""

import functools
import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bench import records
from bench.formats import Sheet, sheet_of
from bench.records import RecordFolder, TimingRecord, TrialRecord
from bench.system.environment import Environment
from melcnn import errors
from melcnn.errors import InputError
from melcnn.files import write_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordFile:
    """The file of a record.

    Attributes:
        kind: a key of `records.KINDS`.
        results: a hash of a trial's results; None for other kinds.
        environment: a timing run's; None for other kinds.
    """

    path: Path
    kind: str
    results: str | None = None
    environment: Environment | None = None


@dataclass(frozen=True)
class Merged:
    """The part of one folder in a merge.

    Attributes:
        records: the number of its records by kind, as in `records.KINDS`.
        written: the number of them that were written.
    """

    folder: Path
    records: dict[str, int]
    written: int


def merge(
    folders: Sequence[Path],
    out: RecordFolder,
    mix_timings: bool = False,
) -> list[Merged]:
    """Put the records of `folders` into `out`, which may be one of them.

    Records in `out` stay. Among several timing runs of the same work in the same environment, and among several
    failures of the same trial, the first counts; the others are left out with a warning. Everything is read before
    anything is written, and a merge that was cut short is simply repeated.

    Args:
        mix_timings: take timing runs of other environments, too.

    Raises:
        InputError: for a folder without records, for a file that is none, for trials of one identity with different
            results, and, unless `mix_timings`, for timing runs of an environment that `out` has none of yet.
    """
    for folder in folders:
        if not any(_files(folder)):
            raise InputError(f"{folder} holds no records: name folders that --out of a sweep made")
    with out.locked():
        others = {folder.resolve(): folder for folder in folders if folder.resolve() != out.path.resolve()}
        held = {folder: dict(_sources(folder)) for folder in (out.path, *others.values())}
        chosen = _chosen(held.values())
        new = {name: source for name, source in chosen.items() if name not in held[out.path]}
        if not mix_timings:
            _check_environments(list(held[out.path].values()), list(new.values()))
        for name, source in new.items():
            write_whole(out.path / name, functools.partial(_copy, source.path))
    return [_merged(folder, sources, new) for folder, sources in held.items() if sources]


def _copy(path: Path, file: BinaryIO) -> None:
    file.write(path.read_bytes())


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for kind in records.KINDS:
        for path in sorted(folder.glob(f"{kind}-*.json")):
            yield kind, path


def _sources(folder: Path) -> Iterator[tuple[str, RecordFile]]:
    """Yield the records of a folder by their file names, one in memory at a time."""
    for kind, path in _files(folder):
        record = records.read(path, records.KINDS[kind])
        if isinstance(record, TrialRecord):
            results = record.model_dump_json(include=records.RESULTS)
            yield path.name, RecordFile(path, kind, results=hashlib.sha256(results.encode()).hexdigest())
        else:
            environment = record.environment if isinstance(record, TimingRecord) else None
            yield path.name, RecordFile(path, kind, environment=environment)


def _chosen(held: Iterable[dict[str, RecordFile]]) -> dict[str, RecordFile]:
    chosen: dict[str, RecordFile] = {}
    clashes: list[tuple[Path, Path]] = []
    for name, source in ((name, source) for sources in held for name, source in sources.items()):
        first = chosen.setdefault(name, source)
        if first.results != source.results:
            clashes.append((first.path, source.path))
        elif source.results is None and first.path.read_bytes() != source.path.read_bytes():
            log.warning(f"left out: {source.path}: {first.path} is of the same, and there already")
    if clashes:
        more = f", and {len(clashes) - 1} more pairs are like them" if len(clashes) > 1 else ""
        raise InputError(
            f"{clashes[0][0]} and {clashes[0][1]} are of the same configuration, data and seed and have different "
            f"results{more}: move one of each away and merge again"
        )
    return chosen


def _check_environments(present: Sequence[RecordFile], new: Sequence[RecordFile]) -> None:
    """Raise `InputError` for a new timing run of an environment that `out` lacks. Runs that lie side by side in `out`
    already may differ: a folder outlives a version of torch."""
    timings = [(source.path, source.environment) for source in new if source.environment]
    beside = [(source.path, source.environment) for source in present if source.environment] or timings[:1]
    for path, environment in timings:
        if all(environment != other for _, other in beside):
            first, other = beside[0]
            differing = errors.visible(_differing(other, environment))
            raise InputError(
                f"{first} and {path} are of different environments ({differing}), whose times are not "
                "comparable: merge folders of one environment, or give --mix-timings"
            )


def _differing(one: Environment, other: Environment) -> str:
    a, b = ({**environment.packages, **environment.model_dump(exclude={"packages"})} for environment in (one, other))
    return ", ".join(f"{name}: {a.get(name)} and {b.get(name)}" for name in {**a, **b} if a.get(name) != b.get(name))


def _merged(folder: Path, sources: dict[str, RecordFile], new: dict[str, RecordFile]) -> Merged:
    counts = Counter(source.kind for source in sources.values())
    written = sum(new.get(name) is source for name, source in sources.items())
    return Merged(folder, {kind: counts[kind] for kind in records.KINDS}, written)


def sheet(merged: Sequence[Merged], out: Path) -> Sheet:
    """Return a sheet with a row for each folder; the first is `out` itself, as it was, if it held any records."""
    rows = [
        {
            "folder": str(one.folder),
            **{f"{kind}s": number for kind, number in one.records.items()},
            "written": one.written,
        }
        for one in merged
    ]
    return sheet_of(f"merged into {out}", rows)
