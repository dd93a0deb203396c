"""Audio files to one-second clips: any format, rate and channels that libsndfile reads, to 16 kHz mono int16.

No other module resamples (torchaudio does it).
"""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from melcnn.errors import InputError, first_line

if TYPE_CHECKING:
    from torch import Tensor
    from torchaudio.transforms import Resample

SAMPLE_RATE = 16_000
SAMPLES = 16_000
SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au")

# A clip is one word; a longer file is a mistake, or made to fill the memory: compressed silence takes no space.
MAX_SECONDS = 600
# Samples of all channels: this many are decoded and resampled in seconds.
MAX_VALUES = 2 * SAMPLE_RATE * MAX_SECONDS
# The size of a file: twice as many numbers of 64 bits, the longest that there are.
MAX_BYTES = 2 * 8 * MAX_VALUES

# The first bytes of the formats above, and of two more that recorders write. libsndfile reads twenty others, which are
# not needed; some of those readers print messages about damaged files to standard output.
_STARTS = re.compile(
    rb"RIFF|RIFX|RF64|fLaC|OggS|ID3|\xff[\xe0-\xff]|FORM....AIF[FC]|\.snd|dns\.|caff|riff\x2e\x91\xcf\x11", re.DOTALL
)

# The resampling filter grows with the reduced rate: 441 for 44.1 kHz, but 44101 for 44101 Hz (5 GB).
MAX_RATIO = 1_000


# The largest floating-point sample: resampling overshoots 1 by some hundredths; more was never scaled to -1 to 1.
MAX_PEAK = 2.0


class BadAudio(InputError):
    """A file that gives no clip. The text says why, without the file's name: "is empty"."""


@dataclass(frozen=True)
class Decoded:
    """The audio of a file.

    Attributes:
        waveform: mono, 16 kHz, int16 `(samples,)`.
        rate: the sample rate of the file, in Hz.
        channels: the number of channels of the file.
    """

    waveform: np.ndarray
    rate: int
    channels: int


class _Content(io.BytesIO):
    """The bytes of a file, in which seeking never fails.

    A damaged header may send libsndfile anywhere. An exception in its callback could not be caught, and Python would
    print the traceback.
    """

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: len(self.getbuffer())}[whence]
        return super().seek(min(max(start + offset, 0), 2**62))


def decode(content: bytes) -> Decoded:
    """Decode the bytes of a file.

    Raises:
        BadAudio: if they are no audio, empty, cut short, or all zeros.
    """
    import soundfile

    if not _STARTS.match(content):
        raise BadAudio("is no audio that can be read (not WAV, FLAC, Ogg, MP3, AIFF, AU, CAF or W64)")
    try:
        with soundfile.SoundFile(_Content(content)) as file:
            rate, expected = file.samplerate, file.frames
            if expected > MAX_SECONDS * rate:
                raise BadAudio(f"is longer than {MAX_SECONDS} s: cut it into words")
            if expected * file.channels > MAX_VALUES:
                raise BadAudio(
                    f"holds {expected * file.channels:,} samples, more than {MAX_VALUES:,}: cut it into words"
                )
            if rate // math.gcd(rate, SAMPLE_RATE) > MAX_RATIO:
                raise BadAudio(f"has the odd sample rate {rate} Hz: convert it to a usual one, such as 16000 Hz")
            # As float, because reading float files as integers would not scale them.
            # With a count, because some formats, such as GSM, do not know their length.
            frames = file.read(expected, dtype="float32", always_2d=True)
    except BadAudio:
        raise
    except soundfile.LibsndfileError as error:
        raise BadAudio(f"is no audio that can be read ({error.error_string.strip(' .')})") from None
    except (RuntimeError, ValueError) as error:
        raise BadAudio(f"is no audio that can be read ({first_line(error)})") from None
    if _cut_short(content) or 0 < len(frames) < expected:
        raise BadAudio("is cut short")
    if not len(frames):
        raise BadAudio("is empty")
    with np.errstate(over="ignore", invalid="ignore"):
        waveform = frames.mean(1) if frames.shape[1] > 1 else frames[:, 0]
        # After the mean, which can overflow where every channel is finite.
        if not np.isfinite(waveform).all():
            raise BadAudio("holds values that are not numbers")
        if rate != SAMPLE_RATE:
            waveform = resample(waveform, rate)
        samples = _as_int16(waveform)
    if not samples.any():
        raise BadAudio("is all zeros")
    return Decoded(samples, rate, frames.shape[1])


def read_clip(file: str | Path | BinaryIO) -> np.ndarray:
    """Return the one-second clip of a file, int16 `(16000,)`.

    Raises:
        InputError: if the file gives no clip; the message names the file.
    """
    try:
        if not isinstance(file, str | Path):
            return fit_length(decode(_content(file)).waveform)
        with open(file, "rb") as opened:
            return fit_length(decode(_content(opened)).waveform)
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror})") from None
    except BadAudio as error:
        name = file if isinstance(file, str | Path) else "standard input"
        raise InputError(f"{name} {error}") from None


def _content(file: BinaryIO) -> bytes:
    # Piece by piece: a pipe may have no end.
    content = bytearray()
    while chunk := file.read(1 << 20):
        content += chunk
        if len(content) > MAX_BYTES:
            raise BadAudio(f"is larger than {MAX_BYTES:,} bytes: cut it into words")
    return bytes(content)


