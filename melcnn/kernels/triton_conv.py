"""The grouped convolution on a GPU: groups have few channels, so products stay in registers and use no matrix units.

Sums have a fixed order, without atomic additions, so results repeat exactly. With `TRITON_INTERPRET=1` the kernels run
on the CPU, which tests them without a GPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from melcnn.kernels.shapes import output_length

BLOCK = 128  # positions along time
MAX_ROWS = 16  # channels of a group that one program computes
CLIPS_PER_SLICE = 32  # clips whose weight gradients one program adds up


@triton.jit
def _forward(
    x, w, bias, y, groups, length, out_length, stride, padding, dilation,
    C_IN: tl.constexpr, C_OUT: tl.constexpr, TAPS: tl.constexpr, BIASED: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    blocks: tl.constexpr = (C_OUT + ROWS - 1) // ROWS
    g, rows = part // blocks, part % blocks * ROWS + tl.arange(0, ROWS)
    at = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    real = rows < C_OUT
    sums = tl.zeros((ROWS, BLOCK), tl.float32)
    for c in range(C_IN):
        for k in tl.static_range(TAPS):
            read = at * stride + k * dilation - padding
            values = tl.load(x + ((n * groups + g) * C_IN + c) * length + read, (read >= 0) & (read < length), 0.0)
            weights = tl.load(w + ((g * C_OUT + rows) * C_IN + c) * TAPS + k, real, 0.0)
            sums += weights[:, None] * values[None, :]
    if BIASED:
        sums += tl.load(bias + g * C_OUT + rows, real, 0.0)[:, None]
    to = y + ((n * groups + g) * C_OUT + rows)[:, None] * out_length + at[None, :]
    tl.store(to, sums, real[:, None] & (at < out_length)[None, :])


@triton.jit
def _input_gradient(
    dy, w, dx, groups, length, out_length, stride, padding, dilation,
    C_IN: tl.constexpr, C_OUT: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    blocks: tl.constexpr = (C_IN + ROWS - 1) // ROWS
    g, rows = part // blocks, part % blocks * ROWS + tl.arange(0, ROWS)
    at = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    real = rows < C_IN
    sums = tl.zeros((ROWS, BLOCK), tl.float32)
    for o in range(C_OUT):
        for k in tl.static_range(TAPS):
            # Output j read input j * stride + k * dilation - padding: which j, if any, read this one.
            distance = at + padding - k * dilation
            read = distance // stride
            some = (distance >= 0) & (distance % stride == 0) & (read < out_length)
            values = tl.load(dy + ((n * groups + g) * C_OUT + o) * out_length + read, some, 0.0)
            weights = tl.load(w + ((g * C_OUT + o) * C_IN + rows) * TAPS + k, real, 0.0)
            sums += weights[:, None] * values[None, :]
    to = dx + ((n * groups + g) * C_IN + rows)[:, None] * length + at[None, :]
    tl.store(to, sums, real[:, None] & (at < length)[None, :])


@triton.jit
def _weight_gradient(
    dy, x, dw, clips, groups, length, out_length, stride, padding, dilation,
    C_IN: tl.constexpr, C_OUT: tl.constexpr, TAPS: tl.constexpr, SLICE: tl.constexpr, ROWS: tl.constexpr,
    BLOCKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    first, part, pair = tl.program_id(0) * SLICE, tl.program_id(1), tl.program_id(2)
    blocks: tl.constexpr = (C_OUT + ROWS - 1) // ROWS
    g, rows = part // blocks, part % blocks * ROWS + tl.arange(0, ROWS)
    c, k = pair // TAPS, pair % TAPS
    real = rows < C_OUT
    sums = tl.zeros((ROWS, BLOCK), tl.float32)
    for i in range(SLICE):
        n = (first + i).to(tl.int64)
        for block in range(BLOCKS):
            at = block * BLOCK + tl.arange(0, BLOCK)
            some = (at < out_length) & (n < clips)
            read = at * stride + k * dilation - padding
            values = tl.load(
                x + ((n * groups + g) * C_IN + c) * length + read, some & (read >= 0) & (read < length), 0.0
            )
            gradients = tl.load(
                dy + ((n * groups + g) * C_OUT + rows)[:, None] * out_length + at[None, :],
                real[:, None] & some[None, :],
                0.0,
            )
            sums += gradients * values[None, :]
    to = dw + tl.program_id(0).to(tl.int64) * groups * C_OUT * C_IN * TAPS
    tl.store(to + ((g * C_OUT + rows) * C_IN + c) * TAPS + k, tl.sum(sums, 1), real)


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> Tensor:
    """Compute `melcnn.kernels.grouped_conv.grouped_conv1d` of contiguous float32 tensors on one device."""
    clips, _, length = x.shape
    outputs, c_in, taps = weight.shape
    out_length = output_length(x, weight, stride, padding, dilation)
    y = x.new_empty(clips, outputs, out_length)
    rows, parts = _rows(outputs // groups, groups)
    _forward[(clips, parts, triton.cdiv(out_length, BLOCK))](
        x, weight, weight if bias is None else bias, y, groups, length, out_length, stride, padding, dilation,
        C_IN=c_in, C_OUT=outputs // groups, TAPS=taps, BIASED=bias is not None, ROWS=rows, BLOCK=BLOCK,
    )  # fmt: skip
    return y


def backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias; an empty tensor for one that is not wanted."""
    clips, _, length = x.shape
    outputs, c_in, taps = weight.shape
    out_length, c_out = dy.shape[2], outputs // groups
    dx, dw, db = x.new_empty(0), x.new_empty(0), x.new_empty(0)
    if wanted[0]:
        dx = torch.empty_like(x)
        rows, parts = _rows(c_in, groups)
        _input_gradient[(clips, parts, triton.cdiv(length, BLOCK))](
            dy, weight, dx, groups, length, out_length, stride, padding, dilation,
            C_IN=c_in, C_OUT=c_out, TAPS=taps, ROWS=rows, BLOCK=BLOCK,
        )  # fmt: skip
    if wanted[1]:
        rows, parts = _rows(c_out, groups)
        slices = triton.cdiv(clips, CLIPS_PER_SLICE)
        sums = x.new_empty(slices, *weight.shape)
        _weight_gradient[(slices, parts, c_in * taps)](
            dy, x, sums, clips, groups, length, out_length, stride, padding, dilation,
            C_IN=c_in, C_OUT=c_out, TAPS=taps, SLICE=CLIPS_PER_SLICE, ROWS=rows,
            BLOCKS=triton.cdiv(out_length, BLOCK), BLOCK=BLOCK,
        )  # fmt: skip
        dw = sums.sum(0)
    if wanted[2]:
        db = dy.sum((0, 2))
    return dx, dw, db


def _rows(channels: int, groups: int) -> tuple[int, int]:
    """Return the channels of a group that one program computes, a power of two, and the programs for all groups."""
    rows = min(triton.next_power_of_2(channels), MAX_ROWS)
    return rows, groups * triton.cdiv(channels, rows)
