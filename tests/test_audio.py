import io

import numpy as np
import pytest
import soundfile

from melcnn import InputError, read_clip
from melcnn.data.audio import BadAudio, audio_files, decode, fit_length, resample


def encoded(samples, rate=16_000, **format):
    out = io.BytesIO()
    soundfile.write(out, samples, rate, **{"format": "WAV", "subtype": "PCM_16", **format})
    return out.getvalue()


def test_pcm16_is_exact():
    samples = np.array([-32768, -1, 0, 1, 32767], np.int16)
    assert decode(encoded(samples)).waveform.tolist() == samples.tolist()


def test_channels_are_averaged_and_float_files_scaled():
    audio = decode(encoded(np.array([[0.5, 0.25], [-0.5, 0.0]]), subtype="FLOAT"))
    # mean 0.375 and -0.25, times 32768
    assert audio.waveform.tolist() == [12288, -8192] and audio.channels == 2
    assert decode(encoded(np.array([2.0, -2.0]), subtype="FLOAT")).waveform.tolist() == [32767, -32768]


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_a_tone(rate):
    # 1 kHz at any rate is 1 kHz at 16 kHz; the filter's edges are left out.
    made = resample(np.sin(2 * np.pi * 1000 * np.arange(rate) / rate), rate)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    assert len(made) == 16_000
    np.testing.assert_allclose(made[200:-200], expected[200:-200], atol=0.01)


def test_the_stretch_with_the_most_energy():
    wave = np.zeros(30, np.int16)
    wave[12:15] = 100
    wave[25] = 150
    # a window of 5 that holds samples 12 to 14 has energy 30000, the lone peak 22500
    assert fit_length(wave, 5).tolist().count(100) == 3
    assert fit_length(np.array([1, 2], np.int16), 4).tolist() == [1, 2, 0, 0]


@pytest.mark.parametrize("format", ["WAV", "AIFF", "AU", "FLAC", "MP3", "OGG"])
def test_a_file_cut_in_half_is_not_taken_for_a_short_one(format):
    tone = 0.3 * np.sin(np.arange(16_000) * 0.2)
    whole = encoded(tone, format=format, subtype=None)
    assert len(decode(whole).waveform) >= 16_000
    with pytest.raises(BadAudio):
        decode(whole[: len(whole) // 2])


def test_a_streamed_wav_without_a_length_is_no_damage():
    content = bytearray(encoded(np.full(100, 0.1)))
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    assert len(decode(bytes(content)).waveform) == 100


def test_files_folders_and_names_in_errors(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/b/2.wav", "a/1.flac"):
        soundfile.write(tmp_path / name, np.full(16_000, 0.1), 16_000)
    (tmp_path / "a" / "notes.txt").write_text("no audio")
    found = audio_files([str(tmp_path / "a"), "-", "x.wav"])
    assert found == [str(tmp_path / "a/1.flac"), str(tmp_path / "a/b/2.wav"), "-", "x.wav"]
    assert read_clip(found[0]).shape == (16_000,)
    with pytest.raises(InputError, match=r"notes.txt is no audio"):
        read_clip(tmp_path / "a" / "notes.txt")
    with pytest.raises(InputError, match="x.wav cannot be read"):
        read_clip("x.wav")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no audio file"):
        audio_files([str(tmp_path / "empty")])
