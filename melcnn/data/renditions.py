"""Other renditions of clips to train on: slower and faster, and in the data set's background noise."""

import numpy as np

from melcnn.data.audio import SAMPLE_RATE, resample

# How much louder than the noise a clip is, in decibels: drawn evenly between the two.
SNR_DB = (5.0, 25.0)


# In double precision a clip takes an eighth of a megabyte, and computing some times that.
CLIPS_AT_ONCE = 256


def change_speed(waveforms: np.ndarray, factor: float) -> np.ndarray:
    """Int16 clips `(clips, samples)` at `factor` (to a hundredth) times the speed, and the pitch (speed perturbation,
    Ko et al., Interspeech 2015), around their middles; what is missing at the ends is the clip mirrored."""
    samples, made = waveforms.shape[1], np.empty_like(waveforms)
    rate = round(100 * factor) * SAMPLE_RATE // 100  # Of an odd rate the resampling filter would be a giant.
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
    """Int16 clips `(clips, samples)`, each in a stretch of `noise` `(samples,)`, `SNR_DB` louder than it."""
    clips, samples = waveforms.shape
    random = np.random.default_rng(seed)
    starts, snr = random.integers(len(noise) - samples, size=clips), random.uniform(*SNR_DB, size=clips)
    made = np.empty_like(waveforms)
    for row, clip, start, louder in zip(made, waveforms, starts, snr, strict=True):
        stretch = noise[start : start + samples].astype(np.float64)
        power = [(of**2).mean() + 1 for of in (clip.astype(np.float64), stretch)]  # of a silent one still a number
        row[:] = _int16(clip + stretch * np.sqrt(power[0] / power[1]) * 10 ** (-louder / 20))
    return made


def _int16(waveforms: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(waveforms), -32768, 32767).astype(np.int16)
