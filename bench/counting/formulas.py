"""The arithmetic of each operator, as a closed form of the shapes it ran on.

An operator is counted where PyTorch dispatches it, so functional calls count like layers. `FORMULAS` has every operator
that computes, `FREE` those that only move, make or view data; `cost_of` raises for any other. To add one, write its
formula beside similar ones, and a line in `FORMULAS`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

KINDS = ("convolution", "linear/matmul", "normalisation", "activation", "pooling", "FFT", "other")


@dataclass(frozen=True)
class OperatorCost:
    """The cost of a call of an operator.

    Attributes:
        macs: multiply-accumulates of convolution, linear and matmul.
        bias: additions of a bias.
        elementary: other arithmetic by the study's convention: two an element for normalisation, one for an activation,
            one an input element for pooling, one an output element for the rest (an input element for sums).
        fft_flops: floating-point operations of a Fourier transform, by the model 2.5 N log2 N for a real one.
    """

    kind: str
    macs: int = 0
    bias: int = 0
    elementary: int = 0
    fft_flops: float = 0.0

    @property
    def macs_all_layers(self) -> float:
        """The study's convention; of a Fourier transform, half the FLOPs."""
        return self.macs + self.bias + self.elementary + self.fft_flops / 2

    @property
    def flops(self) -> float:
        """Two for each multiply-accumulate, plus the rest."""
        return 2 * self.macs + self.bias + self.elementary + self.fft_flops


class UncountedOperator(TypeError):
    """An operator that computes and has no formula. Its text is one line and names it."""


