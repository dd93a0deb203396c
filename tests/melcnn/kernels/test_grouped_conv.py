"""The grouped convolution: the library's results and gradients, seen by compilers and counters, refused as clearly."""

import copy
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv1d
from torch.utils.flop_counter import FlopCounterMode

from bench.counting.profile import count
from melcnn import native
from melcnn.kernels import autotune, conv_layer, cuda, grouped_conv
from melcnn.kernels.grouped_conv import grouped_conv1d
from tests.helpers.triton import interpret

OURS = torch.ops.melcnn.grouped_conv1d


@pytest.fixture
def compiled():
    if native.library() is None:
        pytest.skip("there is no C compiler")


@pytest.fixture(autouse=True)
def nothing_decided(monkeypatch):
    monkeypatch.setattr(grouped_conv, "_DECIDED", {})


@pytest.fixture
def ours(compiled, monkeypatch):
    """Our kernels, whatever is faster."""
    monkeypatch.setattr(grouped_conv, "faster_kernels", lambda *arguments: "melcnn")


@pytest.fixture
def threads():
    """Sets the number of threads, until the test is over."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@st.composite
def cases(draw, clips=40, channels=9, length=70):
    def whole(low, high):
        return draw(st.integers(low, high))

    groups, taps, dilation, padding = whole(1, 5), whole(1, 7), whole(1, 3), whole(0, 6)
    shortest = max(1, dilation * (taps - 1) + 1 - 2 * padding)
    x = torch.randn(whole(1, clips), groups * whole(1, channels), whole(shortest, shortest + length))
    weight = torch.randn(groups * whole(1, channels), x.shape[1] // groups, taps)
    bias = torch.randn(len(weight)) if whole(0, 1) else None
    return x, weight, bias, whole(1, 4), padding, dilation, groups


@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(0, 2**32))
def test_it_is_the_librarys_forward_and_backward(case, seed):
    if native.library() is None:
        pytest.skip("there is no C compiler")
    torch.manual_seed(seed)
    x, weight, bias, *rest = case
    found = []
    for convolution, kind in ((OURS, torch.float32), (grouped_conv.ours, torch.float32), (conv1d, torch.float64)):
        tensors = [None if t is None else t.to(kind, copy=True).requires_grad_() for t in (x, weight, bias)]
        y = convolution(*tensors, *rest)
        wanted = [t for t in tensors if t is not None]
        found.append([y, *torch.autograd.grad(y, wanted, torch.ones_like(y).cumsum(2) / y.shape[2])])
    for operator, one, true in zip(*found, strict=True):
        assert torch.equal(operator, one)
        # A sum of n products of numbers of size 1 is off by about sqrt(n) units in the last place.
        torch.testing.assert_close(
            one.double(), true, rtol=1e-4, atol=1e-4 * max(1.0, float(true.detach().abs().max()))
        )


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"), [(1, 1, 1, 1), (1, 0, 2, 3), (2, 3, 1, 2), (3, 5, 2, 6)]
)
def test_gradients_in_double_precision(ours, stride, padding, dilation, groups):
    x = torch.randn(3, 6, 13, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 6 // groups, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(6, dtype=torch.float64, requires_grad=True)
    assert grouped_conv.supports(x, weight, bias, stride, padding, dilation, groups)

    def convolution(*tensors):
        return grouped_conv1d(*tensors, stride, padding, dilation, groups)

    assert torch.autograd.gradcheck(convolution, (x, weight, bias))
    assert torch.autograd.gradgradcheck(convolution, (x, weight, bias))


def test_the_operator_is_a_proper_one(compiled):
    x, weight = torch.randn(3, 6, 13, requires_grad=True), torch.randn(4, 3, 3, requires_grad=True)
    torch.library.opcheck(OURS, (x, weight, torch.randn(4, requires_grad=True), 1, 1, 1, 2))
    torch.library.opcheck(OURS, (x, weight, None, 2, 0, 1, 2))


def test_only_what_is_wanted_is_computed(ours):
    x, weight, bias = torch.randn(3, 6, 13), torch.randn(4, 3, 3), torch.randn(4)
    for wanted in ([True, False, False], [False, True, False], [False, False, True]):
        tensors = [t.clone().requires_grad_(want) for t, want in zip((x, weight, bias), wanted, strict=True)]
        grouped_conv1d(*tensors, padding=1, groups=2).sum().backward()
        assert [t.grad is not None for t in tensors] == wanted


def test_inputs_that_are_not_contiguous(ours):
    x, weight = torch.randn(13, 5, 6).permute(1, 2, 0), torch.randn(3, 4, 3).transpose(1, 2)[:2]
    bias = torch.randn(2, 3)[:, 1]
    assert not (x.is_contiguous() or weight.is_contiguous() or bias.is_contiguous())
    found = []
    for convolution in (grouped_conv1d, conv1d):
        tensors = [tensor.clone().detach().requires_grad_() for tensor in (x, weight, bias)]
        y = convolution(*tensors, groups=2)
        found.append([y, *torch.autograd.grad(y, tensors, torch.ones(1, 1, 1).expand_as(y))])
        with torch.no_grad():
            found[-1].append(convolution(x, weight, bias, groups=2))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_batch_of_no_clips(ours):
    x, weight = torch.randn(0, 6, 13, requires_grad=True), torch.randn(4, 3, 3, requires_grad=True)
    y = grouped_conv1d(x, weight, padding=1, groups=2)
    assert y.shape == (0, 4, 13)
    y.sum().backward()
    assert (weight.grad == 0).all()


def test_the_same_for_any_number_of_threads(ours, threads):
    x, weight, found = torch.randn(70, 24, 50), torch.randn(8, 6, 3), []
    for count_ in (1, 2, 3):
        threads(count_)
        a, b = x.clone().requires_grad_(), weight.clone().requires_grad_()
        y = grouped_conv1d(a, b, padding=1, groups=4)
        found.append([y, *torch.autograd.grad(y.square().sum(), [a, b])])
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


@pytest.mark.parametrize(
    ("x", "weight", "rest"),
    [
        ((2, 6, 10), (4, 6, 3), (1, 0, 1, 2)),  # channels of a group
        ((2, 6, 10), (3, 3, 3), (1, 0, 1, 2)),  # outputs that groups do not divide
        ((2, 6, 2), (4, 6, 3), (1, 0, 1, 1)),  # shorter than the kernel
        ((2, 6, 10), (4, 6, 3), (0, 0, 1, 1)),
        ((2, 6, 10), (4, 6, 3), (1, -1, 1, 1)),
        ((2, 6, 10), (4, 6, 3), (1, 0, 0, 1)),
        ((2, 6, 10), (4, 6, 3), (1, 0, 1, 0)),
        ((6,), (4, 6, 3), (1, 0, 1, 1)),
        ((2, 6, 10), (4, 6), (1, 0, 1, 1)),
    ],
)
def test_what_the_library_refuses_is_refused_in_its_words(compiled, x, weight, rest):
    x, weight = torch.randn(x), torch.randn(weight)
    with pytest.raises((RuntimeError, ValueError)) as theirs:
        conv1d(x, weight, None, *rest)
    with pytest.raises(type(theirs.value)) as found:
        grouped_conv1d(x, weight, None, *rest)
    assert str(found.value) == str(theirs.value)


def test_what_the_kernels_do_not_take_goes_to_the_library(compiled):
    x, weight = torch.randn(2, 6, 10), torch.randn(4, 3, 3)
    for other, options in (
        (x[0], {}),  # one clip without a batch
        (x, {"padding": "same"}),
        (x, {"stride": (2,)}),
    ):
        assert torch.equal(
            grouped_conv1d(other, weight, groups=2, **options), conv1d(other, weight, groups=2, **options)
        )
    half = grouped_conv1d(x.bfloat16(), weight.bfloat16(), groups=2)
    assert half.dtype == torch.bfloat16


def test_counters_count_ours_as_the_librarys(ours, monkeypatch):
    layer = torch.nn.Conv1d(6, 4, 3, padding=1, groups=2)
    x = torch.randn(5, 6, 13, requires_grad=True)
    counts = []
    for convolution in (lambda: layer(x), lambda: OURS(x, layer.weight, layer.bias, 1, 1, 1, 2)):
        with FlopCounterMode(display=False) as counter:
            convolution().sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0

    class Direct(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return OURS(x, self.layer.weight, self.layer.bias, 1, 1, 1, 2)

    ours, theirs = (count(model, (1, 6, 13)) for model in (Direct(), torch.nn.Sequential(layer)))
    # 13 positions of 4 channels, each 3 taps of 3 channels.
    assert ours.macs == theirs.macs == 13 * 4 * 3 * 3
    assert ours.macs_all_layers == theirs.macs_all_layers


def test_who_listens_hears_the_librarys(ours):
    x, weight = torch.randn(2, 6, 10), torch.randn(4, 3, 3, requires_grad=True)
    with torch.autocast("cpu"):
        assert grouped_conv1d(x, weight, groups=2).dtype == torch.bfloat16
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(grouped_conv1d(dual, weight.detach(), groups=2)).tangent
    torch.testing.assert_close(tangent, conv1d(torch.ones_like(x), weight.detach(), groups=2))
    batched = torch.vmap(lambda one: grouped_conv1d(one[None], weight, groups=2)[0])(x)
    torch.testing.assert_close(batched, conv1d(x, weight, groups=2))


def test_it_can_be_compiled(ours):
    weight = torch.randn(4, 3, 3, requires_grad=True)

    def network(x):
        return grouped_conv1d(x, weight, padding=1, groups=2).relu().sum()

    x = torch.randn(5, 6, 13)
    found = torch.compile(network, backend="aot_eager", fullgraph=True)(x)
    (ours_gradient,) = torch.autograd.grad(found, weight)
    expected = conv1d(x, weight, padding=1, groups=2).relu().sum()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours_gradient, torch.autograd.grad(expected, weight)[0], rtol=1e-4, atol=1e-4)


def test_what_the_compiler_takes_for_constant_is_marked_as_torch_marks_it_without_its_import():
    marked = [mark(lambda: 0) for mark in (grouped_conv._constant, torch.compiler.assume_constant_result)]
    assert vars(marked[0]) == vars(marked[1]) != {}
    # Which takes a second of every command's start.
    code = "import sys, melcnn.kernels.grouped_conv; assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_layer_computes_by_ours_and_again_by_torchs(monkeypatch):
    calls = []

    def spy(x, weight, bias, *settings):
        calls.append(settings)
        return conv1d(x, weight, bias, *settings)

    monkeypatch.setattr(grouped_conv, "ours", spy)
    monkeypatch.setattr(grouped_conv, "uses_ours", lambda x, weight, bias, stride, *settings: stride > 0)
    layer, x = torch.nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), torch.randn(3, 4, 20)
    expected = layer(x)
    assert conv_layer.set_kernels(layer, None) is layer and type(layer) is torch.nn.Conv1d
    assert torch.equal(layer(x), expected)
    assert calls == [(2, 1, 2, 2)]  # stride, padding, dilation, groups
    assert conv_layer.trained_by(layer) == "melcnn"
    assert torch.equal(conv_layer.set_kernels(layer, "torch")(x), expected) and len(calls) == 1
    assert conv_layer.trained_by(layer) == "torch"
    # What is changed later counts, in a copy too.
    changed = copy.deepcopy(conv_layer.set_kernels(layer, None))
    changed.stride, changed.padding = (1,), (3,)
    # 20 + 2 x 3 - 2 x (3 - 1) outputs
    assert changed(x).shape == (3, 6, 22) and layer(x).shape == expected.shape
    del calls[1:]
    padded = conv_layer.set_kernels(torch.nn.Conv1d(4, 6, 3, padding="same"), None)
    assert padded(x).shape == (3, 6, 20) and len(calls) == 1
    monkeypatch.setattr(grouped_conv, "uses_ours", lambda *arguments: False)
    assert torch.equal(conv_layer.set_kernels(layer, None)(x), expected) and len(calls) == 1
    assert conv_layer.trained_by(layer) == "torch"


def test_the_choice_depends_on_shape_and_gradients(compiled, monkeypatch):
    keys = []
    monkeypatch.setattr(autotune, "choose", lambda key, *rest: keys.append(key) or "torch")
    x, weight = torch.randn(5, 6, 13), torch.randn(4, 3, 3)
    for clips in (5, 7, 8, 9):
        grouped_conv1d(torch.randn(clips, 6, 13), weight, groups=2)
    grouped_conv1d(x, weight.requires_grad_(), groups=2)
    with torch.no_grad():
        grouped_conv1d(x, weight, groups=2)
    assert keys[0] == keys[1] == keys[2] and len(set(keys)) == 3
    grouped_conv1d(torch.randn(5, 6, 13), weight.detach(), groups=2)
    assert len(keys) == 6  # What was decided is not asked again.


KERNELS_FOR_A_GPU = """
import torch
from torch.nn.functional import conv1d
from melcnn.kernels import triton_conv
from tests.helpers.triton import CONVOLUTIONS

