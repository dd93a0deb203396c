"""The training steps of a stack: no step waits for the device, and on CUDA each step is the replay of a graph."""

import functools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from melcnn import augmentation, native
from melcnn.config import Training, Trial
from melcnn.errors import first_line
from melcnn.kernels import conv_layer, cuda, trunk
from melcnn.model import MelCNN, isolated_random_numbers, stack

log = logging.getLogger(__name__)

# Takes a training step, runs it to warm up, and returns a function that repeats it.
Capture = Callable[[Callable[[], object]], Callable[[], object]]


def capture_for(device: str | torch.device) -> Capture | None:
    """Return the function that makes steps on `device` replayable; None: they run operator by operator."""
    if torch.device(device).type != "cuda":
        return None
    if not cuda.can_capture():
        log.warning("steps run operator by operator, which is slower: a CUDA graph could not be captured before")
        return None
    return cuda.captured


class _Draws(NamedTuple):
    """The random choices of an epoch, or of a batch of it, and the rates of its steps.

    Attributes:
        order: `(clips, replicas)`, indices into the features of all renditions.
        views: `(clips, replicas, VIEW)` (`melcnn.augmentation`); None: no augmentation.
        rates: `(steps, 2)`, the learning rate, and the weight of the new weights in their running mean.
    """

    order: Tensor
    views: Tensor | None
    rates: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> "_Draws":
        return _Draws(
            function(self.order), self.views if self.views is None else function(self.views), function(self.rates)
        )

    def batches(self, size: int) -> "Iterator[_Draws]":
        """Return an epoch's batches, without a last one of a single clip, of which BatchNorm has no statistics."""
        for step, order in enumerate(self.order.split(size)):
            if len(order) > 1:
                part = slice(step * size, step * size + len(order))
                yield _Draws(order, self.views if self.views is None else self.views[part], self.rates[step : step + 1])

    def copy_(self, other: "_Draws") -> None:
        for target, tensor in zip(self, other, strict=True):
            if target is not None and tensor is not None:
                target.copy_(tensor)


GPU_PARTS = 32  # of the weights, for the optimiser's kernel


