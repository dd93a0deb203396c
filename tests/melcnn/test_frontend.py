import warnings

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from melcnn import InputError, LogMelFilterBanks, load_clips
from melcnn.config import FrontEnd
from melcnn.frontend import mel_filters
from melcnn.kernels.log_mel import log_mel


def reference(x, **arguments):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filterbank")
        return torch.log(torchaudio.transforms.MelSpectrogram(**arguments)(x) + 1e-6)


def test_equals_torchaudio_at_the_defaults_on_noise():
    x = torch.randn(4, 16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    assert torch.allclose(LogMelFilterBanks()(x), reference(x, hop_length=160, n_mels=80))


def test_equals_torchaudio_at_the_defaults_on_speech(speech):
    clips = load_clips(speech, ("yes", "no"))
    x = torch.from_numpy(clips.waveforms[::20]).float() / 32768
    assert torch.allclose(LogMelFilterBanks()(x), reference(x, hop_length=160, n_mels=80))


@st.composite
def arguments(draw):
    sample_rate = draw(st.sampled_from([8_000, 16_000, 22_050, 44_100]))
    n_fft = draw(st.integers(16, 1024))
    nyquist = sample_rate // 2
    f_min = draw(st.floats(0, nyquist * 0.8))
    return {
        "sample_rate": sample_rate,
        "n_fft": n_fft,
        "hop_length": draw(st.integers(1, n_fft)),
        "n_mels": draw(st.integers(1, min(128, n_fft // 2 + 1))),
        "f_min": f_min,
        "f_max": draw(st.none() | st.floats(f_min + nyquist * 0.1, nyquist)),
        "norm": draw(st.sampled_from([None, "slaney"])),
        "mel_scale": draw(st.sampled_from(["htk", "slaney"])),
    }


@settings(max_examples=150, deadline=None)
@given(arguments(), st.integers(0, 2**31), st.integers(600, 3000))
def test_equals_torchaudio_for_any_legal_settings(arguments, seed, samples):
    x = torch.rand(2, samples, generator=torch.Generator().manual_seed(seed)) - 0.5
    ours = LogMelFilterBanks(**arguments)(x)
    torch.testing.assert_close(ours, reference(x, **arguments), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("normalize", "dims"), [("clip", (1, 2)), ("mel", (2,))])
def test_means_are_taken_off(normalize, dims):
    x = torch.randn(3, 16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    features, plain = LogMelFilterBanks(normalize=normalize)(x), LogMelFilterBanks()(x)
    torch.testing.assert_close(features, plain - plain.mean(dims, keepdim=True))
    # Loudness shifts all logarithms alike, but for the offset, which 1e-6 of this power is far from.
    torch.testing.assert_close(LogMelFilterBanks(normalize=normalize)(2 * x), features, atol=1e-3, rtol=1e-3)
    # In large batches by the kernel, if there is one.
    waveforms = (32768 * x).clamp(-32768, 32767).short().numpy()
    config = FrontEnd(normalize=normalize)
    expected = LogMelFilterBanks(normalize=normalize)(torch.from_numpy(waveforms) / 32768)
    torch.testing.assert_close(log_mel(waveforms, config, "cpu"), expected, atol=1e-4, rtol=1e-4)


def test_leading_dimensions_are_batches():
    module, x = LogMelFilterBanks(n_mels=40), torch.randn(2, 3, 4000)
    # frames = samples // hop_length + 1 = 4000 // 160 + 1 = 26
    assert module(x).shape == (2, 3, 40, 26)
    torch.testing.assert_close(module(x)[1, 2], module(x[1, 2]))


def test_silence_is_the_logarithm_of_the_offset():
    torch.testing.assert_close(LogMelFilterBanks()(torch.zeros(16_000)), torch.full((80, 101), 1e-6).log())


def test_output_is_float32_whatever_comes_in_and_under_autocast():
    module, x = LogMelFilterBanks(), torch.randn(1, 1600)
    assert module(x.double()).dtype == module(x.half()).dtype == torch.float32
    expected = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(module(x), expected, rtol=0, atol=0)


def test_buffers_follow_to():
    module = LogMelFilterBanks().to("meta")
    assert {buffer.device.type for buffer in module.buffers()} == {"meta"}
    assert not module.state_dict()


def test_warns_of_filters_that_see_no_bin_and_the_remedy_works(caplog):
    # 128 mel filters over the 201 bins of n_fft 400 hold 4 empty ones.
    LogMelFilterBanks(n_mels=128)
    (warning,) = caplog.messages
    assert warning.startswith("4 of 128 mel filters see no FFT bin")
    words = warning.split()
    n_mels, n_fft = (int(words[words.index(name, words.index("use")) + 1]) for name in ("n_mels", "n_fft"))
    LogMelFilterBanks(n_mels=n_mels)
    LogMelFilterBanks(n_mels=128, n_fft=n_fft)
    assert caplog.messages == [warning]


def test_filters_equal_the_formula_of_triangles():
    # HTK: mel = 2595 log10(1 + f / 700); filter m rises from point m to m + 1 and falls to m + 2.
    module = LogMelFilterBanks(n_mels=3, n_fft=64)
    points = 700 * (10 ** (torch.linspace(0, 2840.0230467083, 5, dtype=torch.double) / 2595) - 1)
    bins = torch.linspace(0, 8000, 33, dtype=torch.double)
    rise = (bins[:, None] - points[:-2]) / (points[1:-1] - points[:-2])
    fall = (points[2:] - bins[:, None]) / (points[2:] - points[1:-1])
    torch.testing.assert_close(
        mel_filters(module.config).double(), torch.minimum(rise, fall).clamp(0), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"n_mels": 0}, "n_mels"),
        ({"n_mels": 202}, "1 to 201"),
        ({"n_fft": 4}, "n_fft"),
        ({"hop_length": 0}, "hop_length"),
        ({"f_min": 5000.0, "f_max": 4000.0}, "f_min < f_max"),
        ({"f_max": 9000.0}, "8000"),
        ({"mel_scale": "bark"}, "mel_scale"),
        ({"norm": "l2"}, "norm"),
    ],
)
def test_settings_out_of_range(arguments, words):
    with pytest.raises(InputError, match=words) as caught:
        LogMelFilterBanks(**arguments)
    assert "\n" not in str(caught.value)


def test_waveforms_that_cannot_be():
    with pytest.raises(InputError, match="32768"):
        LogMelFilterBanks()(torch.zeros(16_000, dtype=torch.int16))
    with pytest.raises(InputError, match="more than 200"):
        LogMelFilterBanks()(torch.zeros(200))
