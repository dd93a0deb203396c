import pytest
import torch
from torch import nn

from melcnn import InputError, MelCNN, stack
from melcnn.model import n_params


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


def test_a_stack_computes_what_each_network_computes():
    plain, x = networks(3), torch.randn(5, 3, 8, 20)
    for mode in (True, False):
        stacked = stack(plain).train(mode)
        together = stacked(x.flatten(1, 2)).unflatten(1, (3, -1))
        for r, network in enumerate(plain):
            torch.testing.assert_close(together[:, r], network.train(mode)(x[:, r]))


def test_a_replica_taken_out_is_the_plain_network():
    plain, x = networks(3), torch.randn(5, 8, 20)
    stacked = stack(plain).eval()
    for r in range(3):
        alone = stacked.replica(r)
        assert alone.replicas == 1 and not alone.training
        torch.testing.assert_close(alone(x), plain[r].eval()(x), rtol=0, atol=0)
        assert {k: v.tolist() for k, v in alone.state_dict().items()} == {
            k: v.tolist() for k, v in plain[r].state_dict().items()
        }


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