class Stack:
    """Networks in training side by side: replica r is initialised and fed by `seeds[r]` alone.

    Args:
        capture: makes a step replayable, as returned by `capture_for`; None: steps run operator by operator.
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
        # A kernel of the fused optimiser gives each tensor to few of a GPU's processors, so there it gets several.
        self.parts = [nn.Parameter(part) for part in self.weights.detach().chunk(GPU_PARTS if self.on_gpu else 1)]
        # A captured step reads the tensor anew at each replay.
        self.rate = torch.tensor(rate, device=device) if self.on_gpu else None
        lr = rate if self.rate is None else self.rate
        self.optimizer = torch.optim.Adam(self.parts, lr=lr, fused=True, capturable=self.on_gpu)
        # Else it warns of the step that warms up, which is not captured.
        self.optimizer.__dict__["_warned_capturable_if_run_uncaptured"] = True
        # Weights decay; biases, scales and shifts do not.
        self.decayed = torch.cat([torch.full_like(p, float(p.dim() > 1)).flatten() for p in self.network.parameters()])
        # All that training changes in the network, and the running mean of it.
        self.live = [self.weights.detach(), *(b for b in self.network.buffers() if b.is_floating_point())]
        self.mean = [tensor.clone() for tensor in self.live] if self.training.ema_decay else []
        # Orders are drawn on the CPU, so that they are the same on every device.
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.total = torch.zeros(len(seeds), device=device)  # the losses of an epoch's clips, added up
        self.drawn: tuple[tuple[int, ...], _Draws] | None = None
        self.capture = capture
        # The features and labels that captured steps read; for each size of a batch its draws, and the replay.
        self.captured_for: tuple[Tensor, Tensor] | None = None
        self.captured: dict[int, tuple[_Draws, Callable[[], object]]] = {}

    def epoch(self, x: Tensor, labels: Tensor) -> Tensor:
        """Train one epoch over x `(clips, n_mels, frames)` and labels `(clips,)`.

        Each replica has its own order and its own views of the clips. x may hold several renditions of all clips, one
        after another; each replica draws among them.

        Returns:
            the mean training loss `(replicas,)`, still on the device: nothing here waits for the steps.
        """
        with cuda.current(x.device):
            return self._epoch(x, labels)

    def _epoch(self, x: Tensor, labels: Tensor) -> Tensor:
        shape = len(x) // len(labels), len(labels), *x.shape[1:]
        draws = self.drawn[1] if self.drawn and self.drawn[0] == shape else self._draw(*shape)
        self.epochs += 1
        if self.on_gpu:  # The epoch's only copies to the device: a few numbers per clip.
            draws = draws.map(lambda tensor: tensor.to(x.device, non_blocking=True))
        if self.capture and not self._is_captured(x, labels):
            self._capture(x, labels, draws)
        self.total.zero_()
        seen = 0
        for batch in draws.batches(self.batch_size):
            if self.capture:
                fixed, replay = self.captured[len(batch.order)]
                fixed.copy_(batch)
                replay()
            else:
                self._step(x, labels, batch)
            seen += len(batch.order)
        if self.on_gpu:  # The next epoch's, while the device works.
            self.drawn = shape, self._draw(*shape).map(Tensor.pin_memory)
        return self.total / max(seen, 1)

    def repeated_step(self, x: Tensor, labels: Tensor) -> Callable[[], object]:
        """Return a function that trains on the same batch, all clips of x and `labels` in one order, at each call."""
        draws = self._draw(len(x) // len(labels), len(labels), *x.shape[1:]).map(lambda tensor: tensor.to(x.device))
        step = functools.partial(self._step, x, labels, draws)
        with cuda.current(x.device):
            return self._captured(step) or step

    @property
    def kernels(self) -> str:
        """The kernels that trained the blocks: "melcnn" (on CUDA in some of the layers at least) or "torch"."""
        of_network = None if self.on_gpu else self.network.kernels
        return of_network or conv_layer.trained_by(self.network)

    def _draw(self, renditions: int, clips: int, n_mels: int, frames: int) -> _Draws:
        """Draw the random numbers of the next epoch, on the CPU."""
        orders, views = [], []
        for generator in self.generators:
            order = torch.randperm(clips, generator=generator)
            if renditions > 1:
                order += torch.randint(renditions, (clips,), generator=generator) * clips
            orders.append(order)
            if (view := augmentation.draw(self.training, clips, n_mels, frames, generator)) is not None:
                views.append(view)
        steps = math.ceil(clips / self.batch_size)
        done = [self.epochs + step / steps for step in range(steps)]
        return _Draws(
            order=torch.stack(orders, 1),
            views=torch.stack(views, 1) if views else None,
            rates=torch.tensor(
                [[learning_rate(self.training, d), averaging_rate(self.training, steps * d)] for d in done]
            ),
        )

    def _step(self, x: Tensor, labels: Tensor, batch: _Draws) -> None:
        """Train on a batch and add its clips' losses to `total`."""
        logits = self.network(x, batch.order, batch.views).unflatten(1, (self.network.replicas, -1))
        # The mean over a replica's own batch, then the sum over replicas: no gradient is shared or scaled.
        losses = cross_entropy(
            logits.transpose(1, 2),  # (batch, classes, replicas)
            labels[batch.order % len(labels)],
            reduction="none",
            label_smoothing=self.training.label_smoothing,
        ).mean(0)
        gradients = torch.autograd.grad(losses.sum(), list(self.network.parameters()))
        whole = torch.cat([gradient.flatten() for gradient in gradients])
        for part, gradient in zip(self.parts, whole.split(len(self.parts[0])), strict=True):
            part.grad = gradient
        self._update(batch.rates[0])
        self.total += losses.detach() * len(batch.order)

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

    def _is_captured(self, x: Tensor, labels: Tensor) -> bool:
        return self.captured_for is not None and self.captured_for[0] is x and self.captured_for[1] is labels

    def _capture(self, x: Tensor, labels: Tensor, draws: _Draws) -> None:
        """Capture a step for each size of a batch; where that fails, steps run operator by operator from here on.

        Capturing trains a little, to make the optimiser's state and choose kernels; that training is undone.

        Raises:
            torch.OutOfMemoryError: a smaller stack may fit.
        """
        self.captured.clear()  # The memory of the former ones is free for these.
        self.captured_for = x, labels
        with self._undone():
            for size, batch in {len(batch.order): batch for batch in draws.batches(self.batch_size)}.items():
                fixed = batch.map(torch.clone)
                if replay := self._captured(functools.partial(self._step, x, labels, fixed)):
                    self.captured[size] = fixed, replay

    def _captured(self, step: Callable[[], object]) -> Callable[[], object] | None:
        """Return the replay of a step; None where none is wanted, or none can be captured any more.

        Raises:
            torch.OutOfMemoryError: a smaller stack may fit.
        """
        if self.capture is None:
            return None
        try:
            return self.capture(step)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            log.warning(f"training goes on without CUDA graphs, which is slower: {first_line(error)}")
            self.capture = None
            return None

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """Undo at the end what the steps inside have trained."""
        weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        mean = [tensor.clone() for tensor in self.mean]
        before = [{name: t.clone() for name, t in self.optimizer.state[part].items()} for part in self.parts]
        yield
        self.network.load_state_dict(weights)
        for tensor, value in zip(self.mean, mean, strict=True):
            tensor.copy_(value)
        for part, state in zip(self.parts, before, strict=True):
            for name, tensor in self.optimizer.state[part].items():
                # A new optimiser has no moments yet, which equals zeros.
                tensor.copy_(state[name]) if state else tensor.zero_()


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


def _initial(trial: Trial, seed: int) -> MelCNN:
    with isolated_random_numbers():
        torch.manual_seed(seed)
        return MelCNN.of(trial)
