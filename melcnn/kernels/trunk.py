"""The blocks of a network on the CPU in few passes over memory: convolution, ReLU, BatchNorm and pooling of all of them
in one call of C (`melcnn/native/trunk.c`), forward and backward.

The arithmetic is that of the layers in `melcnn.model`, to the last bits but for the order of sums.
"""

import ctypes
import functools
import weakref
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from melcnn import augmentation, native
from melcnn.kernels import autotune
from melcnn.shuffle import ChannelShuffle

MOST_BLOCKS = 8
MOST_CLIPS = 256  # in the measurement that chooses: of larger batches the choice is the same
LAYERS = (nn.Conv1d, nn.ReLU, nn.BatchNorm1d)
ONLY = ((3,), (1,), (1,), (1,))  # kernel size, stride, padding, dilation


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
    """A block's layers, with `(weight, bias, gamma, beta)` and running mean and variance."""

    convolution: nn.Conv1d
    norm: nn.BatchNorm1d
    weights: tuple[Tensor, ...]
    statistics: tuple[Tensor, ...]
    shuffled: bool


def takes(
    network: nn.Module, x: Tensor, index: Tensor | None = None, views: Tensor | None = None
) -> list[_Layers] | None:
    """The layers of the blocks of `network` (a `MelCNN`) if our kernels can compute them for `x`, `index` and `views`,
    as `run` describes them, and nobody would see the difference: no hook of a layer, no tracer, no mode that listens to
    operators. Else None, and what is wrong altogether is left to torch, which says so: C checks nothing."""
    blocks, replicas, interleaving = network.blocks, network.replicas, network.interleaving
    if (
        type(x) not in (Tensor, nn.Parameter)  # Others have no memory of their own.
        or not native.unobserved()
        or native.library() is None
        or torch.nn.modules.module._has_any_global_hook()
        or _hooked(blocks)
        or (interleaving is not None and _hooked(interleaving))
        or x.device.type != "cpu"
        or x.dtype != torch.float32
        or x.dim() != 3
        or (torch.is_grad_enabled() and x.requires_grad)
        or not 1 <= len(blocks) <= MOST_BLOCKS
    ):
        return None
    last = len(blocks) - 1
    found = [_layers(block, number == last) for number, block in enumerate(blocks)]
    if None in found or len({layers.shuffled for layers in found[:-1]}) > 1:
        return None
    first, training = found[0].convolution, found[0].norm.training
    same = (first.groups, first.out_channels, found[0].norm.eps, training)
    if any((c.groups, c.out_channels, n.eps, n.training) != same for c, n, *_ in found):
        return None
    if first.groups % replicas or any(layers.convolution.in_channels != first.out_channels for layers in found[1:]):
        return None
    if not training and torch.is_grad_enabled() and any(w.requires_grad for layers in found for w in layers.weights):
        return None  # The gradient by fixed statistics is not in our kernels.
    fits = x.shape[1] * (1 if index is None else replicas) == first.in_channels and len(x) > 0
    fits = fits and x.shape[2] >> (len(found) - 1) > 0
    if fits and index is not None:
        fits = (
            index.device.type == "cpu"
            and index.dtype == torch.int64
            and index.dim() == 2
            and index.shape[1] == replicas
            and len(index) > 0
        )
    if fits and views is not None:
        wanted = index is not None and (*index.shape, augmentation.VIEW)
        fits = views.shape == wanted and views.dtype == torch.int32 and views.device.type == "cpu"
    return found if fits else None


def _hooked(*modules: nn.Module) -> bool:
    for module in modules:
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
            return True
    return False


