import pytest
import torch
from torch import nn

from bench.complexity import count
from melcnn import MelCNN

STUDY = {  # groups: macs_all_layers, as seed figures
    1: 1_039_106,
    2: 536_066,
    4: 284_546,
    8: 158_786,
    16: 95_906,
}


def derived(n_mels, groups):
    # Blocks run at 101, 50 and 25 frames (max-pooling halves, rounding down); kernel 3, 32 channels.
    conv = (101 * 32 * n_mels * 3 + 50 * 32 * 32 * 3 + 25 * 32 * 32 * 3) // groups
    linear = 32 * 128 + 128 * 2
    conv_out = 32 * (101 + 50 + 25)  # 5,632 elements
    bias = conv_out + 128 + 2
    batch_norm = 2 * (conv_out + 128)
    relu = conv_out + 128
    pooling = conv_out  # one an input element
    return conv + linear, conv + linear + bias + batch_norm + relu + pooling


@pytest.mark.parametrize("groups", STUDY)
def test_the_rows_of_the_study_to_the_unit(groups):
    counts = count(MelCNN(groups=groups), (1, 80, 101))
    assert (counts.macs, counts.macs_all_layers) == derived(80, groups)
    assert counts.macs_all_layers == STUDY[groups]
    if groups == 1:
        assert counts.macs == 1_010_432


@pytest.mark.parametrize("n_mels", [20, 40])
def test_other_mels(n_mels):
    counts = count(MelCNN(n_mels=n_mels), (1, n_mels, 101))
    assert (counts.macs, counts.macs_all_layers) == derived(n_mels, 1)


def test_counting_leaves_the_network_as_it_was():
    network = MelCNN().train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    count(network, (1, 80, 101))
    assert network.training and all(m.training for m in network.modules())
    assert not any(m._forward_hooks for m in network.modules())
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


def test_what_cannot_be_counted_is_an_error():
    with pytest.raises(TypeError, match="no formula for Softmax"):
        count(nn.Sequential(nn.Conv1d(2, 2, 3), nn.Softmax(1)), (1, 2, 9))
    # fvcore gives 0 for padding="same".
    with pytest.raises(ArithmeticError, match="fvcore counts 0"):
        count(nn.Sequential(nn.Conv1d(2, 2, 3, padding="same")), (1, 2, 9))
