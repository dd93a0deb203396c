"""Log-mel features of a clip set, computed once and kept on the device for all trainings that need them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from melcnn.config import FrontEnd
from melcnn.data.clips import ClipSet
from melcnn.errors import InputError
from melcnn.log_mel import log_mel


@dataclass(frozen=True, eq=False)
class Features:
    """The features `x` (clips, n_mels, frames) float32 and `labels` (clips,) int64 of `clips`, on one device."""

    front_end: FrontEnd
    clips: ClipSet
    x: Tensor
    labels: Tensor

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """Views of the features and labels of one split."""
        part = self.clips.split(name)
        return self.x[part], self.labels[part]


def extract(clips: ClipSet, front_end: FrontEnd, device: str | torch.device = "cpu") -> Features:
    """Features of every clip. Raises `InputError` if the sample rates of clips and front-end differ."""
    if clips.sample_rate != front_end.sample_rate:
        raise InputError(
            f"the clips have {clips.sample_rate} Hz and the front-end expects {front_end.sample_rate} Hz: "
            "make the two equal"
        )
    x = log_mel(clips.waveforms, front_end, device)
    return Features(front_end, clips, x, torch.from_numpy(clips.labels).to(device))
