"""What follows a convolution on a GPU, in Triton's interpreter beside torch's layers; on a device: `tests/cuda`."""

import pytest

from tests.helpers.triton import interpret

IN_THE_INTERPRETER = """
import copy
import torch
from melcnn import MelCNN, augmentation
from melcnn.kernels import triton_block

triton_block.TILE = 64  # several tiles, of which the last is not full
torch.manual_seed(0)
for variant, replicas, clips, frames in [
    ("plain", 2, 5, 21),
    ("shuffle", 1, 9, 32),
    ("separable", 2, 3, 13),
    ("plain", 1, 2, 4),
]:
    network = MelCNN(n_mels=4, channels=4, groups=2, replicas=replicas, variant=variant, n_classes=3)
    network.kernels = "torch"
    for block in network.blocks:
        with torch.no_grad():  # A negative scale turns the largest into the smallest.
            block[2].weight.normal_()
            block[2].bias.normal_()
    ours, theirs = copy.deepcopy(network.blocks), network.blocks
    x = torch.randn(clips, replicas * 4, frames)
    x, same = x.clone().requires_grad_(), x.clone().requires_grad_()
    found = x
    for block in ours.children():
        found = triton_block.run(block.children(), found)
    expected = theirs(same)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    dy = torch.randn_like(expected)
    found = torch.autograd.grad(found, [x, *ours.parameters()], dy)
    expected = torch.autograd.grad(expected, [same, *theirs.parameters()], dy)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for one, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)

features, index = torch.randn(6, 5, 11), torch.tensor([[0, 5], [3, 3], [2, 1]])
assert torch.equal(triton_block.picked(features, index, None), features[index].flatten(1, 2))
views = torch.zeros(3, 2, augmentation.VIEW, dtype=torch.int32)
views[..., 0] = torch.tensor([[0, -3], [4, 20], [-20, 1]])  # shifts, of which some leave one frame alone
views[..., 1:5] = torch.tensor([2, 5, 9, 9])  # frames 2 to 4 are masked, and none
views[1, 0, 5:9] = torch.tensor([0, 1, 3, 5], dtype=torch.int32)  # of one clip also mels 0, 3 and 4
found, expected = triton_block.picked(features, index, views), augmentation.apply(features[index], views).flatten(1, 2)
# What is no clip of the features is no number, and no memory of others.
beyond = triton_block.picked(features, torch.tensor([[0, 6], [-1, 5], [1, 2]]), None).unflatten(1, (2, 5))
assert beyond[0, 1].isnan().all() and beyond[1, 0].isnan().all() and beyond.isnan().sum() == 2 * 5 * 11
assert torch.equal(found, expected) and (found[1, 0] == 0).all() and (found[0, 0, 2:5] == 0).all()
"""


@pytest.mark.slow
def test_the_kernels_in_tritons_interpreter():
    interpret(IN_THE_INTERPRETER)
