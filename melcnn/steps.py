"""The training steps of a stack: no step waits for the device, and on CUDA a whole epoch is one captured graph."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from melcnn import augmentation, native
from melcnn.config import Training, Trial
from melcnn.kernels import trunk
from melcnn.model import MelCNN, isolated_random_numbers, stack

# Takes work for the device and a short form of it for warming up; returns a function that repeats the work.
Capture = Callable[[Callable[[], None], Callable[[], None]], Callable[[], None]]


def capture_for(device: str | torch.device) -> Capture | None:
    """Return the function that makes epochs on `device` replayable; None: they run step by step."""
    return cuda_graph if torch.device(device).type == "cuda" else None


class _Draws(NamedTuple):
    """The random choices of one epoch, and its learning rates.

    Attributes:
        order: `(clips, replicas)`, the order of the clips.
        offset: `(clips, replicas)`, the index of the first clip of the rendition that each clip is taken from; None:
            there is one rendition.
        views: `(clips, replicas, VIEW)` (`melcnn.augmentation`); None: no augmentation.
        rates: `(steps, 2)`, the learning rate, and the weight of the new weights in their running mean.
    """

    order: Tensor
    offset: Tensor | None
    views: Tensor | None
    rates: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> "_Draws":
        offset = None if self.offset is None else function(self.offset)
        views = None if self.views is None else function(self.views)
        return _Draws(function(self.order), offset, views, function(self.rates))


class Stack:
    """Networks in training side by side: replica r is initialised and fed by `seeds[r]` alone.

    Args:
        capture: makes an epoch replayable, as returned by `capture_for`; None: epochs run step by step.
        kernels: the kernels that compute the blocks, "melcnn" or "torch"; None: the faster.
    """

    def __init__(
        self,
        trial: Trial,
        seeds: Sequence[int],
        device: str | torch.device = "cpu",
        capture: Capture | None = None,
        kernels: str | None = None,
    ) -> None:
        self.training, self.epochs = trial.training, 0
        self.batch_size = trial.training.batch_size
        self.on_gpu = torch.device(device).type == "cuda"
        self.network = stack([_initial(trial, seed) for seed in seeds]).to(device)
        if not self.on_gpu and not (kernels and native.library()):
            kernels = trunk.choose(self.network, self.batch_size, trial.front_end.frames, picked=True)
        self.network.kernels = kernels
        self.weights = _flattened(list(self.network.parameters()))
        rate = trial.training.learning_rate
        # A captured epoch reads a tensor anew at every step.
        self.rate = torch.tensor(rate, device=device) if self.on_gpu else None
        lr = rate if self.rate is None else self.rate
        self.optimizer = torch.optim.Adam([self.weights], lr=lr, fused=True, capturable=self.on_gpu)
        # Weights decay; biases, scales and shifts do not.
        self.decayed = torch.cat([torch.full_like(p, float(p.dim() > 1)).flatten() for p in self.network.parameters()])
        # All that training changes in the network, and the running mean of it.
        self.live = [self.weights.detach(), *(b for b in self.network.buffers() if b.is_floating_point())]
        self.mean = [tensor.clone() for tensor in self.live] if self.training.ema_decay else []
        # Orders are drawn on the CPU, so that they are the same on every device.
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.capture = capture
        self.captured: tuple[Tensor, Tensor, _Draws, Callable[[], None]] | None = None

    def epoch(self, x: Tensor, labels: Tensor) -> Tensor:
        """Train one epoch over x `(clips, n_mels, frames)` and labels `(clips,)`.

        Each replica has its own order and its own views of the clips. x may hold several renditions of all clips, one
        after another; each replica draws among them.

        Returns:
            the mean training loss `(replicas,)`, still on the device: nothing here waits for the steps.
        """
        draws = self._draw(len(x) // len(labels), len(labels), *x.shape[1:])
        self.epochs += 1
        if self.on_gpu:  # The epoch's only copies to the device: a few numbers per clip.
            draws = draws.map(lambda tensor: tensor.pin_memory().to(x.device, non_blocking=True))
        if self.capture is None:
            return self._pass(x, labels, draws)
        if self.captured is None or self.captured[0] is not x or self.captured[1] is not labels:
            replayed = draws.map(torch.zeros_like)
            self.captured = (x, labels, replayed, self._replayable(self.capture, x, labels, replayed))
        for target, tensor in zip(self.captured[2], draws, strict=True):
            if target is not None and tensor is not None:
                target.copy_(tensor)
        self.captured[3]()
        return self.loss.clone()

    def _draw(self, renditions: int, clips: int, n_mels: int, frames: int) -> _Draws:
        """Draw the random numbers of one epoch, on the CPU."""
        orders, offsets, views = [], [], []
        for generator in self.generators:
            orders.append(torch.randperm(clips, generator=generator))
            if renditions > 1:
                offsets.append(torch.randint(renditions, (clips,), generator=generator) * clips)
            if (view := augmentation.draw(self.training, clips, n_mels, frames, generator)) is not None:
                views.append(view)
        steps = math.ceil(clips / self.batch_size)
        done = [self.epochs + step / steps for step in range(steps)]
        return _Draws(
            order=torch.stack(orders, 1),
            offset=torch.stack(offsets, 1) if offsets else None,
            views=torch.stack(views, 1) if views else None,
            rates=torch.tensor(
                [[learning_rate(self.training, d), averaging_rate(self.training, steps * d)] for d in done]
            ),
        )

    def _pass(self, x: Tensor, labels: Tensor, draws: _Draws) -> Tensor:
        """Train on all clips once and return the mean loss of each replica."""
        replicas, weights = self.network.replicas, list(self.network.parameters())
        total, seen = torch.zeros(replicas, device=x.device), 0
        offsets = None if draws.offset is None else draws.offset.split(self.batch_size)
        views = None if draws.views is None else draws.views.split(self.batch_size)
        for step, batch in enumerate(draws.order.split(self.batch_size)):
            if len(batch) == 1:
                break  # BatchNorm has no statistics of one clip, so this clip is left out of this epoch.
            index = batch if offsets is None else batch + offsets[step]
            view = None if views is None else views[step]
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
            self._update(draws.rates[step])
            total += losses.detach() * len(batch)
            seen += len(batch)
        return total / max(seen, 1)

    @torch.no_grad()
    def _update(self, rates: Tensor) -> None:
        """Take a step of the optimiser at `rates`, a row of `_Draws.rates`."""
        if self.rate is not None:
            self.rate.copy_(rates[0])
        elif self.training.schedule != "constant":
            self.optimizer.param_groups[0]["lr"] = rates[0].item()  # On the CPU, where nothing waits.
        if self.training.weight_decay:
            self.weights.mul_(1 - rates[0] * self.training.weight_decay * self.decayed)
        self.optimizer.step()
        for mean, now in zip(self.mean, self.live, strict=bool(self.mean)):
            mean.lerp_(now, rates[1])

    @contextmanager
    def averaged(self) -> Iterator[MelCNN]:
        """Give the network the running mean of its weights, if there is one, and restore the weights at the end."""
        now = [tensor.clone() for tensor in self.live] if self.mean else []
        self._set(self.mean)
        yield self.network
        self._set(now)

    def _set(self, state: Sequence[Tensor]) -> None:
        for tensor, value in zip(self.live, state, strict=bool(state)):
            tensor.copy_(value)

    def _replayable(self, capture: Capture, x: Tensor, labels: Tensor, draws: _Draws) -> Callable[[], None]:
        """Return a whole epoch, captured, that reads `draws`.

        Capturing trains a little, to make the optimiser's state and choose kernels; that training is undone.
        """
        self.loss = torch.zeros(self.network.replicas, device=x.device)
        weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        mean = [tensor.clone() for tensor in self.mean]
        before = {name: tensor.clone() for name, tensor in self.optimizer.state[self.weights].items()}

        def epoch() -> None:
            self.loss.copy_(self._pass(x, labels, draws))

        def a_batch_of_each_size() -> None:
            few = self.batch_size + len(labels) % self.batch_size
            self._pass(x, labels, draws.map(lambda tensor: tensor[:few]))

        replay = capture(epoch, a_batch_of_each_size)
        self.network.load_state_dict(weights)
        for tensor, value in zip(self.mean, mean, strict=True):
            tensor.copy_(value)
        for name, tensor in self.optimizer.state[self.weights].items():
            # A new optimiser has no moments yet, which equals zeros.
            tensor.copy_(before[name]) if before else tensor.zero_()
        return replay


# The share of a cosine schedule in which the learning rate rises.
WARM_UP = 0.05


def learning_rate(training: Training, epochs: float) -> float:
    """Return the learning rate after so many epochs.

    It is constant, or it rises linearly to `training.learning_rate` and falls as half a cosine to 0 (Loshchilov and
    Hutter, arXiv:1608.03983).
    """
    if training.schedule == "constant":
        return training.learning_rate
    done = epochs / training.epochs
    rising = min(1.0, (done + 1e-3) / WARM_UP)
    return training.learning_rate * rising * 0.5 * (1 + math.cos(math.pi * max(0.0, done - WARM_UP) / (1 - WARM_UP)))


def averaging_rate(training: Training, steps: float) -> float:
    """Return the weight of the newest weights in their running mean after so many steps.

    At first it is about that of a plain mean of the steps so far, then 1 - `training.ema_decay`.
    """
    return max(1 - training.ema_decay, 9 / (10 + steps))


def _flattened(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """Return one parameter that holds all of `parameters`, which become views of it.

    An optimiser spends as long on each parameter as a kernel takes.
    """
    whole = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    parts = whole.detach().split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part.view_as(parameter)
    return whole


def bytes_to_train(trial: Trial, clips: int) -> int:
    """Estimate the bytes that the training of one replica on `clips` clips needs.

    These are the weights with their gradients and Adam's two moments, and for each clip of a batch the tensors that
    autograd keeps for the backward pass, and as much again for their gradients.
    """
    network, few = _initial(trial, 0), 2
    network.kernels = "torch"  # torch's layers keep more than our kernels do.
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = network(torch.zeros(few, trial.front_end.n_mels, trial.front_end.frames))
    weights = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in network.parameters()}
    del logits  # Until here its graph holds the kept tensors.
    activations = sum(size for where, size in kept.items() if where not in weights) // few
    return 4 * sum(weights.values()) + 2 * activations * min(trial.training.batch_size, clips)


def cuda_graph(epoch: Callable[[], None], warm_up: Callable[[], None]) -> Callable[[], None]:
    """Capture `epoch` as a CUDA graph and return its replay; `warm_up` runs first on a stream of its own, as needed."""
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
    with isolated_random_numbers():
        torch.manual_seed(seed)
        return MelCNN.of(trial)