def audio_files(names: Sequence[str]) -> list[str]:
    """Return `names` with each folder replaced by the audio files in it, at any depth, in order.

    Raises:
        InputError: for a folder without audio files.
    """
    found: list[str] = []
    for name in names:
        if not Path(name).is_dir():
            found.append(name)
            continue
        inside = sorted(str(path) for path in Path(name).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not inside:
            raise InputError(f"the folder {name} holds no audio file (of {', '.join(SUFFIXES)})")
        found += inside
    return found


def fit_length(waveform: np.ndarray, samples: int = SAMPLES) -> np.ndarray:
    """Return a waveform of `samples` samples: its `loudest_stretch`, zero-padded at the end."""
    stretch = loudest_stretch(waveform, samples)
    return np.pad(stretch, (0, samples - len(stretch)))


def loudest_stretch(waveform: np.ndarray, samples: int = SAMPLES) -> np.ndarray:
    """Return the view of a waveform on the `samples` samples with the most energy; a shorter waveform as it is.

    The makers of Speech Commands chose their clips in this way (arXiv:1804.03209).
    """
    if len(waveform) <= samples:
        return waveform
    energy = np.cumsum(np.concatenate([[0.0], waveform.astype(np.float64) ** 2]))
    start = int(np.argmax(energy[samples:] - energy[:-samples]))
    return waveform[start : start + samples]


def clips_of(waveforms: "np.ndarray | Tensor", rate: int = SAMPLE_RATE, target_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Return one-second clips of waveforms in memory, by the rules that `read_clip` has for files.

    Args:
        waveforms: `(clips, samples)`, int16, or floating point in -1 to 1; shorter ones than a second are zero-padded,
            of longer ones the loudest second is taken.
        rate, target_rate: of the waveforms and of the clips, in Hz.

    Returns:
        int16 `(clips, target_rate)`.

    Raises:
        InputError: for another type or shape, and for values that are not finite or out of range.
    """
    if isinstance(waveforms, (str, Path)):
        raise InputError("waveforms expected, not a path: melcnn.read_clip(path)[None] is the clip of a file")
    if hasattr(waveforms, "waveforms"):
        raise InputError(f"waveforms expected, not {type(waveforms).__name__}: give its waveforms and sample_rate")
    array = np.asarray(waveforms.detach().cpu() if hasattr(waveforms, "detach") else waveforms)
    if array.ndim != 2:
        hint = ": give one waveform as waveform[None]" if array.ndim == 1 else ": mix channels down to one first"
        raise InputError(f"waveforms must be (clips, samples), not {array.shape}{hint}")
    if not array.shape[1]:
        raise InputError("waveforms without samples: give some audio")
    if array.dtype != np.int16:
        if not np.issubdtype(array.dtype, np.floating):
            raise InputError(
                f"waveforms must be int16, or floating point in -1 to 1, not {array.dtype}: convert them first"
            )
        peak = float(np.abs(array).max(initial=0.0))
        if not peak <= MAX_PEAK:
            raise InputError(
                "waveforms hold values that are not finite: leave them out"
                if not math.isfinite(peak)
                else f"floating-point waveforms must be in -1 to 1, but reach {peak:g}: divide int16 samples by 32768"
            )
    if rate != target_rate:
        scale = 32768.0 if array.dtype == np.int16 else 1.0
        array = resample(np.asarray(array, np.float64) / scale, rate, target_rate)
    clips = array if array.dtype == np.int16 else _as_int16(array)
    return clips if clips.shape[1] == target_rate else np.stack([fit_length(clip, target_rate) for clip in clips])


def _as_int16(waveform: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)


def resample(waveform: np.ndarray, rate: int, target_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Resample waveforms (float `(..., samples)`, `rate` Hz) by torchaudio's windowed-sinc filter."""
    import torch

    if rate < 1 or rate // math.gcd(rate, target_rate) > MAX_RATIO:
        raise InputError(f"waveforms of {rate} Hz cannot be resampled: convert them to a usual rate, such as 16000 Hz")
    return _resampler(rate, target_rate)(torch.from_numpy(waveform).double()).numpy()


@lru_cache
def _resampler(rate: int, target_rate: int) -> "Resample":
    import torch
    from torchaudio.transforms import Resample

    # In float64, so that rounding to int16 gives the same clip on each machine.
    return Resample(rate, target_rate, dtype=torch.float64)


def _cut_short(content: bytes) -> bool:
    """Return whether a WAV, AIFF or AU file ends before the size in its header, which libsndfile ignores."""
    kind = content[:4]
    if kind == b"RIFF":
        expected = int.from_bytes(content[4:8], "little")
    elif kind == b"FORM":
        expected = int.from_bytes(content[4:8], "big")
    elif kind == b".snd":
        expected = int.from_bytes(content[4:8], "big") + int.from_bytes(content[8:12], "big") - 8
        if content[8:12] == b"\xff" * 4:
            return False
    else:
        return False
    streamed = expected in (0, 0xFFFFFFFF)  # written by programs that could not know the length
    return not streamed and len(content) < expected + 8
