"""A grouped convolution in one dimension whose time falls with its multiply-accumulates.

Torch's kernels hardly gain from groups: on a CPU and on a GPU 16 groups take about as long as one. Ours
(`melcnn/native/grouped_conv.c`, `melcnn.kernels.triton_conv`) do. Each shape uses the faster of both, by a measurement
that is made once per machine and cached (`melcnn.kernels.autotune`).
"""

import ctypes
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d
from torch.utils.flop_counter import conv_backward_flop, conv_flop_count, register_flop_formula

from melcnn import native
from melcnn.kernels import autotune, cuda
from melcnn.kernels.shapes import output_length

KINDS = {"cpu": {torch.float32: "float", torch.float64: "double"}, "cuda": {torch.float32: "float"}}
MAX_TAPS = 64
# In the measurement that chooses. On a GPU some of cuDNN's convolutions of 1024 clips take 15 GB, so choices
# for larger batches are taken to be those for 256.
MAX_CLIPS, MAX_ELEMENTS = {"cpu": 1024, "cuda": 256}, 1 << 24

Function = TypeVar("Function", bound=Callable[..., object])


def _constant(function: Function) -> Function:
    """Mark a function as `torch.compiler.assume_constant_result` does: to torch.compile its result is a constant."""
    # torch's own function sets this attribute and nothing else, but imports the compiler first, which would add a
    # second to every command's start.
    function.__dict__["_dynamo_marked_constant"] = True
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
    """Compute `torch.nn.functional.conv1d`, by our kernels where they are faster.

    Our kernels take float32 and float64 on the CPU and float32 on CUDA, integer arguments and up to 64 taps. Torch
    computes everything else, and reports arguments that are wrong. Results are equal up to rounding. Ours are
    the same in each run on one device, and on the CPU for any number of threads; cuDNN's may differ from run to run.

    Args:
        x: `(batch, groups * c_in, length)`.
        weight: `(groups * c_out, c_in, taps)`.
        bias: `(groups * c_out)`.

    Returns:
        `(batch, groups * c_out, (length + 2 padding - dilation (taps - 1) - 1) // stride + 1)`.
    """
    if uses_ours(x, weight, bias, stride, padding, dilation, groups):
        return ours(x, weight, bias, stride, padding, dilation, groups)
    return conv1d(x, weight, bias, stride, padding, dilation, groups)


