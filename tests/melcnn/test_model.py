import pytest
import torch
from torch import nn

from melcnn import InputError, MelCNN, stack
from melcnn.config import VARIANTS
from melcnn.model import _picked, n_params
from melcnn.shuffle import ChannelShuffle


@pytest.mark.parametrize("groups, params", [(1, 18_850), (2, 11_938), (4, 8_482), (8, 6_754), (16, 5_890)])
def test_parameters_of_the_study(groups, params):
    # conv: 32 (80 / g) 3 + 32, twice 32 (32 / g) 3 + 32; norms: 2 (3 x 32 + 128);
    # embedding: 32 x 128 + 128; classifier: 128 x 2 + 2.
    derived = (32 * 80 * 3 + 2 * 32 * 32 * 3) // groups + 3 * 32 + 2 * (96 + 128) + 32 * 128 + 128 + 128 * 2 + 2
    assert n_params(MelCNN(groups=groups)) == derived == params


def test_layers_of_the_study():
    layers = [type(m).__name__ for m in MelCNN().modules() if not list(m.children())]
    block = ["Conv1d", "ReLU", "BatchNorm1d"]
    assert layers == [
        *block, "MaxPool1d", *block, "MaxPool1d", *block, "AdaptiveAvgPool1d",
        "Flatten", "Linear", "BatchNorm1d", "ReLU", "Linear",
    ]  # fmt: skip
    convolutions = [m for m in MelCNN(groups=4).modules() if isinstance(m, nn.Conv1d)]
    assert [(c.kernel_size, c.padding, c.groups) for c in convolutions] == [((3,), (1,), 4)] * 3


