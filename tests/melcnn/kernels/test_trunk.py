"""The blocks in one call of C against torch's layers."""

import copy
import pickle

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode

from bench.counting.profile import count
from melcnn import augmentation, native
from melcnn.config import Training
from melcnn.errors import InputError
from melcnn.kernels import trunk
from melcnn.model import MelCNN, stack

EVERY = torch.arange(4)[:, None]


@pytest.fixture(autouse=True)
def compiled():
    if native.library() is None:
        pytest.skip("there is no C compiler")


def networks(n_mels, groups, channels, replicas, variant="plain"):
    """A stack and its copy, with scales of both signs, so that pooling meets the smaller of two as well."""
    torch.manual_seed(0)
    made = []
    for _ in range(replicas):
        network = MelCNN(n_mels, groups, channels, 3, variant=variant)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
        made.append(network)
    ours, theirs = stack(made), stack(made)
    ours.kernels, theirs.kernels = "melcnn", "torch"
    return ours, theirs


@pytest.mark.parametrize(
    ("n_mels", "groups", "channels", "replicas", "frames", "clips"),
    [
        (80, 1, 32, 1, 101, 64),
        (80, 16, 32, 3, 101, 7),
        (40, 4, 32, 2, 50, 33),
        (20, 2, 6, 2, 35, 5),  # three channels in, three out: rows that fill no tile
        (12, 12, 12, 1, 17, 18),  # depthwise
        (7, 1, 5, 1, 4, 2),
    ],
)
@pytest.mark.parametrize("variant", ["plain", "interleaved", "shuffle"])
@pytest.mark.parametrize("augmented", [False, True])
def test_a_block_is_torchs_layers(n_mels, groups, channels, replicas, frames, clips, variant, augmented):
    ours, theirs = networks(n_mels, groups, channels, replicas, variant)
    x = torch.randn(clips + 3, n_mels, frames)
    index = torch.stack([torch.randperm(clips + 3)[:clips] for _ in range(replicas)], 1)
    views = None
    if augmented:
        training = Training(shift=0.3, time_mask=0.4, mel_mask=0.4)
        drawn = augmentation.draw(training, clips * replicas, n_mels, frames, torch.Generator().manual_seed(0))
        views = drawn.unflatten(0, (clips, replicas))
    assert trunk.supported_layers(ours, x, index, views)
    out, expected = ours(x, index, views), theirs(x, index, views)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    weights = torch.randn_like(out)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # By norm: where two neighbours are equal but for rounding, pooling may take the other. Before a BatchNorm the
        # true gradient of a bias is 0, and what is there is rounding, beside gradients of 1 and more.
        assert (p.grad - q.grad).norm() < 2e-3 * max(float(q.grad.norm()), 1.0), name
    for (name, a), b in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    ours.eval(), theirs.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(x, index), theirs(x, index), rtol=1e-4, atol=1e-4)
        whole = x[index].flatten(1, 2)  # as a stack's own input
        torch.testing.assert_close(ours(whole), ours(x, index), rtol=0, atol=0)


def test_no_number_stays_none():
    ours, _ = networks(8, 2, 4, 1)
    assert ours(torch.full((4, 8, 20), torch.nan)).isnan().all()


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_clip_does_not_touch_its_neighbours(broken):
    ours, _ = networks(8, 2, 4, 1)
    ours.eval()
    x = torch.randn(4, 8, 20)
    with torch.no_grad():
        whole = ours(x)
        x[1] = broken
        assert torch.equal(ours(x)[[0, 2, 3]], whole[[0, 2, 3]])


def test_the_number_of_threads_changes_no_bit():
    x, before, found = torch.randn(40, 80, 101), torch.get_num_threads(), []
    for number in (1, 2, 3):
        ours, _ = networks(80, 4, 32, 2)
        torch.set_num_threads(number)
        layers = trunk.supported_layers(ours, x, torch.arange(40)[:, None].expand(-1, 2))
        y = trunk.run(layers, ours, x, torch.arange(40)[:, None].expand(-1, 2))
        y.square().sum().backward()
        found.append([y, *(w.grad for layer in layers for w in layer.weights)])
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_what_the_kernels_are_not_made_for_goes_to_torch():
    ours, theirs = networks(8, 2, 4, 1)
    x = torch.randn(4, 8, 20)
    assert trunk.supported_layers(ours, x)
    assert not trunk.supported_layers(ours, x.double())
    assert not trunk.supported_layers(ours, x.requires_grad_())
    with torch.no_grad():
        assert trunk.supported_layers(ours, x)
    assert not trunk.supported_layers(ours.eval(), x.detach())  # a gradient by fixed statistics
    with torch.autocast("cpu"):
        assert not trunk.supported_layers(ours.train(), x.detach())
    torch.testing.assert_close(ours.double()(x.double()), theirs.double()(x.double()))
    ours.float().blocks[1][2].momentum = None
    assert not trunk.supported_layers(ours, x.detach())


def test_layers_that_somebody_changed_are_torchs():
    x = torch.randn(4, 8, 20)

    def taken(change):
        network = networks(8, 2, 4, 1)[0]
        change(network)
        network(x)
        return bool(trunk.supported_layers(network, x))

    def pruned(network):
        prune.l1_unstructured(network.blocks[0][0], "weight", 0.5)
        prune.remove(network.blocks[0][0], "weight")  # which puts the weight behind the bias

    assert taken(pruned) and not taken(lambda n: prune.l1_unstructured(n.blocks[0][0], "weight", 0.5))
    assert not taken(lambda n: n.blocks.register_forward_hook(lambda *arguments: None))
    for hook in ("forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"):
        assert not taken(lambda n, hook=hook: getattr(n.blocks[1][0], f"register_{hook}")(lambda *arguments: None))
    assert not taken(lambda n: setattr(n.blocks[0][3], "ceil_mode", True))
    assert not taken(lambda n: setattr(n.blocks[2][2], "eps", 0.1))
    everywhere = torch.nn.modules.module.register_module_forward_hook(lambda *arguments: None)
    assert not taken(lambda n: None)
    everywhere.remove()
    assert taken(lambda n: None)


