"""The blocks of a network on the CPU, all in one call of C (`melcnn/native/trunk.c`) with few passes over memory.

Results, forward and backward, equal those of the layers in `melcnn.model` up to the order of sums.
"""

import ctypes
import functools
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from melcnn import augmentation, native
from melcnn.kernels import autotune
from melcnn.shuffle import ChannelShuffle

if TYPE_CHECKING:
    from melcnn.model import MelCNN

MAX_BLOCKS = 8
MAX_CLIPS = 256  # in the measurement that chooses: for larger batches the choice is the same
GEOMETRY = ((3,), (1,), (1,), (1,))  # kernel size, stride, padding and dilation of all convolutions

# The fields of the C structure of a block.
POINTERS = (
    *("weight", "bias", "gamma", "beta", "mean", "variance", "running_mean", "running_variance"),
    *("d_weight", "d_bias", "d_gamma", "d_beta"),
)


class _Block(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in POINTERS),
        ("momentum", ctypes.c_float),
    ]


class _Sizes(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_long)
            for name in (
                "replicas groups n_mels channels blocks frames clips data_set threads interleaved shuffled"
            ).split()
        ),
        ("eps", ctypes.c_float),
    ]


class _Layers(NamedTuple):
    """The layers of a block.

    Attributes:
        weights: `(weight, bias, gamma, beta)`.
        statistics: running mean and variance.
    """

    convolution: nn.Conv1d
    norm: nn.BatchNorm1d
    weights: tuple[Tensor, ...]
    statistics: tuple[Tensor, ...]
    shuffled: bool


def supported_layers(
    network: "MelCNN", x: Tensor, index: Tensor | None = None, views: Tensor | None = None
) -> list[_Layers] | None:
    """Return the layers of the blocks of `network` if our kernels can compute them for the arguments of `run`.

    Else return None: where a hook, a tracer or a dispatch mode would see the difference, and where arguments do not
    fit. Torch then reports what is wrong, because C checks nothing.
    """
    blocks, replicas, interleaving = network.blocks, network.replicas, network.interleaving
    if (
        type(x) not in (Tensor, nn.Parameter)  # Other types have no memory of their own.
        or x.device.type != "cpu"  # Asked first: elsewhere the C library is not needed, and so not compiled.
        or not native.is_eager()
        or native.library() is None
        or torch.nn.modules.module._has_any_global_hook()
        or hooked(blocks)
        or (interleaving is not None and hooked(interleaving))
        or x.dtype != torch.float32
        or x.dim() != 3
        or (torch.is_grad_enabled() and x.requires_grad)
        or not 1 <= len(blocks) <= MAX_BLOCKS
    ):
        return None
    last = len(blocks) - 1
    found = [layers for number, block in enumerate(blocks) if (layers := _layers(block, number == last))]
    if len(found) <= last or len({layers.shuffled for layers in found[:-1]}) > 1:
        return None
    first, training = found[0].convolution, found[0].norm.training
    same = (first.groups, first.out_channels, found[0].norm.eps, training)
    if any((c.groups, c.out_channels, n.eps, n.training) != same for c, n, *_ in found):
        return None
    if first.groups % replicas or any(layers.convolution.in_channels != first.out_channels for layers in found[1:]):
        return None
    if not training and torch.is_grad_enabled() and any(w.requires_grad for layers in found for w in layers.weights):
        return None  # Our kernels have no gradient for fixed statistics.
    fits = x.shape[1] * (1 if index is None else replicas) == first.in_channels and len(x) > 0
    fits = fits and x.shape[2] >> (len(found) - 1) > 0 and picks(x, index, views, replicas)
    return found if fits else None


def picks(x: Tensor, index: Tensor | None, views: Tensor | None, replicas: int) -> bool:
    """Return whether index and views are as `run` takes them, on the device of x; their values are not looked at."""
    if index is None:
        return views is None
    return (
        index.device == x.device
        and index.dtype == torch.int64
        and index.dim() == 2
        and index.shape[1] == replicas
        and len(index) > 0
        and (
            views is None
            or (
                views.device == x.device
                and views.dtype == torch.int32
                and views.shape == (*index.shape, augmentation.VIEW)
            )
        )
    )


def hooked(*modules: nn.Module) -> bool:
    """Return whether any of the modules has a hook."""
    # torch has no public question for hooks.
    return any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        for module in modules
    )