def networks(n, **arguments):
    torch.manual_seed(0)
    made = [MelCNN(n_mels=8, channels=8, groups=2, n_classes=3, **arguments) for _ in range(n)]
    for network in made:  # Statistics as after training, not the defaults that hide an exchange.
        network(torch.randn(16, 8, 20))
    return made


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_stack_computes_what_each_network_computes(variant):
    plain, x = networks(3, variant=variant), torch.randn(5, 3, 8, 20)
    for mode in (True, False):
        stacked = stack(plain).train(mode)
        together = stacked(x.flatten(1, 2)).unflatten(1, (3, -1))
        for r, network in enumerate(plain):
            torch.testing.assert_close(together[:, r], network.train(mode)(x[:, r]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_replica_taken_out_is_the_plain_network(variant):
    plain, x = networks(3, variant=variant), torch.randn(5, 8, 20)
    stacked = stack(plain).eval()
    for r in range(3):
        alone = stacked.replica(r)
        assert alone.replicas == 1 and not alone.training
        torch.testing.assert_close(alone(x), plain[r].eval()(x), rtol=0, atol=0)
        assert {k: v.tolist() for k, v in alone.state_dict().items()} == {
            k: v.tolist() for k, v in plain[r].state_dict().items()
        }


def heard(network, mel):
    """Which of the first convolution's outputs move with one mel."""
    quiet, loud = torch.zeros(1, network.arguments["n_mels"], 8), torch.zeros(1, network.arguments["n_mels"], 8)
    loud[0, mel] = 1
    seen = []
    network.blocks[0][0].register_forward_hook(lambda module, x, y: seen.append(y))
    network.eval()(quiet)
    network(loud)
    return (seen[0] != seen[1]).any(2)[0].nonzero().flatten().tolist()


def test_groups_hear_neighbours_or_the_whole_spectrum():
    # 8 mels, 4 channels, 2 groups: plain, mels 0 to 3 are of channels 0 and 1; interleaved, the even ones are.
    for variant, first in (("plain", range(4)), ("interleaved", (0, 2, 4, 6)), ("shuffle", (0, 2, 4, 6))):
        for mel in range(8):
            expected = [0, 1] if mel in first else [2, 3]
            assert heard(MelCNN(8, 2, 4, variant=variant), mel) == expected


def test_shuffled_groups_mix():
    # 4 channels, 2 groups: rows (0, 1) and (2, 3) are read by columns, 0 2 1 3.
    x = torch.arange(4.0)[None, :, None]
    assert ChannelShuffle(2)(x).flatten().tolist() == [0, 2, 1, 3]
    assert ChannelShuffle(2, replicas=2)(torch.cat([x, x + 4], 1)).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    # Through a whole network: with the shuffle any mel reaches every output of the blocks, without it half of them.
    torch.manual_seed(0)
    for variant, reached in (("interleaved", 8), ("shuffle", 16)):
        network = MelCNN(16, 2, 16, variant=variant).eval()
        loud = torch.zeros(1, 16, 8)
        loud[0, 0] = 100
        out = [network.embedding[0](network.blocks(network.interleaving(x))) for x in (torch.zeros(1, 16, 8), loud)]
        assert 0.5 * reached < int((out[0] != out[1]).sum()) <= reached


def test_variants_cost_what_the_plain_network_costs():
    for variant in ("interleaved", "shuffle"):
        assert n_params(MelCNN(groups=8, variant=variant)) == 6_754
        torch.manual_seed(0)
        same = MelCNN(groups=1, variant=variant)
        torch.manual_seed(0)
        x = torch.randn(2, 80, 101)
        torch.manual_seed(0)
        plain = MelCNN(groups=1)
        assert torch.equal(same.eval()(x), plain.eval()(x)), "of one group there is nothing to exchange"
    # separable: depthwise 3 c + c, pointwise c 32 / g + 32, for c of 80, 32 and 32, in place of the convolutions.
    for groups in (1, 4):
        plain = sum(c * 32 * 3 // groups + 32 for c in (80, 32, 32))
        separable = sum(4 * c + c * 32 // groups + 32 for c in (80, 32, 32))
        expected = n_params(MelCNN(groups=groups)) - plain + separable
        assert n_params(MelCNN(groups=groups, variant="separable")) == expected


def test_one_replica_is_the_plain_network():
    one = MelCNN(replicas=1)
    assert type(one.classifier) is nn.Linear
    assert one.classifier.weight.shape == (2, 128)
    torch.testing.assert_close(stack([one]).state_dict(), one.state_dict())


def test_no_gradient_crosses_replicas():
    stacked = stack(networks(3)).train()
    logits = stacked(torch.randn(6, 24, 20)).unflatten(1, (3, -1))
    logits[:, 1].square().sum().backward()
    for name, parameter in stacked.named_parameters():
        gradients = parameter.grad.unflatten(0, (3, -1))
        assert torch.count_nonzero(gradients[0]) == torch.count_nonzero(gradients[2]) == 0, name
    assert stacked.blocks[0][0].weight.grad.unflatten(0, (3, -1))[1].abs().sum() > 0


def test_no_statistic_crosses_replicas():
    plain = networks(2)
    x = torch.randn(6, 16, 20)
    disturbed = x.clone()
    disturbed[:, 8:] *= 100
    a, b = stack(plain), stack(plain)
    a(x), b(disturbed)
    for (name, before), (_, after) in zip(a.named_buffers(), b.named_buffers(), strict=True):
        if before.dim():
            assert torch.equal(before.unflatten(0, (2, -1))[0], after.unflatten(0, (2, -1))[0]), name
            assert not torch.equal(before.unflatten(0, (2, -1))[1], after.unflatten(0, (2, -1))[1]), name


def test_groups_that_do_not_divide_name_the_legal_ones():
    with pytest.raises(InputError, match=r"groups 3 .* one of 1, 2, 4, 8, 16"):
        MelCNN(groups=3)
    with pytest.raises(InputError, match=r"one of 1, 2, 4$"):
        MelCNN(n_mels=20, groups=16)


def test_stacks_that_cannot_be():
    with pytest.raises(InputError, match="at least one"):
        stack([])
    with pytest.raises(InputError, match="one shape"):
        stack([MelCNN(), MelCNN(groups=2)])
    with pytest.raises(InputError, match="0 to 1"):
        stack(networks(2)).replica(2)
    with pytest.raises(InputError, match="replicas"):
        MelCNN(replicas=0)


def test_a_clip_that_all_replicas_see_is_gathered_once():
    features, index = torch.randn(5, 4, 16), torch.tensor([3, 0, 4])[:, None]
    seen = _picked(features, index.expand(-1, 3))
    assert torch.equal(seen, features[index.expand(-1, 3)]) and seen.stride(1) == 0
    own = torch.tensor([[3, 1], [0, 0], [2, 4]])
    assert torch.equal(_picked(features, own), features[own])
