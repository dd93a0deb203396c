"""Curves for TensorBoard: a run for each network, by epoch."""

import math
from pathlib import Path

from bench.findings import CURVES
from bench.folders import free
from bench.gathering import Gathered
from melcnn.config import describe
from melcnn.errors import InputError


def write_curves(gathered: Gathered, folder: Path) -> Path:
    """Writes event files into `folder`, one folder a data set, configuration and seed; what an earlier call wrote for
    the same record is replaced. Raises `InputError` without TensorBoard, or if nothing can be written there."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard needs TensorBoard: pip install 'melbench[tensorboard]'") from None
    taken: set[Path] = set()
    for chapter in gathered.chapters:
        records = [*chapter.trials, *chapter.folds]
        trials = list(dict.fromkeys(record.trial for record in records))
        for record in records:
            data_set = _plain(f"{record.dataset} {' '.join(record.trial.data.words)}")
            home = free(folder / data_set / _plain(describe(record.trial, trials)) / f"seed {record.seed}", taken)
            taken.add(home)
            try:
                # TensorBoard puts all event files of a folder into one run.
                for old in home.glob("events.out.tfevents.*"):
                    old.unlink()
                with SummaryWriter(home) as writer:
                    for curve in CURVES:
                        for epoch, value in enumerate(getattr(record, curve), 1):
                            if math.isfinite(value):
                                writer.add_scalar(curve, value, epoch)
            except OSError as error:
                raise InputError(f"{home} cannot be written ({error.strerror}): choose another --tensorboard") from None
    return folder


def _plain(name: str) -> str:
    """A name that is no path, for words may be called anything; of bytes as many as file systems take."""
    kept = "".join(" " if c in '/\\:*?"<>|' or not c.isprintable() else c for c in name)
    return kept.encode()[:200].decode(errors="ignore").strip(". ") or "unnamed"
