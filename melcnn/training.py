"""Training to convergence: one configuration, a stack of seeds side by side on the device (`melcnn.steps`).

No code here reads a clock. The host waits for the device once an epoch, to read the losses.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from melcnn import inference
from melcnn.config import Training, Trial
from melcnn.errors import InputError, TrainingDiverged, check_type
from melcnn.features import Features
from melcnn.model import MelCNN
from melcnn.steps import Stack, capture_for


@dataclass
class Curves:
    """The curves of one network, one value an epoch until it stopped; losses are mean cross-entropies."""

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class TrainedNetwork:
    """The result of one seed.

    Attributes:
        kernels: the kernels that trained it.
        network: plain, on the CPU, in evaluation mode, at the kept epoch.
        kept_epoch: the epoch of the network and the logits, counted from 1.
        validation_logits, test_logits: `(clips, n_classes)`.
        validation_accuracy: NaN without validation clips.
    """

    seed: int
    kernels: str
    network: MelCNN
    curves: Curves
    kept_epoch: int
    validation_logits: Tensor
    test_logits: Tensor
    validation_accuracy: float
    test_accuracy: float

    def __repr__(self) -> str:
        accuracies = f"{self.validation_accuracy:.4f} in validation, {self.test_accuracy:.4f} in test"
        return f"TrainedNetwork(seed {self.seed}, epoch {self.kept_epoch}, accuracy {accuracies})"


@dataclass(frozen=True)
class Epoch:
    """The state of a training after an epoch, for callbacks.

    Attributes:
        number: counts from 1.
        best_accuracy: the best validation accuracy so far, by seed; None without one.
        training: whether it still trains, by seed.
    """

    number: int
    best_accuracy: list[float | None]
    training: list[bool]


def fit(
    trial: Trial,
    features: Features,
    seeds: Sequence[int] = (0,),
    on_epoch: Callable[[Epoch], None] | None = None,
    kernels: str | None = None,
) -> list[TrainedNetwork]:
    """Train one network a seed to convergence, all side by side on the features' device.

    `trial.training` decides which epoch is kept, and when a network stops while the others continue. A recipe that
    keeps the last epoch needs no validation clips. The test split is evaluated once, at the kept epoch.

    Args:
        on_epoch: called after each epoch.
        kernels: the kernels that train, "melcnn" or "torch"; None: the faster.

    Raises:
        InputError: if the features are of another front-end or other words, or a split is too small.
        TrainingDiverged: if a network has no epoch of finite loss to keep.
    """
    _check(trial, features, seeds)
    training = trial.training
    train_x, train_labels = features.to_train(training)
    validation_x, validation_labels = features.split("validation")
    test_x, test_labels = features.split("test")

    stacked = Stack(trial, seeds, features.x.device, capture_for(features.x.device), kernels)
    kept = {name: t.clone() for name, t in stacked.network.state_dict().items()}
    replicas = [_Replica() for _ in seeds]
    for number in range(1, training.epochs + 1):
        figures = [stacked.epoch(train_x, train_labels).double()]
        with stacked.averaged() as network:
            if len(validation_labels):
                logits = inference.logits(network, validation_x)
                spoken = validation_labels.expand(len(seeds), -1)
                loss = cross_entropy(logits.transpose(1, 2), spoken, reduction="none").mean(1)
                figures += [loss.double(), inference.accuracy(logits, validation_labels)]
            state = network.state_dict()
            # The one point of an epoch where the host waits for the device: it reads losses and accuracies.
            better = [
                not replica.stopped and replica.record(number, training, *figure)
                for replica, figure in zip(replicas, torch.stack(figures).T.tolist(), strict=True)
            ]
            _keep(kept, state, better)
        if on_epoch:
            best = [r.best[0] if r.curves.validation_accuracy else None for r in replicas]
            on_epoch(Epoch(number, best, [not r.stopped for r in replicas]))
        if all(replica.stopped for replica in replicas):
            break

    # Training is over: from here on the host waits for each result that it reads.
    stacked.network.load_state_dict(kept)
    stacked.network.eval()
    validation_logits = inference.logits(stacked.network, validation_x)
    test_logits = inference.logits(stacked.network, test_x)
    runs = [
        TrainedNetwork(
            seed=seed,
            kernels=stacked.kernels,
            network=stacked.network.replica(index),
            curves=replica.curves,
            kept_epoch=replica.kept_epoch,
            validation_logits=validation_logits[index].cpu(),
            test_logits=test_logits[index].cpu(),
            validation_accuracy=float(inference.accuracy(validation_logits[index], validation_labels)),
            test_accuracy=float(inference.accuracy(test_logits[index], test_labels)),
        )
        for index, (seed, replica) in enumerate(zip(seeds, replicas, strict=True))
        if replica.kept_epoch
    ]
    if diverged := {seed: r.curves for seed, r in zip(seeds, replicas, strict=True) if not r.kept_epoch}:
        raise TrainingDiverged(
            f"training diverged (no finite loss) for seed {', '.join(map(str, diverged))}: "
            f"lower learning_rate (it is {training.learning_rate:g})",
            runs,
            diverged,
        )
    return runs


def _keep(kept: dict[str, Tensor], state: dict[str, Tensor], chosen: list[bool]) -> None:
    """Copy the chosen replicas' blocks of `state` into `kept`: a call for each tensor, not for each replica."""
    if not any(chosen):
        return
    mask = torch.tensor(chosen, device=next(iter(kept.values())).device).unsqueeze(1)
    for name, tensor in state.items():
        if tensor.dim():
            blocks = kept[name].view(len(chosen), -1)
            torch.where(mask, tensor.reshape(len(chosen), -1), blocks, out=blocks)
        else:  # the step count of BatchNorm, which all replicas share
            kept[name].copy_(tensor)


@dataclass
class _Replica:
    """The progress of one replica; its own curves alone decide when it stops."""

    curves: Curves = field(default_factory=Curves)
    best: tuple[float, float] = (-math.inf, -math.inf)  # validation accuracy, minus validation loss
    kept_epoch: int = 0
    lowest_loss: float = math.inf
    lowest_epoch: int = 0
    stopped: bool = False

    def record(
        self, number: int, training: Training, train_loss: float, loss: float = math.nan, accuracy: float = math.nan
    ) -> bool:
        """Record an epoch and return whether it is the one to keep so far; NaN stands for no validation."""
        self.curves.train_loss.append(train_loss)
        if not math.isnan(accuracy):
            self.curves.validation_loss.append(loss)
            self.curves.validation_accuracy.append(accuracy)
        if loss < self.lowest_loss:
            self.lowest_loss, self.lowest_epoch = loss, number
        validated = not math.isnan(accuracy)
        self.stopped = validated and training.patience is not None and number - self.lowest_epoch >= training.patience
        better = math.isfinite(loss) and (accuracy, -loss) > self.best
        if better:
            self.best = accuracy, -loss
        last = self.stopped or number == training.epochs
        keep = better if training.keep == "best" else last and math.isfinite(train_loss)
        if keep:
            self.kept_epoch = number
        return keep


def _check(trial: Trial, features: Features, seeds: Sequence[int]) -> None:
    check_type(trial, Trial, "make one with melcnn.configure(...)")
    if isinstance(seeds, int):
        raise InputError(f"seeds must be several, such as range({seeds}), not {seeds}")
    check_type(features, Features, "make them with melcnn.extract(clips, trial.front_end)")
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
    if trial.training.keep == "best" and not len(features.split("validation")[1]):
        raise InputError("the best epoch is chosen by validation clips, and there are none: add some, or keep the last")
