"""Log-mel features of waveforms, equal to torchaudio's MelSpectrogram followed by log(x + 1e-6)."""

import logging
import warnings
from typing import Literal

import torch
from torch import Tensor, nn

from melcnn.config import FrontEnd
from melcnn.errors import InputError, one_line

log = logging.getLogger(__name__)

# Added to the mel power before the logarithm, as in the study: silence becomes log(1e-6) = -13.8.
LOG_OFFSET = 1e-6


class LogMelFilterBanks(nn.Module):
    """Log-mel spectrogram of a waveform: `(..., samples) -> (..., n_mels, frames)`, float32.

    Frames are centred, reflect-padded and Hann-windowed, `frames = samples // hop_length + 1`; the power spectrum goes
    through triangular mel filters; the result is `ln(mel power + 1e-6)`. The order of operations is torchaudio's,
    because the logarithm crosses zero, where `allclose` tells any other order apart.

    Logs a warning for filters that see no FFT bin.

    Args:
        sample_rate, f_min, f_max: in Hz; f_max None: sample_rate // 2.
        n_fft, hop_length: in samples.
        norm: None or "slaney" (each filter divided by its width).
        normalize: the mean that is subtracted; see `melcnn.config.FrontEnd`.

    Raises:
        InputError: for settings out of range, and for waveforms that are not floating point or too short to reflect.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        sample_rate: int = 16_000,
        n_fft: int = 400,
        hop_length: int = 160,
        n_mels: int = 80,
        f_min: float = 0.0,
        f_max: float | None = None,
        norm: Literal["slaney"] | None = None,
        mel_scale: Literal["htk", "slaney"] = "htk",
        normalize: Literal["none", "clip", "mel"] = "none",
    ) -> None:
        super().__init__()
        with one_line("front-end"):
            self.config = FrontEnd(
                sample_rate=sample_rate,
                n_fft=n_fft,
                hop_length=hop_length,
                n_mels=n_mels,
                f_min=f_min,
                f_max=f_max,
                norm=norm,
                mel_scale=mel_scale,
                normalize=normalize,
            )
        filters = mel_filters(self.config)
        empty = int((filters.amax(0) == 0).sum())
        if empty:
            log.warning(empty_filters_remedy(self.config, empty))
        # Both follow from the configuration, so they are no part of the state dict.
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        if not waveform.is_floating_point():
            raise InputError(
                f"waveform must be floating point in -1 to 1, not {waveform.dtype}: divide int16 samples by 32768"
            )
        n_fft, samples = self.config.n_fft, waveform.shape[-1]
        if samples <= n_fft // 2:
            raise InputError(
                f"waveform of {samples} samples is too short for n_fft {n_fft}: "
                f"reflect padding needs more than {n_fft // 2} samples"
            )
        # Half precision would lose the small powers that the logarithm spreads out.
        with torch.autocast(waveform.device.type, enabled=False):
            flat = waveform.to(self.window.dtype).reshape(-1, samples)
            spectrum = torch.stft(
                flat, n_fft, self.config.hop_length, window=self.window, center=True, return_complex=True
            )
            power = spectrum.abs().pow(2.0)
            mel = torch.matmul(power.transpose(-1, -2), self.filters).transpose(-1, -2)
            features = torch.log(mel + LOG_OFFSET).reshape(*waveform.shape[:-1], *mel.shape[-2:])
            return normalized(features, self.config)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.config)


def normalized(features: Tensor, config: FrontEnd) -> Tensor:
    """Return log-mel features `(..., n_mels, frames)` less the mean that `config.normalize` names."""
    dims = {"none": None, "clip": (-2, -1), "mel": (-1,)}[config.normalize]
    return features if dims is None else features - features.mean(dims, keepdim=True)


def mel_filters(config: FrontEnd) -> Tensor:
    """Return torchaudio's triangular mel filters `(n_fft // 2 + 1, n_mels)`."""
    try:
        from torchaudio.functional import melscale_fbanks
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"torchaudio, which makes the mel filters, cannot be imported ({reason}): "
            "install a torch and torchaudio of the same version below 2.12"
        ) from error
    with warnings.catch_warnings():
        # torchaudio's warning of empty filters does not say what to do; that of `LogMelFilterBanks` does.
        warnings.filterwarnings("ignore", message="At least one mel filterbank")
        return melscale_fbanks(
            n_freqs=config.n_fft // 2 + 1,
            f_min=config.f_min,
            f_max=float(config.sample_rate // 2) if config.f_max is None else config.f_max,
            n_mels=config.n_mels,
            sample_rate=config.sample_rate,
            norm=config.norm,
            mel_scale=config.mel_scale,
        )


def empty_filters_remedy(config: FrontEnd, empty: int) -> str:
    """Return one line that says that `empty` filters see no FFT bin, and which settings would help."""

    def all_see_a_bin(**change: int) -> bool:
        return bool((mel_filters(config.model_copy(update=change)).amax(0) > 0).all())

    remedies = []
    # Bisection names only a number that was checked: between two numbers the answer may change more than once.
    enough, too_many = 0, config.n_mels
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        enough, too_many = (middle, too_many) if all_see_a_bin(n_mels=middle) else (enough, middle)
    if enough:
        remedies.append(f"n_mels {enough}")
    # FFT libraries are fast at 5-smooth lengths.
    lengths = sorted(2**i * 3**j * 5**k for i in range(4, 15) for j in range(3) for k in range(3))
    longer = next((n for n in lengths if config.n_fft < n <= 16_384 and all_see_a_bin(n_fft=n)), None)
    if longer:
        remedies.append(f"n_fft {longer}")
    return (
        f"{empty} of {config.n_mels} mel filters see no FFT bin (n_fft {config.n_fft}) and are constant: "
        f"use {' or '.join(remedies) or 'a wider band from f_min to f_max'}"
    )
