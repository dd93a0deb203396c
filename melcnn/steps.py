"""Training steps of a stack, with nothing between them that waits: kernels on the CPU, a captured graph on CUDA."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from melcnn import augmentation, native
from melcnn.config import Training, Trial
from melcnn.kernels import trunk
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
        self.training, self.epochs = trial.training, 0
        self.batch_size = trial.training.batch_size
        self.on_gpu = torch.device(device).type == "cuda"
        self.network = stack([_initial(trial, seed) for seed in seeds]).to(device)
        if not self.on_gpu and not (kernels and native.library()):
            kernels = trunk.choose(self.network, self.batch_size, trial.front_end.frames, picked=True)
        self.network.kernels = kernels
        self.weights = _in_one(list(self.network.parameters()))
        rate = trial.training.learning_rate
        # As a tensor a captured epoch reads it anew at every step.
        self.rate = torch.tensor(rate, device=device) if self.on_gpu else rate
        self.optimizer = torch.optim.Adam([self.weights], lr=self.rate, fused=True, capturable=self.on_gpu)
        # Decay pulls at what multiplies, not at biases, scales and shifts.
        self.decayed = torch.cat([torch.full_like(p, float(p.dim() > 1)).flatten() for p in self.network.parameters()])
        # All that training changes in the network, and its running mean.
        self.live = [self.weights.detach(), *(b for b in self.network.buffers() if b.is_floating_point())]
        self.mean = [tensor.clone() for tensor in self.live] if self.training.ema_decay else []
        # Orders are drawn on the CPU, so that they are the same on every device.
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.capture = capture
        self.captured: tuple[Tensor, Tensor, Callable[[], None]] | None = None

    def epoch(self, x: Tensor, labels: Tensor) -> Tensor:
        """One pass over x (clips, n_mels, frames) and labels (clips,), each replica in its own order and with its own
        views of the clips. x may hold several renditions of all clips, one after another, of which each replica draws.

        Returns the mean training loss `(replicas,)`, still on the device: nothing here waits for the steps.
        """
        pass_ = self._draw(len(x) // len(labels), len(labels), *x.shape[1:])
        self.epochs += 1
        if self.on_gpu:  # The epoch's copies to the device, of some numbers a clip.
            pass_ = {k: v if v is None else v.pin_memory().to(x.device, non_blocking=True) for k, v in pass_.items()}
        if self.capture is None:
            return self._pass(x, labels, **pass_)
        if self.captured is None or self.captured[0] is not x or self.captured[1] is not labels:
            self.drawn = {
                name: tensor if tensor is None else torch.zeros_like(tensor) for name, tensor in pass_.items()
            }
            self.captured = (x, labels, self._replayable(x, labels))
        for name, tensor in pass_.items():
            if tensor is not None:
                self.drawn[name].copy_(tensor)
        self.captured[2]()
        return self.loss.clone()

    def _draw(self, renditions: int, clips: int, n_mels: int, frames: int) -> dict[str, Tensor | None]:
        """All that an epoch leaves to chance, and the learning rate of each step; on the CPU."""
        orders, offsets, views = [], [], []
        for generator in self.generators:
            orders.append(torch.randperm(clips, generator=generator))
            if renditions > 1:
                offsets.append(torch.randint(renditions, (clips,), generator=generator) * clips)
            views.append(augmentation.draw(self.training, clips, n_mels, frames, generator))
        steps = math.ceil(clips / self.batch_size)
        done = [self.epochs + step / steps for step in range(steps)]
        return {
            "order": torch.stack(orders, 1),
            "offset": torch.stack(offsets, 1) if offsets else None,
            "views": None if views[0] is None else torch.stack(views, 1),
            "rates": torch.tensor([[rate(self.training, d), averaging(self.training, steps * d)] for d in done]),
        }

    def _pass(
        self, x: Tensor, labels: Tensor, order: Tensor, offset: Tensor | None, views: Tensor | None, rates: Tensor
    ) -> Tensor:
        replicas, weights = self.network.replicas, list(self.network.parameters())
        total, seen = torch.zeros(replicas, device=x.device), 0
        batches = [None if each is None else each.split(self.batch_size) for each in (order, offset, views)]
        for step, batch in enumerate(batches[0]):
            if len(batch) == 1:
                break  # BatchNorm has no statistics of one clip, so this one waits for another epoch.
            index = batch if offset is None else batch + batches[1][step]
            view = None if views is None else batches[2][step]
            logits = self.network(x, index, view).unflatten(1, (replicas, -1))  # (batch, R, classes)
            # The mean over a replica's own batch, then the sum over replicas: no gradient is shared or scaled.
            losses = cross_entropy(
                logits.transpose(1, 2),
                labels[batch],
                reduction="none",
                label_smoothing=self.training.label_smoothing,
            ).mean(0)
            gradients = torch.autograd.grad(losses.sum(), weights)
            self.weights.grad = torch.cat([gradient.flatten() for gradient in gradients])
            self._update(rates[step])
            total += losses.detach() * len(batch)
            seen += len(batch)
        return total / max(seen, 1)

    @torch.no_grad()
    def _update(self, rates: Tensor) -> None:
        """A step of the optimiser; rates: of learning, and the weight of the new weights in their running mean."""
        if self.on_gpu:
            self.rate.copy_(rates[0])
        elif self.training.schedule != "constant":
            self.optimizer.param_groups[0]["lr"] = rates[0].item()  # on the CPU, where nothing waits
        if self.training.weight_decay:
            self.weights.mul_(1 - rates[0] * self.training.weight_decay * self.decayed)
        self.optimizer.step()
        for mean, now in zip(self.mean, self.live, strict=bool(self.mean)):
            mean.lerp_(now, rates[1])

    @contextmanager
    def averaged(self) -> Iterator[MelCNN]:
        """The network with the running mean of its weights, where the training keeps one."""
        now = [tensor.clone() for tensor in self.live] if self.mean else []
        self._set(self.mean)
        yield self.network
        self._set(now)

    def _set(self, state: Sequence[Tensor]) -> None:
        for tensor, value in zip(self.live, state, strict=bool(state)):
            tensor.copy_(value)

    def _replayable(self, x: Tensor, labels: Tensor) -> Callable[[], None]:
        """A whole epoch, captured. What capturing runs, to make the optimiser's state and choose kernels, is undone."""
        self.loss = torch.zeros(self.network.replicas, device=x.device)
        weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        mean = [tensor.clone() for tensor in self.mean]
        before = {name: tensor.clone() for name, tensor in self.optimizer.state[self.weights].items()}

        def epoch() -> None:
            self.loss.copy_(self._pass(x, labels, **self.drawn))

        def a_batch_of_each_size() -> None:
            few = self.batch_size + len(labels) % self.batch_size
            self._pass(x, labels, **{name: t if t is None else t[:few] for name, t in self.drawn.items()})

        replay = self.capture(epoch, a_batch_of_each_size)
        self.network.load_state_dict(weights)
        for tensor, value in zip(self.mean, mean, strict=True):
            tensor.copy_(value)
        for name, tensor in self.optimizer.state[self.weights].items():
            # A new optimiser has no moments yet, which is as good as zeros.
            tensor.copy_(before[name]) if before else tensor.zero_()
        return replay


# The share of a cosine schedule in which the learning rate rises.
WARM_UP = 0.05


def rate(training: Training, epochs: float) -> float:
    """The learning rate after so many epochs: constant, or rising in a line to `training.learning_rate` and falling as
    half a cosine to 0 (Loshchilov and Hutter, arXiv:1608.03983)."""
    if training.schedule == "constant":
        return training.learning_rate
    done = epochs / training.epochs
    rising = min(1.0, (done + 1e-3) / WARM_UP)
    return training.learning_rate * rising * 0.5 * (1 + math.cos(math.pi * max(0.0, done - WARM_UP) / (1 - WARM_UP)))


def averaging(training: Training, steps: float) -> float:
    """The weight of the newest weights in their running mean after so many steps: at first that of a plain mean of few,
    then 1 - `training.ema_decay`."""
    return max(1 - training.ema_decay, 9 / (10 + steps))


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
        return MelCNN.of(trial)
