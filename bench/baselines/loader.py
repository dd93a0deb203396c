"""The script most people begin with: a DataLoader whose workers decode a file and transform it, in every epoch."""

import os
from collections.abc import Sequence

import soundfile
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.baselines.loop import Files, Learned, Settings, fit


class Recordings(Dataset):
    """Log-mel features of one-second recordings, made when they are asked for."""

    def __init__(self, paths: Sequence[str], labels: Sequence[int], settings: Settings):
        from torchaudio.transforms import MelSpectrogram

        self.paths, self.labels, self.samples = paths, labels, settings.sample_rate
        self.transform = MelSpectrogram(
            settings.sample_rate, settings.n_fft, hop_length=settings.hop_length, n_mels=settings.n_mels
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        samples, _ = soundfile.read(self.paths[index], dtype="float32")
        waveform = torch.zeros(self.samples)
        waveform[: len(samples)] = torch.from_numpy(samples)[: self.samples]
        return torch.log(self.transform(waveform) + 1e-6), self.labels[index]


def train(files: Files, settings: Settings, seed: int) -> Learned:
    """Train one network from recordings on disk."""

    def loader(split: str) -> DataLoader:
        training = split == "train"
        return DataLoader(
            Recordings(*files[split], settings),
            settings.batch_size,
            shuffle=training,
            num_workers=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            # The test split is read once: its workers need not wait for more.
            persistent_workers=split != "test",
            pin_memory=settings.device == "cuda",
            # BatchNorm has no statistics of one clip.
            drop_last=training and len(files[split][0]) % settings.batch_size == 1,
        )

    loaders = {split: loader(split) for split in files}
    return fit(settings, seed, {split: loaders[split].__iter__ for split in files})
