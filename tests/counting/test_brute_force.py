"""The closed forms against loops that do the arithmetic one multiplication at a time and count them."""

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bench.counting.profile import profile


def loops_convolution(layer, x):
    """A convolution by loops: the output, and the multiplications of forward, padding included."""
    transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d)
    weight = layer.weight.detach().double().numpy()
    kernel, stride, padding, dilation = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    axes = range(len(kernel))
    batch, c_in, *sizes = x.shape
    per_in, c_out, multiplications = c_in // layer.groups, layer.out_channels, 0
    if transposed:
        full = [(sizes[a] - 1) * stride[a] + dilation[a] * (kernel[a] - 1) + 1 for a in axes]
        out = np.zeros((batch, c_out, *full))
        per_out = c_out // layer.groups
        for b, i, *at in itertools.product(range(batch), range(c_in), *map(range, sizes)):
            for o, *k in itertools.product(range(per_out), *map(range, kernel)):
                to = tuple(at[a] * stride[a] + k[a] * dilation[a] for a in axes)
                channel = i // per_in * per_out + o
                out[(b, channel, *to)] += x[(b, i, *at)] * weight[(i, o, *k)]
                multiplications += 1
        crop = tuple(slice(padding[a], full[a] - padding[a]) for a in axes)
        out = out[(slice(None), slice(None), *crop)]
    else:
        padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
        lengths = [(padded.shape[2 + a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in axes]
        out = np.zeros((batch, c_out, *lengths))
        for b, o, *at in itertools.product(range(batch), range(c_out), *map(range, lengths)):
            group = o // (c_out // layer.groups)
            for i, *k in itertools.product(range(per_in), *map(range, kernel)):
                source = tuple(at[a] * stride[a] + k[a] * dilation[a] for a in axes)
                out[(b, o, *at)] += padded[(b, group * per_in + i, *source)] * weight[(o, i, *k)]
                multiplications += 1
    if layer.bias is not None:
        out += layer.bias.detach().double().numpy().reshape(1, -1, *[1] * len(kernel))
    return out, multiplications


@st.composite
def convolutions(draw, dims, c_in):
    groups = draw(st.sampled_from([g for g in (1, 2, 4) if c_in % g == 0]))
    make = draw(st.sampled_from([(nn.Conv1d, nn.ConvTranspose1d), (nn.Conv2d, nn.ConvTranspose2d)][dims - 1]))
    kernel = draw(st.integers(1, 3))
    return make(
        c_in,
        groups * draw(st.integers(1, 3)),
        kernel,
        stride=draw(st.integers(1, 2)),
        padding=draw(st.integers(0, kernel - 1)),
        dilation=1 if make in (nn.ConvTranspose1d, nn.ConvTranspose2d) else draw(st.integers(1, 2)),
        groups=groups,
        bias=draw(st.booleans()),
    )


@st.composite
def networks(draw):
    """A random stack of convolutions, norms, activations and poolings, with a linear end, and its input."""
    dims = draw(st.integers(1, 2))
    channels, size = draw(st.sampled_from([2, 4])), draw(st.integers(5, 7))
    shape = (draw(st.integers(1, 2)), channels, *[size] * dims)
    layers, x = [], torch.zeros(shape)
    for _ in range(draw(st.integers(1, 3))):
        layer = draw(convolutions(dims, x.shape[1]))
        try:
            x = layer(x)
        except RuntimeError:  # nothing would be left of an input this short
            continue
        layers.append(layer)
        if draw(st.booleans()):
            layers.append((nn.BatchNorm1d, nn.BatchNorm2d)[dims - 1](x.shape[1]))
        if draw(st.booleans()):
            layers.append(nn.ReLU())
        if draw(st.booleans()) and x.shape[-1] >= 2:
            layers.append((nn.MaxPool1d, nn.MaxPool2d)[dims - 1](2))
            x = layers[-1](x)
    layers += [nn.Flatten(), nn.Linear(x.flatten(1).shape[1], 3)]
    return nn.Sequential(*layers).eval(), shape


@settings(max_examples=100, deadline=None)
@given(networks(), st.integers(0, 2**31))
def test_random_networks_forward_and_backward(made, seed):
    network, shape = made
    torch.manual_seed(seed)
    x = torch.randn(shape)
    found = profile(network, [x])
    macs = first = elementary = 0
    value = x
    for layer in network:
        after = layer(value)
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d):
            by_loops, multiplications = loops_convolution(layer, value.detach().double().numpy())
            np.testing.assert_allclose(by_loops, after.detach().numpy(), rtol=1e-3, atol=1e-4)
            elementary += after.numel() if layer.bias is not None else 0
        elif isinstance(layer, nn.Linear):
            multiplications = sum(1 for _ in itertools.product(*map(range, (*after.shape, value.shape[1]))))
            elementary += after.numel()
        else:
            multiplications = 0
            # normalisation 2, activation 1 an element; pooling 1 an input element; flattening nothing
            share = {nn.BatchNorm1d: 2, nn.BatchNorm2d: 2, nn.ReLU: 1, nn.MaxPool1d: 1, nn.MaxPool2d: 1}
            elementary += share.get(type(layer), 0) * value.numel()
        if multiplications and not macs:
            first = multiplications
        macs += multiplications
        value = after
    assert found.total("macs") == macs
    assert found.total("macs_all_layers") == macs + elementary
    # Each multiplication w * x gives dL/dw += dL/dy x and dL/dx += dL/dy w; the first layer's x needs none.
    assert found.training_macs == 3 * macs - first
