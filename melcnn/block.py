"""A block of the network on the CPU in few passes over memory: convolution, ReLU, BatchNorm and pooling in one call.

The arithmetic is that of the layers in `melcnn.model`, forward and backward; the kernels are C (`melcnn.native`).
"""

import torch
from torch import Tensor, nn

from melcnn import native
from melcnn.model import MelCNN

MAX_POOL, MEAN_POOL = 0, 1
FEWEST_FRAMES = 4  # for two poolings by 2


def _made_for(network: MelCNN, x: Tensor, index: Tensor) -> bool:
    """Whether the kernels can take this; what is wrong altogether is left to torch, which says so. C checks nothing."""
    if not x.device.type == index.device.type == "cpu" or x.dim() != 3 or index.dim() != 2:
        return False
    weights = [*network.parameters(), *network.buffers()]
    return (
        x.dtype == torch.float32
        and all(w.dtype in (torch.float32, torch.int64) and w.is_contiguous() for w in weights)
        and index.dtype == torch.int64
        and x.shape[1] == network.arguments["n_mels"]
        and x.shape[2] >= FEWEST_FRAMES
        and index.shape[1] == network.replicas
        and len(index) > 0
        and int(index.min()) >= 0
        and int(index.max()) < len(x)
    )


def kernels(device: str) -> str:
    """Whose convolutions train on `device`: melcnn or torch."""
    return "melcnn" if device == "cpu" and native.library() else "torch"


def forward(network: MelCNN, x: Tensor, index: Tensor) -> Tensor:
    """Logits `(batch, replicas * n_classes)` of clips picked from x `(clips, n_mels, frames)`: replica r sees clip
    `index[b, r]`. By our kernels where there are any, which need no copy of the clips, else by torch's: the same but
    for the last bits."""
    if not _made_for(network, x, index) or native.library() is None:
        return network(x[index].flatten(1, 2))
    for number, block in enumerate(network.blocks):
        x = _run(block, x, None if number else index.contiguous(), network.replicas)
    return network.classifier(network.embedding(x))


def _run(block: nn.Sequential, x: Tensor, index: Tensor | None, replicas: int) -> Tensor:
    convolution, _, norm, pooling = block
    pool = MEAN_POOL if isinstance(pooling, nn.AdaptiveAvgPool1d) else MAX_POOL
    settings = (replicas, convolution.groups, norm.eps, pool)
    weights = (convolution.weight, convolution.bias, norm.weight, norm.bias)
    if not norm.training:
        return _block_forward(x, index, *weights, *settings, norm.running_mean, norm.running_var)[0]
    y, mean, variance = ConvBlock.apply(x, index, *weights, *settings)
    with torch.no_grad():  # As BatchNorm does: running statistics take the unbiased variance.
        count = y.shape[0] * x.shape[2]
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / max(count - 1, 1)), norm.momentum)
        norm.num_batches_tracked += 1
    return y


class ConvBlock(torch.autograd.Function):
    """x `(clips, groups * c_in, frames)` to y `(clips, groups * c_out, frames // 2)`, or `(..., 1)` by mean pooling,
    and the batch's mean and biased variance `(groups * c_out,)`; weight `(groups * c_out, c_in, 3)`, the groups of all
    replicas together. With an index `(clips, replicas)` x holds one replica's channels of the clips that are picked
    from, and gets no gradient."""

    @staticmethod
    def forward(ctx, x, index, weight, bias, gamma, beta, replicas, groups, eps, pool):
        x = x.contiguous()
        y, a, mean, variance = _block_forward(x, index, weight, bias, gamma, beta, replicas, groups, eps, pool)
        ctx.save_for_backward(x, index, weight, gamma, a, mean, variance)
        ctx.settings = replicas, groups, eps, pool
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx, dy, *_):
        x, index, weight, gamma, a, mean, variance = ctx.saved_tensors
        replicas, groups, eps, pool = ctx.settings
        dy = dy.contiguous()
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] and index is None else None
        dw, (db, dgamma, dbeta) = torch.empty_like(weight), torch.empty(3, len(weight), dtype=torch.float32)
        _call(
            native.library().block_backward,
            *_pointers(dy, x, index),
            replicas,
            *_pointers(a, weight, gamma, mean, variance),
            eps,
            *_shape(x, index, weight, groups),
            pool,
            torch.get_num_threads(),
            *_pointers(dx, dw, db, dgamma, dbeta),
        )
        return dx, None, dw, db, dgamma, dbeta, None, None, None, None


def _block_forward(
    x: Tensor,
    index: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    gamma: Tensor,
    beta: Tensor,
    replicas: int,
    groups: int,
    eps: float,
    pool: int,
    mean: Tensor | None = None,
    variance: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, the activation after ReLU, and mean and variance: those given, or else the batch's."""
    compiled, x, training = native.library(), x.contiguous(), mean is None
    shape = _shape(x, index, weight, groups)
    clips, frames = shape[0], shape[-1]
    a = torch.empty(clips, len(weight), compiled.padded(frames), dtype=torch.float32)
    y = torch.empty(clips, len(weight), 1 if pool == MEAN_POOL else frames // 2, dtype=torch.float32)
    if training:
        mean, variance = torch.empty(2, len(weight), dtype=torch.float32)
    _call(
        compiled.block_forward,
        *_pointers(x, index),
        replicas,
        *_pointers(weight, bias, gamma, beta),
        eps,
        *shape,
        pool,
        training,
        torch.get_num_threads(),
        *_pointers(a, y, mean, variance),
    )
    return y, a, mean, variance


def _shape(x: Tensor, index: Tensor | None, weight: Tensor, groups: int) -> tuple[int, ...]:
    """clips, groups, channels in and out of a group, frames."""
    clips = len(x) if index is None else len(index)
    return clips, groups, weight.shape[1], len(weight) // groups, x.shape[2]


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def _call(kernel, *arguments) -> None:
    if kernel(*arguments):
        raise MemoryError("no memory for the rows of a convolution block")
