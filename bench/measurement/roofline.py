"""The least time of a workload, and what binds it: arithmetic, memory, or launching operators.

The roofline model (Williams, Waterman and Patterson, CACM 52(4), 2009), operator by operator as they run one
after another: each takes at least its FLOPs at the matmul rate, its bytes at the copy bandwidth, and a launch.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.counting.formulas import UncountedOperator, cost_of, operator_name
from bench.measurement.peaks import Peaks

ARITHMETIC, MEMORY, LAUNCHES = "arithmetic", "memory", "launch overhead"

# Memory that is only reserved: nothing is read or written.
RESERVING = frozenset("empty empty_like empty_strided empty_permuted new_empty new_empty_strided".split())

LOOKUPS = frozenset("index index_select gather embedding".split())

# A device that computes for less than this share of the elapsed time waits for its launches.
WAITING = 0.5


@dataclass(frozen=True)
class OperatorTraffic:
    """An operator that ran: its FLOPs (0 without a formula) and the bytes of its operands and results."""

    operator: str
    flops: float
    bytes: int


class Floor(BaseModel):
    """The least seconds for a workload, and what they are mostly spent on.

    Attributes:
        bound_when_busy: the same without launches.
        operators: the number that ran.
        flops, bytes: the totals.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    bound: str
    bound_when_busy: str
    operators: int
    flops: float
    bytes: int


def operations(call: Callable[[], object]) -> list[OperatorTraffic]:
    """Run `call` once and return every operator that computes or moves data; views and allocations do neither."""
    listener = _Listener()
    with listener:
        call()
    return listener.operators


def floor(operators: Sequence[OperatorTraffic], ceilings: Peaks) -> Floor:
    """Return the floor of operations that run one after another."""
    least: dict[str, float] = defaultdict(float)
    busy: dict[str, float] = defaultdict(float)
    for one in operators:
        seconds = {
            ARITHMETIC: one.flops / ceilings.flops_per_second,
            MEMORY: one.bytes / ceilings.bandwidth(one.bytes),
        }
        largest = max(seconds, key=lambda name: seconds[name])
        busy[largest] += seconds[largest]
        least[largest if seconds[largest] > ceilings.launch_seconds else LAUNCHES] += max(
            seconds[largest], ceilings.launch_seconds
        )
    return Floor(
        seconds=sum(least.values()),
        bound=_largest(least),
        bound_when_busy=_largest(busy),
        operators=len(operators),
        flops=sum(one.flops for one in operators),
        bytes=sum(one.bytes for one in operators),
    )


def _largest(seconds: Mapping[str, float]) -> str:
    return max(seconds, key=lambda name: seconds[name], default=LAUNCHES)


def bound(found: Floor, elapsed: float, busy: float | None, on_gpu: bool) -> str:
    """Return what binds a workload that took `elapsed` seconds.

    A GPU is said to wait for launches only if the seconds for which it was busy show it; on the CPU, launching is the
    CPU's own work.
    """
    if not on_gpu:
        return found.bound
    waits = busy is not None and busy < WAITING * elapsed
    return LAUNCHES if waits else found.bound_when_busy


class _Listener(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operators: list[OperatorTraffic] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # In inference mode operators that are made of others arrive whole; only the parts have formulas.
        with self:
            parts = operator.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        out = operator(*args, **kwargs)
        name = operator_name(operator)
        if operator.is_view or name in RESERVING:
            return out
        try:
            cost = cost_of(operator, args, kwargs, out)
        except (UncountedOperator, TypeError):
            cost = None  # An optimiser's fused update, say: its bytes still hold, so the floor stays one.
        # What is looked up in a table is as much as comes out; the rest of the table is not read.
        read = [out, out] if name in LOOKUPS else [args, kwargs, out]
        tensors = [t for t in tree_leaves(read) if isinstance(t, Tensor)]
        distinct = tensors if name in LOOKUPS else {id(t): t for t in tensors}.values()
        # An expanded tensor has more elements than memory.
        moved = sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in distinct)
        if moved:
            self.operators.append(OperatorTraffic(name, cost.flops if cost else 0.0, moved))
        return out
