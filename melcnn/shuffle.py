"""Channel shuffle: a new order of channels, so that the groups of the next convolution see several groups."""

from torch import Tensor, nn


class ChannelShuffle(nn.Module):
    """Channel shuffle (ShuffleNet, Zhang et al., arXiv:1707.01083) of `(batch, replicas * channels, frames)`.

    In each replica the channels are `groups` rows, and channel `(i, j)` becomes `(j, i)`: a grouped convolution after
    it sees outputs of several groups of the one before. It moves numbers and computes none.
    """

    def __init__(self, groups: int, replicas: int = 1) -> None:
        super().__init__()
        self.groups, self.replicas = groups, replicas

    @property
    def all_groups(self) -> int:
        return self.groups * self.replicas

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.replicas, self.groups, -1)).transpose(2, 3).flatten(1, 3)

    def extra_repr(self) -> str:
        return f"groups={self.groups}, replicas={self.replicas}"
