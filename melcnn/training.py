"""Training to convergence: one configuration, a stack of seeds side by side on the device.

Nothing here reads a clock. The device is synchronised once an epoch, where the host reads the losses.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from melcnn import evaluation
from melcnn.config import Trial
from melcnn.errors import InputError, TrainingDiverged
from melcnn.features import Features
from melcnn.model import MelCNN, replica_block, stack


@dataclass
class Curves:
    """One value an epoch, up to the epoch in which the network stopped. Losses are mean cross-entropies."""

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """One seed's result.

    kept_epoch: counted from 1, the epoch of best validation accuracy (of equals, of lowest validation
    loss), which `network` (plain, on the CPU, in evaluation mode) and the logits (clips, n_classes) are of.
    """

    seed: int
    network: MelCNN
    curves: Curves
    kept_epoch: int
    validation_logits: Tensor
    test_logits: Tensor
    validation_accuracy: float
    test_accuracy: float


@dataclass(frozen=True)
class Epoch:
    """What a callback hears after each epoch: its number from 1, and the best validation accuracy so far
    and whether it still trains, by seed."""

    number: int
    best_accuracy: list[float]
    training: list[bool]


class Stack:
    """Networks in training side by side: replica r is initialised and fed by `seeds[r]` alone."""

    def __init__(self, trial: Trial, seeds: Sequence[int], device: str | torch.device = "cpu"):
        self.batch_size = trial.training.batch_size
        self.network = stack([_initial(trial, seed) for seed in seeds]).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=trial.training.learning_rate)
        # Orders are drawn on the CPU, so that they are the same on every device.
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def epoch(self, x: Tensor, labels: Tensor) -> Tensor:
        """One pass over x (clips, n_mels, frames) and labels (clips,), each replica in its own order.

        Returns the mean training loss `(replicas,)`, still on the device: nothing here waits for it.
        """
        replicas = self.network.replicas
        # The epoch's one copy to the device, of R x clips indices; nothing waits for it.
        order = torch.stack([torch.randperm(len(x), generator=g) for g in self.generators], 1).to(x.device)
        total, seen = torch.zeros(replicas, device=x.device), 0
        for batch in order.split(self.batch_size):
            if len(batch) == 1:
                break  # BatchNorm has no statistics of one clip, so this one waits for another epoch.
            inputs = x[batch].flatten(1, 2)  # (batch, R * n_mels, frames)
            logits = self.network(inputs).unflatten(1, (replicas, -1))  # (batch, R, classes)
            # The mean over a replica's own batch, then the sum over replicas: no gradient is shared or scaled.
            losses = cross_entropy(logits.transpose(1, 2), labels[batch], reduction="none").mean(0)
            self.optimizer.zero_grad(set_to_none=True)
            losses.sum().backward()
            self.optimizer.step()
            total += losses.detach() * len(batch)
            seen += len(batch)
        return total / seen


def fit(
    trial: Trial,
    features: Features,
    seeds: Sequence[int] = (0,),
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Run]:
    """Trains one network a seed to convergence, all side by side on the features' device.

    A network stops when its validation loss has had no new minimum for `trial.training.patience` epochs,
    at the latest after `trial.training.epochs`; the others go on. The epoch of best validation accuracy is
    kept, and the test split is evaluated once, at that epoch.

    Raises `InputError` if the features are of another front-end or other words or a split is too small,
    `TrainingDiverged` if a network never had a finite validation loss.
    """
    _check(trial, features, seeds)
    training = trial.training
    train_x, train_labels = features.split("train")
    validation_x, validation_labels = features.split("validation")
    test_x, test_labels = features.split("test")

    stacked = Stack(trial, seeds, features.x.device)
    kept = {name: t.clone() for name, t in stacked.network.state_dict().items()}
    replicas = [_Replica() for _ in seeds]
    for number in range(1, training.epochs + 1):
        train_loss = stacked.epoch(train_x, train_labels)
        logits = evaluation.logits(stacked.network, validation_x)
        loss = cross_entropy(logits.transpose(1, 2), validation_labels.expand(len(seeds), -1), reduction="none").mean(1)
        accuracy = evaluation.accuracy(logits, validation_labels)
        # The epoch's one synchronisation: losses and accuracies go to the host, which decides.
        figures = torch.stack([train_loss.double(), loss.double(), accuracy]).T.tolist()
        state = stacked.network.state_dict()
        for index, (replica, figure) in enumerate(zip(replicas, figures, strict=True)):
            if not replica.stopped and replica.hear(number, *figure, training.patience):
                for name, tensor in state.items():
                    replica_block(kept[name], len(seeds), index).copy_(replica_block(tensor, len(seeds), index))
        if on_epoch:
            on_epoch(Epoch(number, [r.best[0] for r in replicas], [not r.stopped for r in replicas]))
        if all(replica.stopped for replica in replicas):
            break

    diverged = [seed for seed, replica in zip(seeds, replicas, strict=True) if not replica.kept_epoch]
    if diverged:
        raise TrainingDiverged(
            f"training diverged (validation loss never finite) for seed {', '.join(map(str, diverged))}: "
            f"lower learning_rate (it is {training.learning_rate:g})"
        )
    # Training is over: from here on the host waits for each result that it takes.
    stacked.network.load_state_dict(kept)
    stacked.network.eval()
    validation_logits = evaluation.logits(stacked.network, validation_x)
    test_logits = evaluation.logits(stacked.network, test_x)
    return [
        Run(
            seed=seed,
            network=stacked.network.replica(index),
            curves=replica.curves,
            kept_epoch=replica.kept_epoch,
            validation_logits=validation_logits[index].cpu(),
            test_logits=test_logits[index].cpu(),
            validation_accuracy=float(evaluation.accuracy(validation_logits[index], validation_labels)),
            test_accuracy=float(evaluation.accuracy(test_logits[index], test_labels)),
        )
        for index, (seed, replica) in enumerate(zip(seeds, replicas, strict=True))
    ]


@dataclass
class _Replica:
    """What one replica has reached so far; it stops by its own curves, whatever its neighbours do."""

    curves: Curves = field(default_factory=Curves)
    best: tuple[float, float] = (0.0, -math.inf)  # validation accuracy, minus validation loss
    kept_epoch: int = 0
    lowest_loss: float = math.inf
    lowest_epoch: int = 0
    stopped: bool = False

    def hear(self, number: int, train_loss: float, loss: float, accuracy: float, patience: int) -> bool:
        """Takes in an epoch; True if it is the best so far."""
        self.curves.train_loss.append(train_loss)
        self.curves.validation_loss.append(loss)
        self.curves.validation_accuracy.append(accuracy)
        if loss < self.lowest_loss:
            self.lowest_loss, self.lowest_epoch = loss, number
        self.stopped = number - self.lowest_epoch >= patience
        better = math.isfinite(loss) and (accuracy, -loss) > self.best
        if better:
            self.best, self.kept_epoch = (accuracy, -loss), number
        return better


def _initial(trial: Trial, seed: int) -> MelCNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MelCNN(
            n_mels=trial.front_end.n_mels,
            groups=trial.model.groups,
            channels=trial.model.channels,
            n_classes=len(trial.data.words),
        )


def _check(trial: Trial, features: Features, seeds: Sequence[int]) -> None:
    if trial.front_end != features.front_end:
        raise InputError(
            f"the features are of the front-end {features.front_end!r}, the trial asks for "
            f"{trial.front_end!r}: extract features with the trial's front_end"
        )
    if trial.data.words != features.clips.words:
        raise InputError(
            f"the features are of the words {','.join(features.clips.words)}, the trial asks for "
            f"{','.join(trial.data.words)}: load clips of the trial's words"
        )
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds must be different and at least one, but were {list(seeds)}")
    if len(features.split("train")[1]) < 2:
        raise InputError("training needs at least two training clips: add some")
