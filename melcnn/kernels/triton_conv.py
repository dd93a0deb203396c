"""The grouped convolution on a GPU: groups of few channels by sums in registers, of more channels by matrix products.

The matrix units multiply in TF32. Where convolutions are to be float32 each product is three of these, of factors that
are split in two, which is as exact ("tf32x3" of Triton).

Sums have a fixed order, without atomic additions, so results repeat exactly. With `TRITON_INTERPRET=1` the kernels run
on the CPU, which tests them without a GPU.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from melcnn.kernels.shapes import output_length

MAX_BLOCK = 128  # positions along time
MAX_ROWS = 16  # channels of a group that one program computes by sums
MAX_TAPS = 4  # taps whose weight gradients one program computes by sums
# Matrix units take tiles of at least 16 x 16: fewer channels are faster by sums, on an H200 from 4 groups on.
FEWEST_CHANNELS, FEWEST_PAIRS = 16, 16
# By products: channels of a group that one program computes, and pairs of channel and tap that it multiplies at once.
PRODUCT_ROWS, PRODUCT_BLOCK, PAIRS, WARPS = 32, 64, 32, 2
# In the weight gradient by products: pairs that one program computes, and positions that it multiplies at once.
WEIGHT_PAIRS, WEIGHT_BLOCK, WEIGHT_WARPS = 64, 32, 4
# A program adds up the weight gradients of so many clips, of fewer where there would not be enough programs.
CLIPS_PER_SLICE, ENOUGH_BY_SUMS, ENOUGH_BY_PRODUCTS = 32, 1024, 4096
MAX_GRID = 65535  # CUDA's limit of the second and third dimension


@triton.jit
def _group_and_rows(part, CHANNELS: tl.constexpr, ROWS: tl.constexpr):
    """Return the group of a program, and the channels of it that the program computes."""
    blocks: tl.constexpr = (CHANNELS + ROWS - 1) // ROWS
    return part // blocks, part % blocks * ROWS + tl.arange(0, ROWS)


@triton.jit
def _forward(
    x, w, bias, y, groups, length, out_length, stride, padding, dilation,
    C_IN: tl.constexpr, C_OUT: tl.constexpr, TAPS: tl.constexpr, BIASED: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    g, rows = _group_and_rows(part, C_OUT, ROWS)
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
    g, rows = _group_and_rows(part, C_IN, ROWS)
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
    AT_ONCE: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    first, part, column = tl.program_id(0) * SLICE, tl.program_id(1), tl.program_id(2)
    spans: tl.constexpr = (TAPS + AT_ONCE - 1) // AT_ONCE
    g, rows = _group_and_rows(part, C_OUT, ROWS)
    c, k = column // spans, column % spans * AT_ONCE + tl.arange(0, AT_ONCE)
    real = rows < C_OUT
    sums = tl.zeros((AT_ONCE, ROWS, BLOCK), tl.float32)
    for i in range(SLICE):
        n = (first + i).to(tl.int64)
        for block in range(BLOCKS):
            at = block * BLOCK + tl.arange(0, BLOCK)
            some = (at < out_length) & (n < clips)
            read = at[None, :] * stride + (k * dilation - padding)[:, None]
            inside = some[None, :] & (read >= 0) & (read < length) & (k < TAPS)[:, None]
            values = tl.load(x + ((n * groups + g) * C_IN + c) * length + read, inside, 0.0)
            gradients = tl.load(
                dy + ((n * groups + g) * C_OUT + rows)[:, None] * out_length + at[None, :],
                real[:, None] & some[None, :],
                0.0,
            )
            sums += gradients[None, :, :] * values[:, None, :]
    to = dw + tl.program_id(0).to(tl.int64) * groups * C_OUT * C_IN * TAPS
    to += ((g * C_OUT + rows)[None, :] * C_IN + c) * TAPS + k[:, None]
    tl.store(to, tl.sum(sums, 2), real[None, :] & (k < TAPS)[:, None])


# The same by matrix products, over pairs of a channel and a tap.


@triton.jit
def _forward_products(
    x, w, bias, y, groups, length, out_length, stride, padding, dilation,
    C_IN: tl.constexpr, C_OUT: tl.constexpr, TAPS: tl.constexpr, BIASED: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, PAIRS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    g, rows = _group_and_rows(part, C_OUT, ROWS)
    at = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    real = rows < C_OUT
    sums = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(0, C_IN * TAPS, PAIRS):
        pair = first + tl.arange(0, PAIRS)
        c, k, some = pair // TAPS, pair % TAPS, pair < C_IN * TAPS
        read = at[None, :] * stride + (k * dilation - padding)[:, None]
        inside = some[:, None] & (read >= 0) & (read < length)
        values = tl.load(x + ((n * groups + g) * C_IN + c)[:, None] * length + read, inside, 0.0)
        to_read = w + (g * C_OUT + rows)[:, None] * (C_IN * TAPS) + pair[None, :]
        weights = tl.load(to_read, real[:, None] & some[None, :], 0.0)
        sums = tl.dot(weights, values, sums, input_precision=PRECISION)
    if BIASED:
        sums += tl.load(bias + g * C_OUT + rows, real, 0.0)[:, None]
    to = y + ((n * groups + g) * C_OUT + rows)[:, None] * out_length + at[None, :]
    tl.store(to, sums, real[:, None] & (at < out_length)[None, :])


@triton.jit
def _input_gradient_products(
    dy, w, dx, groups, length, out_length, stride, padding, dilation,
    C_IN: tl.constexpr, C_OUT: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, PAIRS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    g, rows = _group_and_rows(part, C_IN, ROWS)
    at = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    real = rows < C_IN
    sums = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(0, C_OUT * TAPS, PAIRS):
        pair = first + tl.arange(0, PAIRS)
        o, k, some = pair // TAPS, pair % TAPS, pair < C_OUT * TAPS
        distance = at[None, :] + (padding - k * dilation)[:, None]
        read = distance // stride
        inside = some[:, None] & (distance >= 0) & (distance % stride == 0) & (read < out_length)
        values = tl.load(dy + ((n * groups + g) * C_OUT + o)[:, None] * out_length + read, inside, 0.0)
        to_read = w + ((g * C_OUT + o)[None, :] * C_IN + rows[:, None]) * TAPS + k[None, :]
        weights = tl.load(to_read, real[:, None] & some[None, :], 0.0)
        sums = tl.dot(weights, values, sums, input_precision=PRECISION)
    to = dx + ((n * groups + g) * C_IN + rows)[:, None] * length + at[None, :]
    tl.store(to, sums, real[:, None] & (at < length)[None, :])


@triton.jit
def _weight_gradient_products(
    dy, x, dw, clips, groups, length, out_length, stride, padding, dilation,
    C_IN: tl.constexpr, C_OUT: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr, SLICE: tl.constexpr,
    ROWS: tl.constexpr, PAIRS: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    first, part = tl.program_id(0) * SLICE, tl.program_id(1)
    g, rows = _group_and_rows(part, C_OUT, ROWS)
    pair = tl.program_id(2) * PAIRS + tl.arange(0, PAIRS)
    c, k, real, paired = pair // TAPS, pair % TAPS, rows < C_OUT, pair < C_IN * TAPS
    sums = tl.zeros((ROWS, PAIRS), tl.float32)
    for i in range(SLICE):
        n = (first + i).to(tl.int64)
        for block in range(BLOCKS):
            at = block * BLOCK + tl.arange(0, BLOCK)
            some = (at < out_length) & (n < clips)
            read = at[None, :] * stride + (k * dilation - padding)[:, None]
            inside = paired[:, None] & some[None, :] & (read >= 0) & (read < length)
            values = tl.load(x + ((n * groups + g) * C_IN + c)[:, None] * length + read, inside, 0.0)
            gradients = tl.load(
                dy + ((n * groups + g) * C_OUT + rows)[:, None] * out_length + at[None, :],
                real[:, None] & some[None, :],
                0.0,
            )
            sums = tl.dot(gradients, tl.trans(values), sums, input_precision=PRECISION)
    to = dw + tl.program_id(0).to(tl.int64) * groups * C_OUT * C_IN * TAPS
    to += (g * C_OUT + rows)[:, None] * (C_IN * TAPS) + pair[None, :]
    tl.store(to, sums, real[:, None] & paired[None, :])


def on_grid(weight_shape: torch.Size, groups: int, longest: int) -> bool:
    """Return whether the kernels' grids have a size that CUDA allows.

    Args:
        weight_shape: `(groups * c_out, c_in, taps)`.
        longest: at least the length of input and output.
    """
    outputs, c_in, taps = weight_shape
    parts = groups * triton.cdiv(max(outputs // groups, c_in), MAX_ROWS)
    return max(parts, triton.cdiv(longest, 16), c_in * taps) <= MAX_GRID


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> Tensor:
    """Compute `melcnn.kernels.grouped_conv.grouped_conv1d` of contiguous float32 tensors on one device."""
    clips, _, length = x.shape
    outputs, c_in, taps = weight.shape
    c_out, out_length = outputs // groups, output_length(x, weight, stride, padding, dilation)
    y = x.new_empty(clips, outputs, out_length)
    rows, parts, products = _rows(c_out, c_in * taps, groups)
    block, more = _block(out_length, products), _products(PAIRS, WARPS) if products else {}
    (_forward_products if products else _forward)[(clips, parts, triton.cdiv(out_length, block))](
        x, weight, weight if bias is None else bias, y, groups, length, out_length, stride, padding, dilation,
        C_IN=c_in, C_OUT=c_out, TAPS=taps, BIASED=bias is not None, ROWS=rows, BLOCK=block, **more,
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
        rows, parts, products = _rows(c_in, c_out * taps, groups)
        block, more = _block(length, products), _products(PAIRS, WARPS) if products else {}
        (_input_gradient_products if products else _input_gradient)[(clips, parts, triton.cdiv(length, block))](
            dy, weight, dx, groups, length, out_length, stride, padding, dilation,
            C_IN=c_in, C_OUT=c_out, TAPS=taps, ROWS=rows, BLOCK=block, **more,
        )  # fmt: skip
    if wanted[1]:
        rows, parts, products = _rows(c_out, c_in * taps, groups)
        block = WEIGHT_BLOCK if products else _block(out_length, False)
        at_once = min(triton.next_power_of_2(taps), MAX_TAPS)
        columns = triton.cdiv(c_in * taps, WEIGHT_PAIRS) if products else c_in * triton.cdiv(taps, at_once)
        enough = ENOUGH_BY_PRODUCTS if products else ENOUGH_BY_SUMS
        per_slice = max(1, min(CLIPS_PER_SLICE, clips * parts * columns // enough))
        slices = triton.cdiv(clips, per_slice)
        sums = x.new_empty(slices, *weight.shape)
        (_weight_gradient_products if products else _weight_gradient)[(slices, parts, columns)](
            dy, x, sums, clips, groups, length, out_length, stride, padding, dilation,
            C_IN=c_in, C_OUT=c_out, TAPS=taps, SLICE=per_slice, ROWS=rows,
            BLOCKS=triton.cdiv(out_length, block), BLOCK=block,
            **(_products(WEIGHT_PAIRS, WEIGHT_WARPS) if products else {"AT_ONCE": at_once}),
        )  # fmt: skip
        dw = sums.sum(0) if slices > 1 else sums[0]
    if wanted[2]:
        db = dy.sum((0, 2))
    return dx, dw, db


def _rows(channels: int, pairs: int, groups: int) -> tuple[int, int, bool]:
    """Return how programs share the channels of groups.

    Returns:
        the channels that one program computes, the number of programs, and whether they compute by matrix products.
    """
    products = channels >= FEWEST_CHANNELS and pairs >= FEWEST_PAIRS
    rows = min(triton.next_power_of_2(channels), PRODUCT_ROWS if products else MAX_ROWS)
    rows = max(rows, 16) if products else rows
    return rows, groups * triton.cdiv(channels, rows), products


def _block(length: int, products: bool) -> int:
    """Return the positions along time of one program: a power of two, and a side of a matrix product."""
    return min(max(triton.next_power_of_2(length), 16), PRODUCT_BLOCK if products else MAX_BLOCK)


def _products(pairs: int, warps: int) -> dict[str, Any]:
    """Return what the kernels of matrix products take besides."""
    precision = "tf32" if torch.backends.cudnn.allow_tf32 else "tf32x3"
    return {"PRECISION": precision, "PAIRS": pairs, "num_warps": warps}
