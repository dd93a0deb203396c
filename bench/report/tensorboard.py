"""Curves for TensorBoard: a run for each network, by epoch."""

import math
import re
from pathlib import Path

from bench.report.findings import CURVES
from bench.report.load import ReportInput
from melcnn.config import descriptions
from melcnn.errors import InputError

# The folder of a run: its seed, and the identity of its record.
RUN = re.compile(r"seed \S+ ([0-9a-f]{12})")


def write_curves(gathered: ReportInput, folder: Path) -> Path:
    """Write event files, one folder for each data set, configuration and seed, in place of earlier ones of that record.

    Raises:
        InputError: TensorBoard is missing, or the folder cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard needs TensorBoard: pip install 'melbench[tensorboard]'") from None
    earlier = _by_identity(folder)
    for chapter in gathered.chapters:
        records = [*chapter.trials, *chapter.folds]
        named = descriptions(record.trial for record in records)
        for record in records:
            data_set = _plain(
                f"{record.dataset}{f', {record.fold}' if record.fold else ''} {' '.join(record.trial.data.words)}"
            )
            # What a configuration is called changes with the others that are told, a record's identity never.
            run = f"seed {record.seed} {record.identity}"
            home = folder / data_set / _plain(named[record.trial]) / run
            try:
                for old in earlier.get(record.identity, ()):
                    _remove(old)
                with SummaryWriter(home) as writer:
                    for curve in CURVES:
                        for epoch, value in enumerate(getattr(record, curve), 1):
                            if math.isfinite(value):
                                writer.add_scalar(curve, value, epoch)
            except OSError as error:
                raise InputError(f"{home} cannot be written ({error.strerror}): choose another --tensorboard") from None
    return folder


def _by_identity(folder: Path) -> dict[str, list[Path]]:
    """Return the runs in `folder` by the identities in their names."""
    found: dict[str, list[Path]] = {}
    for home in folder.glob("*/*/seed *"):
        if named := RUN.fullmatch(home.name):
            found.setdefault(named[1], []).append(home)
    return found


def _remove(run: Path) -> None:
    """Remove all event files, which TensorBoard would join to one run, and the folder if nothing else is in it."""
    for events in run.glob("events.out.tfevents.*"):
        events.unlink()
    if not any(run.iterdir()):
        run.rmdir()


def _plain(name: str) -> str:
    """Return a name that is no path, of at most as many bytes as file systems take."""
    kept = "".join(" " if c in '/\\:*?"<>|' or not c.isprintable() else c for c in name)
    return kept.encode()[:200].decode(errors="ignore").strip(". ") or "unnamed"
