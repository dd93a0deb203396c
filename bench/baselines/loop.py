"""The training loop that tutorials have: Adam, an evaluation after each epoch, the best epoch is kept."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.measurement import reference

# Files and labels of each split, "train", "validation" and "test".
Files = Mapping[str, tuple[Sequence[str], Sequence[int]]]
Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Settings:
    """The settings of a training; the front-end has the study's remaining settings."""

    sample_rate: int
    n_fft: int
    hop_length: int
    n_mels: int
    groups: int
    channels: int
    n_classes: int
    learning_rate: float
    batch_size: int
    epochs: int
    device: str


@dataclass(frozen=True)
class Learned:
    """Accuracies at the epoch that was kept, the best on validation."""

    validation_accuracy: float
    test_accuracy: float


def fit(settings: Settings, seed: int, batches: Mapping[str, Batches]) -> Learned:
    """Train one network.

    Args:
        batches: for each split, log-mel features `(batch, n_mels, frames)` and labels.
    """
    torch.manual_seed(seed)
    network = reference.network(settings.n_mels, settings.groups, settings.channels, settings.n_classes)
    network = network.to(settings.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    best, kept = -1.0, network.state_dict()
    for _ in range(settings.epochs):
        network.train()
        for x, labels in batches["train"]():
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(network(x.to(settings.device)), labels.to(settings.device)).backward()
            optimizer.step()
        accuracy = _accuracy(network, batches["validation"](), settings.device)
        if accuracy > best:
            best, kept = accuracy, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return Learned(best, _accuracy(network, batches["test"](), settings.device))


@torch.no_grad()
def _accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: str) -> float:
    network.eval()
    right = clips = 0
    for x, labels in batches:
        right += (network(x.to(device)).argmax(1).cpu() == labels.cpu()).sum().item()
        clips += len(labels)
    return right / clips
