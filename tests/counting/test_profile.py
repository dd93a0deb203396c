import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.counting.formulas import UncountedOperator
from bench.counting.profile import count, make_inputs, profile
from melcnn import InputError, LogMelFilterBanks, MelCNN

STUDY = {1: 1_039_106, 2: 536_066, 4: 284_546, 8: 158_786, 16: 95_906}  # groups: MACs of the study's table


def derived(n_mels, groups):
    """macs, macs_all_layers, flops, training macs of the study's network, by formula."""
    # Blocks run at 101, 50 and 25 frames (max-pooling halves, rounding down); kernel 3, 32 channels.
    first = 101 * 32 * n_mels * 3 // groups
    others = (50 * 32 * 32 * 3 + 25 * 32 * 32 * 3) // groups
    linear = 32 * 128 + 128 * 2
    macs = first + others + linear
    conv_out = 32 * (101 + 50 + 25)  # 5,632 elements
    bias = conv_out + 128 + 2
    batch_norm = 2 * (conv_out + 128)
    relu = conv_out + 128
    pooling = conv_out  # one an input element
    rest = bias + batch_norm + relu + pooling
    # A step pairs every multiply-accumulate again for its weight, and again for its input but in the first.
    training = 2 * macs + others + linear
    return macs, macs + rest, 2 * macs + rest, training


@pytest.mark.parametrize("groups", STUDY)
def test_the_rows_of_the_study_in_every_convention(groups):
    network = MelCNN(groups=groups)
    counts = count(network, (1, 80, 101))
    macs, all_layers, flops, training = derived(80, groups)
    assert (counts.macs, counts.macs_all_layers) == (macs, all_layers) and all_layers == STUDY[groups]
    found = profile(network, make_inputs(network, [(1, 80, 101)]))
    assert (found.total("flops"), found.training_macs) == (flops, training)
    if groups == 1:
        assert macs == 1_010_432


@pytest.mark.parametrize("n_mels", [20, 40])
@pytest.mark.parametrize("groups", [1, 4])
def test_other_mels(n_mels, groups):
    network = MelCNN(n_mels=n_mels, groups=groups)
    found = profile(network, make_inputs(network, [(1, n_mels, 101)]))
    totals = found.total("macs"), found.total("macs_all_layers"), found.total("flops"), found.training_macs
    assert totals == derived(n_mels, groups)


def test_by_layer_and_kind():
    network = MelCNN()
    found = profile(network, make_inputs(network, [(1, 80, 101)]))
    layers = {layer.name: layer for layer in found.layers}
    first = layers["blocks.0.0"]
    assert (first.type, first.params, first.weight_bytes) == ("Conv1d", 32 * 80 * 3 + 32, 4 * (32 * 80 * 3 + 32))
    assert (first.macs, first.activations) == (101 * 32 * 80 * 3, 32 * 101)
    assert sum(layer.params for layer in found.layers) == 18_850
    # The terms of the study's sum, as its seed spells them out.
    assert found.by_kind == {
        "convolution": 1_006_080 + 5_632,
        "linear/matmul": 4_352 + 130,
        "normalisation": 11_520,
        "activation": 5_760,
        "pooling": 5_632,
        "FFT": 0,
        "other": 0,
    }
    assert found.total("activations") == 5_632 + 130


def test_peak_memory_of_live_activations():
    # The input stays with its caller; a ReLU or a BatchNorm of the first block holds what it reads and what
    # it writes: (80 + 32 + 32) x 101 float32.
    network = MelCNN()
    assert profile(network, make_inputs(network, [(1, 80, 101)])).peak_bytes == 4 * (80 + 32 + 32) * 101
    # Two branches hold each other's output: 8 in, 8 + 8 out, 8 of their sum.
    branches = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.both = branches

        def forward(self, x):
            a, b = self.both[0](x), self.both[1](x)
            return a + b

    assert profile(Branches(), [torch.zeros(1, 8)]).peak_bytes == 4 * 32


