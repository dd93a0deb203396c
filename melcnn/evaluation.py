"""Predictions of trained networks: probabilities, accuracy, and the clips that they get wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from melcnn.data.audio import SAMPLE_RATE, clips_of
from melcnn.data.clips import SPLITS, ClipSet
from melcnn.errors import InputError, check_type, did_you_mean
from melcnn.inference import logits
from melcnn.kernels.log_mel import log_mel

if TYPE_CHECKING:
    from melcnn.checkpoint import Checkpoint


def predict(
    checkpoint: "Checkpoint",
    waveforms: np.ndarray | torch.Tensor,
    device: str | torch.device = "cpu",
    sample_rate: int = SAMPLE_RATE,
) -> np.ndarray:
    """Return the probabilities of the checkpoint's words.

    Args:
        waveforms: `(clips, samples)`, int16 or floating point in -1 to 1. A shorter one than a second is zero-padded,
            of a longer one the loudest second is taken.
        sample_rate: of the waveforms, in Hz; they are resampled if the network expects another.

    Returns:
        float32 `(clips, words)`.

    Raises:
        InputError: for waveforms of another type, shape or range.
    """
    _check_checkpoint(checkpoint)
    front_end = checkpoint.trial.front_end
    x = log_mel(clips_of(waveforms, sample_rate, front_end.sample_rate), front_end, device)
    network = checkpoint.network.to(device)
    return logits(network, x)[0].softmax(-1).cpu().numpy()  # Here the host waits for the device.


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A checkpoint's predictions on labelled clips.

    Attributes:
        labels: the spoken word of each clip, as an index into `words`.
        probabilities: `(clips, words)`.
        predicted: the most probable word of each clip, as an index into `words`.
        confusion: `(words, words)`, numbers of clips by spoken word (rows) and predicted word (columns).
    """

    words: tuple[str, ...]
    names: Sequence[str]
    speakers: Sequence[str]
    labels: np.ndarray
    probabilities: np.ndarray

    def __repr__(self) -> str:
        right = f", accuracy {self.correct.mean():.4f}" if len(self.labels) else ""
        return f"Evaluation({len(self.labels)} clips of {','.join(self.words)}{right})"

    @property
    def predicted(self) -> np.ndarray:
        return self.probabilities.argmax(1)

    @property
    def correct(self) -> np.ndarray:
        return self.predicted == self.labels

    @property
    def confusion(self) -> np.ndarray:
        counts = np.zeros((len(self.words),) * 2, np.int64)
        np.add.at(counts, (self.labels, self.predicted), 1)
        return counts

    def most_wrong(self, n: int = 10) -> list[int]:
        """Return the `n` wrongly classified clips whose spoken word got the lowest probability, worst first."""
        spoken = self.probabilities[np.arange(len(self.labels)), self.labels]
        wrong = ~self.correct
        return [int(i) for i in np.argsort(spoken, kind="stable") if wrong[i]][:n]


def evaluate(
    checkpoint: "Checkpoint", clips: ClipSet, split: str = "test", device: str | torch.device = "cpu"
) -> Evaluation:
    """Evaluate a checkpoint on one split of `clips`, or on split "all".

    Raises:
        InputError: if the clips have other words than the checkpoint, and for an unknown split.
    """
    _check_checkpoint(checkpoint)
    check_type(clips, ClipSet, "load clips with melcnn.load_clips(data, words), or give the clips of features")
    if split not in (*SPLITS, "all"):
        close = did_you_mean(split, (*SPLITS, "all"))
        raise InputError(f"there is no split {split!r}{close}: use {', '.join(SPLITS)} or all")
    if clips.words != checkpoint.trial.data.words:
        raise InputError(
            f"the checkpoint tells {','.join(checkpoint.trial.data.words)} apart, the clips are of "
            f"{','.join(clips.words)}: load clips of the checkpoint's words"
        )
    part = slice(None) if split == "all" else clips.split(split)
    return Evaluation(
        words=clips.words,
        names=clips.names[part].tolist(),
        speakers=clips.speakers[part].tolist(),
        labels=clips.labels[part],
        probabilities=predict(checkpoint, clips.waveforms[part], device, clips.sample_rate),
    )


def _check_checkpoint(checkpoint: object) -> None:
    if hasattr(checkpoint, "trial") and hasattr(checkpoint, "network"):
        return
    remedy = "give the checkpoint first"
    if isinstance(checkpoint, (str, Path)):
        remedy = "load it with melcnn.load_checkpoint(path)"
    elif hasattr(checkpoint, "network"):
        remedy = "make one with melcnn.checkpoint_of(network, trial, clips)"
    raise InputError(f"Checkpoint expected, not {type(checkpoint).__name__}: {remedy}")
