"""What a network costs, counted: parameters, and multiply-accumulates under two named conventions.

macs: convolution and linear multiply-accumulates, as fvcore counts these two operators, checked against
the closed form. macs_all_layers: the study's convention, which adds one for each bias addition, two an
element for BatchNorm, one an element for ReLU and one an input element for pooling.
"""

import copy
import math

import torch
from fvcore.nn import FlopCountAnalysis
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from melcnn.model import n_params


class Complexity(BaseModel):
    """Counts for one clip through one network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    params: int
    macs: int
    macs_all_layers: int


def count(network: nn.Module, input_shape: tuple[int, ...]) -> Complexity:
    """Counts `network` on one input of `input_shape`, batch dimension included; the network is untouched.

    Raises `TypeError` for a layer without a formula, `ArithmeticError` if fvcore and the closed form differ:
    a count that is silently wrong would be worse than none.
    """
    network = copy.deepcopy(network).cpu().eval()
    example = torch.zeros(input_shape)
    layers = _by_layer(network, example)
    macs = sum(products for products, _ in layers)
    analysis = FlopCountAnalysis(network, example).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    operators = analysis.by_operator()
    if (counted := operators["conv"] + operators["linear"]) != macs:
        raise ArithmeticError(f"fvcore counts {counted} convolution and linear MACs, the closed form {macs}")
    return Complexity(
        params=n_params(network), macs=macs, macs_all_layers=macs + sum(additional for _, additional in layers)
    )


def _by_layer(network: nn.Module, example: Tensor) -> list[tuple[int, int]]:
    """For each layer that runs: its multiply-accumulates, and what macs_all_layers adds to them."""
    layers: list[tuple[int, int]] = []

    def hear(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        elements_in, elements_out = inputs[0].numel(), output.numel()
        match layer:
            case nn.Conv1d():
                # Every output element: kernel x input channels of its group, and its bias once.
                products = elements_out * layer.in_channels // layer.groups * math.prod(layer.kernel_size)
                layers.append((products, elements_out * (layer.bias is not None)))
            case nn.Linear():
                layers.append((elements_out * layer.in_features, elements_out * (layer.bias is not None)))
            case nn.BatchNorm1d():
                layers.append((0, 2 * elements_out))
            case nn.ReLU():
                layers.append((0, elements_out))
            case nn.MaxPool1d() | nn.AdaptiveAvgPool1d():
                layers.append((0, elements_in))
            case nn.Flatten():
                pass
            case _:
                raise TypeError(f"no formula for {type(layer).__name__}: add its case to bench/complexity.py")

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(hear) for leaf in leaves]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    return layers
