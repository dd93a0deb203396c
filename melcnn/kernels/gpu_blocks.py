"""The blocks of a network in training on a GPU, by `melcnn.kernels.triton_block` where that computes the same."""

from typing import Any

import torch
from torch import Tensor, nn

from melcnn import native
from melcnn.kernels import grouped_conv
from melcnn.kernels.trunk import hooked, pools
from melcnn.shuffle import ChannelShuffle

MAX_FRAMES = 2048  # A kernel holds the frames of a clip at once.


def supports(blocks: nn.Sequential, x: Tensor) -> bool:
    """Return whether our kernels compute what `blocks` compute on features x in training.

    Else a hook, a tracer or a mode of torch would see the difference, or the blocks are not those of `melcnn.model`.
    """
    if not (x.is_cuda and type(x) is Tensor and x.dtype == torch.float32 and x.dim() == 3 and blocks.training):
        return False
    if not native.is_eager() or torch.nn.modules.module._has_any_global_hook() or hooked(blocks):
        return False
    last = len(blocks) - 1
    known = all(_known(block, number == last) for number, block in enumerate(blocks))
    return known and x.shape[2] >> last > 0 and x.shape[2] <= MAX_FRAMES and grouped_conv.kernels("cuda") == "melcnn"


def _known(block: nn.Module, last: bool) -> bool:
    """Return whether a block is as `melcnn.model` makes it."""
    layers: tuple[Any, ...] = tuple(block._modules.values()) if type(block) is nn.Sequential else ()
    if len(layers) < 4:
        return False
    convolution, relu, norm, pooling, *shuffle = layers
    *_, convolution = convolution if type(convolution) is nn.Sequential else (convolution,)
    return bool(
        (type(convolution), type(relu), type(norm)) == (nn.Conv1d, nn.ReLU, nn.BatchNorm1d)
        and pools(pooling, last)
        and all(type(layer) is ChannelShuffle for layer in shuffle)
        and not hooked(block, *block.modules())
        and convolution.bias is not None
        and norm.training
        and norm.affine
        and norm.running_mean is not None
        and norm.momentum is not None
        and all(tensor.dtype == torch.float32 for tensor in (convolution.bias, norm.weight, norm.running_mean))
    )


def picked(features: Tensor, index: Tensor, views: Tensor | None) -> Tensor:
    """Return the clips of contiguous features that the replicas see; see `triton_block.picked`."""
    from melcnn.kernels import triton_block  # Only where it is needed: the import is slow.

    return triton_block.picked(features.contiguous(), index, views)


def run(blocks: nn.Sequential, x: Tensor) -> Tensor:
    """Compute the blocks, given that they are supported; running statistics are updated as torch updates them."""
    from melcnn.kernels import triton_block

    for block in blocks.children():
        x = triton_block.run(block.children(), x)
    return x
