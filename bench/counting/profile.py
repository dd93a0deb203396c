"""Count a network's cost: every operator that ran, by its closed form, by layer and in total.

Conventions have names. macs: multiply-accumulates of convolution, linear and matmul. macs_all_layers: the
study's, which adds one for each bias addition, two an element for normalisation, one an element for
activations, one an input element for pooling. flops: twice the macs, plus the rest.
"""

import functools
import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.counting.formulas import KINDS, OperatorCost, UncountedOperator, cost_of, operator_name
from melcnn.config import FrontEnd
from melcnn.errors import InputError
from melcnn.frontend import LogMelFilterBanks
from melcnn.model import isolated_random_numbers


class Complexity(BaseModel):
    """Counts for one clip through one network, as records hold them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    params: int
    macs: int
    macs_all_layers: int


@dataclass(frozen=True)
class CountedOperator:
    """An operator that ran in `layer`; `cost` is None if it has no formula and that was allowed."""

    layer: str
    operator: str
    cost: OperatorCost | None
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]


@dataclass
class Layer:
    """A module's own share: its own arithmetic, without its children's.

    Attributes:
        activations: output elements of its convolutions, linear layers and matmuls.
        peak_bytes: the most memory that live activations took while it ran.
        calls: how often it ran.
    """

    name: str
    type: str
    params: int = 0
    weight_bytes: int = 0
    macs: int = 0
    macs_all_layers: float = 0.0
    flops: float = 0.0
    activations: int = 0
    peak_bytes: int = 0
    calls: int = 0
    kinds: dict[str, float] = field(default_factory=dict)  # macs_all_layers by kind


@dataclass(frozen=True)
class Profile:
    """The cost of a model on one input; sums over `layers` are the totals.

    Attributes:
        peak_bytes: the most memory that activations took at one time, with the input, without weights and an operator's
            own scratch memory.
        unused: parameters that no operator read.
        reads_values: the model looked at values on the host, so another input might take another path.
        training_macs: of one training step (forward, gradients of the weights and of the activations); None if nothing
            is trainable.
    """

    layers: list[Layer]
    operations: list[CountedOperator]
    peak_bytes: int
    unused: list[str]
    uncounted: list[str]
    reads_values: bool
    training_macs: int | None

    def total(self, figure: str) -> int:
        return round(sum(getattr(layer, figure) for layer in self.layers))

    @property
    def by_kind(self) -> dict[str, int]:
        """macs_all_layers by kind."""
        return {kind: round(sum(layer.kinds.get(kind, 0) for layer in self.layers)) for kind in KINDS}

    @property
    def pipeline_macs(self) -> int:
        """macs, and half the FLOPs of Fourier transforms."""
        return self.total("macs") + self.by_kind["FFT"]


def count(network: nn.Module, input_shape: tuple[int, ...]) -> Complexity:
    """Return the counts that records hold, for one input of `input_shape` (with its batch dimension)."""
    found = profile(network, make_inputs(network, [input_shape]), training=False)
    return Complexity(
        params=found.total("params"), macs=found.total("macs"), macs_all_layers=found.total("macs_all_layers")
    )


@functools.lru_cache(maxsize=64)
def front_end_macs(front_end: FrontEnd) -> int:
    """Return the MACs of the features of one second, half the FLOPs of Fourier transforms included."""
    waveform = torch.zeros(1, front_end.sample_rate)
    return profile(LogMelFilterBanks(**front_end.model_dump()), [waveform], training=False).pipeline_macs


def make_inputs(model: nn.Module, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return random inputs of `shapes`, on the model's device and in its floating-point type."""
    tensors = [t for t in [*model.parameters(), *model.buffers()] if not is_lazy(t) and t.is_floating_point()]
    tensor = tensors[0] if tensors else torch.zeros(0)
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator).to(tensor.device, tensor.dtype) for shape in shapes]


