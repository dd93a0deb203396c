"""Log-mel features of a clip set, computed once and kept on the device for all trainings that need them."""

import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor

from melcnn.config import FrontEnd, Training
from melcnn.data import renditions
from melcnn.data.clips import ClipSet
from melcnn.errors import InputError
from melcnn.kernels.log_mel import log_mel


@dataclass(frozen=True, eq=False)
class Features:
    """The features `x` (clips, n_mels, frames) float32 and `labels` (clips,) int64 of `clips`, on one device."""

    front_end: FrontEnd
    clips: ClipSet
    x: Tensor
    labels: Tensor
    _made: dict[tuple[float, bool], Tensor] = field(default_factory=dict, repr=False)
    _making: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """Views of the features and labels of one split."""
        part = self.clips.split(name)
        return self.x[part], self.labels[part]

    def to_train(self, training: Training) -> tuple[Tensor, Tensor]:
        """Features and labels of the training split; of the features as many renditions, one after another, as
        `training` asks for: the clips themselves, slower, faster, and in background noise if the data set has any."""
        x, labels = self.split("train")
        noise = self.clips.noise if training.noise else self.clips.noise[:0]
        waveforms = self.clips.waveforms[self.clips.split("train")]
        asked = training.speed, len(noise) > waveforms.shape[1]
        if asked == (0.0, False):
            return x, labels
        with self._making:  # Trainings side by side ask for the same.
            if asked not in self._made:
                others = [renditions.change_speed(waveforms, 1 + sign * asked[0]) for sign in (-1, 1) if asked[0]]
                others += [renditions.add_noise(waveforms, noise)] if asked[1] else []
                made = [log_mel(other, self.front_end, self.x.device) for other in others]
                self._made[asked] = torch.cat([x, *made])
        return self._made[asked], labels


def extract(clips: ClipSet, front_end: FrontEnd, device: str | torch.device = "cpu") -> Features:
    """Features of every clip. Raises `InputError` if the sample rates of clips and front-end differ."""
    if clips.sample_rate != front_end.sample_rate:
        raise InputError(
            f"the clips have {clips.sample_rate} Hz and the front-end expects {front_end.sample_rate} Hz: "
            "make the two equal"
        )
    x = log_mel(clips.waveforms, front_end, device)
    return Features(front_end, clips, x, torch.from_numpy(clips.labels).to(device))
