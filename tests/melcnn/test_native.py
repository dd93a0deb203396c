"""Our C kernels against torch's layers, and what happens without a compiler."""

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from melcnn import native
from melcnn.kernels import grouped_conv
from melcnn.kernels.log_mel import log_mel
from melcnn.model import MelCNN
from tests.helpers.configurations import plain


@pytest.fixture
def compiled():
    if native.library() is None:
        pytest.skip("there is no C compiler")


@pytest.fixture
def without_kernels(monkeypatch):
    monkeypatch.setattr(native, "library", lambda: None)
    monkeypatch.setattr(grouped_conv, "_DECIDED", {})


def test_without_a_compiler_everything_goes_on(without_kernels, clips):
    network, x = MelCNN(8, 2, 4), torch.randn(4, 8, 20)
    out = network(x)
    network.kernels = "torch"
    assert torch.equal(out, network(x))
    assert grouped_conv.kernels("cpu") == "torch"
    assert log_mel(clips.waveforms[:3], plain().front_end, "cpu").shape == (3, 80, 101)


def test_a_compiler_that_fails_is_none(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path))
    for compiler, why in (("false", "false cannot compile"), ("no-such", "no C compiler no-such"), ("'", "quotation")):
        monkeypatch.setenv("CC", compiler)
        assert native._load.__wrapped__() is None
        assert re.search(rf"no kernels of our own \(.*{why}.*torch's convolutions are used", caplog.messages[-1])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_kernels_that_nobody_wants(compiled, monkeypatch):
    monkeypatch.setattr(native, "_switch", lambda: "torch")
    assert native.library() is None and grouped_conv.kernels("cpu") == "torch"


def test_what_only_operators_can_serve_is_not_eager():
    seen = []

    def ask(x):
        seen.append(native.is_eager())
        return x.sum()

    x = torch.ones(2)
    for asked in (torch.func.vmap(ask), torch.func.grad(ask), lambda x: torch.func.jvp(ask, (x,), (x,))):
        asked(x)
    with torch.autograd.forward_ad.dual_level():
        ask(x)
    with torch.autocast("cpu"):
        ask(x)
    torch.jit.trace(ask, x, check_trace=False)
    with FlopCounterMode(display=False):
        ask(x)
    assert seen == [False] * 7
    ask(x)
    assert seen[-1]


def test_without_kernels_is_for_one_thread_and_a_while(compiled):
    with native.without_kernels():
        with native.without_kernels():
            pass
        assert native.disabled() and native.library() is None
        with ThreadPoolExecutor(1) as pool:
            assert not pool.submit(native.disabled).result()
    assert not native.disabled()


def test_a_library_that_others_could_have_put_there_is_not_loaded(compiled, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path / "cache"))
    assert native._load.__wrapped__() is not None
    (made,) = (tmp_path / "cache" / "kernels").iterdir()
    made.chmod(0o777)
    assert native._load.__wrapped__() is None
    assert "can be written by them" in caplog.text


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
    found = log_mel(clips.waveforms, plain().front_end.model_copy(update=settings), "cpu")
    expected = exact(clips.waveforms, **settings)
    assert found.shape == expected.shape and found.dtype == torch.float32
    # Half a unit in the last place of a float32 between 8 and 16 is 4.8e-7.
    assert float((found.double() - expected).abs().max()) < 5e-7


def test_features_are_no_less_exact_than_torchaudios(compiled, clips):
    from torchaudio.transforms import MelSpectrogram

    single = MelSpectrogram(16_000, n_fft=400, hop_length=160, n_mels=80)
    theirs = torch.log(single(torch.from_numpy(clips.waveforms) / 32768) + 1e-6)
    truth = exact(clips.waveforms, n_fft=400, hop_length=160, n_mels=80)
    ours = log_mel(clips.waveforms, plain().front_end, "cpu")
    assert (ours - truth).abs().max() <= (theirs - truth).abs().max()


def test_an_unusual_transform_goes_to_torch(compiled, clips):
    # 402 = 2 x 3 x 67: a prime that our transform does not have.
    assert not native.library().supports(402)
    found = log_mel(clips.waveforms[:2], plain(n_fft=402).front_end, "cpu")
    torch.testing.assert_close(found.double(), exact(clips.waveforms[:2], n_fft=402, hop_length=160, n_mels=80),
                               rtol=1e-4, atol=1e-3)  # fmt: skip


def test_with_an_open_mask_nobody_else_can_put_a_library_there(compiled, monkeypatch, tmp_path):
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path / "deep" / "cache"))
    before = os.umask(0)
    try:
        assert native._load.__wrapped__() is not None
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_dir()}
    assert modes == {"deep": 0o775, "cache": 0o775, "kernels": 0o700}
    (library,) = (tmp_path / "deep" / "cache" / "kernels").iterdir()
    assert library.stat().st_mode & 0o777 == 0o700
