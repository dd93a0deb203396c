"""Every Triton kernel compiles for two generations of GPUs, with the arguments that training gives it."""

import itertools

import pytest
import torch

from melcnn import MelCNN

pytestmark = pytest.mark.slow

SETTINGS = [
    (groups, replicas, precision) for groups in (1, 4, 16) for replicas, precision in ((1, 0), (32, 0), (32, 1))
]


class Launches:
    """Stands for a kernel: remembers its launches and computes nothing."""

    def __init__(self, kernel):
        self.kernel, self.seen = kernel, {}

    def __getitem__(self, grid):
        assert all(size > 0 for size in grid) and max(grid[1:], default=1) <= 65535

        def launch(*arguments, num_warps=4, **constants):
            names = dict(zip(self.kernel.arg_names, map(kind, arguments), strict=False))
            self.seen[tuple(names.items()), tuple(constants.items()), num_warps] = None

        return launch


def kind(argument):
    if isinstance(argument, torch.Tensor):
        return {torch.float32: "*fp32", torch.int64: "*i64", torch.int32: "*i32"}[argument.dtype]
    return "i32" if isinstance(argument, int) else "fp32"


def launched(monkeypatch):
    """The launches of a training step of the study's networks, by kernel."""
    from melcnn.kernels import triton_block, triton_conv

    kernels, called = {}, ("_rectified", "_of_norm", "_group_and_rows")  # by other kernels
    for module, name in itertools.product((triton_block, triton_conv), dir(triton_conv) + dir(triton_block)):
        if hasattr(getattr(module, name, None), "arg_names") and name not in called:
            kernels[module.__name__, name] = Launches(getattr(module, name))
            monkeypatch.setattr(module, name, kernels[module.__name__, name])
    for groups, replicas, tf32 in SETTINGS:
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", bool(tf32))
        network = MelCNN(groups=groups, replicas=replicas)
        index, views = torch.zeros(8, replicas, dtype=torch.int64), torch.zeros(8, replicas, 9, dtype=torch.int32)
        for seen in (None, views):
            x = triton_block.picked(torch.randn(9, 80, 101), index, seen)
        for block in network.blocks.children():
            convolution = block[0]
            settings = 1, 1, 1, convolution.groups
            y = triton_conv.forward(x, convolution.weight, None, *settings)
            triton_conv.forward(x, convolution.weight, convolution.bias, *settings)
            triton_conv.backward(y, x, convolution.weight, *settings, [True] * 3)
            x = triton_block.run(block.children(), x)
            torch.autograd.grad(x, block[2].weight, torch.ones_like(x), retain_graph=True)
            x = x.detach()
    return kernels


@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile(capability, monkeypatch):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernels = launched(monkeypatch)
    assert len(kernels) == 9 and all(one.seen for one in kernels.values())
    for (module, name), one in kernels.items():
        for types, constants, warps in one.seen:
            signature = {each: "constexpr" for each in one.kernel.arg_names} | dict(types)
            source = ASTSource(one.kernel, signature, {(one.kernel.arg_names.index(c),): v for c, v in constants})
            made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
            if (module, name) == ("melcnn.kernels.triton_block", "_forward"):
                # ReLU and pooling keep what is no number, as torch's do: else a training that diverges looks well.
                assert "max.NaN.f32" in made.asm["ptx"] and "max.f32" not in made.asm["ptx"]
            assert made.asm["cubin"] and made.metadata.shared <= 99 << 10, name  # what a block of sm_86 has at the most