def test_the_front_end():
    found = profile(LogMelFilterBanks(), [torch.zeros(1, 16_000)])
    # 101 frames: a real FFT of 400 points, 2.5 N log2 N FLOPs, half of that as MACs; 201 bins x 80 filters dense.
    assert found.by_kind["FFT"] == round(101 * 1.25 * 400 * math.log2(400))
    assert found.total("macs") == 201 * 80 * 101
    assert found.pipeline_macs == 201 * 80 * 101 + round(101 * 1.25 * 400 * math.log2(400))


def test_counting_leaves_the_model_as_it_was():
    network = MelCNN().train()
    network.blocks[0].eval()
    heard = []
    network.classifier.register_forward_hook(lambda *_: heard.append(1))
    network.classifier.weight.grad = torch.ones_like(network.classifier.weight)
    state = {k: v.clone() for k, v in network.state_dict().items()}
    modes = [m.training for m in network.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    profile(network, make_inputs(network, [(1, 80, 101)]))
    assert torch.equal(torch.rand(2), expected), "random numbers"
    assert [m.training for m in network.modules()] == modes
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()] == hooks
    assert torch.equal(network.classifier.weight.grad, torch.ones_like(network.classifier.weight))
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)


class Stateful(nn.Module):
    """Changes a buffer in every forward, as some models do even in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x):
        self.steps += 1
        return self.linear(x)


def test_buffers_that_a_forward_changes_are_put_back():
    model = Stateful()
    profile(model, [torch.zeros(1, 4)])
    assert model.steps == 0


def test_functional_calls_count_like_layers():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(6, 4, 3))

        def forward(self, x):
            return F.max_pool1d(F.relu(F.conv1d(x, self.weight, padding="same", dilation=2)), 2)

    found = profile(Functional(), [torch.zeros(2, 4, 10)])
    # (batch 2) x 10 positions x 6 x 4 x 3; ReLU one an element, pooling one an input element
    assert found.total("macs") == 2 * 10 * 6 * 4 * 3
    assert (found.by_kind["activation"], found.by_kind["pooling"]) == (120, 120)


def macs_of(function, *tensors):
    class Wrapped(nn.Module):
        def forward(self, *inputs):
            return function(*inputs)

    return profile(Wrapped(), tensors).total("macs")


@pytest.mark.parametrize(
    "function, shapes, macs",
    [
        (torch.matmul, [(3, 4), (4, 5)], 3 * 4 * 5),
        (torch.matmul, [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (torch.matmul, [(2, 7, 3, 4), (4, 5)], 2 * 7 * 3 * 4 * 5),
        (torch.matmul, [(3, 4), (4,)], 3 * 4),
        (torch.bmm, [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (lambda a, b: torch.einsum("bik,bjk->bij", a, b), [(2, 3, 4), (2, 5, 4)], 2 * 3 * 5 * 4),
        (lambda a, b, c: torch.baddbmm(c, a, b), [(2, 3, 4), (2, 4, 5), (2, 3, 5)], 2 * 3 * 4 * 5),
        # scores: heads 2 x 6 x 7 of dimension 4, then their weighted sum of dimension 5
        (F.scaled_dot_product_attention, [(1, 2, 6, 4), (1, 2, 7, 4), (1, 2, 7, 5)], 2 * 6 * 7 * (4 + 5)),
    ],
)
def test_matmul_in_all_its_forms(function, shapes, macs):
    assert macs_of(function, *(torch.zeros(shape) for shape in shapes)) == macs


@pytest.mark.parametrize(
    "layer, shape, macs",
    [
        (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (2, 4, 11), 2 * 6 * 5 * 2 * 3),
        (nn.Conv2d(4, 8, (3, 5), padding=(1, 0), groups=4), (1, 4, 6, 9), 8 * 6 * 5 * 1 * 15),
        (nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2), (1, 4, 5), 5 * 4 * 3 * 3),
        (nn.ConvTranspose2d(2, 3, 3, stride=2), (1, 2, 4, 4), 16 * 2 * 3 * 9),
        (nn.Linear(5, 7), (2, 3, 5), 2 * 3 * 5 * 7),
        # an LSTM: 4 gates; a GRU: 3; both of (input + hidden) x hidden a step
        (nn.LSTM(5, 6, batch_first=True), (2, 7, 5), 2 * 7 * 4 * 6 * (5 + 6)),
        (nn.LSTM(5, 6, 2, bidirectional=True), (7, 2, 5), 2 * 7 * 2 * 4 * 6 * ((5 + 6) + (12 + 6))),
        (nn.GRU(5, 6), (7, 2, 5), 2 * 7 * 3 * 6 * (5 + 6)),
        (nn.RNN(5, 6), (7, 2, 5), 2 * 7 * 6 * (5 + 6)),
        # 4 projections of 8 x 8, scores and sum in 2 heads of 4
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (1, 5, 8), 5 * (4 * 64 + 2 * 8 * 16) + 2 * 25 * 2 * 4),
    ],
)
def test_layers_by_formula(layer, shape, macs):
    assert profile(layer, [torch.zeros(shape)]).total("macs") == macs


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(4), nn.LayerNorm(6), nn.GroupNorm(2, 4), nn.InstanceNorm1d(4)])
def test_normalisations_are_two_an_element(norm):
    assert profile(norm, [torch.randn(3, 4, 6)]).by_kind["normalisation"] == 2 * 3 * 4 * 6


def test_the_fourier_transforms():
    for function, flops in (
        (torch.fft.rfft, 2.5 * 64 * 6),
        (lambda x: torch.fft.fft(torch.complex(x, x)), 5 * 64 * 6),
        (lambda x: torch.fft.irfft(torch.fft.rfft(x)), 2 * 2.5 * 64 * 6),
    ):

        class Transform(nn.Module):
            def forward(self, x, function=function):
                return function(x)

        found = profile(Transform(), [torch.zeros(3, 64)])
        assert sum(o.cost.fft_flops for o in found.operations if o.cost) == 3 * flops


def test_shared_weights_count_once_and_run_twice():
    shared = nn.Linear(4, 4)
    found = profile(nn.Sequential(shared, nn.ReLU(), shared), [torch.zeros(1, 4)])
    assert (found.total("params"), found.total("macs")) == (20, 2 * 16)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    assert profile(tied, [torch.zeros(1, 4)]).total("params") == 16 + 4 + 4


def test_parameters_never_used_are_listed():
    class Forgetful(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.used(x)

    assert profile(Forgetful(), [torch.zeros(1, 4)]).unused == ["spare.weight", "spare.bias"]


def test_half_precision():
    model = nn.Conv1d(2, 3, 3).to(torch.bfloat16)
    (x,) = make_inputs(model, [(1, 2, 9)])
    found = profile(model, [x])
    assert x.dtype == torch.bfloat16 and found.total("macs") == 7 * 3 * 2 * 3 and found.total("weight_bytes") == 2 * 21


def test_data_dependent_control_flow_is_noticed():
    class Branching(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    assert profile(Branching(), [torch.ones(3)]).reads_values
    assert not profile(nn.ReLU(), [torch.ones(3)]).reads_values


class Inverts(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return torch.linalg.inv(self.linear(x) + torch.eye(3))


def test_an_operator_without_a_formula_is_an_error_that_names_it():
    with pytest.raises(
        UncountedOperator, match=r"aten::linalg_inv_ex.*FORMULAS in bench/counting/formulas.py"
    ) as caught:
        profile(Inverts(), [torch.zeros(3, 3)])
    assert "\n" not in str(caught.value)
    found = profile(Inverts(), [torch.zeros(3, 3)], allow_uncounted=True)
    assert found.uncounted == ["linalg_inv_ex"] and found.total("macs") == 27


def test_an_input_that_the_model_refuses():
    with pytest.raises(InputError, match="refuses an input of shape 1x3x101: .*80 channels") as caught:
        profile(MelCNN(), [torch.zeros(1, 3, 101)])
    assert "\n" not in str(caught.value)
    assert MelCNN().training


def test_nothing_to_train():
    assert profile(nn.ReLU(), [torch.zeros(3)]).training_macs is None
    frozen = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    frozen[0].requires_grad_(False)
    # The first layer's weight needs no gradient, so nothing flows into it: 16 + 8 forward, 8 for the weight.
    assert profile(frozen, [torch.zeros(1, 4)]).training_macs == 16 + 8 + 8
