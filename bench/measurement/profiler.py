"""Split a call's time by kind of operator: convolution, normalisation, ..., and the time between operators.

torch's profiler measures it apart from timed calls, which a profiler slows down.
"""

import functools
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._C._profiler import _RecordFunctionFast as Named
from torch.autograd.profiler_util import FunctionEvent

from bench.timing.clocks import HostClock
from melcnn import native

CONVOLUTION, FUSED_BLOCK, PYTHON, REST = "convolution", "fused block", "Python and launching", "rest"

# By the words in the name of an operator, of its node in autograd or of a kernel; the first kind that fits. Under
# CONVOLUTION also the names of `melcnn.kernels.triton_conv`, whose kernels no operator starts.
WORDS = {
    FUSED_BLOCK: r"melcnn::trunk",
    CONVOLUTION: r"conv(?!ert)|^_(forward|input_gradient|weight_gradient)$",
    "normalisation": r"(batch|layer|group|instance|rms)_?norm",
    "pooling": r"pool",
    "linear/matmul": r"(?<![a-z])(linear|matmul|(add|b|baddb)?mm|lstm|gru)(?![a-z])|mmBackward|attention|rnn",
    "activation": r"relu|threshold|sigmoid|tanh|softmax|softplus|gelu|silu|glu|swish|mish|(?<![a-z])[cs]?elu",
    "optimiser": r"^Optimizer\.",
}

CALL = "melbench::call"
# Calls of a new network before those that count, and how many count: odd, so that the median is one of them.
WARM_UP = 2
CALLS = 11
# Once so many seconds are over no call more begins: of those that take long, a few will do.
SECONDS = 0.2


def of_call(call: Callable[[], object], clock: HostClock, device: str, seconds: float) -> dict[str, float]:
    """Return the fractions of a call's time by kind of operator (`WORDS`, else `REST`), and `PYTHON` between operators.

    What an operator calls counts as its own: all that runs within a convolution is convolution. `FUSED_BLOCK` is
    melbench's own kernels of convolution, ReLU, BatchNorm and pooling in one, which cannot be split.

    On the CPU each kind is the median over calls, with torch's dispatch in it. The profiler's own time, about half a
    microsecond an operator, remains in all kinds: a sixth of the time of a single clip, so that long kinds, such as
    convolution, look smaller by some hundredths than they are; in batches it hardly matters. On CUDA it is the mean of
    the seconds in which kernels ran, of the `seconds` that an undisturbed call takes, and `PYTHON` is the time that the
    device waited for its next kernel.

    Args:
        call: runs operator by operator; the kernels of a captured graph belong to no operator.
        seconds: the duration of an undisturbed call.
    """
    on_gpu = device == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU, *[torch.profiler.ProfilerActivity.CUDA] * on_gpu]
    for _ in range(WARM_UP):
        call()
    clock.synchronize()
    # Accumulating events changes nothing in a single cycle, but that nothing warns of it.
    with _ours_named(), torch.profiler.profile(activities=activities, acc_events=True) as profiler:
        calls, end = 0, clock.now() + SECONDS
        while calls < CALLS and (not calls or clock.now() < end):
            with Named(CALL):
                call()
            calls += 1
        clock.synchronize()
    events = profiler.events()
    if not on_gpu:
        return fractions(_medians([on_cpu(event) for event in events if event.name == CALL]))
    spent = {kind: total / calls for kind, total in on_device(events).items()}
    return fractions({**spent, PYTHON: max(0.0, seconds - sum(spent.values()))} if spent else {})


@functools.cache
def kind_of(name: str) -> str | None:
    """Return the kind that an operator's name tells, or None."""
    return next((kind for kind, words in WORDS.items() if re.search(words, name, re.IGNORECASE)), None)


def on_cpu(call: FunctionEvent) -> Counter[str]:
    """Return seconds by kind within an event: an operator's own, without those of operators that it calls."""
    spent = Counter({PYTHON: call.self_cpu_time_total / 1e6})
    for child in call.cpu_children:
        for event, kind in _within(child):
            spent[kind or REST] += event.self_cpu_time_total / 1e6
    return spent


def on_device(events: Iterable[FunctionEvent]) -> dict[str, float]:
    """Return the seconds in which kernels ran, by kind."""
    spent: dict[str, float] = defaultdict(float)
    started_by_none: dict[str, float] = defaultdict(float)
    for event in events:
        if event.device_type.name == "CUDA" and not getattr(event, "is_user_annotation", False):
            started_by_none[event.name] += event.time_range.elapsed_us()
        elif event.cpu_parent is None:
            for one, kind in _within(event):
                for kernel in one.kernels:
                    spent[kind or kind_of(kernel.name) or REST] += kernel.duration / 1e6
                    started_by_none[kernel.name] -= kernel.duration
    for name, microseconds in started_by_none.items():
        spent[kind_of(name) or REST] += max(0.0, microseconds) / 1e6
    return spent


def fractions(spent: Mapping[str, float]) -> dict[str, float]:
    """Return each value as a fraction of their sum, the largest first; nothing for nothing."""
    total = sum(spent.values())
    return {kind: one / total for kind, one in sorted(spent.items(), key=lambda item: -item[1]) if one > 0}


def mean(launches: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean fractions by kind over launches; empty without launches."""
    return fractions(sum(map(Counter, launches), Counter()))


def _within(event: FunctionEvent, outer: str | None = None) -> Iterator[tuple[FunctionEvent, str | None]]:
    """Yield an event and all that it calls, each with the outermost known kind."""
    kind = outer or kind_of(event.name)
    yield event, kind
    for child in event.cpu_children:
        yield from _within(child, kind)


def _medians(calls: Sequence[Mapping[str, float]]) -> dict[str, float]:
    # Of each kind its own: what holds up a call holds up one operator in it.
    kinds = dict.fromkeys(kind for spent in calls for kind in spent)
    return {kind: statistics.median(spent[kind] for spent in calls) for kind in kinds}


@contextmanager
def _ours_named() -> Iterator[None]:
    """Let the profiler see our C kernels, which are called past torch's operators."""
    call = native.call

    def named(kernel: Any, *arguments: Any) -> None:
        # The public `record_function` takes as long as a small kernel.
        with Named(f"melcnn::{kernel.__name__}"):
            call(kernel, *arguments)

    native.call = named
    try:
        yield
    finally:
        native.call = call