def materialise(model: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Give lazy layers their weights by one run on `inputs`. Raises `InputError` if the model refuses them."""
    if any(is_lazy(tensor) for tensor in [*model.parameters(), *model.buffers()]):
        with torch.no_grad():
            _run(model, inputs)


def profile(
    model: nn.Module, inputs: Sequence[Tensor], allow_uncounted: bool = False, training: bool = True
) -> Profile:
    """Run `model` once in evaluation mode and count what ran; with `training`, once more with gradients.

    The model's mode, buffers, gradients and hooks are restored.

    Raises:
        UncountedOperator: an operator has no formula, unless `allow_uncounted`.
        InputError: the model refuses the inputs.
    """
    with _untouched(model):
        recorder = _Recorder(model, inputs, allow_uncounted)
        with torch.no_grad(), parametrize.cached():
            # A weight or spectral norm counts as the layer that it wraps: its weights could be stored.
            for module in model.modules():
                if parametrize.is_parametrized(module):
                    recorder.read.update(map(id, module.get_submodule("parametrizations").parameters()))
                    for name in module.get_submodule("parametrizations")._modules:
                        getattr(module, name)
            with recorder:
                _run(model, inputs)
        step = _training_macs(model, inputs, allow_uncounted) if training else None
    layers = recorder.finish()
    names = {id(p): name for name, p in model.named_parameters()}
    return Profile(
        layers=layers,
        operations=recorder.operations,
        peak_bytes=recorder.peak,
        unused=[name for key, name in names.items() if key not in recorder.read],
        uncounted=sorted({o.operator for o in recorder.operations if o.cost is None}),
        reads_values=recorder.reads_values,
        training_macs=step,
    )


def _run(model: nn.Module, inputs: Sequence[Tensor]) -> Any:
    try:
        return model(*inputs)
    except (UncountedOperator, KeyboardInterrupt):
        raise
    except Exception as error:
        shapes = " and ".join("x".join(map(str, t.shape)) for t in inputs)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"the model refuses an input of shape {shapes}: {reason}") from error


def _training_macs(model: nn.Module, inputs: Sequence[Tensor], allow_uncounted: bool) -> int | None:
    weights = [p for p in model.parameters() if p.requires_grad]
    recorder = _Recorder(model, inputs, allow_uncounted)
    with torch.enable_grad(), recorder:
        outputs = [t for t in tree_leaves(_run(model, inputs)) if isinstance(t, Tensor) and t.requires_grad]
        if not weights or not outputs:
            return None
        # autograd.grad and not backward(): gradients that the model may hold stay as they are. The input
        # itself needs no gradient, and so the first layer's is not computed.
        torch.autograd.grad(outputs, weights, [torch.ones_like(t) for t in outputs], allow_unused=True)
    return sum(operation.cost.macs for operation in recorder.operations if operation.cost)


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode; restore modes, buffers and random numbers at the end."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with suppress(NotImplementedError):  # A graph of torch.export has one mode, the traced one.
            model.eval()
        with attention_in_parts(), isolated_random_numbers(devices):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


@contextmanager
def attention_in_parts() -> Iterator[None]:
    """Disable attention's fused fast path, which hides its parts from every counter."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Recorder(TorchDispatchMode):
    """Records every operator with its layer, and the memory of activations."""

    def __init__(self, model: nn.Module, inputs: Sequence[Tensor], allow_uncounted: bool):
        super().__init__()
        self.allow_uncounted = allow_uncounted
        self.operations: list[CountedOperator] = []
        self.read: set[int] = set()
        self.reads_values = False
        self.now = self.peak = 0
        self._stack: list[str] = []
        self._layers = _own_parameters(model)
        self._hooks: list[Any] = []
        self._model = model
        self._storages = {t.untyped_storage()._cdata: 0 for t in [*model.parameters(), *model.buffers()]}
        self._parameters = {id(p): p for p in model.parameters()}
        for tensor in inputs:
            self._follow(tensor)

    def __enter__(self) -> "_Recorder":
        for name, module in self._model.named_modules():
            self._hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self._enter_layer(name)))
            # always_call, so that an exception that the model catches does not leave the stack wrong.
            self._hooks.append(module.register_forward_hook(lambda *_: self._leave_layer(), always_call=True))
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        for hook in self._hooks:
            hook.remove()

    def _enter_layer(self, name: str) -> None:
        self._stack.append(name)
        self._layers[name].calls += 1

    def _leave_layer(self) -> None:
        if self._stack:
            self._stack.pop()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        self.read.update(id(t) for t in tensors if id(t) in self._parameters)
        out = operator(*args, **kwargs)
        name = operator_name(operator)
        self.reads_values |= name in ("_local_scalar_dense", "item", "is_nonzero", "nonzero")
        layer = self._layers[self._stack[-1] if self._stack else ""]
        try:
            cost = cost_of(operator, args, kwargs, out)
        except UncountedOperator:
            if not self.allow_uncounted:
                raise
            cost, unknown = None, True
        else:
            unknown = False
        for tensor in tree_leaves(out):
            # Pooling's indices are made for a gradient that inference never asks for.
            if isinstance(tensor, Tensor) and (tensor.is_floating_point() or tensor.is_complex()):
                self._follow(tensor)
        layer.peak_bytes = max(layer.peak_bytes, self.now)
        if cost or unknown:
            first = next((t for t in tree_leaves(out) if isinstance(t, Tensor)), torch.empty(0))
            shapes = tuple(tuple(t.shape) for t in tensors)
            self.operations.append(CountedOperator(layer.name, name, cost, shapes, tuple(first.shape)))
        return out

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        self._storages[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._storages.pop(key, 0)

    def finish(self) -> list[Layer]:
        """Return the layers that ran or hold parameters, with what they computed, in the model's order."""
        for operation in self.operations:
            if cost := operation.cost:
                layer = self._layers[operation.layer]
                layer.macs += cost.macs
                layer.macs_all_layers += cost.macs_all_layers
                layer.flops += cost.flops
                layer.kinds[cost.kind] = layer.kinds.get(cost.kind, 0) + cost.macs_all_layers
                if cost.macs:
                    layer.activations += math.prod(operation.output)
        busy = {operation.layer for operation in self.operations}
        return [layer for layer in self._layers.values() if layer.name in busy or layer.params]


def _own_parameters(model: nn.Module) -> dict[str, Layer]:
    """Return every module as a layer; a shared parameter counts in the first."""
    seen: set[int] = set()
    layers = {}
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
        seen.update(map(id, own))
        own += _packed(module)
        layers[name] = Layer(
            name=name,
            type=type(module).__name__,
            params=sum(p.numel() for p in own),
            weight_bytes=sum(p.numel() * p.element_size() for p in own),
        )
    return layers


def _packed(module: nn.Module) -> list[Tensor]:
    """Return weight and bias of a quantised layer, which are no parameters but packed for the processor."""
    if not type(module).__module__.startswith("torch.ao.nn.quantized"):
        return []
    found = [getattr(module, name)() for name in ("weight", "bias") if callable(getattr(module, name, None))]
    return [tensor for tensor in found if isinstance(tensor, Tensor)]


@dataclass(frozen=True)
class NetworkCost:
    """The cost of one clip; `latency_ms` is None if it was not measured."""

    params: int
    macs: int
    macs_all_layers: int
    weight_bytes: int | None = None
    latency_ms: float | None = None
