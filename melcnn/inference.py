"""The logits of trained networks, replica by replica, and their accuracy."""

import torch
from torch import Tensor

from melcnn.model import MelCNN

CLIPS_PER_BATCH = 256


@torch.no_grad()
def logits(network: MelCNN, x: Tensor) -> Tensor:
    """Return the logits in evaluation mode; the network's mode is restored.

    Args:
        x: features `(clips, n_mels, frames)`, which every replica sees.

    Returns:
        `(replicas, clips, n_classes)`.
    """
    training = network.training
    network.eval()
    clips = torch.arange(len(x), device=x.device)[:, None].expand(-1, network.replicas)
    outputs = [network(x, batch) for batch in clips.split(CLIPS_PER_BATCH)]
    network.train(training)
    return torch.cat(outputs).unflatten(1, (network.replicas, -1)).transpose(0, 1)


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of clips whose largest logit is the label's: `(..., clips, n_classes), (clips,) -> (...)`."""
    return (logits.argmax(-1) == labels).double().mean(-1)