def _first(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


def _convolution(
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, *, out
) -> OperatorCost:
    # Each output element (for a transposed convolution: each input element) meets one kernel of its group:
    # kernel size x channels of the group, which are the weight's dimensions after the first. Padding is
    # computed like data.
    meetings = x.numel() if transposed else out.numel()
    macs = meetings * math.prod(weight.shape[1:])
    return OperatorCost("convolution", macs=macs, bias=out.numel() if bias is not None else 0)


def _convolution_backward(
    grad, x, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, output_mask, *, out
) -> OperatorCost:
    # The gradient of the input, and that of the weight, each pair every forward multiply-accumulate with one
    # of their own, groups included; output_mask says which of input, weight and bias are wanted.
    meetings = x.numel() if transposed else grad.numel()
    forward = meetings * math.prod(weight.shape[1:])
    wanted = bool(output_mask[0]) + bool(output_mask[1])
    return OperatorCost("convolution", macs=forward * wanted, bias=grad.numel() if output_mask[2] else 0)


def _grouped_conv1d(x, weight, bias, stride, padding, dilation, groups, *, out) -> OperatorCost:
    return _convolution(x, weight, bias, stride, padding, dilation, False, 0, groups, out=out)


def _grouped_conv1d_backward(grad, x, weight, stride, padding, dilation, groups, wanted, *, out) -> OperatorCost:
    return _convolution_backward(grad, x, weight, None, stride, padding, dilation, False, 0, groups, wanted, out=out)


def _mm(a, b, *, out) -> OperatorCost:
    # (..., n, k) x (..., k, m): n m k for each matrix of the batch; k is the last dimension of the first.
    return OperatorCost("linear/matmul", macs=out.numel() * a.shape[-1])


def _addmm(bias, a, b, *, beta=1, alpha=1, out) -> OperatorCost:
    return OperatorCost("linear/matmul", macs=out.numel() * a.shape[-1], bias=out.numel() if beta else 0)


def _linear(x, weight, bias=None, *, out) -> OperatorCost:
    return OperatorCost("linear/matmul", macs=out.numel() * x.shape[-1], bias=out.numel() if bias is not None else 0)


def _quantized_linear(x, packed, *rest, out) -> OperatorCost:
    return _linear(x, None, packed.unpack()[1], out=out)


def _quantized_convolution(x, packed, *rest, out) -> OperatorCost:
    # A packed one-dimensional kernel has a second spatial dimension of size 1.
    weight, bias = packed.unpack()
    return _convolution(x, weight, bias, 1, 0, 1, False, 0, 1, out=out)


def _attention(query, key, value, *rest, out, **options) -> OperatorCost:
    # (B, H, Lq, D) x (B, H, Lk, D) x (B, H, Lk, Dv): scores Lq Lk D, then their weighted sum Lq Lk Dv.
    b, h, l_q, d = query.shape
    l_k, d_v = key.shape[-2], value.shape[-1]
    scores = b * h * l_q * l_k
    # One softmax over the scores, one scaling.
    return OperatorCost("linear/matmul", macs=scores * (d + d_v), elementary=2 * scores)


def _attention_backward(grad, query, key, value, *rest, out, **options) -> OperatorCost:
    # The fused backward makes the scores again (D), then the gradients of the values and of the weights of
    # the sum (2 Dv), and of queries and keys (2 D).
    b, h, l_q, d = query.shape
    scores = b * h * l_q * key.shape[-2]
    return OperatorCost("linear/matmul", macs=scores * (3 * d + 2 * value.shape[-1]), elementary=4 * scores)


def _rnn_gates(steps: int, hidden: int) -> int:
    # An LSTM's step, per hidden unit: both biases and the sum of both products for four gates (8 additions
    # of bias, 4 sums), 4 gate activations, f * c, i * g, their sum, tanh(c), and o * tanh(c).
    return steps * hidden * (8 + 4 + 4 + 5)


def _mkldnn_lstm(x, w_input, w_hidden, b_input, b_hidden, hx, *rest, out) -> OperatorCost:
    steps = x.shape[0] * x.shape[1]  # (time, batch, features)
    macs = steps * (w_input.numel() + w_hidden.numel())
    return OperatorCost("linear/matmul", macs=macs, elementary=_rnn_gates(steps, w_hidden.shape[1]))


def _mkldnn_lstm_backward(x, w_input, w_hidden, *rest, out) -> OperatorCost:
    # Gradients of both weights and of both operands: each pairs every forward multiply-accumulate once more.
    steps = x.shape[0] * x.shape[1]
    macs = 2 * steps * (w_input.numel() + w_hidden.numel())
    return OperatorCost("linear/matmul", macs=macs, elementary=2 * _rnn_gates(steps, w_hidden.shape[1]))


def _cudnn_rnn(x, weights, stride, buffer, hx, cx, mode, hidden, proj, layers, batch_first, *rest, out) -> OperatorCost:
    # Every weight matrix meets every step of every sequence once.
    steps = x.shape[0] * x.shape[1]
    macs = steps * sum(w.numel() for w in weights if w.dim() == 2)
    directions = len({w.data_ptr() for w in weights if w.dim() == 2}) // 2
    return OperatorCost("linear/matmul", macs=macs, elementary=_rnn_gates(steps, hidden) * directions)


def _normalisation(x, *rest, out, **options) -> OperatorCost:
    # Scale and shift: two an element. Statistics, where they are computed, are not told apart.
    return OperatorCost("normalisation", elementary=2 * x.numel())


def _normalisation_backward(grad, *rest, out, **options) -> OperatorCost:
    return OperatorCost("normalisation", elementary=4 * grad.numel())


def _activation(*args, out, **options) -> OperatorCost:
    return OperatorCost("activation", elementary=_first(out).numel())


def _pooling(x, *rest, out, **options) -> OperatorCost:
    return OperatorCost("pooling", elementary=x.numel())


def _pooling_backward(grad, *rest, out, **options) -> OperatorCost:
    return OperatorCost("pooling", elementary=_first(out).numel())


def _elementwise(*args, out, **options) -> OperatorCost:
    return OperatorCost("other", elementary=_first(out).numel())


def _reduction(x, *rest, out, **options) -> OperatorCost:
    return OperatorCost("other", elementary=x.numel())


def fft_flops(n: int, transforms: int) -> float:
    """Return the FLOPs of `transforms` real Fourier transforms of n points, by the model 2.5 n log2 n."""
    return 2.5 * n * math.log2(n) * transforms if n > 1 else 0.0


def _real_fft(x, dims, *rest, out) -> OperatorCost:
    points = math.prod(x.shape[d] for d in dims)
    return OperatorCost("FFT", fft_flops=fft_flops(points, x.numel() // max(points, 1)))


def _inverse_real_fft(x, dims, normalization, last, *, out) -> OperatorCost:
    points = math.prod(out.shape[d] for d in dims)
    return OperatorCost("FFT", fft_flops=fft_flops(points, out.numel() // max(points, 1)))


def _complex_fft(x, dims, *rest, out) -> OperatorCost:
    # Twice a real one of as many points: 5 N log2 N.
    points = math.prod(x.shape[d] for d in dims)
    return OperatorCost("FFT", fft_flops=2 * fft_flops(points, x.numel() // max(points, 1)))


def _named(formula: Callable[..., OperatorCost], names: str) -> dict[str, Callable[..., OperatorCost]]:
    return {name: formula for name in names.split()}


# By the operator's name without namespace "aten" and overload; a trailing underscore (in place) is dropped.
FORMULAS: dict[str, Callable[..., OperatorCost]] = {
    **_named(_convolution, "convolution _convolution convolution_overrideable"),
    **_named(_convolution_backward, "convolution_backward"),
    **_named(_grouped_conv1d, "melcnn::grouped_conv1d"),
    **_named(_grouped_conv1d_backward, "melcnn::grouped_conv1d_backward"),
    **_named(_mm, "mm bmm mv dot vdot"),
    **_named(_addmm, "addmm baddbmm addbmm addmv"),
    **_named(_linear, "linear"),
    **_named(
        _quantized_linear,
        "quantized::linear quantized::linear_relu quantized::linear_dynamic quantized::linear_relu_dynamic",
    ),
    **_named(
        _quantized_convolution,
        "quantized::conv1d quantized::conv1d_relu quantized::conv2d quantized::conv2d_relu quantized::conv3d "
        "quantized::conv3d_relu quantized::conv1d_dynamic quantized::conv2d_dynamic quantized::conv3d_dynamic",
    ),
    **_named(
        _attention,
        "_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
        "_scaled_dot_product_fused_attention_overrideable",
    ),
    **_named(
        _attention_backward,
        "_scaled_dot_product_flash_attention_backward _scaled_dot_product_flash_attention_for_cpu_backward "
        "_scaled_dot_product_efficient_attention_backward _scaled_dot_product_cudnn_attention_backward",
    ),
    **_named(_mkldnn_lstm, "mkldnn_rnn_layer"),
    **_named(_mkldnn_lstm_backward, "mkldnn_rnn_layer_backward"),
    **_named(_cudnn_rnn, "_cudnn_rnn"),
    **_named(
        _normalisation,
        "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit "
        "_native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_no_update native_layer_norm "
        "native_group_norm _fused_rms_norm",
    ),
    **_named(
        _normalisation_backward,
        "native_batch_norm_backward cudnn_batch_norm_backward batch_norm_backward native_layer_norm_backward "
        "native_group_norm_backward",
    ),
    **_named(
        _activation,
        "relu relu6 sigmoid tanh gelu silu mish elu celu selu leaky_relu _prelu_kernel hardtanh hardswish hardsigmoid "
        "softplus log_sigmoid_forward _softmax _safe_softmax _log_softmax softmax log_softmax glu "
        "threshold hardshrink softshrink "
        "threshold_backward sigmoid_backward tanh_backward gelu_backward silu_backward mish_backward elu_backward "
        "leaky_relu_backward _prelu_kernel_backward hardtanh_backward hardswish_backward hardsigmoid_backward "
        "softplus_backward log_sigmoid_backward _softmax_backward_data _log_softmax_backward_data glu_backward",
    ),
    **_named(
        _pooling,
        "max_pool1d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d mean "
        "adaptive_avg_pool1d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d "
        "mkldnn_max_pool2d",
    ),
    **_named(
        _pooling_backward,
        "max_pool2d_with_indices_backward max_pool3d_with_indices_backward avg_pool2d_backward avg_pool3d_backward "
        "_adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward adaptive_max_pool2d_backward",
    ),
    **_named(
        _elementwise,
        "add sub rsub mul div pow square sqrt rsqrt exp expm1 exp2 log log2 log10 log1p abs neg sign sin cos tan "
        "atan2 erf reciprocal clamp clamp_min clamp_max maximum minimum floor ceil round remainder fmod where lerp "
        "addcmul addcdiv eq ne lt le gt ge logical_and logical_or logical_not bitwise_and bitwise_or bitwise_not "
        "isnan isinf quantize_per_tensor quantize_per_channel dequantize "
        "upsample_nearest1d upsample_nearest2d upsample_linear1d upsample_bilinear2d view_as_real_copy "
        "upsample_nearest1d_backward upsample_nearest2d_backward upsample_linear1d_backward "
        "upsample_bilinear2d_backward _weight_norm_interface _weight_norm_interface_backward",
    ),
    **_named(
        _reduction,
        "sum prod amax amin max min argmax argmin var std var_mean std_mean cumsum cumprod logsumexp norm "
        "linalg_vector_norm sort topk any all count_nonzero",
    ),
    **_named(_real_fft, "_fft_r2c"),
    **_named(_inverse_real_fft, "_fft_c2r"),
    **_named(_complex_fft, "_fft_c2c"),
}

# Operators that make, move, view or look up data, and compute nothing that a MAC or a FLOP would count.
FREE = frozenset(
    "_linalg_check_errors alias arange argwhere as_strided as_strided_scatter bernoulli broadcast_to cat chunk clone "
    "complex constant_pad_nd contiguous copy detach diagonal dropout embedding empty empty_like empty_permuted "
    "empty_strided expand eye fill "
    "flatten flip full full_like gather hann_window index index_add index_copy index_put index_select item "
    "lift_fresh lift_fresh_copy linspace masked_fill masked_select narrow native_dropout new_empty new_empty_strided "
    "new_full new_ones new_zeros nonzero normal ones ones_like permute pin_memory pixel_shuffle rand rand_like randn "
    "randn_like randint random reflection_pad1d reflection_pad2d repeat repeat_interleave replication_pad1d "
    "replication_pad2d reshape resize resolve_conj resolve_neg roll rot90 scalar_tensor scatter select "
    "select_backward select_scatter set slice slice_backward slice_scatter split split_with_sizes squeeze stack t "
    "to _to_copy transpose tril triu unbind unfold unfold_backward uniform unsafe_chunk unsafe_split "
    "unsafe_split_with_sizes unsqueeze view view_as _unsafe_view _reshape_alias _reshape_copy view_as_complex "
    "view_as_real zero zeros zeros_like _local_scalar_dense _conj conj real imag tril_indices triu_indices "
    "sym_size reflection_pad1d_backward constant_pad_nd_backward is_same_size _assert_async _pin_memory "
    "channel_shuffle native_channel_shuffle".split()
)


def operator_name(operator: torch._ops.OpOverload) -> str:
    """Return `convolution` for `aten.convolution.default`, `relu` for `aten.relu_.default`, `other::name` elsewhere."""
    namespace, name = operator.name().split("::")
    name = name.split(".")[0]
    if name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    return name if namespace in ("aten", "prims") else f"{namespace}::{name}"


def cost_of(operator: torch._ops.OpOverload, args: tuple, kwargs: dict[str, Any], out: Any) -> OperatorCost | None:
    """Return the cost of one call; None for an operator that computes nothing.

    Raises:
        UncountedOperator: the operator has no formula and is not listed as free.
    """
    name = operator_name(operator)
    if name in FREE or name.startswith("profiler::"):  # A profiler's marks compute nothing.
        return None
    if name not in FORMULAS:
        raise UncountedOperator(
            f"no formula for the operator {operator.name()}: add one to FORMULAS in bench/counting/formulas.py, or "
            "allow it with --allow-uncounted"
        )
    return FORMULAS[name](*args, **kwargs, out=out)
