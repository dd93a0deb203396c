"""The training session that `sweep`, `recommend` and `reproduce` share: folder, clips, executor and progress."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench.cli import options
from bench.cli.progress import SweepProgress
from bench.cli.terminal import resumable, stderr
from bench.records import RecordFolder
from melcnn.config import Trial
from melcnn.data.loading import load_clips

T = TypeVar("T")


@dataclass(frozen=True)
class TrainingOptions:
    """The options that say where networks are trained and where their records lie; see `bench.cli.options`."""

    device: str
    executor: str
    jobs: int | None
    ray_address: str | None
    out: Path
    retry_failed: bool
    kernels: str
    precision: str


class Session:
    """A training session: bad options, folders and data are refused here, before anything is trained.

    Raises:
        InputError: as the executors, `RecordFolder.prepare` and `load_clips` do.
    """

    def __init__(self, chosen: TrainingOptions, data: str, words: Sequence[str]):
        self.options = chosen
        self.executor = options.opened(
            chosen.executor, chosen.jobs, chosen.ray_address, chosen.device, chosen.precision
        )
        self.folder = RecordFolder(chosen.out)
        self.folder.prepare()
        self.clips = load_clips(data, words)

    def train(self, function: Callable[..., T], trials: Sequence[Trial], seeds: int) -> T:
        """Run `bench.sweep.run.sweep` or `bench.sweep.crossval.out_of_fold` and return its result.

        It shows progress on standard error; an interruption ends the command with what is kept and how to go on.
        """
        going_on = f"finished trials are kept in {self.options.out}, and the same command goes on from there"
        with resumable(going_on), SweepProgress(stderr) as on_event, self.executor as executor:
            kernels = options.kernels_of(self.options.kernels)
            return function(
                trials, seeds, self.clips, self.folder, executor, on_event, self.options.retry_failed, kernels
            )
