"""Training steps of a stack, with nothing between them that waits: kernels on the CPU, a captured graph on CUDA."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from melcnn import native, trunk
from melcnn.config import Trial
from melcnn.model import MelCNN, drawing, stack

# Takes work for the device and a short form of it to warm up with; returns what gives the device that work again.
Capture = Callable[[Callable[[], None], Callable[[], None]], Callable[[], None]]


def capture_for(device: str | torch.device) -> Capture | None:
    """How epochs on `device` are made replayable; None: they are not, but run step by step."""
    return cuda_graph if torch.device(device).type == "cuda" else None


class Stack:
    """Networks in training side by side: replica r is initialised and fed by `seeds[r]` alone.

    capture: how an epoch is made replayable, as `capture_for` says; None: it is run step by step. kernels: whose
    compute the blocks, "melcnn" or "torch"; None: the faster.
    """

    def __init__(
        self,
        trial: Trial,
        seeds: Sequence[int],
        device: str | torch.device = "cpu",
        capture: Capture | None = None,
        kernels: str | None = None,
    ):
        self.batch_size = trial.training.batch_size
        self.on_gpu = torch.device(device).type == "cuda"
        self.network = stack([_initial(trial, seed) for seed in seeds]).to(device)
        if not self.on_gpu and not (kernels and native.library()):
            kernels = trunk.choose(self.network, self.batch_size, trial.front_end.frames, picked=True)
        self.network.kernels = kernels
        self.weights = _in_one(list(self.network.parameters()))
        self.optimizer = torch.optim.Adam(
            [self.weights], lr=trial.training.learning_rate, fused=True, capturable=self.on_gpu
        )
        # Orders are drawn on the CPU, so that they are the same on every device.
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.capture = capture
        self.captured: tuple[Tensor, Tensor, Callable[[], None]] | None = None

    def epoch(self, x: Tensor, labels: Tensor) -> Tensor:
        """One pass over x (clips, n_mels, frames) and labels (clips,), each replica in its own order.

        Returns the mean training loss `(replicas,)`, still on the device: nothing here waits for the steps.
        """
        order = torch.stack([torch.randperm(len(x), generator=g) for g in self.generators], 1)
        if self.on_gpu:  # The epoch's one copy to the device, of clips x R indices.
            order = order.pin_memory().to(x.device, non_blocking=True)
        if self.capture is None:
            return self._pass(x, labels, order)
        if self.captured is None or self.captured[0] is not x or self.captured[1] is not labels:
            self.captured = (x, labels, self._replayable(x, labels))
        self.order.copy_(order)
        self.captured[2]()
        return self.loss.clone()

    def _pass(self, x: Tensor, labels: Tensor, order: Tensor) -> Tensor:
        replicas, weights = self.network.replicas, list(self.network.parameters())
        total, seen = torch.zeros(replicas, device=x.device), 0
        for batch in order.split(self.batch_size):
            if len(batch) == 1:
                break  # BatchNorm has no statistics of one clip, so this one waits for another epoch.
            logits = self.network(x, batch).unflatten(1, (replicas, -1))  # (batch, R, classes)
            # The mean over a replica's own batch, then the sum over replicas: no gradient is shared or scaled.
            losses = cross_entropy(logits.transpose(1, 2), labels[batch], reduction="none").mean(0)
            gradients = torch.autograd.grad(losses.sum(), weights)
            self.weights.grad = torch.cat([gradient.flatten() for gradient in gradients])
            self.optimizer.step()
            total += losses.detach() * len(batch)
            seen += len(batch)
        return total / max(seen, 1)

    def _replayable(self, x: Tensor, labels: Tensor) -> Callable[[], None]:
        """A whole epoch, captured. What capturing runs, to make the optimiser's state and choose kernels, is undone."""
        self.order = torch.zeros(len(x), self.network.replicas, dtype=torch.long, device=x.device)
        self.loss = torch.zeros(self.network.replicas, device=x.device)
        weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        before = {name: tensor.clone() for name, tensor in self.optimizer.state[self.weights].items()}

        def epoch() -> None:
            self.loss.copy_(self._pass(x, labels, self.order))

        def a_batch_of_each_size() -> None:
            self._pass(x, labels, self.order[: self.batch_size + len(x) % self.batch_size])

        replay = self.capture(epoch, a_batch_of_each_size)
        self.network.load_state_dict(weights)
        for name, tensor in self.optimizer.state[self.weights].items():
            # A new optimiser has no moments yet, which is as good as zeros.
            tensor.copy_(before[name]) if before else tensor.zero_()
        return replay


def _in_one(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """A parameter that holds all of `parameters`, which become views of it: for an optimiser, each one is a detour as
    long as a kernel."""
    whole = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    parts = whole.detach().split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part.view_as(parameter)
    return whole


def bytes_to_train(trial: Trial, clips: int) -> int:
    """About how many bytes the training of one replica on `clips` clips needs: weights with their gradients and Adam's
    two moments, and for each clip of a batch what autograd keeps for the backward pass, whose gradients take as much
    again."""
    network, few = _initial(trial, 0), 2
    network.kernels = "torch"  # whose layers keep more than our kernels do
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = network(torch.zeros(few, trial.front_end.n_mels, trial.front_end.frames))
    weights = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in network.parameters()}
    del logits  # Until here its graph holds what was kept.
    activations = sum(size for where, size in kept.items() if where not in weights) // few
    return 4 * sum(weights.values()) + 2 * activations * min(trial.training.batch_size, clips)


def cuda_graph(epoch: Callable[[], None], warm_up: Callable[[], None]) -> Callable[[], None]:
    """`epoch` as a CUDA graph. warm_up runs before, on a stream of its own, as capturing needs."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        warm_up()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        epoch()
    return graph.replay


def _initial(trial: Trial, seed: int) -> MelCNN:
    with drawing():
        torch.manual_seed(seed)
        return MelCNN(
            n_mels=trial.front_end.n_mels,
            groups=trial.model.groups,
            channels=trial.model.channels,
            n_classes=len(trial.data.words),
        )
