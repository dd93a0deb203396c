"""Log-mel features of int16 clips in large batches: by our C kernel on the CPU, else by `LogMelFilterBanks`."""

import copy
import ctypes
import functools
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from melcnn import native
from melcnn.config import FrontEnd
from melcnn.frontend import LOG_OFFSET, LogMelFilterBanks, normalized
from melcnn.kernels import cuda

# For the module: on a CPU the spectra (64 x 201 x 101) then stay near the caches; a GPU needs larger batches, of which
# one is copied while another is computed.
CLIPS_PER_BATCH = {"cpu": 64, "cuda": 512}

# Fewer clips are done before another thread has started.
CLIPS_PER_THREAD = 4

# The divisor of int16 samples.
FULL_SCALE = 32768.0


@torch.no_grad()
def log_mel(waveforms: np.ndarray, front_end: FrontEnd, device: str | torch.device) -> Tensor:
    """Return features `(clips, n_mels, frames)`, float32, of int16 waveforms `(clips, samples)`.

    The kernel computes in double precision: it differs from the module by the module's own rounding.
    """
    module = _module(front_end)
    kernels = native.library() if torch.device(device).type == "cpu" else None
    if kernels is not None and kernels.supports(front_end.n_fft) and waveforms.shape[1] > front_end.n_fft // 2:
        return _by_kernel(kernels, waveforms, front_end)
    module = copy.deepcopy(module).to(device)
    batches = torch.from_numpy(waveforms).split(CLIPS_PER_BATCH[torch.device(device).type])
    on_gpu = torch.device(device).type == "cuda"
    # Pinned memory is copied while the batch before is computed.
    moved = (batch.pin_memory() if on_gpu else batch for batch in batches)
    # Features have one precision, whatever networks have. It is the process's, and on a GPU one thread computes.
    with cuda.computing_in("fp32") if on_gpu else nullcontext():
        return torch.cat([module(batch.to(device, non_blocking=True).float() / FULL_SCALE) for batch in moved])


# Cached, because its filters take longer to make than the features of a few clips.
@functools.lru_cache(maxsize=8)
def _module(front_end: FrontEnd) -> LogMelFilterBanks:
    return LogMelFilterBanks(**front_end.model_dump())  # It warns of filters that are constant.


def _by_kernel(kernels: ctypes.CDLL, waveforms: np.ndarray, front_end: FrontEnd) -> Tensor:
    waveforms = np.ascontiguousarray(waveforms, np.int16)
    clips, samples = waveforms.shape
    n_fft, hop = front_end.n_fft, front_end.hop_length
    window, low, width, weights = _tables(front_end)
    features = np.empty((clips, front_end.n_mels, samples // hop + 1), np.float32)

    def part(begin: int, end: int) -> None:
        failed = kernels.log_mel(
            waveforms[begin:end].ctypes.data,
            end - begin,
            samples,
            n_fft,
            hop,
            window.ctypes.data,
            front_end.n_mels,
            low.ctypes.data,
            width.ctypes.data,
            weights.ctypes.data,
            LOG_OFFSET,
            features[begin:end].ctypes.data,
        )
        if failed:
            raise MemoryError("no memory for the front-end's tables")

    threads = max(1, min(torch.get_num_threads(), clips // CLIPS_PER_THREAD))
    bounds = [clips * i // threads for i in range(threads + 1)]
    if threads == 1:
        part(0, clips)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, bounds[:-1], bounds[1:]))
    return normalized(torch.from_numpy(features), front_end)


@functools.lru_cache(maxsize=8)
def _tables(front_end: FrontEnd) -> tuple[np.ndarray, ...]:
    module = _module(front_end)
    return module.window.double().numpy() / FULL_SCALE, *_bands(module.filters.double().numpy())


def _bands(filters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return filters `(bins, n_mels)` without the zeros around them.

    Returns:
        the first bin of each filter, its number of bins, and the weights of all filters in a row.
    """
    low, width, weights = [], [], []
    for column in filters.T:
        inside = np.flatnonzero(column)
        first, last = (inside[0], inside[-1] + 1) if len(inside) else (0, 0)
        low.append(first)
        width.append(last - first)
        weights.append(column[first:last])
    return np.array(low, np.int32), np.array(width, np.int32), np.ascontiguousarray(np.concatenate(weights))