def ours(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> Tensor:
    """Compute `grouped_conv1d` by our kernels even where they are slower; they must support the arguments."""
    if torch.compiler.is_compiling():
        return torch.ops.melcnn.grouped_conv1d(x, weight, bias, stride, padding, dilation, groups)
    # Not through the operator: the dispatcher takes longer to call Python than a small convolution takes.
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return _Eager.apply(x, weight, bias, stride, padding, dilation, groups)
    return _compute(x, weight, bias, stride, padding, dilation, groups)


# The decisions so far, by call: a small convolution takes no longer than a decision.
_DECIDED: dict[tuple[object, ...], bool] = {}
MAX_DECISIONS = 4096


def uses_ours(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> bool:
    """Return whether `grouped_conv1d` uses our kernels for this call."""
    if torch.compiler.is_compiling():
        needs_torch = torch.is_autocast_enabled(x.device.type) or _exporting()
        return not needs_torch and _decide(x, weight, bias, stride, padding, dilation, groups)
    call = (
        *(x.shape, x.dtype, x.is_cpu, x.requires_grad, weight.shape, weight.dtype, weight.is_cpu, weight.requires_grad),
        None if bias is None else (bias.shape, bias.dtype, bias.is_cpu),
        *(stride, padding, dilation, groups, torch.is_grad_enabled()),
        torch.get_num_threads() if x.is_cpu else cuda.precision(),
    )
    try:
        decision = _DECIDED.get(call)
    except TypeError:  # An argument is a list, which torch takes and a dictionary does not.
        return False
    if decision is None and native.is_eager() and not native.disabled():
        if len(_DECIDED) >= MAX_DECISIONS:
            _DECIDED.clear()
        decision = _DECIDED[call] = _decide(x, weight, bias, stride, padding, dilation, groups)
    return bool(decision) and native.is_eager() and not native.disabled()


def _exporting() -> bool:
    # An exported network runs elsewhere, without our operator.
    return getattr(torch.compiler, "is_exporting", lambda: False)()


def _decide(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> bool:
    return (
        supports(x, weight, bias, stride, padding, dilation, groups)
        and faster_kernels(x, weight, bias, stride, padding, dilation, groups) == "melcnn"
    )


@_constant
def kernels(device: str) -> str:
    """Return "melcnn" if there are kernels of ours for `device`, used where they are faster; else "torch"."""
    if native.disabled():
        return "torch"
    ours = _triton() if torch.device(device).type == "cuda" else native.library()
    return "melcnn" if ours else "torch"


def supports(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> bool:
    """Return whether our kernels can compute this."""
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if any(type(tensor) not in (Tensor, nn.Parameter) for tensor in tensors):
        return False  # Other types have no memory of their own.
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
        and 0 < taps <= MAX_TAPS
        and length + 2 * padding > dilation * (taps - 1)
        and (x.is_cpu or _on_grid(weight, groups, length + 2 * padding))
        and (bias is None or (bias.shape == (outputs,) and bias.dtype == x.dtype and bias.device == x.device))
    )


def _on_grid(weight: Tensor, groups: int, longest: int) -> bool:
    triton_conv = _triton()
    return triton_conv is not None and triton_conv.on_grid(weight.shape, groups, longest)


@functools.cache
def _triton() -> ModuleType | None:
    try:
        from melcnn.kernels import triton_conv  # Only where it is needed: the import is slow.
    except ImportError:
        return None
    return triton_conv


def faster_kernels(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> str:
    """Return the faster kernels for about this shape and the gradients that it needs: "melcnn" or "torch"."""
    clips, channels, length = x.shape
    # Rounded, so that not every batch size and length needs a measurement.
    clips = min(1 << (clips - 1).bit_length(), MAX_CLIPS[x.device.type])
    step = 1 << max(length.bit_length() - 4, 0)
    length = -(-length // step) * step
    while clips > 1 and clips * channels * length > MAX_ELEMENTS:
        clips //= 2
    outputs, _, taps = weight.shape
    graph = torch.is_grad_enabled()
    key = (
        *("conv1d", str(x.dtype), str(x.device)),
        f"{torch.cuda.get_device_name(x.device)} {cuda.precision()}" if x.is_cuda else torch.get_num_threads(),
        *(graph and x.requires_grad, graph and weight.requires_grad, bias is not None),
        *(clips, channels, length, outputs, taps, stride, padding, dilation, groups),
    )
    return _choose(key)


@_constant
def _choose(key: tuple[Any, ...]) -> str:
    return autotune.choose(key, functools.partial(_candidates, key), key[2])


def _candidates(key: tuple[Any, ...]) -> dict[str, Callable[[], None]]:
    _, dtype, device, _, of_input, of_weight, biased, clips, channels, length, outputs, taps, *rest = key
    data = functools.partial(autotune.random_data, dtype=getattr(torch, dtype.removeprefix("torch.")), device=device)
    x = data(clips, channels, length).requires_grad_(of_input)
    weight = data(outputs, channels // rest[-1], taps).requires_grad_(of_weight)
    bias = data(outputs).requires_grad_(of_weight) if biased else None
    wanted = [tensor for tensor in (x, weight, bias) if tensor is not None and tensor.requires_grad]

    def call(convolution: Callable[..., Tensor]) -> None:
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


def _call(name: str, sizes: _Sizes, first: Tensor, *others: Tensor | None) -> None:
    kernel = getattr(native.library(), f"conv_{name}_{KINDS['cpu'][first.dtype]}")
    native.call(kernel, sizes, first, *others)


def _compute(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> Tensor:
    x, weight, bias = x.contiguous(), weight.contiguous(), None if bias is None else bias.contiguous()
    if x.is_cuda:
        triton_conv = _triton()
        assert triton_conv is not None  # `supports` has seen to it.
        with torch.cuda.device(x.device):
            return triton_conv.forward(x, weight, bias, stride, padding, dilation, groups)
    y = _empty(x, weight, bias, stride, padding, dilation, groups)
    _call("forward", _sizes(x, weight, stride, padding, dilation, groups), x, weight, bias, y)
    return y


def _gradients(
    dy: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int, groups: int, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    dy, x, weight = dy.contiguous(), x.contiguous(), weight.contiguous()
    if x.is_cuda:
        triton_conv = _triton()
        assert triton_conv is not None  # `supports` has seen to it.
        with torch.cuda.device(x.device):
            return triton_conv.backward(dy, x, weight, stride, padding, dilation, groups, wanted)
    dx, dw, db = _empty_gradients(dy, x, weight, stride, padding, dilation, groups, wanted)
    sizes = _sizes(x, weight, stride, padding, dilation, groups)
    if wanted[0]:
        _call("input_gradient", sizes, dy, weight, dx)
    if wanted[1]:
        _call("weight_gradient", sizes, dy, x, dw, db if wanted[2] else None)
    elif wanted[2]:
        db = dy.sum((0, 2))
    return dx, dw, db


def _torch_gradients(
    dy: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int, groups: int, wanted: list[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    biases = [weight.shape[0]] if wanted[2] else None
    settings = [stride], [padding], [dilation], False, [0], groups, wanted
    return torch.ops.aten.convolution_backward(dy, x, weight, biases, *settings)


class _Eager(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        _setup_context(ctx, inputs, None)
        return _compute(*inputs)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return _differentiate(ctx, dy, _gradients)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor | None) -> None:
    x, weight, bias, *ctx.settings = inputs
    ctx.biased = bias is not None
    ctx.save_for_backward(x, weight)


def _differentiate(
    ctx: Any, dy: Tensor, gradients: Callable[..., tuple[Tensor | None, ...]]
) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.biased and ctx.needs_input_grad[2]]
    if torch.is_grad_enabled():  # Gradients of gradients are wanted, which torch alone has.
        gradients = _torch_gradients
    found = gradients(dy, x, weight, *ctx.settings, wanted)
    return *(gradient if want else None for gradient, want in zip(found, wanted, strict=True)), *[None] * 4


# The same as an operator of torch, for compilers and for callers by name. Here too torch computes what our kernels do
# not support.


@torch.library.custom_op("melcnn::grouped_conv1d", mutates_args=())
def _operator(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> Tensor:
    convolution = _compute if supports(x, weight, bias, stride, padding, dilation, groups) else conv1d
    return convolution(x, weight, bias, stride, padding, dilation, groups).contiguous()


@_operator.register_fake
def _empty(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], output_length(x, weight, stride, padding, dilation))


@torch.library.custom_op("melcnn::grouped_conv1d_backward", mutates_args=())
def _operator_backward(
    dy: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int, groups: int, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias; an empty tensor for one that is not wanted."""
    fits = (
        supports(x, weight, None, stride, padding, dilation, groups) and dy.dtype == x.dtype and dy.device == x.device
    )
    if fits and dy.shape == (x.shape[0], weight.shape[0], output_length(x, weight, stride, padding, dilation)):
        return _gradients(dy, x, weight, stride, padding, dilation, groups, wanted)
    dx, dw, db = (
        x.new_empty(0) if one is None else one.contiguous()
        for one in _torch_gradients(dy, x, weight, stride, padding, dilation, groups, wanted)
    )
    return dx, dw, db


@_operator_backward.register_fake
def _empty_gradients(
    dy: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int, groups: int, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty_like(x, memory_format=torch.contiguous_format) if wanted[0] else x.new_empty(0)
    dw = torch.empty_like(weight, memory_format=torch.contiguous_format) if wanted[1] else x.new_empty(0)
    return dx, dw, x.new_empty(weight.shape[0] if wanted[2] else 0)


torch.library.register_autograd(
    "melcnn::grouped_conv1d",
    functools.partial(_differentiate, gradients=torch.ops.melcnn.grouped_conv1d_backward),
    setup_context=_setup_context,
)


# FlopCounterMode counts our operators as it counts torch's.
@register_flop_formula(torch.ops.melcnn.grouped_conv1d)
def _flops(x_shape: list[int], w_shape: list[int], *rest: object, out_shape: list[int], **options: object) -> int:
    return conv_flop_count(x_shape, w_shape, out_shape)


@register_flop_formula(torch.ops.melcnn.grouped_conv1d_backward)
def _backward_flops(
    dy_shape: list[int],
    x_shape: list[int],
    w_shape: list[int],
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    wanted: list[bool],
    out_shape: list[list[int]],
    **options: object,
) -> int:
    # torch wraps its formulas, and the wrapper takes `out_val`.
    return conv_backward_flop(  # type: ignore[call-arg]
        dy_shape, x_shape, w_shape, None, [stride], [padding], [dilation], False, [0], groups, wanted, out_val=out_shape
    )
