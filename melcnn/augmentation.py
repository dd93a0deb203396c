"""Augmentation of clips in training: a shift in time and masked spans of frames and mels, drawn anew each epoch.

The masks are SpecAugment's (Park et al., arXiv:1904.08779), without its time warping.
"""

import torch
from torch import Tensor

from melcnn.config import Training

# Numbers of a view: the shift, then begin and end of two spans of frames and of two spans of mels. The kernels rely on
# this order.
VIEW = 9
SPANS = 2


def draw(training: Training, clips: int, n_mels: int, frames: int, generator: torch.Generator) -> Tensor | None:
    """Return random views `(clips, VIEW)`, int32, on the CPU; None if the training does not augment."""
    if not (training.shift or training.time_mask or training.mel_mask):
        return None
    uniform = torch.rand(clips, 1 + 4 * SPANS, generator=generator)
    most = int(training.shift * frames)
    columns = [(uniform[:, 0] * (2 * most + 1)).floor() - most]
    for axis, (length, share) in enumerate(((frames, training.time_mask), (n_mels, training.mel_mask))):
        for span in range(SPANS):
            wide, place = uniform[:, 1 + 2 * (axis * SPANS + span) :][:, :2].T
            width = (wide * (int(share * length) + 1)).floor()
            begin = (place * (length - width + 1)).floor()
            columns += [begin, begin + width]
    return torch.stack(columns, 1).int()


def apply(x: Tensor, views: Tensor) -> Tensor:
    """Return x `(..., n_mels, frames)` as `views` `(..., VIEW)` show it.

    It is shifted, with its first or last frame repeated to fill up, and zero where it is masked.
    """
    n_mels, frames = x.shape[-2:]
    views = views.long()
    mel, time = torch.arange(n_mels, device=x.device), torch.arange(frames, device=x.device)
    moved = (time - views[..., :1]).clamp(0, frames - 1)  # (..., frames)
    x = x.gather(-1, moved.unsqueeze(-2).expand(x.shape))

    def masked(position: Tensor, first: int) -> Tensor:
        spans = [views[..., i : i + 2, None] for i in range(first, first + 2 * SPANS, 2)]
        return torch.stack([(s[..., 0, :] <= position) & (position < s[..., 1, :]) for s in spans]).any(0)

    outside = ~(masked(mel, 1 + 2 * SPANS).unsqueeze(-1) | masked(time, 1).unsqueeze(-2))
    return x * outside
