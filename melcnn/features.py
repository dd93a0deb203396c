"""The log-mel features of a clip set, computed once and kept on the device for all trainings that need them."""

import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor

from melcnn.config import FrontEnd, Training
from melcnn.data import renditions
from melcnn.data.clips import ClipSet
from melcnn.errors import InputError, check_type
from melcnn.kernels.log_mel import log_mel


@dataclass(frozen=True, eq=False)
class Features:
    """The features of a clip set on one device.

    Attributes:
        x: float32 `(clips, n_mels, frames)`.
        labels: int64 `(clips,)`.
    """

    front_end: FrontEnd
    clips: ClipSet
    x: Tensor
    labels: Tensor
    _renditions: dict[tuple[float, bool], Tensor] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __repr__(self) -> str:
        clips, n_mels, frames = self.x.shape
        return f"Features({clips} clips, {n_mels} mels, {frames} frames, {self.x.device}, of {self.clips!r})"

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """Return views of the features and labels of one split."""
        part = self.clips.split(name)
        return self.x[part], self.labels[part]

    def to_train(self, training: Training) -> tuple[Tensor, Tensor]:
        """Return the features and the labels of the training split.

        The features are those of all renditions that `training` asks for, one after another: the clips themselves,
        slower, faster, and in background noise if the data set has noise.
        """
        x, labels = self.split("train")
        noise = self.clips.noise if training.noise else self.clips.noise[:0]
        waveforms = self.clips.waveforms[self.clips.split("train")]
        key = speed, noisy = training.speed, len(noise) > waveforms.shape[1]
        if not speed and not noisy:
            return x, labels
        with self._lock:  # Trainings side by side ask for the same renditions.
            if key not in self._renditions:
                others = [renditions.change_speed(waveforms, 1 + sign * speed) for sign in (-1, 1) if speed]
                others += [renditions.add_noise(waveforms, noise)] if noisy else []
                made = [log_mel(other, self.front_end, self.x.device) for other in others]
                self._renditions[key] = torch.cat([x, *made])
        return self._renditions[key], labels


def extract(clips: ClipSet, front_end: FrontEnd, device: str | torch.device = "cpu") -> Features:
    """Return the features of every clip.

    Raises:
        InputError: if the sample rates of clips and front-end differ.
    """
    check_type(clips, ClipSet, "load clips with melcnn.load_clips(data, words)")
    check_type(front_end, FrontEnd, "give the front_end of a melcnn.configure(...)")
    if clips.sample_rate != front_end.sample_rate:
        raise InputError(
            f"the clips have {clips.sample_rate} Hz and the front-end expects {front_end.sample_rate} Hz: "
            "make the two equal"
        )
    x = log_mel(clips.waveforms, front_end, device)
    return Features(front_end, clips, x, torch.from_numpy(clips.labels).to(device))
