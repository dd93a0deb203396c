"""Find the bad files in a folder of records by reading every file, and move them aside, each with its reason.

Nothing is deleted. Files that neither are records nor have a record's name are ignored.
"""

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import records
from bench.formats import Sheet, sheet_of
from bench.records import RESULTS_VERSION, RecordFolder, Untrusted
from melcnn import errors
from melcnn.errors import InputError
from melcnn.files import make_folder, write_whole

# It holds a folder for each kind of finding, so that stale records form a folder of records themselves.
ASIDE = "aside"

# The name that `melcnn.files.write_whole` gives a record until it is finished.
_LEFTOVER = re.compile(rf"\.({'|'.join(records.KINDS)})-.+\.json\.[0-9a-f]+\.tmp")


@dataclass(frozen=True)
class Finding:
    """A file that no sweep counts on.

    Attributes:
        kind: "unreadable": the system does not give its content; "truncated": it is not whole; "foreign": it is no
            record of this melbench, or a record under another name; "duplicate": likewise, and the record of that name
            is there too; "stale": of an earlier version of melbench's numbers; "newer": of a later one; "leftover": of
            a write that was cut short.
        reason: what it is or holds; its name goes before.
    """

    path: Path
    kind: str
    reason: str


@dataclass(frozen=True)
class Inventory:
    """The contents of a folder: the number of good records by kind (of `records.KINDS`), and the bad files by name."""

    counting: dict[str, int]
    findings: tuple[Finding, ...]


def inspect(folder: Path) -> Inventory:
    """Read every file that is a record or has a record's name. Raises `InputError` if there is no such folder."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: name a folder of records, as --out of a sweep made it")
    readable: set[str] = set()
    untrusted: list[tuple[Path, Untrusted]] = []
    findings: list[Finding] = []
    for path in sorted(folder.iterdir()):
        kind = records.kind_of(path.name)
        if _LEFTOVER.fullmatch(path.name):
            findings.append(Finding(path, "leftover", "is of a write that was cut short"))
        elif kind is None:
            untrusted += [(path, error) for error in _misnamed(path)]
        elif not path.is_file():
            findings.append(Finding(path, "unreadable", "is no file"))
        else:
            try:
                record = records.read(path, kind)
            except Untrusted as error:
                untrusted.append((path, error))
                continue
            readable.add(path.name)
            if (version := record.results_version) < RESULTS_VERSION:
                reason = f"is of version {version} of melbench's numbers, which now is {RESULTS_VERSION}"
                findings.append(Finding(path, "stale", reason))
            elif version > RESULTS_VERSION:
                reason = f"is of version {version} of melbench's numbers, and this melbench knows {RESULTS_VERSION}"
                findings.append(Finding(path, "newer", f"{reason}: upgrade it"))
    findings += [
        Finding(path, "duplicate" if error.belongs_to in readable else error.kind, error.reason)
        for path, error in untrusted
    ]
    counting = readable - {finding.path.name for finding in findings}
    numbers = {name: sum(records.kind_of(each) is kind for each in counting) for name, kind in records.KINDS.items()}
    return Inventory(numbers, tuple(sorted(findings, key=lambda finding: finding.path)))


def _misnamed(path: Path) -> Iterator[Untrusted]:
    """Yield the error of a record whose file has another name; nothing for other files."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return
    for kind in records.KINDS.values():
        try:
            records.read(path, kind)
        except Untrusted as error:
            if error.belongs_to:
                yield error


def move_aside(folder: RecordFolder) -> tuple[Inventory, dict[Finding, Path]]:
    """Inspect a folder and move its bad files aside.

    Beside each moved file, another of its name and `.txt` holds the reason. No file there is overwritten.

    Returns:
        the contents, and where each finding was moved to.

    Raises:
        InputError: if there is no such folder, if another process is at work in it, or if a link would lead the files
            elsewhere.
    """
    found = inspect(folder.path)
    if not found.findings:
        return found, {}
    with folder.locked():
        found = inspect(folder.path)  # A sweep may have gone on until now.
        homes = {finding: folder.path / ASIDE / finding.kind for finding in found.findings}
        for path in (folder.path / ASIDE, *homes.values()):
            if path.is_symlink():
                raise InputError(f"{path} is a link, and nothing is moved out of {folder.path}: move the link away")
        return found, {finding: _move(finding, home) for finding, home in homes.items()}


def _move(finding: Finding, home: Path) -> Path:
    make_folder(home)
    name = finding.path.name.lstrip(".")  # so that nothing there is hidden
    targets = (home / f"{name}{suffix}" for suffix in itertools.chain([""], (f".{n}" for n in itertools.count(2))))
    target = next(target for target in targets if not os.path.lexists(target))
    reason = errors.visible(f"{finding.path} {finding.reason} ({finding.kind})")
    # The reason first: a kill between the two leaves one without a file, and no file without a reason.
    write_whole(target.with_name(f"{target.name}.txt"), lambda file: file.write(f"{reason}\n".encode()))
    finding.path.rename(target)
    return target


def sheets(folder: Path, found: Inventory, moved: Mapping[Finding, Path]) -> list[Sheet]:
    """Return a sheet of the numbers and one with a row for each finding.

    Args:
        moved: where each file was moved to; empty if nothing was moved.
    """
    numbers = {f"{name}s": number for name, number in found.counting.items()}
    about = {"folder": str(folder), **numbers, "findings": len(found.findings)}
    rows: list[dict[str, object]] = [
        {
            "file": finding.path.name,
            "kind": finding.kind,
            "reason": finding.reason,
            "moved_to": str(moved.get(finding, "")),
        }
        for finding in found.findings
    ]
    said = (
        f"Moved into {folder / ASIDE}, each with its reason in a text file beside it."
        if moved
        else "Nothing was moved."
    )
    return [sheet_of("records", [about], single=True), sheet_of("findings", rows, [said], spare=["moved to"])]