def test_gradients_of_gradients_say_what_to_do():
    ours, theirs = networks(8, 2, 4, 1)
    x = torch.randn(4, 8, 20)
    with pytest.raises(RuntimeError, match="set kernels = 'torch'"):
        torch.autograd.grad(ours(x).sum(), list(ours.parameters()), create_graph=True)
    torch.autograd.grad(theirs(x).square().sum(), list(theirs.parameters()), create_graph=True)
    ours.kernels = "torch"
    assert torch.equal(ours(x), theirs(x))
    with pytest.raises(InputError, match="kernels must be melcnn, torch or None"):
        ours.kernels = "fast"


def test_a_graph_can_be_kept_and_copies_are_their_own():
    ours, _ = networks(8, 2, 4, 1)
    x, weights = torch.randn(4, 8, 20), list(ours.parameters())
    one, two = ours(x).square().sum(), ours(x + 1).square().sum()
    kept = torch.autograd.grad(one, weights, retain_graph=True)
    other = torch.autograd.grad(two, weights)
    assert all(map(torch.equal, kept, torch.autograd.grad(one, weights)))
    assert not all(map(torch.equal, kept, other))
    copied = pickle.loads(pickle.dumps(copy.deepcopy(ours.eval())))
    assert copied.kernels == "melcnn" and torch.equal(copied(x), ours(x))


def test_hooks_tracers_and_counters_see_layers():
    ours, theirs = networks(8, 2, 4, 1)
    x, heard = torch.randn(4, 8, 20), []
    handle = ours.blocks[1][0].register_forward_hook(lambda *arguments: heard.append(1))
    ours(x)
    assert heard == [1]
    handle.remove()
    counts = []
    for network in (ours, theirs):
        with FlopCounterMode(display=False) as counter:
            network(x).sum().backward()
        analysis = FlopCountAnalysis(network.eval(), x).unsupported_ops_warnings(False)
        counts.append((counter.get_total_flops(), analysis.total(), count(network, (1, 8, 20))))
        network.train()
    assert counts[0] == counts[1] and counts[0][0] > counts[0][1] > 0
    convolutions = [str(n.kind()) for n in torch.jit.trace(ours.eval(), x).inlined_graph.nodes()]
    assert convolutions.count("aten::_convolution") == 3


def test_a_whole_network_can_be_compiled():
    ours, theirs = networks(8, 2, 4, 1)
    x = torch.randn(4, 8, 20)
    torch.testing.assert_close(torch.compile(ours, backend="aot_eager")(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_torchs_to_refuse():
    network = networks(8, 2, 4, 1)[0]
    for x, index in (
        (torch.randn(4, 9, 20), EVERY),  # mels
        (torch.randn(3, 8, 20), EVERY),  # clips
        (torch.randn(4, 8, 3), EVERY),  # frames
        (torch.randn(4, 8), EVERY),
    ):
        with pytest.raises((RuntimeError, IndexError, ValueError)):
            network(x, index)


def test_the_faster_kernels_are_chosen_and_kept(monkeypatch):
    asked = []
    monkeypatch.setattr(trunk.autotune, "choose", lambda key, ways, *rest: asked.append((key, set(ways()))) or "torch")
    network = MelCNN(8, 2, 4)
    network(torch.randn(5, 8, 20))
    network(torch.randn(7, 8, 20))
    (one, ways), (two, _) = [pair for pair in asked if pair[0][0] == "trunk"]
    assert one == two  # about as many clips
    assert ways == {"torch", "melcnn"}


def test_a_small_variance_beside_a_large_mean():
    ours, theirs = networks(8, 1, 4, 1)
    with torch.no_grad():
        for network in (ours, theirs):
            network.blocks[0][0].bias.fill_(1000.0)
    x = torch.randn(16, 8, 40)
    ours(x), theirs(x)
    truth = theirs.blocks[0][0](x).relu().double().var((0, 2))
    # A tenth of it and 0.9 of 1: running variance.
    torch.testing.assert_close(ours.blocks[0][2].running_var.double(), 0.9 + 0.1 * truth, rtol=1e-3, atol=0.0)


def test_elsewhere_no_compiler_is_asked_for(monkeypatch):
    monkeypatch.setattr(native, "library", lambda: pytest.fail("the C library is not needed"))
    network = MelCNN(n_mels=4, channels=4)
    assert trunk.supported_layers(network, torch.empty(2, 4, 16, device="meta")) is None


def test_what_picks_clips_fits_or_is_refused():
    x, index = torch.empty(9, 4, 16), torch.zeros(5, 2, dtype=torch.int64)
    views = torch.zeros(5, 2, augmentation.VIEW, dtype=torch.int32)
    assert trunk.picks(x, None, None, 2) and trunk.picks(x, index, None, 2) and trunk.picks(x, index, views, 2)
    assert not trunk.picks(x, None, views, 2)
    for wrong in (index.int(), index[:, :1], index[:0], index[0], index.to("meta")):
        assert not trunk.picks(x, wrong, None, 2)
    for wrong in (views.long(), views[:4], views[..., :8], views.to("meta")):
        assert not trunk.picks(x, index, wrong, 2)