torch.manual_seed(0)
for clips, c_in, c_out, length, taps, stride, padding, dilation, groups in CONVOLUTIONS:
    x = torch.randn(clips, groups * c_in, length, requires_grad=True)
    weight = torch.randn(groups * c_out, c_in, taps, requires_grad=True)
    bias = torch.randn(groups * c_out, requires_grad=True)
    expected = conv1d(x, weight, bias, stride, padding, dilation, groups)
    dy = torch.randn_like(expected)
    settings = stride, padding, dilation, groups
    with torch.no_grad():
        torch.testing.assert_close(triton_conv.forward(x, weight, bias, *settings), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            triton_conv.forward(x, weight, None, *settings), expected - bias[:, None], rtol=1e-4, atol=1e-4
        )
        found = triton_conv.backward(dy, x, weight, *settings, [True, True, True])
        none = triton_conv.backward(dy, x, weight, *settings, [False, False, False])
    assert [len(t) for t in none] == [0, 0, 0]
    for one, other in zip(found, torch.autograd.grad(expected, [x, weight, bias], dy), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
"""


@pytest.mark.slow
def test_the_kernels_for_a_gpu_in_tritons_interpreter():
    interpret(KERNELS_FOR_A_GPU)


@pytest.mark.parametrize(
    ("weight", "groups", "longest", "fits"),
    [
        ((65_535, 1, 3), 65_535, 100, True),  # a program for each group, in the grid's second dimension
        ((65_536, 1, 3), 65_536, 100, False),
        ((17 * 40_000, 1, 3), 40_000, 100, False),  # 17 channels a group are two programs
        ((4, 65_535 // 3, 3), 1, 100, True),  # a program for each weight of a channel, in the third
        ((4, 22_000, 3), 1, 100, False),
        ((4, 1, 3), 1, 65_535 * 16, True),  # 16 positions a program
        ((4, 1, 3), 1, 65_535 * 16 + 1, False),
    ],
)
def test_a_grid_is_within_cudas_limits(weight, groups, longest, fits):
    triton_conv = pytest.importorskip("melcnn.kernels.triton_conv")
    assert triton_conv.on_grid(torch.Size(weight), groups, longest) == fits


def test_the_choice_depends_on_the_precision_of_a_gpu(monkeypatch):
    keys = []
    monkeypatch.setattr(autotune, "choose", lambda key, *rest: keys.append(key) or "torch")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")

    class OnGpu:  # what `faster_kernels` asks of a tensor
        shape, dtype, device, is_cuda, requires_grad = (8, 4, 16), torch.float32, torch.device("cuda:0"), True, False

    weight = torch.randn(4, 4, 3)
    for precision in ("fp32", "tf32"):
        with cuda.computing_in(precision):
            grouped_conv.faster_kernels(OnGpu(), weight, None, 1, 1, 1, 1)
    assert keys[0] != keys[1]
