"""Published keyword spotters, written from their papers, for the tests of counting."""

import torch
import torch.nn.functional as F
from torch import nn


class SubSpectralNorm(nn.Module):
    """BatchNorm with statistics of its own for each of 5 frequency bands (arXiv:2103.13620)."""

    def __init__(self, channels, bands=5):
        super().__init__()
        self.bands, self.norm = bands, nn.BatchNorm2d(channels * bands)

    def forward(self, x):
        n, c, f, t = x.shape
        return self.norm(x.view(n, c * self.bands, f // self.bands, t)).view(n, c, f, t)


class BCBlock(nn.Module):
    """Broadcasted residual block: a frequency-depthwise convolution in 2-D, a temporal one on its average."""

    def __init__(self, c_in, c_out, stage, stride):
        super().__init__()
        self.transition = c_in != c_out
        head = [nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()] if self.transition else []
        self.f2 = nn.Sequential(
            *head,
            nn.Conv2d(c_out, c_out, (3, 1), (stride, 1), (1, 0), groups=c_out, bias=False),
            SubSpectralNorm(c_out),
        )
        self.pool = nn.AdaptiveAvgPool2d((1, None))
        dilation = 2**stage
        self.f1 = nn.Sequential(
            nn.Conv2d(c_out, c_out, (1, 3), 1, (0, dilation), (1, dilation), groups=c_out, bias=False),
            nn.BatchNorm2d(c_out),
            nn.SiLU(),
            nn.Conv2d(c_out, c_out, 1, bias=False),
            nn.Dropout2d(0.1),
        )

    def forward(self, x):
        two_d = self.f2(x)
        y = self.f1(self.pool(two_d)) + two_d
        return F.relu(y if self.transition else y + x)


class BCResNet(nn.Module):
    """BC-ResNet-tau (arXiv:2106.04140, table 1): (batch, 1, 40 mels, frames)."""

    def __init__(self, tau, n_classes=12):
        super().__init__()
        base = 8 * tau
        c = [2 * base, base, int(1.5 * base), 2 * base, int(2.5 * base), 4 * base]
        self.head = nn.Sequential(nn.Conv2d(1, c[0], 5, (2, 1), 2, bias=False), nn.BatchNorm2d(c[0]), nn.ReLU())
        blocks = []
        for stage, n in enumerate((2, 2, 4, 4)):
            for i in range(n):
                stride = 2 if stage in (1, 2) and i == 0 else 1
                blocks.append(BCBlock(c[stage] if i == 0 else c[stage + 1], c[stage + 1], stage, stride))
        self.blocks = nn.Sequential(*blocks)
        self.tail = nn.Sequential(
            nn.Conv2d(c[4], c[4], 5, 1, (0, 2), groups=c[4], bias=False),
            nn.Conv2d(c[4], c[5], 1, bias=False),
            nn.BatchNorm2d(c[5]),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d((None, 1)),
            nn.Conv2d(c[5], n_classes, 1),
        )

    def forward(self, x):
        return self.tail(self.blocks(self.head(x))).flatten(1)


class TCBlock(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(c_in, c_out, 9, 2, 4, bias=False),
            nn.BatchNorm1d(c_out),
            nn.ReLU(),
            nn.Conv1d(c_out, c_out, 9, 1, 4, bias=False),
            nn.BatchNorm1d(c_out),
        )
        self.shortcut = nn.Sequential(nn.Conv1d(c_in, c_out, 1, 2, bias=False), nn.BatchNorm1d(c_out), nn.ReLU())

    def forward(self, x):
        return F.relu(self.body(x) + self.shortcut(x))


class TCResNet8(nn.Module):
    """TC-ResNet8 (arXiv:1904.03814, figure 3): mels are channels, (batch, 40, frames)."""

    def __init__(self, n_classes=12):
        super().__init__()
        self.first = nn.Conv1d(40, 16, 3, 1, 1, bias=False)
        self.blocks = nn.Sequential(TCBlock(16, 24), TCBlock(24, 32), TCBlock(32, 48))
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.classifier = nn.Conv1d(48, n_classes, 1, bias=False)

    def forward(self, x):
        return self.classifier(self.pool(self.blocks(self.first(x)))).flatten(1)


class DSCNN(nn.Module):
    """DS-CNN of MLPerf Tiny (arXiv:1711.07128, and its reference model): (batch, 1, 49 frames, 10 MFCCs)."""

    def __init__(self, n_classes=12, channels=64):
        super().__init__()

        def normed(convolution):
            return [convolution, nn.BatchNorm2d(channels), nn.ReLU()]

        self.first = nn.Sequential(*normed(nn.Conv2d(1, channels, (10, 4), 2)))
        self.blocks = nn.Sequential(
            *(
                layer
                for _ in range(4)
                for layer in (
                    *normed(nn.Conv2d(channels, channels, 3, 1, 1, groups=channels)),
                    *normed(nn.Conv2d(channels, channels, 1)),
                )
            )
        )
        self.pool = nn.AvgPool2d((25, 5))
        self.classifier = nn.Linear(channels, n_classes)

    def forward(self, x):
        # "same" padding as the reference has it: 49 -> 25 and 10 -> 5 need 9 and 2 more, the odd one at the end.
        x = self.first(F.pad(x, (1, 1, 4, 5)))
        return self.classifier(self.pool(self.blocks(x)).flatten(1))


NETWORKS = {
    "BC-ResNet-1": (lambda: BCResNet(1), (1, 1, 40, 101)),
    "BC-ResNet-3": (lambda: BCResNet(3), (1, 1, 40, 101)),
    "BC-ResNet-8": (lambda: BCResNet(8), (1, 1, 40, 101)),
    "TC-ResNet8": (TCResNet8, (1, 40, 98)),
    "DS-CNN": (DSCNN, (1, 1, 49, 10)),
}


def build(name):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    return make(), shape
