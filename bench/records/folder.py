"""A folder of records: locked, written whole file by whole file, and read with every file checked."""

import logging
import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar, cast

from pydantic import ValidationError

from bench.records.migration import migrated
from bench.records.schema import FORMAT_VERSION, FailureRecord, TimingRecord, TrialRecord
from melcnn import locking
from melcnn.errors import InputError, first_problem
from melcnn.files import make_folder, read_json, write_whole

log = logging.getLogger(__name__)

# The size of a few records: a disk without that much room is reported before the training, not after.
PROBE_BYTES = 1 << 20


AnyRecord = TrialRecord | FailureRecord | TimingRecord
Record = TypeVar("Record", bound=AnyRecord)

# By the beginning of their files' names.
KINDS: dict[str, type[AnyRecord]] = {"trial": TrialRecord, "failure": FailureRecord, "timing": TimingRecord}


def kind_of(name: str) -> type[AnyRecord] | None:
    """Return the kind of record that a file of this name holds; None if it is no record's name."""
    return KINDS.get(name.partition("-")[0]) if "-" in name and name.endswith(".json") else None


class Untrusted(InputError):
    """A file that is no record to rely on.

    Attributes:
        kind: "unreadable", "truncated" or "foreign".
        reason: what is wrong with it; its name goes before.
        belongs_to: the file name of the record that it holds, if it holds one under another name.
    """

    def __init__(self, path: Path, kind: str, reason: str, advice: str = "", belongs_to: str = ""):
        check = shlex.join(["melbench", "results", "check", str(path.parent)])
        super().__init__(f"{path} {reason}: {advice or f'{check!r} moves it aside, and its sweep makes it again'}")
        self.kind, self.reason, self.belongs_to = kind, reason, belongs_to


class RecordFolder:
    """The folder that holds the records of one or more sweeps."""

    def __init__(self, path: Path):
        self.path = path
        # Within `locked`: what its end undoes, and the open folder, by which a folder put in its place is noticed.
        self._held: ExitStack | None = None
        self._opened: int | None = None
        self._written: list[AnyRecord] = []
        self._left_behind = False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, which is made if it is missing, against all other processes.

        The context may be entered again within itself.

        Raises:
            InputError: if the folder cannot be made or locked, or another process is at work in it.
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
        """Make the folder.

        Raises:
            InputError: if records cannot be written in it, or another process is at work in it.
        """
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
        """Return all trial records by identity. Raises `Untrusted` for a file that is none."""
        records = [read(path, TrialRecord) for path in sorted(self.path.glob("trial-*.json"))]
        return {record.identity: record for record in records}

    def failures(self) -> dict[str, FailureRecord]:
        """Return the last failure of each trial by identity. Raises `Untrusted` for a file that is none."""
        records = [read(path, FailureRecord) for path in sorted(self.path.glob("failure-*.json"))]
        return {record.identity: record for record in sorted(records, key=lambda record: record.attempt)}

    def timings(self) -> dict[str, TimingRecord]:
        """Return all timing records by file name. Raises `Untrusted` for a file that is none."""
        records = [read(path, TimingRecord) for path in sorted(self.path.glob("timing-*.json"))]
        return {record.file_name: record for record in records}

    def write(self, record: AnyRecord) -> None:
        """Write one file, whole or not at all.

        If the folder is gone, or another one is in its place, all records of this run are written again. A write that
        fails is tried once more.

        Raises:
            InputError: if the second try fails too, or another process is at work in the folder by then.
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
        log.warning(
            f"{self.path} was gone and is there again, with the {len(self._written)} records of this run; older ones "
            "are missing from it"
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
    """Return the record of this kind in a file; older formats are migrated. Raises `Untrusted`."""
    try:
        content = read_json(path)
    except OSError as error:
        raise Untrusted(path, "unreadable", f"cannot be read ({error.strerror})") from None
    except ValueError as error:
        # Our own limits explain themselves; for the library's errors the type is enough.
        reason = error if type(error) is ValueError else type(error).__name__
        raise Untrusted(path, "truncated", f"is not a whole melbench record ({reason})") from None
    if not isinstance(content, dict) or "format_version" not in content:
        raise Untrusted(path, "foreign", "is no melbench record (it has no format_version)")
    written_by = content["format_version"]
    if not isinstance(written_by, int) or not 1 <= written_by <= FORMAT_VERSION:
        raise Untrusted(
            path,
            "foreign",
            f"has record format {written_by!r:.60}, and this melbench reads up to {FORMAT_VERSION}",
            "upgrade melbench or choose another --out",
        )
    try:
        record = cast(Record, kind.model_validate(migrated(content)))
    except ValidationError as error:
        raise Untrusted(path, "foreign", f"is no melbench {kind.__name__} ({first_problem(error):.260})") from None
    if reason := _contradiction(record):
        raise Untrusted(path, "foreign", f"contradicts itself ({reason})")
    if record.file_name != path.name:
        reason = f"holds what belongs into {record.file_name}: it was changed or renamed"
        raise Untrusted(path, "foreign", reason, belongs_to=record.file_name)
    return record


def _contradiction(record: AnyRecord) -> str:
    """Return the reason why a record cannot be true, among the facts that readers rely on; empty if there is none."""
    if not isinstance(record, TrialRecord):
        return ""
    epochs, words = len(record.train_loss), len(record.trial.data.words)
    # Without validation clips there are no validation curves.
    if {*map(len, (record.validation_loss, record.validation_accuracy, record.elapsed_seconds))} - {0, epochs}:
        return "its curves are of different numbers of epochs"
    if any(split.labels and len(split.logits[0]) != words for split in (record.validation, record.test)):
        return f"it has other logits than one for each of {words} words"
    if not record.test.labels:
        return "it has no test clips"
    # Readers take logarithms and ratios of them; every network of ours has a convolution.
    if min(record.complexity.model_dump().values()) < 1:
        return "its network has no parameters or does nothing"
    return ""
