"""The study's network, and stacks of it: R independent networks side by side in the channel dimension."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypedDict

import torch
from torch import Tensor, nn

from melcnn import augmentation
from melcnn.config import SHUFFLING_VARIANTS, VARIANTS, Trial, Variant, check_groups
from melcnn.errors import InputError
from melcnn.kernels import conv_layer, gpu_blocks, trunk
from melcnn.shuffle import ChannelShuffle

KERNEL_SIZE = 3
POOLING = 2
EMBEDDING = 128


class StackedLinear(nn.Linear):
    """R linear layers side by side: `(batch, R * in) -> (batch, R * out)`.

    Attributes:
        weight: `(R * out, in)`; as in a grouped convolution, the rows of replica r are the r-th block.
        bias: `(R * out)`.
    """

    def __init__(self, in_features: int, out_features: int, replicas: int) -> None:
        super().__init__(in_features, replicas * out_features)
        self.replicas = replicas

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (self.replicas, -1)).transpose(0, 1)  # (R, batch, in)
        weight = self.weight.unflatten(0, (self.replicas, -1)).transpose(1, 2)  # (R, in, out)
        bias = self.bias.unflatten(0, (self.replicas, 1, -1))  # (R, 1, out)
        return torch.baddbmm(bias, x, weight).transpose(0, 1).flatten(1)


class Arguments(TypedDict):
    """The arguments that a `MelCNN` was made with, except `replicas`."""

    n_mels: int
    groups: int
    channels: int
    n_classes: int
    variant: Variant


class MelCNN(nn.Module):
    """The study's network: `(batch, replicas * n_mels, frames) -> (batch, replicas * n_classes)`, features to logits.

    Three blocks Conv1d -> ReLU -> BatchNorm1d -> pooling (max 2, max 2, mean over time), an embedding of 128, a
    classifier. All three convolutions have kernel 3, padding 1 and the same `groups`.

    With `replicas` R it is R independent networks: replica r reads input channels `[r * n_mels, (r + 1) * n_mels)`, and
    every parameter and buffer holds replica r as the r-th block of its first dimension (`stack` and `replica` convert).
    R = 1 is the plain network.

    Args:
        variant: "plain"; "interleaved": group g of the first convolution sees mels g, g + groups, ..., so that each
            group sees the whole spectrum; "shuffle": interleaved, and channels are shuffled between the convolutions,
            so that groups exchange features; "separable": each convolution is a depthwise one of kernel 3 and a grouped
            one of kernel 1 (MobileNet, Howard et al., arXiv:1704.04861), with fewer weights where groups are few. The
            others have the plain network's parameters and MACs, and with groups 1 they are the plain network.

    Attributes:
        kernels: the kernels that compute the blocks, "melcnn" (`melcnn.kernels.trunk`) or "torch"; None, the default:
            the faster. Gradients of gradients by all weights need "torch".

    Raises:
        InputError: if `groups` does not divide both `n_mels` and `channels`.
    """

    def __init__(
        self,
        n_mels: int = 80,
        groups: int = 1,
        channels: int = 32,
        n_classes: int = 2,
        replicas: int = 1,
        variant: Variant = "plain",
    ) -> None:
        super().__init__()
        check_groups(n_mels, channels, groups)
        if variant not in VARIANTS:
            raise InputError(f"there is no variant {variant!r}: use one of {', '.join(VARIANTS)}")
        if replicas < 1 or n_classes < 1:
            raise InputError(f"replicas and n_classes must be at least 1, not {replicas} and {n_classes}")
        self.arguments: Arguments = {
            "n_mels": n_mels,
            "groups": groups,
            "channels": channels,
            "n_classes": n_classes,
            "variant": variant,
        }
        self.replicas = r = replicas
        self.workspaces = trunk.Workspaces()

        def convolution(c_in: int) -> nn.Module:
            same = KERNEL_SIZE // 2  # the padding that keeps the length
            if variant != "separable":
                return nn.Conv1d(r * c_in, r * channels, KERNEL_SIZE, padding=same, groups=r * groups)
            depthwise = nn.Conv1d(r * c_in, r * c_in, KERNEL_SIZE, padding=same, groups=r * c_in)
            return nn.Sequential(depthwise, nn.Conv1d(r * c_in, r * channels, 1, groups=r * groups))

        def block(c_in: int, pooling: nn.Module) -> nn.Sequential:
            layers = [convolution(c_in), nn.ReLU(), nn.BatchNorm1d(r * channels), pooling]
            if variant == "shuffle" and groups > 1 and isinstance(pooling, nn.MaxPool1d):
                layers.append(ChannelShuffle(groups, r))
            return nn.Sequential(*layers)

        interleaving = variant in SHUFFLING_VARIANTS and groups > 1
        self.interleaving = ChannelShuffle(n_mels // groups, r) if interleaving else None

        self.blocks = nn.Sequential(
            block(n_mels, nn.MaxPool1d(POOLING)),
            block(channels, nn.MaxPool1d(POOLING)),
            block(channels, nn.AdaptiveAvgPool1d(1)),
        )
        self.embedding = nn.Sequential(
            nn.Flatten(),
            _linear(channels, EMBEDDING, r),
            nn.BatchNorm1d(r * EMBEDDING),
            nn.ReLU(),
        )
        self.classifier = _linear(EMBEDDING, n_classes, r)
        self.kernels = None

    @classmethod
    def of(cls, trial: Trial) -> "MelCNN":
        """Return an untrained network of a configuration."""
        return cls(
            n_mels=trial.front_end.n_mels,
            groups=trial.model.groups,
            channels=trial.model.channels,
            n_classes=len(trial.data.words),
            variant=trial.model.variant,
        )

    @property
    def kernels(self) -> str | None:
        return self._kernels

    @kernels.setter
    def kernels(self, kernels: str | None) -> None:
        if kernels not in (None, "melcnn", "torch"):
            raise InputError(f"kernels must be melcnn, torch or None, not {kernels!r}")
        self._kernels = kernels
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Conv1d):
                conv_layer.set_kernels(layer, kernels)

    def forward(self, features: Tensor, index: Tensor | None = None, views: Tensor | None = None) -> Tensor:
        """Return the logits.

        Args:
            features: `(batch, replicas * n_mels, frames)`; with an index of a data set, `(clips, n_mels, frames)`.
            index: `(batch, replicas)`; replica r sees clip `index[b, r]` of the features.
            views: `(batch, replicas, VIEW)`; how replica r sees that clip (`melcnn.augmentation`).
        """
        layers = None if self.kernels == "torch" else trunk.supported_layers(self, features, index, views)
        if layers and (self.kernels or self._faster(features, index)) == "melcnn":
            hidden = trunk.run(layers, self, features, index, views)
        elif self.kernels != "torch" and gpu_blocks.supports(self, features, index, views):
            hidden = gpu_blocks.run(self, features, index, views)
        else:
            x = features if index is None else _picked(features, index)
            x = (x if views is None else augmentation.apply(x, views)).flatten(1, -2)
            hidden = self.blocks(x if self.interleaving is None else self.interleaving(x))
        return self.classifier(self.embedding(hidden))

    def _faster(self, features: Tensor, index: Tensor | None) -> str:
        clips = len(features if index is None else index)
        return trunk.choose(self, clips, features.shape[2], picked=index is not None)

    def replica(self, index: int) -> "MelCNN":
        """Return replica `index` as a plain network of its own, on the CPU, in the same mode."""
        if not 0 <= index < self.replicas:
            raise InputError(f"there is no replica {index}: this stack holds 0 to {self.replicas - 1}")
        network = _to_be_loaded(self.arguments)
        state = self.state_dict()
        network.load_state_dict({name: replica_block(t, self.replicas, index).clone() for name, t in state.items()})
        return network.train(self.training)


def stack(networks: Sequence[MelCNN]) -> MelCNN:
    """Return the stack whose replica r computes what `networks[r]` computes; all have one shape and one replica."""
    if not networks:
        raise InputError("a stack needs at least one network")
    if any(network.replicas != 1 or network.arguments != networks[0].arguments for network in networks):
        raise InputError("a stack is made of plain networks of one shape")
    stacked = _to_be_loaded(networks[0].arguments, len(networks))
    states = [network.state_dict() for network in networks]
    stacked.load_state_dict(
        {name: torch.cat([s[name] for s in states]) if t.dim() else t for name, t in states[0].items()}
    )
    return stacked.train(networks[0].training)


def _picked(features: Tensor, index: Tensor) -> Tensor:
    """Return `features[index]`; a clip that all replicas see is read once."""
    if index.stride(1) == 0:
        return features[index[:, 0]].unsqueeze(1).expand(-1, index.shape[1], -1, -1)
    return features[index]


def _linear(in_features: int, out_features: int, replicas: int) -> nn.Linear:
    # The plain network has torch's own layer: some counters and tools know layers by their exact type.
    if replicas == 1:
        return nn.Linear(in_features, out_features)
    return StackedLinear(in_features, out_features, replicas)


def _to_be_loaded(arguments: Arguments, replicas: int = 1) -> MelCNN:
    """Return a network whose weights will be replaced; its initialisation leaves torch's random state as it was."""
    with isolated_random_numbers():
        return MelCNN(**arguments, replicas=replicas)


_RANDOM_NUMBERS = threading.Lock()


@contextmanager
def isolated_random_numbers(devices: Sequence[int] = ()) -> Iterator[None]:
    """Restore torch's random state at the end. One thread at a time can be inside, because all threads share the state.

    Args:
        devices: the CUDA devices whose random state is restored too.
    """
    with _RANDOM_NUMBERS, torch.random.fork_rng(devices=list(devices)):
        yield


def replica_block(tensor: Tensor, replicas: int, index: int) -> Tensor:
    """Return the view of a stack's parameter or buffer that belongs to replica `index`.

    The step count of BatchNorm is a scalar that all replicas share.
    """
    return tensor.unflatten(0, (replicas, -1))[index] if tensor.dim() else tensor


def n_params(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
