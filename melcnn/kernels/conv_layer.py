"""Layers of `torch.nn` that compute by our grouped convolution where it is faster."""

import functools

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from melcnn.kernels import grouped_conv


def set_kernels(layer: nn.Conv1d, kernels: str | None) -> nn.Conv1d:
    """Make a layer compute by torch's kernels ("torch") or by the faster ones, and return it."""
    # `nn.Conv1d.forward` calls this private method with the input, the weight and the bias. Only by replacing it does
    # the layer stay an `nn.Conv1d` by type, as some counters and tools require.
    if kernels == "torch":
        layer.__dict__.pop("_conv_forward", None)
        layer.__dict__.pop("trained_by", None)
    else:
        layer.__dict__["_conv_forward"] = functools.partial(_forward, layer)
    return layer


def _forward(layer: nn.Conv1d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # Read at each call: a user may change them.
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return nn.Conv1d._conv_forward(layer, x, weight, bias)
    (stride,), (padding,), (dilation,) = layer.stride, layer.padding, layer.dilation
    settings = stride, padding, dilation, layer.groups
    by_ours = grouped_conv.uses_ours(x, weight, bias, *settings)
    if layer.training and not torch.compiler.is_compiling():
        layer.__dict__["trained_by"] = "melcnn" if by_ours else "torch"
    return (grouped_conv.ours if by_ours else conv1d)(x, weight, bias, *settings)


def trained_by(network: nn.Module) -> str:
    """Return the kernels that the network's convolutions last trained by: "torch" if none of them used ours."""
    used = {layer.__dict__.get("trained_by") for layer in network.modules()}
    return "melcnn" if "melcnn" in used else "torch"
