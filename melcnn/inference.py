"""Logits of trained networks, replica by replica, and their accuracy."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from melcnn.model import MelCNN

if TYPE_CHECKING:
    pass

CLIPS_PER_BATCH = 256


@torch.no_grad()
def logits(network: MelCNN, x: Tensor) -> Tensor:
    """Logits `(replicas, clips, n_classes)` in evaluation mode; every replica sees the same `x`.

    x: features `(clips, n_mels, frames)`. The network's mode is as before afterwards.
    """
    training = network.training
    network.eval()
    clips = torch.arange(len(x), device=x.device)[:, None].expand(-1, network.replicas)
    outputs = [network(x, batch) for batch in clips.split(CLIPS_PER_BATCH)]
    network.train(training)
    return torch.cat(outputs).unflatten(1, (network.replicas, -1)).transpose(0, 1)


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The fraction of clips whose largest logit is the label's: `(..., clips, n_classes), (clips,) -> (...)`."""
    return (logits.argmax(-1) == labels).double().mean(-1)
