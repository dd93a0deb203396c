"""The rest of a block in training on a GPU, in one kernel each way: bias, ReLU, BatchNorm and pooling.

A program computes a channel: it reads the convolution's output from memory once, and then from the caches. Another
kernel picks, shifts and masks the clips that replicas see. Sums have a fixed order, so results repeat exactly. With
`TRITON_INTERPRET=1` the kernels run on the CPU, which tests them without a GPU.
"""

from collections.abc import Iterable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from melcnn import augmentation

TILE = 8192  # numbers that a program holds at once: 64 clips of 128 frames


@triton.jit
def _rectified(y, bias, n, channel, t, clips, channels, frames):
    """Load y `(clips, channels, frames)` of a channel at clips n and frames t, with bias and ReLU; outside it is 0."""
    inside = (n < clips) & (t < frames)
    values = tl.load(y + (n * channels + channel) * frames + t, inside, 0.0)
    # As torch's: a maximum with NaN is NaN, so that a training that diverges is seen.
    return tl.where(inside, tl.maximum(values + bias, 0.0, tl.PropagateNan.ALL), 0.0)


@triton.jit
def _forward(
    y, bias, gamma, beta, running_mean, running_variance, out, moments, clips, channels, frames, momentum, eps,
    MEAN: tl.constexpr, PARTS: tl.constexpr, CLIPS: tl.constexpr, FRAMES: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(0)
    rows, count = tl.arange(0, CLIPS)[:, None].to(tl.int64), (clips * frames).to(tl.float32)
    t, b = tl.arange(0, FRAMES)[None, :], tl.load(bias + channel)
    sums = tl.zeros((CLIPS, FRAMES), tl.float32)
    for part in range(PARTS):
        sums += _rectified(y, b, part * CLIPS + rows, channel, t, clips, channels, frames)
    mean = tl.sum(sums) / count
    sums = tl.zeros((CLIPS, FRAMES), tl.float32)
    for part in range(PARTS):
        n = part * CLIPS + rows
        off = _rectified(y, b, n, channel, t, clips, channels, frames) - mean
        sums += tl.where((n < clips) & (t < frames), off * off, 0.0)
    variance = tl.sum(sums) / count
    deviation = 1.0 / tl.sqrt(variance + eps)
    tl.store(moments + channel, mean)
    tl.store(moments + channels + channel, deviation)
    # torch keeps the unbiased variance.
    old, unbiased = tl.load(running_mean + channel), variance * count / (count - 1.0)
    tl.store(running_mean + channel, old + momentum * (mean - old))
    old = tl.load(running_variance + channel)
    tl.store(running_variance + channel, old + momentum * (unbiased - old))
    scale = tl.load(gamma + channel) * deviation
    shift = tl.load(beta + channel) - mean * scale
    pairs = frames // 2
    for part in range(PARTS):
        n = part * CLIPS + rows
        own = _rectified(y, b, n, channel, t, clips, channels, frames)
        if MEAN:
            tl.store(out + n * channels + channel, tl.sum(own, 1)[:, None] / frames * scale + shift, n < clips)
        else:
            # Each frame is loaded beside its partner, from the same lines of the cache.
            partner = _rectified(y, b, n, channel, t ^ 1, clips, channels, frames)
            larger = tl.maximum(own * scale + shift, partner * scale + shift, tl.PropagateNan.ALL)
            first = (t % 2 == 0) & (t // 2 < pairs) & (n < clips)
            tl.store(out + (n * channels + channel) * pairs + t // 2, larger, first)


@triton.jit
def _of_norm(dout, y, bias, gamma, beta, mean, deviation, n, channel, t, clips, channels, frames, MEAN: tl.constexpr):
    """Return the rectified values, the normalised ones, and the gradients of what BatchNorm gives."""
    rectified = _rectified(y, bias, n, channel, t, clips, channels, frames)
    normalised, inside = (rectified - mean) * deviation, (n < clips) & (t < frames)
    if MEAN:
        d = tl.where(inside, tl.load(dout + n * channels + channel, n < clips, 0.0) / frames, 0.0)
    else:
        # The gradient is the larger one's; of two equals, as of a pair that ReLU made 0, it is the first one's.
        partner = (_rectified(y, bias, n, channel, t ^ 1, clips, channels, frames) - mean) * deviation
        own, other, pairs = normalised * gamma + beta, partner * gamma + beta, frames // 2
        larger = tl.where(t % 2 == 0, own >= other, own > other)
        # A last frame without a partner is in no pair.
        d = tl.load(dout + (n * channels + channel) * pairs + t // 2, inside & larger & (t // 2 < pairs), 0.0)
    return rectified, normalised, d


@triton.jit
def _backward(
    dout, y, bias, gamma, beta, moments, dy, dbias, dgamma, dbeta, clips, channels, frames,
    MEAN: tl.constexpr, PARTS: tl.constexpr, CLIPS: tl.constexpr, FRAMES: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(0)
    rows, count = tl.arange(0, CLIPS)[:, None].to(tl.int64), (clips * frames).to(tl.float32)
    t, b = tl.arange(0, FRAMES)[None, :], tl.load(bias + channel)
    g, s = tl.load(gamma + channel), tl.load(beta + channel)
    mean, deviation = tl.load(moments + channel), tl.load(moments + channels + channel)
    by_scale = tl.zeros((CLIPS, FRAMES), tl.float32)
    by_shift = tl.zeros((CLIPS, FRAMES), tl.float32)
    for part in range(PARTS):
        n = part * CLIPS + rows
        _, z, d = _of_norm(dout, y, b, g, s, mean, deviation, n, channel, t, clips, channels, frames, MEAN)
        by_shift += d
        by_scale += d * z
    scale, shift = tl.sum(by_scale), tl.sum(by_shift)
    tl.store(dgamma + channel, scale)
    tl.store(dbeta + channel, shift)
    total = tl.zeros((CLIPS, FRAMES), tl.float32)
    for part in range(PARTS):
        n = part * CLIPS + rows
        r, z, d = _of_norm(dout, y, b, g, s, mean, deviation, n, channel, t, clips, channels, frames, MEAN)
        # The derivative of BatchNorm (Ioffe and Szegedy, arXiv:1502.03167), where ReLU let something pass.
        d = tl.where(r > 0.0, g * deviation * (d - shift / count - z * (scale / count)), 0.0)
        tl.store(dy + (n * channels + channel) * frames + t, d, (n < clips) & (t < frames))
        total += d
    tl.store(dbias + channel, tl.sum(total))


@triton.jit
def _pick(
    features, index, views, out, clips, n_mels, frames,
    VIEW: tl.constexpr, SPANS: tl.constexpr, SEEN: tl.constexpr, MELS: tl.constexpr, FRAMES: tl.constexpr,
):  # fmt: skip
    which = tl.program_id(0).to(tl.int64)  # a clip and a replica
    m, t = tl.program_id(1) * MELS + tl.arange(0, MELS)[:, None], tl.arange(0, FRAMES)[None, :]
    inside = (m < n_mels) & (t < frames)
    read, kept = t, inside
    if SEEN:
        own = views + which * VIEW
        read = tl.minimum(tl.maximum(t - tl.load(own), 0), frames - 1)
        for span in tl.static_range(SPANS):
            at = own + 1 + 2 * span
            kept = kept & ((t < tl.load(at)) | (t >= tl.load(at + 1)))
            at += 2 * SPANS
            kept = kept & ((m < tl.load(at)) | (m >= tl.load(at + 1)))
    clip = tl.load(index + which)
    known = (clip >= 0) & (clip < clips)
    values = tl.load(features + (clip * n_mels + m) * frames + read, kept & known, 0.0)
    values = tl.where(known, values, float("nan"))
    tl.store(out + (which * n_mels + m) * frames + t, values, inside)


def picked(features: Tensor, index: Tensor, views: Tensor | None) -> Tensor:
    """Return the clips that the replicas see, `(batch, replicas * n_mels, frames)`, of contiguous features on CUDA.

    Args:
        features: `(clips, n_mels, frames)`, float32.
        index: `(batch, replicas)`, int64; a clip out of range is NaN.
        views: `(batch, replicas, VIEW)`, int32 (`melcnn.augmentation`); None: clips are seen as they are.
    """
    batch, replicas = index.shape
    clips, n_mels, frames = features.shape
    out = features.new_empty(batch, replicas * n_mels, frames)
    wide = triton.next_power_of_2(frames)
    mels = min(triton.next_power_of_2(n_mels), max(1, TILE // wide))
    _pick[(batch * replicas, triton.cdiv(n_mels, mels))](
        features, index.contiguous(), index if views is None else views.contiguous(), out, clips, n_mels, frames,
        VIEW=augmentation.VIEW, SPANS=augmentation.SPANS, SEEN=views is not None, MELS=mels, FRAMES=wide,
    )  # fmt: skip
    return out


class _Block(torch.autograd.Function):
    """Bias, ReLU, BatchNorm and pooling of a convolution's output; the running statistics are updated."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        bias: Tensor,
        gamma: Tensor,
        beta: Tensor,
        running_mean: Tensor,
        running_variance: Tensor,
        momentum: float,
        eps: float,
        mean: bool,
    ) -> Tensor:
        y = y.contiguous()
        clips, channels, frames = y.shape
        out, moments = y.new_empty(clips, channels, 1 if mean else frames // 2), y.new_empty(2, channels)
        ctx.tile = _tile(clips, frames, mean)
        _forward[(channels,)](
            y, bias, gamma, beta, running_mean, running_variance, out, moments, clips, channels, frames, momentum, eps,
            **ctx.tile,
        )  # fmt: skip
        ctx.save_for_backward(y, bias, gamma, beta, moments)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("the blocks have no gradients of gradients: set kernels = 'torch' of the network")
        y, bias, gamma, beta, moments = ctx.saved_tensors
        clips, channels, frames = y.shape
        dy, small = torch.empty_like(y), y.new_empty(3, channels)
        _backward[(channels,)](
            dout.contiguous(), y, bias, gamma, beta, moments, dy, *small, clips, channels, frames, **ctx.tile
        )
        return dy, *small, *[None] * 5


def _tile(clips: int, frames: int, mean: bool) -> dict[str, Any]:
    wide = max(triton.next_power_of_2(frames), 2)
    rows = min(triton.next_power_of_2(clips), max(1, TILE // wide))
    return {
        "MEAN": mean,
        "PARTS": triton.cdiv(clips, rows),
        "CLIPS": rows,
        "FRAMES": wide,
        "num_warps": 16 if rows * wide > 4096 else 8 if rows * wide > 1024 else 4,
    }


def run(block: Iterable[Any], x: Tensor) -> Tensor:
    """Compute a block of `melcnn.model` in training, given that `gpu_blocks.supports` it."""
    convolution, _, norm, pooling, *rest = block
    if isinstance(convolution, nn.Sequential):
        x, convolution = convolution[0](x), convolution[1]
    y = convolution._conv_forward(x, convolution.weight, None)  # The kernel adds the bias, and computes its gradient.
    norm.num_batches_tracked.add_(1)
    y = _Block.apply(
        y, convolution.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps,
        not isinstance(pooling, nn.MaxPool1d),
    )  # fmt: skip
    for layer in rest:
        y = layer(y)
    return y