def parts(block: nn.Module, last: bool) -> tuple[nn.Module, nn.BatchNorm1d, list[Any]] | None:
    """Return convolution, BatchNorm and shuffle of a block as `melcnn.model` makes it.

    None for any other block, and where a hook would see the difference.
    """
    layers = tuple(block._modules.values()) if type(block) is nn.Sequential else ()
    if len(layers) < 4:
        return None
    convolution, relu, norm, pooling, *shuffle = layers
    # Exact types: a subclass may compute something else.
    if type(relu) is not nn.ReLU or type(norm) is not nn.BatchNorm1d or not pools(pooling, last):
        return None
    if (
        convolution is None
        or pooling is None
        or len(shuffle) > 1
        or any(type(layer) is not ChannelShuffle for layer in shuffle)
    ):
        return None
    return None if hooked(block, convolution, relu, norm, pooling, *shuffle) else (convolution, norm, shuffle)


def _layers(block: nn.Module, last: bool) -> _Layers | None:
    found = parts(block, last)
    if found is None or type(found[0]) is not nn.Conv1d:
        return None
    convolution, norm, shuffle = found[0], found[1], found[2]
    if shuffle and not _shuffles(shuffle[0], convolution.groups):
        return None
    geometry = convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation
    if geometry != GEOMETRY or convolution.padding_mode != "zeros" or norm.momentum is None:
        return None
    own, of_norm, outputs = convolution._parameters, norm._parameters, (convolution.out_channels,)
    weights = own.get("weight"), own.get("bias"), of_norm.get("weight"), of_norm.get("bias")
    statistics = norm._buffers.get("running_mean"), norm._buffers.get("running_var")
    shapes = (*outputs, convolution.in_channels // convolution.groups, *convolution.kernel_size), *[outputs] * 5
    tensors = [
        t
        for t, shape in zip((*weights, *statistics), shapes, strict=True)
        if t is not None
        and type(t) in (Tensor, nn.Parameter)
        and t.shape == shape
        and t.dtype == torch.float32
        and t.is_cpu
        and t.is_contiguous()
    ]
    if len(tensors) < len(shapes):
        return None
    return _Layers(convolution, norm, tuple(tensors[:4]), tuple(tensors[4:]), bool(shuffle))


def pools(pooling: nn.Module | None, last: bool) -> bool:
    """Return whether a layer is the pooling of the last block (mean over time) or of another (max 2)."""
    if last:
        return type(pooling) is nn.AdaptiveAvgPool1d and pooling.output_size == 1
    return (
        type(pooling) is nn.MaxPool1d
        and (pooling.kernel_size, pooling.stride, pooling.padding, pooling.dilation) == (2, 2, 0, 1)
        and not (pooling.ceil_mode or pooling.return_indices)
    )


def _shuffles(layer: nn.Module | None, groups: int) -> bool:
    return type(layer) is ChannelShuffle and layer.all_groups == groups


class Workspaces:
    """Memory that training steps reuse: each step needs as much, and the system clears and maps new memory slowly.

    A workspace has one user at a time, until the last tensor on it is gone.
    """

    def __init__(self) -> None:
        self.spare: list[np.ndarray] = []

    def take(self, count: int) -> Tensor:
        """Return `count` float32 numbers, uninitialised."""
        try:
            memory: np.ndarray | None = self.spare.pop()  # Another thread may have taken it.
        except IndexError:
            memory = None
        if memory is None or len(memory) != count:
            memory = np.empty(count, np.float32)
        view = memory.view()  # Only the tensor holds a reference to it.
        weakref.finalize(view, self.spare.append, memory).atexit = False
        return torch.from_numpy(view)

    def __deepcopy__(self, memo: object) -> "Workspaces":
        return Workspaces()

    def __reduce__(self) -> tuple[type["Workspaces"], tuple[()]]:
        return Workspaces, ()


def run(
    layers: list[_Layers], network: "MelCNN", x: Tensor, index: Tensor | None = None, views: Tensor | None = None
) -> Tensor:
    """Compute the blocks of `network`, given its `supported_layers`.

    In training the running statistics are updated as torch updates them.

    Args:
        x: `(clips, replicas * n_mels, frames)`; with an index `(data set, n_mels, frames)`.
        index: `(clips, replicas)`; replica r sees as clip n the clip `index[n, r]` of x, without a copy.
        views: `(clips, replicas, VIEW)`; how replica r sees clip n (`melcnn.augmentation`).

    Returns:
        `(clips, replicas * channels)`.
    """
    kernels = native.library()
    assert kernels is not None  # `supported_layers` has seen to it.
    x = x.contiguous()
    index, views = (tensor if tensor is None else tensor.contiguous() for tensor in (index, views))
    first, replicas = layers[0].convolution, network.replicas
    clips, frames = len(x) if index is None else len(index), x.shape[2]
    sizes = _Sizes(
        replicas,
        first.groups // replicas,
        first.in_channels // replicas,
        first.out_channels // replicas,
        len(layers),
        frames,
        clips,
        len(x),
        torch.get_num_threads(),
        network.interleaving is not None,
        layers[0].shuffled,
        layers[0].norm.eps,
    )
    if not layers[0].norm.training:
        y = x.new_empty(clips, first.out_channels)
        blocks = _blocks([(*layer.weights, *layer.statistics) for layer in layers])
        native.call(kernels.trunk_infer, sizes, blocks, x, index, views, y)
        return y
    running = [layer.statistics for layer in layers]
    momenta = [layer.norm.momentum for layer in layers]
    weights = [weight for layer in layers for weight in layer.weights]
    y = _Train.apply(kernels, network.workspaces, sizes, running, momenta, x, index, views, *weights)
    for layer in layers:
        assert layer.norm.num_batches_tracked is not None  # There are running statistics, and so this count.
        layer.norm.num_batches_tracked += 1
    return y


def choose(network: "MelCNN", clips: int, frames: int, picked: bool) -> str:
    """Return the faster kernels for a network on the CPU in its present mode, "melcnn" or "torch"; cached.

    Args:
        clips: the approximate batch size.
        picked: whether an index picks the clips.
    """
    if native.library() is None:
        return "torch"
    clips = min(1 << (clips - 1).bit_length(), MAX_CLIPS)
    arguments, replicas = network.arguments, network.replicas
    shape = (*arguments.values(), replicas)
    key = ("trunk", network.training, torch.get_num_threads(), picked, clips, int(frames), *shape)

    def candidates() -> dict[str, Callable[[], None]]:
        # A new network of the same shape: the given one may have hooks, and weights that cannot be copied.
        with torch.device("meta"):
            probe = type(network)(**arguments, replicas=replicas)
        probe.to_empty(device="cpu").train(network.training)
        for tensor in probe.state_dict().values():
            tensor.copy_(autotune.random_data(*tensor.shape).abs())  # Variances are positive.
        data = autotune.random_data(clips, arguments["n_mels"] * (1 if picked else replicas), frames)
        index = torch.arange(clips)[:, None].expand(-1, replicas).contiguous() if picked else None

        def call(kernels: str) -> None:
            probe.kernels = kernels
            with torch.set_grad_enabled(network.training):
                out = probe(data, index)
            if network.training:
                out.sum().backward()

        return {kernels: functools.partial(call, kernels) for kernels in ("torch", "melcnn")}

    return autotune.choose(key, candidates)


class _Train(torch.autograd.Function):
    """The blocks in training.

    Args:
        running: running mean and variance of each block, which are updated.
        weights: `(weight, bias, gamma, beta)` of each block in turn.
    """

    @staticmethod
    def forward(
        ctx: Any,
        kernels: ctypes.CDLL,
        workspaces: Workspaces,
        sizes: _Sizes,
        running: Sequence[tuple[Tensor, ...]],
        momenta: Sequence[float],
        x: Tensor,
        index: Tensor | None,
        views: Tensor | None,
        *weights: Tensor,
    ) -> Tensor:
        channels = sizes.replicas * sizes.channels
        workspace = workspaces.take(sizes.replicas * kernels.trunk_workspace(ctypes.byref(sizes)))
        y, moments = x.new_empty(sizes.clips, channels), x.new_empty(sizes.blocks, 2, channels)
        tensors = zip(_by_block(weights), moments, running, strict=True)
        blocks = _blocks([(*own, *of_batch, *moving) for own, of_batch, moving in tensors], momenta)
        native.call(kernels.trunk_forward, sizes, blocks, x, index, views, workspace, y)
        ctx.save_for_backward(workspace, moments, *weights)
        ctx.sizes, ctx.kernel = sizes, kernels.trunk_backward
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("the blocks have no gradients of gradients: set kernels = 'torch' of the network")
        workspace, moments, *weights = ctx.saved_tensors
        gradients = [torch.empty_like(weight) for weight in weights]
        tensors = zip(_by_block(weights), moments, _by_block(gradients), strict=True)
        # The running statistics are not used here, so the batch's stand in for them.
        blocks = _blocks([(*own, *of_batch, *of_batch, *wanted) for own, of_batch, wanted in tensors])
        ctx.sizes.threads = torch.get_num_threads()
        native.call(ctx.kernel, ctx.sizes, blocks, dy.contiguous(), workspace)
        return (*[None] * 8, *gradients)


def _by_block(tensors: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    return [tuple(tensors[i : i + 4]) for i in range(0, len(tensors), 4)]


def _blocks(tensors: Sequence[Sequence[Tensor]], momenta: Iterable[float] = ()) -> ctypes.Array[_Block]:
    """Return the C structures of the blocks.

    Args:
        tensors: of each block, in the order of `POINTERS`; trailing ones may be missing.
    """
    made = (_Block * len(tensors))(*(_Block(*[tensor.data_ptr() for tensor in own]) for own in tensors))
    for block, momentum in zip(made, momenta, strict=False):
        block.momentum = momentum
    return made
