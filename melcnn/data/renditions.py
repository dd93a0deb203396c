"""Renditions of clips for training: slower, faster, and in the data set's background noise."""

import numpy as np

from melcnn.data.audio import SAMPLE_RATE, resample

# The signal-to-noise ratio of a clip in noise, in dB: uniform between the two.
SNR_DB = (5.0, 25.0)

# In double precision a clip takes an eighth of a megabyte, and computing takes several times that.
CLIPS_AT_ONCE = 256


def change_speed(waveforms: np.ndarray, factor: float) -> np.ndarray:
    """Return clips at `factor` times the speed and the pitch (speed perturbation, Ko et al., Interspeech 2015).

    The middle of a clip stays in the middle; missing samples at the ends are the mirrored clip.

    Args:
        waveforms: int16 `(clips, samples)`.
        factor: is rounded to a hundredth.
    """
    samples, made = waveforms.shape[1], np.empty_like(waveforms)
    rate = round(100 * factor) * SAMPLE_RATE // 100  # An odd rate would need a giant resampling filter.
    for first in range(0, len(waveforms), CLIPS_AT_ONCE):
        part = slice(first, first + CLIPS_AT_ONCE)
        played = resample(waveforms[part] / 32768.0, rate)
        missing = samples - played.shape[1]
        if missing > 0:
            played = np.pad(played, ((0, 0), (missing // 2, missing - missing // 2)), mode="reflect")
        start = max(0, -missing) // 2
        made[part] = _int16(32768.0 * played[:, start : start + samples])
    return made


def add_noise(waveforms: np.ndarray, noise: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return int16 clips `(clips, samples)`, each in a random stretch of `noise` `(samples,)` at `SNR_DB`."""
    clips, samples = len(waveforms), waveforms.shape[1]
    random = np.random.default_rng(seed)
    starts, ratios = random.integers(len(noise) - samples, size=clips), random.uniform(*SNR_DB, size=clips)
    made = np.empty_like(waveforms)
    for row, clip, start, snr in zip(made, waveforms, starts, ratios, strict=True):
        stretch = noise[start : start + samples].astype(np.float64)
        power = [(x**2).mean() + 1 for x in (clip.astype(np.float64), stretch)]  # 1: silence has a power too
        row[:] = _int16(clip + stretch * np.sqrt(power[0] / power[1]) * 10 ** (-snr / 20))
    return made


def _int16(waveforms: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(waveforms), -32768, 32767).astype(np.int16)
