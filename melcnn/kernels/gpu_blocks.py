"""The blocks of a network in training on a GPU, by `melcnn.kernels.triton_block` where that computes the same."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from melcnn import native
from melcnn.kernels import grouped_conv, trunk

if TYPE_CHECKING:
    from melcnn.model import MelCNN

MAX_FRAMES = 2048  # A kernel holds the frames of a clip at once.


def supports(network: "MelCNN", x: Tensor, index: Tensor | None = None, views: Tensor | None = None) -> bool:
    """Return whether our kernels can compute the blocks of `network`, in training, for the arguments of `run`.

    Elsewhere a hook, a tracer or a mode of torch would see the difference, or torch reports what is wrong.
    """
    blocks = network.blocks
    if not (x.is_cuda and type(x) is Tensor and x.dtype == torch.float32 and x.dim() == 3 and blocks.training):
        return False
    if not native.is_eager() or torch.nn.modules.module._has_any_global_hook() or trunk.hooked(blocks):
        return False
    if not trunk.picks(x, index, views, network.replicas):
        return False
    if index is not None and torch.is_grad_enabled() and x.requires_grad:
        return False  # Picking clips has no gradient.
    last, clips, frames = len(blocks) - 1, len(x if index is None else index), x.shape[2]
    return (
        all(_known(block, number == last) for number, block in enumerate(blocks))
        and MAX_FRAMES >= frames >= 1 << last
        and clips * (frames >> last) > 1  # BatchNorm has no variance of one number.
        and grouped_conv.kernels("cuda") == "melcnn"
    )


def _known(block: nn.Module, last: bool) -> bool:
    found = trunk.parts(block, last)
    if found is None:
        return False
    convolution, norm, _ = found
    *_, convolution = convolution if type(convolution) is nn.Sequential else (convolution,)
    if type(convolution) is not nn.Conv1d or convolution.bias is None or trunk.hooked(*block.modules()):
        return False
    if not (norm.training and norm.affine and norm.running_mean is not None and norm.momentum is not None):
        return False
    return all(tensor.dtype == torch.float32 for tensor in (convolution.bias, norm.weight, norm.running_mean))


def run(network: "MelCNN", x: Tensor, index: Tensor | None = None, views: Tensor | None = None) -> Tensor:
    """Compute the blocks of `network`, which `supports` the arguments; running statistics are updated as by torch.

    Args:
        x: `(clips, replicas * n_mels, frames)`; with an index `(data set, n_mels, frames)`.
        index: `(clips, replicas)`; replica r sees as clip n the clip `index[n, r]` of x. One out of range is NaN.
        views: `(clips, replicas, VIEW)`; how replica r sees clip n (`melcnn.augmentation`).

    Returns:
        `(clips, replicas * channels, 1)`.
    """
    from melcnn.kernels import triton_block  # Only where it is needed: the import is slow.

    with torch.cuda.device(x.device):
        if index is not None:
            x = triton_block.picked(x.contiguous(), index, views)
        if network.interleaving is not None:
            x = network.interleaving(x)
        for block in network.blocks.children():
            x = triton_block.run(block.children(), x)
    return x
