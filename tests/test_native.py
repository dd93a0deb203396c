"""Our C kernels against torch's layers, and what happens without a compiler."""

import copy

import pytest
import torch
from torch import nn

from melcnn import block, configure, native
from melcnn.log_mel import log_mel
from melcnn.model import MelCNN, stack

EVERY = torch.arange(4)[:, None]


@pytest.fixture
def compiled():
    if native.library() is None:
        pytest.skip("there is no C compiler")


@pytest.fixture
def without_kernels(monkeypatch):
    monkeypatch.setattr(native, "library", lambda: None)


def networks(n_mels, groups, channels, replicas):
    """A stack and its copy, with scales of both signs, so that pooling meets the smaller of two as well."""
    torch.manual_seed(0)
    made = []
    for _ in range(replicas):
        network = MelCNN(n_mels, groups, channels, 3)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
        made.append(network)
    one = stack(made)
    return one, copy.deepcopy(one)


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
def test_a_block_is_torchs_layers(compiled, n_mels, groups, channels, replicas, frames, clips):
    ours, theirs = networks(n_mels, groups, channels, replicas)
    x = torch.randn(clips + 3, n_mels, frames)
    index = torch.stack([torch.randperm(clips + 3)[:clips] for _ in range(replicas)], 1)
    out, expected = block.forward(ours, x, index), theirs(x[index].flatten(1, 2))
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
        torch.testing.assert_close(block.forward(ours, x, index), theirs(x[index].flatten(1, 2)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pool", [block.MAX_POOL, block.MEAN_POOL])
def test_the_gradient_of_a_blocks_input(compiled, pool):
    theirs = networks(24, 2, 12, 2)[0].blocks[0 if pool == block.MAX_POOL else 2]
    c_in = theirs[0].in_channels
    x = torch.randn(9, c_in, 37)
    ours_x, their_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = block._run(copy.deepcopy(theirs), ours_x, None, 2), theirs(their_x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours_x.grad, their_x.grad, rtol=1e-3, atol=1e-5)


def test_no_number_stays_none(compiled):
    ours, _ = networks(8, 2, 4, 1)
    assert block.forward(ours, torch.full((4, 8, 20), torch.nan), EVERY).isnan().all()


def test_what_the_kernels_are_not_made_for_goes_to_torch(compiled):
    ours, theirs = networks(8, 2, 4, 1)
    x = torch.randn(4, 8, 20, dtype=torch.float64)
    assert torch.equal(block.forward(ours.double(), x, EVERY), theirs.double()(x))


def test_without_a_compiler_everything_goes_on(without_kernels, clips):
    ours, theirs = networks(8, 2, 4, 1)
    x = torch.randn(4, 8, 20)
    assert torch.equal(block.forward(ours, x, EVERY), theirs(x))
    assert block.kernels("cpu") == "torch"
    assert log_mel(clips.waveforms[:3], configure().front_end, "cpu").shape == (3, 80, 101)


def test_a_compiler_that_fails_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path))
    for compiler, why in (("false", "false cannot compile"), ("no-such", "no C compiler no-such"), ("'", "quotation")):
        monkeypatch.setenv("CC", compiler)
        with pytest.warns(UserWarning, match=rf"no kernels of our own \(.*{why}.*torch's convolutions are used"):
            assert native._load.__wrapped__() is None
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("CC")
    monkeypatch.setenv("MELBENCH_KERNELS", "torch")
    assert native._load.__wrapped__() is None


def test_a_library_that_others_could_have_put_there_is_not_loaded(compiled, monkeypatch, tmp_path):
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path / "cache"))
    assert native._load.__wrapped__() is not None
    (made,) = (tmp_path / "cache").iterdir()
    made.chmod(0o777)
    with pytest.warns(UserWarning, match="can be written by them"):
        assert native._load.__wrapped__() is None


def test_a_small_variance_beside_a_large_mean(compiled):
    ours, theirs = networks(8, 1, 4, 1)
    with torch.no_grad():
        for network in (ours, theirs):
            network.blocks[0][0].bias.fill_(1000.0)
    x = torch.randn(16, 8, 40)
    index = torch.arange(16)[:, None]
    block.forward(ours, x, index), theirs(x)
    truth = theirs.blocks[0][0](x).relu().double().var((0, 2))
    # A tenth of it and 0.9 of 1: running variance.
    torch.testing.assert_close(ours.blocks[0][2].running_var.double(), 0.9 + 0.1 * truth, rtol=1e-3, atol=0.0)


def test_what_does_not_fit_is_torchs_to_refuse(compiled):
    network = networks(8, 2, 4, 1)[0]
    for x, index in (
        (torch.randn(4, 9, 20), EVERY),  # mels
        (torch.randn(3, 8, 20), EVERY),  # clips
        (torch.randn(4, 8, 3), EVERY),  # frames
        (torch.randn(4, 8), EVERY),
    ):
        with pytest.raises((RuntimeError, IndexError, ValueError)):
            block.forward(network, x, index)


def exact(waveforms, **settings):
    from torchaudio.transforms import MelSpectrogram

    transform = MelSpectrogram(16_000, **settings).double()
    return torch.log(transform(torch.from_numpy(waveforms).double() / 32768) + 1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_fft": 400, "hop_length": 160, "n_mels": 80},
        {"n_fft": 512, "hop_length": 128, "n_mels": 40},
        {"n_fft": 30, "hop_length": 100, "n_mels": 5},  # 15 = 3 x 5, an odd half
        {"n_fft": 1024, "hop_length": 333, "n_mels": 64, "f_min": 100.0, "f_max": 7000.0, "norm": "slaney"},
    ],
)
def test_features_are_exact_to_float32(compiled, clips, settings):
    found = log_mel(clips.waveforms, configure().front_end.model_copy(update=settings), "cpu")
    expected = exact(clips.waveforms, **settings)
    assert found.shape == expected.shape and found.dtype == torch.float32
    # Half a unit in the last place of a float32 between 8 and 16 is 4.8e-7.
    assert float((found.double() - expected).abs().max()) < 5e-7


def test_features_are_no_less_exact_than_torchaudios(compiled, clips):
    from torchaudio.transforms import MelSpectrogram

    single = MelSpectrogram(16_000, n_fft=400, hop_length=160, n_mels=80)
    theirs = torch.log(single(torch.from_numpy(clips.waveforms) / 32768) + 1e-6)
    truth = exact(clips.waveforms, n_fft=400, hop_length=160, n_mels=80)
    ours = log_mel(clips.waveforms, configure().front_end, "cpu")
    assert (ours - truth).abs().max() <= (theirs - truth).abs().max()


def test_an_unusual_transform_goes_to_torch(compiled, clips):
    # 402 = 2 x 3 x 67: a prime that our transform does not have.
    assert not native.library().supports(402)
    found = log_mel(clips.waveforms[:2], configure(n_fft=402).front_end, "cpu")
    torch.testing.assert_close(found.double(), exact(clips.waveforms[:2], n_fft=402, hop_length=160, n_mels=80),
                               rtol=1e-4, atol=1e-3)  # fmt: skip
