import contextlib
import io

import numpy as np
import pytest
import soundfile
import torch

from melcnn import InputError, read_clip
from melcnn.data import audio
from melcnn.data.audio import BadAudio, audio_files, decode, fit_length, resample


def encoded(samples, rate=16_000, **format):
    out = io.BytesIO()
    soundfile.write(out, samples, rate, **{"format": "WAV", "subtype": "PCM_16", **format})
    return out.getvalue()


def test_pcm16_is_exact():
    samples = np.array([-32768, -1, 0, 1, 32767], np.int16)
    assert decode(encoded(samples)).waveform.tolist() == samples.tolist()


def test_channels_are_averaged_and_float_files_scaled():
    found = decode(encoded(np.array([[0.5, 0.25], [-0.5, 0.0]]), subtype="FLOAT"))
    # mean 0.375 and -0.25, times 32768
    assert found.waveform.tolist() == [12288, -8192] and found.channels == 2
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


@pytest.mark.parametrize("format", ["WAV", "WAVEX", "RF64", "W64", "CAF", "AIFF", "AU", "FLAC", "OGG", "MP3"])
def test_what_recorders_write_is_read(format):
    assert len(decode(encoded(np.full(16_000, 0.1), format=format, subtype=None)).waveform) >= 16_000


def test_a_codec_that_cannot_be_asked_for_its_length():
    # A block of GSM in a WAV file is 320 samples at 8 kHz, 640 at 16 kHz; the writer adds what fills the last one.
    tone = 0.3 * np.sin(np.arange(1600) * 0.3)
    samples = len(decode(encoded(tone, 8000, subtype="GSM610")).waveform)
    assert samples >= 3200 and samples % 640 == 0


@pytest.mark.parametrize("format", ["MAT4", "MAT5", "VOC", "NIST", "PAF", "HTK", "IRCAM", "PVF", "SVX"])
def test_formats_that_nobody_records_in_are_not_even_opened(format, monkeypatch):
    content = encoded(np.full(16_000, 0.1), format=format)
    monkeypatch.setattr(soundfile, "SoundFile", None)
    with pytest.raises(BadAudio, match=r"is no audio that can be read \(not WAV, FLAC, Ogg"):
        decode(content)


@pytest.mark.parametrize(
    ("format", "at", "number"), [("AIFF", 31, b"\xff" * 8), ("RF64", 28, b"\xff" * 7 + b"\x7f")], ids=["back", "far"]
)
def test_a_header_that_sends_the_reader_out_of_the_file(format, at, number, capfd):
    """What Python raises in a callback of libsndfile ends on standard error, as a traceback."""
    content = encoded(np.full(400, 0.1), 8000, format=format)
    with contextlib.suppress(BadAudio):
        decode(content[:at] + number + content[at + len(number) :])
    assert "Traceback" not in capfd.readouterr().err


def test_a_few_bytes_that_say_they_are_minutes():
    content = bytearray(encoded(np.full(100, 0.1), 48_000, format="FLAC"))
    # STREAMINFO ends its 36 bits of samples at byte 26: 25 million are 521 s, and more than 19,200,000 samples.
    content[22:26] = (25_000_000).to_bytes(4, "big")
    with pytest.raises(BadAudio, match="holds 25,000,000 samples, more than 19,200,000: cut it into words"):
        decode(bytes(content))
    content[22:26] = (29_000_000).to_bytes(4, "big")  # 604 s
    with pytest.raises(BadAudio, match="longer than 600 s"):
        decode(bytes(content))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rate", [8_000, 16_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_largest_numbers_there_are(rate, channels):
    """Whose mean overflows, and whose resampling gives infinity less infinity."""
    values = np.full((400, channels), np.finfo(np.float32).max, np.float32)
    values[::2] *= -1
    try:
        waveform = decode(encoded(values, rate, subtype="FLOAT")).waveform
    except BadAudio as error:
        assert channels == 2 and str(error) == "holds values that are not numbers"
    else:
        assert channels == 1 and waveform.dtype == np.int16 and len(waveform) == 400 * 16_000 // rate


def test_a_file_without_an_end(monkeypatch, tmp_path):
    monkeypatch.setattr(audio, "MAX_BYTES", 3 << 20)
    with open("/dev/zero", "rb") as endless, pytest.raises(InputError, match="is larger than 3,145,728 bytes: cut it"):
        read_clip(endless)
    (tmp_path / "a.wav").write_bytes(bytes((3 << 20) + 1))
    with pytest.raises(InputError, match=r"a\.wav is larger than 3,145,728 bytes"):
        read_clip(tmp_path / "a.wav")


SOUND = np.random.default_rng(0).integers(-20_000, 20_000, (2, 16_000)).astype(np.int16)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, torch.tensor, torch.from_numpy])
def test_waveforms_in_memory_are_one_clip_whatever_their_type(kind):
    scaled = SOUND.astype(np.float64) / 32768
    made = audio.clips_of(kind(scaled))
    # Half precision has 11 bits: below 2^15 it is off by at most 8.
    assert made.dtype == np.int16 and np.abs(made.astype(int) - SOUND).max() <= (8 if kind is np.float16 else 0)
    assert np.array_equal(audio.clips_of(torch.from_numpy(SOUND)), SOUND)


def test_samples_beyond_full_scale_are_clipped():
    assert audio.clips_of(np.array([[1.05, -1.05, 0.5]]))[0, :3].tolist() == [32767, -32768, 16384]


def test_waveforms_are_made_a_second_long():
    short, long = audio.clips_of(SOUND[:, :8000]), np.zeros((1, 48_000), np.float32)
    assert np.array_equal(short[:, :8000], SOUND[:, :8000]) and not short[:, 8000:].any()
    long[0, 20_000:36_000] = 0.25
    assert audio.clips_of(long).tolist() == [[8192] * 16_000]


def test_waveforms_are_resampled():
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000) / 2
    expected = np.rint(resample(tone, 8000) * 32768)
    assert audio.clips_of(tone[None], rate=8000).tolist() == [expected.tolist()]
    of_int16 = audio.clips_of(np.rint(tone[None] * 32768).astype(np.int16), rate=8000)
    np.testing.assert_allclose(of_int16, expected[None], atol=2)


@pytest.mark.parametrize(
    ("waveforms", "complaint"),
    [
        (SOUND[0], r"must be \(clips, samples\), not \(16000,\): give one waveform as waveform\[None\]"),
        (SOUND[None], "mix channels down"),
        (SOUND[:, :0], "without samples"),
        (SOUND.astype(np.int32), "must be int16, or floating point in -1 to 1, not int32"),
        (SOUND.astype(np.uint8), "not uint8"),
        (SOUND > 0, "not bool"),
        (SOUND.astype(np.float32), "must be in -1 to 1, but reach 20000: divide int16 samples by 32768"),
        (np.full((1, 16_000), np.nan), "not finite"),
        (np.full((1, 16_000), np.inf), "not finite"),
        (np.zeros((1, 10), complex), "not complex128"),
    ],
)
def test_waveforms_that_are_no_audio_are_refused(waveforms, complaint):
    with pytest.raises(InputError, match=complaint):
        audio.clips_of(waveforms)


@pytest.mark.parametrize("rate", [0, -1, 44_101_001])
def test_rates_that_cannot_be_resampled(rate):
    with pytest.raises(InputError, match="cannot be resampled"):
        audio.clips_of(SOUND, rate)
