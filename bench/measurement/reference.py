"""Reference work in plain PyTorch, timed beside what is stored, so that a machine's drift cancels out.

Two measurements of different days are compared as ratios to this work, which never changes: the study's
network and front-end, written out here once more and apart from melcnn, so that no change there reaches it.
Raise `VERSION` if it must change after all (or `works.build_reference`, or a default of the configuration that
it falls back on); measurements of different versions are not compared.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

VERSION = 1


def network(n_mels: int, groups: int, channels: int, n_classes: int) -> nn.Sequential:
    """Return the study's network."""

    def block(c_in: int, pooling: nn.Module) -> list[nn.Module]:
        return [
            nn.Conv1d(c_in, channels, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.BatchNorm1d(channels),
            pooling,
        ]

    return nn.Sequential(
        *block(n_mels, nn.MaxPool1d(2)),
        *block(channels, nn.MaxPool1d(2)),
        *block(channels, nn.AdaptiveAvgPool1d(1)),
        nn.Flatten(),
        nn.Linear(channels, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, n_classes),
    )


def training_step(model: nn.Module, x: torch.Tensor, n_classes: int) -> Callable[[], None]:
    """Return a function that takes one step of Adam on one batch, as most training scripts do."""
    optimizer = torch.optim.Adam(model.parameters())
    labels = torch.arange(len(x), device=x.device) % n_classes

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step


def inference(model: nn.Module, *inputs: torch.Tensor) -> Callable[[], None]:
    model.eval()

    def infer() -> None:
        with torch.inference_mode():
            model(*inputs)

    return infer


def front_end(n_fft: int, hop_length: int, n_mels: int, waveforms: torch.Tensor) -> Callable[[], None]:
    """Return a call of a power spectrum, a dense product of the mel matrix's shape and a logarithm."""
    window = torch.hann_window(n_fft, device=waveforms.device)
    filters = torch.rand(n_fft // 2 + 1, n_mels, device=waveforms.device)

    def transform() -> None:
        with torch.inference_mode():
            spectrum = torch.stft(waveforms, n_fft, hop_length, window=window, return_complex=True)
            torch.log(spectrum.abs().pow(2).transpose(1, 2) @ filters + 1e-6)

    return transform
