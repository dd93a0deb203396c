"""melbench's front-end against torchaudio's: clips a second at several batch sizes, and how exact each is."""

import functools
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from bench.formats import Sheet
from bench.stats.intervals import median_interval, significant
from bench.timing import timer
from bench.timing.clocks import clock_for
from melcnn.config import FrontEnd
from melcnn.data.clips import ClipSet
from melcnn.kernels.log_mel import log_mel

BATCHES = (1, 4, 16, 64, 256, 1024)
CLIPS = 1024
ROUNDS = 15


class FrontEndRow(BaseModel):
    """A front-end at one batch size; the fields are the CSV's columns.

    Attributes:
        batch_size: clips given at once.
        time_a_clip_s: median over rounds.
        speed_ratio: to torchaudio's at the batch size that suits it best, the median over rounds with its interval.
        max_error: the largest difference from torchaudio's front-end in double precision, of the natural logarithm.
    """

    model_config = ConfigDict(frozen=True)

    way: str
    n_mels: int
    n_fft: int
    hop_length: int
    clips: int
    batch_size: int
    time_a_clip_s: float
    clips_per_s: float
    speed_ratio: float
    speed_ratio_low95: float
    speed_ratio_high95: float
    max_error: float
    device: str


def measure(
    front_end: FrontEnd, clips: ClipSet, device: str, name: str, batches: Sequence[int] = ()
) -> list[FrontEndRow]:
    """Time the features of the same clips by torchaudio and by melbench, in batches of several sizes, interleaved.

    Args:
        name: the name of the device.
        batches: the sizes; empty: `BATCHES`.
    """
    waveforms = clips.waveforms[:CLIPS]
    single, double = (_torchaudio(front_end, device, dtype) for dtype in (torch.float32, torch.float64))
    ways = {"torchaudio": single, "melbench": lambda batch: log_mel(batch, front_end, device)}

    def in_batches(way: Callable[[np.ndarray], Tensor], size: int) -> list[Tensor]:
        with torch.inference_mode():
            return [way(waveforms[i : i + size]) for i in range(0, len(waveforms), size)]

    exact = torch.cat(in_batches(double, 64))
    sizes = [size for size in batches or BATCHES if size <= len(waveforms)] or [len(waveforms)]
    calls = {(way, size): functools.partial(in_batches, ways[way], size) for way in ways for size in sizes}
    errors = {key: float((torch.cat(call()).double() - exact).abs().max()) for key, call in calls.items()}
    run = timer.interleave({str(key): call for key, call in calls.items()}, timer.fixed(ROUNDS), clock_for(device))
    seconds = {key: run.series[str(key)].seconds for key in calls}
    best = min((key for key in calls if key[0] == "torchaudio"), key=lambda key: statistics.median(seconds[key]))
    rows = []
    for (way, size), took in seconds.items():
        # Round by round, so that a machine that drifts has hit both alike.
        ratio, low, high = median_interval([b / s for b, s in zip(seconds[best], took, strict=True)])
        time = statistics.median(took) / len(waveforms)
        rows.append(
            FrontEndRow(
                way=way,
                n_mels=front_end.n_mels,
                n_fft=front_end.n_fft,
                hop_length=front_end.hop_length,
                clips=len(waveforms),
                batch_size=size,
                time_a_clip_s=significant(time),
                clips_per_s=significant(1 / time),
                speed_ratio=significant(ratio),
                speed_ratio_low95=significant(low),
                speed_ratio_high95=significant(high),
                max_error=significant(errors[way, size]),
                device=name,
            )
        )
    return rows


def sheet(rows: Sequence[FrontEndRow]) -> Sheet:
    """Return clips per second, and the ratio to torchaudio's best."""
    first = rows[0]
    return Sheet(
        title=(
            f"log-mel features of {first.clips} clips (n_mels {first.n_mels}, n_fft {first.n_fft}, hop_length "
            f"{first.hop_length}), {first.device}"
        ),
        headings=["way", "batch", "clips/s", "x torchaudio's best", "max error"],
        cells=[
            [
                row.way,
                str(row.batch_size),
                f"{row.clips_per_s:,.0f}",
                f"{row.speed_ratio:.2f} ({row.speed_ratio_low95:.2f} to {row.speed_ratio_high95:.2f})",
                f"{row.max_error:.2g}",
            ]
            for row in rows
        ],
        records=[row.model_dump() for row in rows],
        notes=["max error: of the natural logarithm, against torchaudio's front-end in double precision."],
    )


def _torchaudio(front_end: FrontEnd, device: str, dtype: torch.dtype) -> Callable[[np.ndarray], Tensor]:
    from torchaudio.transforms import MelSpectrogram

    transform = MelSpectrogram(
        front_end.sample_rate,
        front_end.n_fft,
        f_min=front_end.f_min,
        f_max=front_end.f_max,
        hop_length=front_end.hop_length,
        n_mels=front_end.n_mels,
        norm=front_end.norm,
        mel_scale=front_end.mel_scale,
    ).to(device, dtype)
    return lambda batch: torch.log(transform(torch.from_numpy(batch).to(device, dtype) / 32768) + 1e-6)
