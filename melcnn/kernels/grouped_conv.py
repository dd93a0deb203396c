"""A grouped convolution in one dimension whose time falls with its multiply-accumulates.

The library's kernels hardly gain from groups: on a CPU and on a GPU 16 groups take about as long as one. Ours do
(`melcnn/native/grouped_conv.c`, `melcnn.kernels.triton_conv`). For each shape the faster of both is taken, by a measurement
that is made once a machine and kept (`melcnn.kernels.autotune`).
"""

import ctypes
import functools
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d
from torch.utils.flop_counter import conv_backward_flop, conv_flop_count, register_flop_formula

from melcnn import native
from melcnn.kernels import autotune
from melcnn.kernels.shapes import output_length

KINDS = {"cpu": {torch.float32: "float", torch.float64: "double"}, "cuda": {torch.float32: "float"}}
MOST_TAPS = 64
MOST_CLIPS, MOST_ELEMENTS = 1024, 1 << 24  # in the measurement that chooses


def _constant(function: Callable) -> Callable:
    """`torch.compiler.assume_constant_result`: torch.compile calls it, and takes what it gives for a constant."""
    # It sets this and nothing else, but imports the compiler first: a second of every command's start.
    function._dynamo_marked_constant = True
    return function


def grouped_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv1d`, by our kernels where they are faster.

    x `(batch, groups * c_in, length)`, weight `(groups * c_out, c_in, taps)`, bias `(groups * c_out)`; the result is
    `(batch, groups * c_out, (length + 2 padding - dilation (taps - 1) - 1) // stride + 1)`.

    Ours take float32 and float64 on the CPU and float32 on CUDA, integer arguments, up to 64 taps; everything else goes
    to the library, which also says what is wrong with what nobody can compute. Equal but for rounding; for a fixed
    device the same from run to run, and on the CPU for any number of threads.
    """
    if decided(x, weight, bias, stride, padding, dilation, groups):
        return ours(x, weight, bias, stride, padding, dilation, groups)
    return conv1d(x, weight, bias, stride, padding, dilation, groups)


def ours(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> Tensor:
    """`grouped_conv1d` by our kernels, whatever is faster, of what they can compute (`takes`)."""
    if torch.compiler.is_compiling():
        return torch.ops.melcnn.grouped_conv1d(x, weight, bias, stride, padding, dilation, groups)
    # The dispatcher's way to an operator of Python's takes longer than a small convolution.
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return _Eager.apply(x, weight, bias, stride, padding, dilation, groups)
    return _compute(x, weight, bias, stride, padding, dilation, groups)


# What was decided of which call: a small convolution takes no longer than the whole way to a decision.
_DECIDED: dict[tuple, bool] = {}
MOST_REMEMBERED = 4096


def decided(x: Tensor, weight: Tensor, bias: Tensor | None, stride, padding, dilation, groups) -> bool:
    """Whether `grouped_conv1d` takes our kernels for this call."""
    if torch.compiler.is_compiling():
        seen = torch.is_autocast_enabled(x.device.type) or _exporting()
        return not seen and _decide(x, weight, bias, stride, padding, dilation, groups)
    call = (
        *(x.shape, x.dtype, x.is_cpu, x.requires_grad, weight.shape, weight.dtype, weight.is_cpu, weight.requires_grad),
        None if bias is None else (bias.shape, bias.dtype, bias.is_cpu),
        *(stride, padding, dilation, groups, torch.is_grad_enabled(), torch.get_num_threads()),
    )
    try:
        decision = _DECIDED.get(call)
    except TypeError:  # a list for a number
        return False
    if decision is None and native.unobserved() and not native.unwanted():
        if len(_DECIDED) >= MOST_REMEMBERED:
            _DECIDED.clear()
        decision = _DECIDED[call] = _decide(x, weight, bias, stride, padding, dilation, groups)
    return bool(decision) and native.unobserved() and not native.unwanted()


def _exporting() -> bool:
    # What is exported runs elsewhere, without our operator.
    return getattr(torch.compiler, "is_exporting", lambda: False)()


def _decide(x, weight, bias, stride, padding, dilation, groups) -> bool:
    return (
        takes(x, weight, bias, stride, padding, dilation, groups)
        and chosen(x, weight, bias, stride, padding, dilation, groups) == "melcnn"
    )


def compute_by(layer: nn.Conv1d, kernels: str | None) -> nn.Conv1d:
    """The layer, computing by the library's kernels ("torch") or by the faster. It stays an `nn.Conv1d` and nothing
    else, which some counters and tools ask for. Its stride, padding, dilation and groups stay as they are now."""
    settings = layer.stride, layer.padding, layer.dilation
    if kernels == "torch":
        layer.__dict__.pop("_conv_forward", None)
    elif layer.padding_mode == "zeros" and not any(isinstance(one, str) for one in settings):
        (stride,), (padding,), (dilation,) = settings
        layer._conv_forward = functools.partial(
            grouped_conv1d, stride=stride, padding=padding, dilation=dilation, groups=layer.groups
        )
    return layer


@_constant
def kernels(device: str) -> str:
    """Whose convolutions there are for `device`: "melcnn", taken where they are the faster, or only "torch"."""
    if native.unwanted():
        return "torch"
    ours = _triton() if torch.device(device).type == "cuda" else native.library()
    return "melcnn" if ours else "torch"


def takes(x: Tensor, weight: Tensor, bias: Tensor | None, stride, padding, dilation, groups) -> bool:
    """Whether our kernels can compute this."""
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if any(type(tensor) not in (Tensor, nn.Parameter) for tensor in tensors):
        return False  # Others have no memory of their own.
    if not (x.dim() == weight.dim() == 3 and x.dtype == weight.dtype and x.device == weight.device):
        return False
    if not (type(stride) is type(padding) is type(dilation) is type(groups) is int):
        return False
    clips, channels, length = x.shape
    outputs, c_in, taps = weight.shape
    return (
        x.dtype in KINDS.get(x.device.type, ())
        and kernels(x.device.type) == "melcnn"
        and min(stride, dilation, groups) > 0 <= padding
        and clips > 0 < outputs
        and length > 0
        and channels == groups * c_in > 0 == outputs % groups
        and 0 < taps <= MOST_TAPS
        and length + 2 * padding > dilation * (taps - 1)
        and (bias is None or (bias.shape == (outputs,) and bias.dtype == x.dtype and bias.device == x.device))
    )


@functools.cache
def _triton() -> ModuleType | None:
    try:
        from melcnn.kernels import triton_conv  # only here: it takes long to import
    except ImportError:
        return None
    return triton_conv


def chosen(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> str:
    """Whose kernels are the faster for about this shape and the gradients wanted of it: "melcnn" or "torch"."""
    clips, channels, length = x.shape
    # About: so that batches and lengths of all kinds do not mean a measurement each.
    clips = min(1 << (clips - 1).bit_length(), MOST_CLIPS)
    step = 1 << max(length.bit_length() - 4, 0)
    length = -(-length // step) * step
    while clips > 1 and clips * channels * length > MOST_ELEMENTS:
        clips //= 2
    outputs, _, taps = weight.shape
    graph = torch.is_grad_enabled()
    key = (
        "conv1d",
        str(x.dtype),
        str(x.device),
        torch.cuda.get_device_name(x.device) if x.is_cuda else torch.get_num_threads(),
        graph and x.requires_grad,
        graph and weight.requires_grad,
        bias is not None,
        clips,
        channels,
        length,
        outputs,
        taps,
        stride,
        padding,
        dilation,
        groups,
    )
    return _made(key)


@_constant
def _made(key: tuple) -> str:
    return autotune.choose(key, functools.partial(_ways, key), key[2])


def _ways(key: tuple) -> dict:
    _, dtype, device, _, of_input, of_weight, biased, clips, channels, length, outputs, taps, *rest = key
    noise = functools.partial(autotune.noise, dtype=getattr(torch, dtype.removeprefix("torch.")), device=device)
    x = noise(clips, channels, length).requires_grad_(of_input)
    weight = noise(outputs, channels // rest[-1], taps).requires_grad_(of_weight)
    bias = noise(outputs).requires_grad_(of_weight) if biased else None
    wanted = [tensor for tensor in (x, weight, bias) if tensor is not None and tensor.requires_grad]

    def call(convolution) -> None:
        with torch.set_grad_enabled(bool(wanted)):
            y = convolution(x, weight, bias, *rest)
        if wanted:
            torch.autograd.grad(y, wanted, torch.ones_like(y))

    return {
        "torch": functools.partial(call, conv1d),
        "melcnn": functools.partial(call, ours),
    }


class _Sizes(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_long) for name in "clips groups c_in c_out t t_out taps stride padding dilation threads".split()
    ]


def _sizes(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int, groups: int) -> _Sizes:
    clips, _, length = x.shape
    outputs, c_in, taps = weight.shape
    t_out = output_length(x, weight, stride, padding, dilation)
    threads = torch.get_num_threads()
    return _Sizes(clips, groups, c_in, outputs // groups, length, t_out, taps, stride, padding, dilation, threads)


def _call(name: str, sizes: _Sizes, *tensors: Tensor | None) -> None:
    kernel = getattr(native.library(), f"conv_{name}_{KINDS['cpu'][tensors[0].dtype]}")
    native.call(kernel, sizes, *tensors)


def _compute(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> Tensor:
    x, weight, bias = x.contiguous(), weight.contiguous(), None if bias is None else bias.contiguous()
    if x.is_cuda:
        with torch.cuda.device(x.device):
            return _triton().forward(x, weight, bias, stride, padding, dilation, groups)
    y = _empty(x, weight, bias, stride, padding, dilation, groups)
    _call("forward", _sizes(x, weight, stride, padding, dilation, groups), x, weight, bias, y)
    return y


def _gradients(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    dy, x, weight = dy.contiguous(), x.contiguous(), weight.contiguous()
    if x.is_cuda:
        with torch.cuda.device(x.device):
            return _triton().backward(dy, x, weight, stride, padding, dilation, groups, wanted)
    dx, dw, db = _empty_gradients(dy, x, weight, stride, padding, dilation, groups, wanted)
    sizes = _sizes(x, weight, stride, padding, dilation, groups)
    if wanted[0]:
        _call("input_gradient", sizes, dy, weight, dx)
    if wanted[1]:
        _call("weight_gradient", sizes, dy, x, dw, db if wanted[2] else None)
    elif wanted[2]:
        db = dy.sum((0, 2))
    return dx, dw, db


def _librarys_gradients(dy, x, weight, stride, padding, dilation, groups, wanted):
    biases = [weight.shape[0]] if wanted[2] else None
    settings = [stride], [padding], [dilation], False, [0], groups, wanted
    return torch.ops.aten.convolution_backward(dy, x, weight, biases, *settings)


class _Eager(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        _remember(ctx, inputs, None)
        return _compute(*inputs)

    @staticmethod
    def backward(ctx, dy):
        return _differentiate(ctx, dy, _gradients)


def _remember(ctx, inputs, output) -> None:
    x, weight, bias, *ctx.settings = inputs
    ctx.biased = bias is not None
    ctx.save_for_backward(x, weight)


def _differentiate(ctx, dy: Tensor, gradients) -> tuple:
    x, weight = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.biased and ctx.needs_input_grad[2]]
    if torch.is_grad_enabled():  # Somebody wants gradients of gradients, which the library has.
        gradients = _librarys_gradients
    found = gradients(dy, x, weight, *ctx.settings, wanted)
    return *(gradient if want else None for gradient, want in zip(found, wanted, strict=True)), *[None] * 4


# The same as an operator, for compilers and for whoever calls it by its name: what is not for our kernels goes to the
# library's there, too.


@torch.library.custom_op("melcnn::grouped_conv1d", mutates_args=())
def _operator(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> Tensor:
    convolution = _compute if takes(x, weight, bias, stride, padding, dilation, groups) else conv1d
    return convolution(x, weight, bias, stride, padding, dilation, groups).contiguous()


@_operator.register_fake
def _empty(x, weight, bias, stride, padding, dilation, groups):
    return x.new_empty(x.shape[0], weight.shape[0], output_length(x, weight, stride, padding, dilation))


@torch.library.custom_op("melcnn::grouped_conv1d_backward", mutates_args=())
def _operator_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias; an empty tensor for one that is not wanted."""
    fits = takes(x, weight, None, stride, padding, dilation, groups) and dy.dtype == x.dtype and dy.device == x.device
    if fits and dy.shape == (x.shape[0], weight.shape[0], output_length(x, weight, stride, padding, dilation)):
        return _gradients(dy, x, weight, stride, padding, dilation, groups, wanted)
    found = _librarys_gradients(dy, x, weight, stride, padding, dilation, groups, wanted)
    return tuple(x.new_empty(0) if one is None else one.contiguous() for one in found)


@_operator_backward.register_fake
def _empty_gradients(dy, x, weight, stride, padding, dilation, groups, wanted):
    dx = torch.empty_like(x, memory_format=torch.contiguous_format) if wanted[0] else x.new_empty(0)
    dw = torch.empty_like(weight, memory_format=torch.contiguous_format) if wanted[1] else x.new_empty(0)
    return dx, dw, x.new_empty(weight.shape[0] if wanted[2] else 0)


torch.library.register_autograd(
    "melcnn::grouped_conv1d",
    functools.partial(_differentiate, gradients=torch.ops.melcnn.grouped_conv1d_backward),
    setup_context=_remember,
)


# FlopCounterMode counts ours as it counts the library's.
@register_flop_formula(torch.ops.melcnn.grouped_conv1d)
def _flops(x_shape, w_shape, *rest, out_shape=None, **options) -> int:
    return conv_flop_count(x_shape, w_shape, out_shape)


@register_flop_formula(torch.ops.melcnn.grouped_conv1d_backward)
def _backward_flops(
    dy_shape, x_shape, w_shape, stride, padding, dilation, groups, wanted, out_shape=None, **options
) -> int:
    return conv_backward_flop(
        dy_shape,
        x_shape,
        w_shape,
        None,
        [stride],
        [padding],
        [dilation],
        False,
        [0],
        groups,
        wanted,
        out_val=out_shape,
    )
