"""Our count beside other counters', in one unit, with each difference named, down to zero.

Every counter is run on a copy of the model. What it reports is taken layer by layer; what differs from our macs is
named if it is one of its known habits (a bias, a normalisation, a layer that it does not know), else it is shown as
unexplained.
"""

import contextlib
import copy
import importlib
import io
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from torch import Tensor, nn
from torch.utils import flop_counter

from bench.counting.profile import CountedOperator, Profile, attention_in_parts
from melcnn.model import n_params

# Layer name -> what a counter reports for what that layer itself computes, in MACs.
ByLayer = Mapping[str, float]


# The beginning of the names of amounts that no known habit of a counter explains.
UNEXPLAINED = "unexplained"


@dataclass(frozen=True)
class Reconciled:
    """A counter beside ours: `total` is our macs plus the sum of `items`, amounts by name."""

    counter: str
    total: int
    macs: int
    items: dict[str, int]

    @property
    def unexplained(self) -> dict[str, int]:
        return {name: amount for name, amount in self.items.items() if name.startswith(UNEXPLAINED)}


@dataclass(frozen=True)
class Missing:
    """A counter that gave no figure, and why, in one line."""

    counter: str
    reason: str


def reconcile(model: nn.Module, inputs: Sequence[Tensor], ours: Profile) -> list[Reconciled | Missing]:
    """Run every installed counter and itemise it against `ours`, the profile of `model` on `inputs`."""
    counters = {
        "fvcore": _fvcore,
        "FlopCounterMode": _flop_counter_mode,
        "ptflops": _ptflops,
        "thop": _thop,
        "torchinfo": _torchinfo,
    }
    found: list[Reconciled | Missing] = []
    for name, run in counters.items():
        if name != "FlopCounterMode" and find_spec(name) is None:
            continue
        try:
            twin = copy.deepcopy(model).eval()
            with warnings.catch_warnings(), attention_in_parts(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                total, items = run(twin, tuple(t.clone() for t in inputs), ours)
        except Exception as error:
            # Another counter's failure on somebody's model is its own affair, and worth a line, not a crash.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            found.append(Missing(name, f"{name} failed: {reason}"))
            continue
        macs = ours.total("macs")
        kept = {item: round(amount) for item, amount in items.items() if round(amount)}
        if rest := round(total) - macs - sum(kept.values()):
            kept[UNEXPLAINED] = rest
        found.append(Reconciled(name, round(total), macs, kept))
    return found


def _by_layer(ours: Profile) -> dict[str, list[CountedOperator]]:
    grouped: dict[str, list[CountedOperator]] = defaultdict(list)
    for operation in ours.operations:
        grouped[operation.layer].append(operation)
    return grouped


def _itemise(
    theirs: ByLayer,
    ours: Profile,
    modules: Mapping[str, nn.Module],
    unknown: Callable[[str], str | None],
) -> dict[str, float]:
    """Return what `theirs` differs by, layer by layer.

    Args:
        unknown: names a layer's arithmetic that the counter cannot see; None if it should see it.
    """
    items: dict[str, float] = defaultdict(float)
    operations = _by_layer(ours)
    for layer in dict.fromkeys([*theirs, *operations]):
        ran = operations.get(layer, [])
        costs = [o.cost for o in ran if o.cost]
        macs, bias = sum(c.macs for c in costs), sum(c.bias for c in costs)
        reported = theirs.get(layer, 0)
        difference = reported - macs
        kind = next((c.kind for c in costs if not c.macs), "other")
        if not difference:
            continue
        if not macs:
            # Nothing here is a MAC of ours: all of it is a kind that this counter counts besides.
            items[kind] += reported
        elif difference == bias:
            items["bias"] += bias
        elif reported and isinstance(modules[layer], _COMPOUND):
            items[_COMPOUND_ITEM] += difference
        elif not reported and (name := unknown(layer)):
            items[name] -= macs
        elif (known := _transposed(ran, bias, reported, macs)) or (known := _once_a_sample(modules[layer], reported)):
            items[known] += difference
        elif name := unknown(layer):
            items[name] += difference
        else:
            # By layer, so that two of opposite sign do not cancel.
            items[f"{UNEXPLAINED}, in {type(modules[layer]).__name__} {layer}".rstrip()] += difference
    return dict(items)


# Layers of many operators, for whose gates, scalings and biases each counter has a formula of its own.
_COMPOUND = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
_COMPOUND_ITEM = "gates, scalings and biases of recurrent and attention layers"


def _transposed(ran: Sequence[CountedOperator], bias: int, reported: float, macs: int) -> str | None:
    """Explain a strided transposed convolution that is counted as if each output met a whole kernel."""
    for o in ran:
        if o.operator == "convolution" and o.cost and len(o.inputs) > 1 and math.prod(o.inputs[0]):
            at_outputs = macs * math.prod(o.output[2:]) / math.prod(o.inputs[0][2:])
            by_channels = at_outputs * o.output[1] / o.inputs[0][1]
            if reported - bias in (at_outputs, by_channels) or reported in (at_outputs, by_channels):
                return "transposed convolution counted at its outputs"
    return None


def _once_a_sample(layer: nn.Module, reported: float) -> str | None:
    """Explain a linear layer over steps that is counted once a sample instead of once a step."""
    if isinstance(layer, nn.Linear) and reported and reported % n_params(layer) == 0:
        return "linear layers counted once a sample"
    return None


def _is_leaf(model: nn.Module) -> dict[str, bool]:
    return {name: not any(True for _ in module.children()) for name, module in model.named_modules()}


def _fvcore(model: nn.Module, inputs: tuple[Tensor, ...], ours: Profile) -> tuple[float, dict[str, float]]:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    whole = analysis.by_module()
    # fvcore adds up children into parents; what a layer computes itself is the difference.
    own = {
        name: count - sum(whole[f"{name}.{child}" if name else child] for child, _ in _module(model, name))
        for name, count in whole.items()
    }

    def unknown(layer: str) -> str | None:
        operators = analysis.unsupported_ops(layer)
        if not operators:
            return None
        computing = sorted(o for o in operators if o.removeprefix("aten::") in _FVCORE_MISSES)
        return f"{', '.join(computing)}, unknown to fvcore" if computing else None

    return analysis.total(), _itemise(own, ours, dict(model.named_modules()), unknown)


# Operators that do convolution or matrix multiplication, and that fvcore only warns of (or does not even).
_FVCORE_MISSES = frozenset(
    "_convolution_mode lstm gru rnn_tanh rnn_relu scaled_dot_product_attention mv dot addmv baddbmm inner "
    "_native_multi_head_attention lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell bilinear tensordot chain_matmul "
    "linalg_multi_dot vdot outer".split()
)


def _module(model: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    return list(model.get_submodule(name).named_children())


def _flop_counter_mode(model: nn.Module, inputs: tuple[Tensor, ...], ours: Profile) -> tuple[float, dict[str, float]]:
    import torch

    with torch.no_grad(), flop_counter.FlopCounterMode(display=False) as mode:
        model(*inputs)
    known = {str(packet).removeprefix("aten.") for packet in flop_counter.flop_registry}
    items: dict[str, float] = defaultdict(float)
    for operation in ours.operations:
        if operation.cost and operation.cost.macs and operation.operator not in known:
            items[f"{operation.operator}, unknown to FlopCounterMode"] -= operation.cost.macs
    return mode.get_total_flops() / 2, dict(items)


def _thop(model: nn.Module, inputs: tuple[Tensor, ...], ours: Profile) -> tuple[float, dict[str, float]]:
    import torch

    profile = importlib.import_module("thop").profile
    known = importlib.import_module("thop.profile").register_hooks
    classes = {name: type(module) for name, module in model.named_modules()}
    with torch.no_grad():
        total, _, layers = profile(model, inputs, verbose=False, ret_layer_info=True)
    theirs: dict[str, float] = {}

    def flatten(layers: dict, prefix: str) -> None:
        for name, (count, _, children) in layers.items():
            path = f"{prefix}{name}"
            if children:
                flatten(children, f"{path}.")
            else:
                theirs[path] = float(count)

    flatten(layers, "") if layers else theirs.update({"": float(total)})

    def unknown(layer: str) -> str | None:
        return None if classes.get(layer) in known else "functional calls and layers unknown to thop"

    return float(total), _itemise(theirs, ours, dict(model.named_modules()), unknown)


def _torchinfo(model: nn.Module, inputs: tuple[Tensor, ...], ours: Profile) -> tuple[float, dict[str, float]]:
    torchinfo = importlib.import_module("torchinfo")
    names = {id(module): name for name, module in model.named_modules()}
    found = torchinfo.summary(model, input_data=list(inputs), verbose=0, depth=100)
    theirs: dict[str, float] = defaultdict(float)
    for info in found.summary_list:
        if info.is_leaf_layer or info.macs:
            theirs[names[id(info.module)]] += info.macs if info.is_leaf_layer else 0
    leaf = _is_leaf(model)

    def unknown(layer: str) -> str | None:
        return None if leaf.get(layer) and theirs.get(layer) else "functional calls, which torchinfo does not see"

    return float(found.total_mult_adds), _itemise(theirs, ours, dict(model.named_modules()), unknown)


def _ptflops(model: nn.Module, inputs: tuple[Tensor, ...], ours: Profile) -> tuple[float, dict[str, float]]:
    engine = importlib.import_module("ptflops.pytorch_engine")
    known = importlib.import_module("ptflops.pytorch_ops").MODULES_MAPPING
    if len(inputs) != 1 or inputs[0].shape[0] != 1:
        raise ValueError("it takes a single input of batch 1")

    def total(count_functional: bool) -> float:
        count, _ = engine.get_flops_pytorch(
            copy.deepcopy(model),
            tuple(inputs[0].shape[1:]),
            print_per_layer_stat=False,
            extra_config={"count_functional": count_functional},
        )
        if count is None:
            raise ValueError("it could not run this model")
        return float(count)

    everything, layers_alone = total(True), total(False)
    # Of layers, ptflops' way is the study's: multiply-accumulates, biases, normalisation, activations, pooling.
    items: dict[str, float] = defaultdict(float)
    modules = dict(model.named_modules())
    for operation in ours.operations:
        if not (cost := operation.cost):
            continue
        layer = modules[operation.layer]
        if type(layer) in known:
            items["bias"] += cost.bias
            # It counts a normalisation's shift and scale only where the layer has the attribute `affine`, set.
            plain = cost.kind == "normalisation" and not getattr(layer, "affine", False)
            items[cost.kind] += cost.elementary / 2 if plain else cost.elementary
        else:
            items["functional calls and layers unknown to ptflops"] -= cost.macs
    rest = layers_alone - ours.total("macs") - sum(items.values())
    if rest and any(isinstance(modules[operation.layer], _COMPOUND) for operation in ours.operations):
        items[_COMPOUND_ITEM] += rest
    items["functional calls, on top of the layers that make them"] += everything - layers_alone
    return everything, dict(items)