def _layers(block: nn.Module, last: bool) -> _Layers | None:
    """Convolution and norm of a block as `melcnn.model` makes it; None of another one."""
    layers = tuple(block._modules.values()) if type(block) is nn.Sequential else ()
    if tuple(map(type, layers[:4])) != (*LAYERS, nn.AdaptiveAvgPool1d if last else nn.MaxPool1d):
        return None
    if _hooked(block, *layers):
        return None
    convolution, _, norm, pooling, *shuffle = layers
    if shuffle and (list(map(type, shuffle)) != [ChannelShuffle] or shuffle[0].all_groups != convolution.groups):
        return None
    own, of_norm, outputs = convolution._parameters, norm._parameters, (convolution.out_channels,)
    weights = own.get("weight"), own.get("bias"), of_norm.get("weight"), of_norm.get("bias")
    statistics = norm._buffers.get("running_mean"), norm._buffers.get("running_var")
    shapes = (*outputs, convolution.in_channels // convolution.groups, *convolution.kernel_size), *[outputs] * 5
    pooled = (
        pooling.output_size == 1
        if last
        else (pooling.kernel_size, pooling.stride, pooling.padding, pooling.dilation) == (2, 2, 0, 1)
        and not (pooling.ceil_mode or pooling.return_indices)
    )
    if (
        pooled
        and (convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation) == ONLY
        and convolution.padding_mode == "zeros"
        and norm.momentum is not None
        and all(
            type(t) in (Tensor, nn.Parameter)
            and t.shape == shape
            and t.dtype == torch.float32
            and t.is_cpu
            and t.is_contiguous()
            for t, shape in zip((*weights, *statistics), shapes, strict=True)
        )
    ):
        return _Layers(convolution, norm, weights, statistics, bool(shuffle))
    return None


class Workspaces:
    """Memory that training steps use again and again: each step needs the same, and new memory of this size is slow,
    because the system clears it and maps it page by page. Who has it has it alone, until the last tensor on it is
    gone."""

    def __init__(self):
        self.spare: list[np.ndarray] = []

    def take(self, count: int) -> Tensor:
        """count float32, uninitialised."""
        try:
            memory = self.spare.pop()  # Another thread may have been the first to it.
        except IndexError:
            memory = None
        if memory is None or len(memory) != count:
            memory = np.empty(count, np.float32)
        view = memory.view()  # The tensor holds on to it, and nobody else does.
        weakref.finalize(view, self.spare.append, memory).atexit = False
        return torch.from_numpy(view)

    def __deepcopy__(self, memo) -> "Workspaces":
        return Workspaces()

    def __reduce__(self):
        return Workspaces, ()


def run(
    layers: list[_Layers], network: nn.Module, x: Tensor, index: Tensor | None = None, views: Tensor | None = None
) -> Tensor:
    """What the blocks of `network`, with `layers` (by `takes`), make of x `(clips, replicas * n_mels, frames)`:
    `(clips, replicas * channels)`. With an index `(clips, replicas)` x is `(data set, n_mels, frames)`, and replica r
    of clip n sees clip `index[n, r]` of it, without a copy, as `views[n, r]` show it. In training the running
    statistics move as torch's do."""
    x, index, views = (tensor if tensor is None else tensor.contiguous() for tensor in (x, index, views))
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
        native.call(native.library().trunk_infer, sizes, blocks, x, index, views, y)
        return y
    running = [layer.statistics for layer in layers]
    momenta = [layer.norm.momentum for layer in layers]
    weights = [weight for layer in layers for weight in layer.weights]
    y = _Train.apply(network.workspaces, sizes, running, momenta, x, index, views, *weights)
    for layer in layers:
        layer.norm.num_batches_tracked += 1
    return y


def choose(network: nn.Module, clips: int, frames: int, picked: bool) -> str:
    """Whose kernels are the faster for a `MelCNN` on the CPU, in its mode and at about so many clips at once, picked by
    an index or not: "melcnn" or "torch"; a choice that is kept."""
    if native.library() is None:
        return "torch"
    clips = min(1 << (clips - 1).bit_length(), MOST_CLIPS)
    shape = network.arguments | {"replicas": network.replicas}
    key = ("trunk", network.training, torch.get_num_threads(), picked, clips, int(frames), *shape.values())

    def ways() -> dict:
        # A new one of the same shape: the network itself may have hooks, and weights that cannot be copied.
        with torch.device("meta"):
            probe = type(network)(**shape)
        probe.to_empty(device="cpu").train(network.training)
        for tensor in probe.state_dict().values():
            tensor.copy_(autotune.noise(*tensor.shape).abs())  # Variances are positive.
        data = autotune.noise(clips, shape["n_mels"] * (1 if picked else network.replicas), frames)
        index = torch.arange(clips)[:, None].expand(-1, network.replicas).contiguous() if picked else None

        def call(kernels: str) -> None:
            probe.kernels = kernels
            with torch.set_grad_enabled(network.training):
                out = probe(data, index)
            if network.training:
                out.sum().backward()

        return {kernels: functools.partial(call, kernels) for kernels in ("torch", "melcnn")}

    return autotune.choose(key, ways)


class _Train(torch.autograd.Function):
    """weights: `(weight, bias, gamma, beta)` of each block in turn; running: their running mean and variance, which
    move."""

    @staticmethod
    def forward(ctx, workspaces, sizes, running, momenta, x, index, views, *weights):
        kernels, channels = native.library(), sizes.replicas * sizes.channels
        workspace = workspaces.take(sizes.replicas * kernels.trunk_workspace(ctypes.byref(sizes)))
        y, moments = x.new_empty(sizes.clips, channels), x.new_empty(sizes.blocks, 2, channels)
        tensors = zip(_by_block(weights), moments, running, strict=True)
        blocks = _blocks([(*own, *of_batch, *moving) for own, of_batch, moving in tensors], momenta)
        native.call(kernels.trunk_forward, sizes, blocks, x, index, views, workspace, y)
        ctx.save_for_backward(workspace, moments, *weights)
        ctx.sizes, ctx.kernel = sizes, kernels.trunk_backward
        return y

    @staticmethod
    def backward(ctx, dy):
        if torch.is_grad_enabled():
            raise RuntimeError("the blocks have no gradients of gradients: set kernels = 'torch' of the network")
        workspace, moments, *weights = ctx.saved_tensors
        gradients = [torch.empty_like(weight) for weight in weights]
        tensors = zip(_by_block(weights), moments, _by_block(gradients), strict=True)
        # The running statistics have moved, and are not asked for again.
        blocks = _blocks([(*own, *of_batch, *of_batch, *wanted) for own, of_batch, wanted in tensors])
        ctx.sizes.threads = torch.get_num_threads()
        native.call(ctx.kernel, ctx.sizes, blocks, dy.contiguous(), workspace)
        return (None,) * 7 + tuple(gradients)


def _by_block(tensors) -> list[tuple[Tensor, ...]]:
    return [tuple(tensors[i : i + 4]) for i in range(0, len(tensors), 4)]


def _blocks(tensors, momenta=()) -> ctypes.Array:
    """tensors: of each block, in the order of `POINTERS`, the last ones where they are needed."""
    made = (_Block * len(tensors))(*(_Block(*[tensor.data_ptr() for tensor in own]) for own in tensors))
    for block, momentum in zip(made, momenta, strict=False):
        block.momentum = momentum
    return made
