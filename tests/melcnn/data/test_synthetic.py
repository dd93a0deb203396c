import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from melcnn import InputError, load_clips
from melcnn.data import synthetic
from melcnn.data.clips import SPLITS


@pytest.fixture(scope="module")
def spoken():
    pytest.importorskip("espeakng_loader")
    return synthetic.synthesize(("yes", "no"))


def test_what_is_drawn(spoken):
    assert spoken.dataset == "synthetic" and len(spoken) == sum(synthetic.CLIPS.values())
    for split in SPLITS:
        counts = np.bincount(spoken.labels[spoken.split(split)])
        assert counts.tolist() == [synthetic.CLIPS[split] // 2] * 2
    voices = [set(spoken.speakers[spoken.split(split)]) for split in SPLITS]
    assert not (voices[0] & voices[1] or voices[0] & voices[2] or voices[1] & voices[2])
    # name: word/voice_accent_pitch_rate_number
    ways = {name.split("/")[1].rsplit("_", 1)[0] for name in spoken.names.tolist()}
    assert len(ways) >= 2000
    assert len({way.rsplit("_", 2)[0] for way in ways}) >= 100, "voices x accents"


def test_levels_vary_and_nothing_clips(spoken):
    peaks = np.abs(spoken.waveforms.astype(np.int32)).max(1)
    assert np.percentile(peaks, 95) > 4 * np.percentile(peaks, 5)
    # -30 to -1 dB of full scale
    assert peaks.min() >= 32767 * 10 ** (-30 / 20) - 1 and peaks.max() <= 32767 * 10 ** (-1 / 20) + 1


def test_the_noise_is_as_loud_as_said(monkeypatch):
    """A word at 40 dB over the noise stands out of it, at -40 dB it does not; its place and level vary."""
    rng = np.random.default_rng(0)
    word = np.sin(np.arange(4000) * 0.3)
    outside = {}
    for snr in (40.0, -40.0):
        monkeypatch.setattr(synthetic, "SNR_DB", (snr, snr))
        monkeypatch.setattr(synthetic, "NOISE_POLE", (0.0, 0.0))
        clip = np.sort(np.abs(synthetic._in_noise(word, rng).astype(float)))
        outside[snr] = np.sqrt(np.mean(clip[:8000] ** 2)) / clip[-1]
    assert outside[40.0] < 0.02 < 0.05 < outside[-40.0]


def test_voice_rate_and_pitch_are_heard(spoken):
    plain = {"text": "yes", "voice": "en-us+Andy", "rate": 160, "pitch": 50}
    changes = [{}, {"pitch": 80}, {"rate": 220}, {"voice": "en-us+Linda"}, {"text": "no"}]
    monkey = [{**plain, **change} for change in changes]
    monkey[3]["voice"] = "en-us+linda"
    assert len({sound.tobytes() for sound in synthetic._speak(monkey)}) == len(changes)
    slow, fast = (synthetic._speak([{**plain, "rate": rate}])[0] for rate in (120, 240))
    assert len(fast) < len(slow)


def test_words_that_sound_alike(spoken):
    with pytest.raises(InputError, match="'no' and 'know' alike"):
        synthetic.synthesize(("no", "know"))


def test_the_same_seed_gives_the_same_bytes_in_another_process(spoken):
    code = "from melcnn.data.synthetic import synthesize; print(synthesize(('yes', 'no')).fingerprint)"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "5"}
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert other.stdout.strip() == spoken.fingerprint
    assert synthetic.synthesize(("yes", "no"), seed=1).fingerprint != spoken.fingerprint


def test_it_can_be_learned_and_is_not_trivial(spoken):
    """Energy alone does not tell the words apart; a nearest-mean classifier on spectra does better than chance."""
    energy = np.log((spoken.waveforms.astype(float) ** 2).mean(1))
    train, test = spoken.split("train"), spoken.split("test")
    threshold = np.median(energy[train])
    by_energy = np.mean((energy[test] > threshold) == spoken.labels[test])
    assert 0.4 < by_energy < 0.6
    spectra = np.log(
        np.abs(np.fft.rfft(spoken.waveforms.astype(float)))[:, :8000].reshape(len(spoken), 80, 100).mean(2)
    )
    spectra -= spectra.mean(1, keepdims=True)
    means = np.stack([spectra[train][spoken.labels[train] == label].mean(0) for label in (0, 1)])
    heard = ((spectra[test][:, None] - means) ** 2).sum(2).argmin(1)
    assert 0.6 < np.mean(heard == spoken.labels[test]) < 0.97


def test_any_words(spoken):
    clips = synthetic.synthesize(("left", "right", "zwölf"))
    assert clips.words == ("left", "right", "zwölf") and np.bincount(clips.labels).min() > 800


def test_words_that_cannot_be_spoken(spoken):
    with pytest.raises(InputError, match=r"cannot speak the word '\?\?\?'"):
        synthetic.synthesize(("yes", "???"))


def test_a_missing_voice_or_a_crash_is_one_line(spoken, monkeypatch):
    monkeypatch.setattr(synthetic, "VOICES", [f"nobody{i}" for i in range(20)])
    with pytest.raises(InputError, match="has no voice .*nobody.*reinstall"):
        synthetic.synthesize(("yes", "no"))


def test_without_the_extra_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(synthetic, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install") as caught:
        load_clips("synthetic")
    assert "\n" not in str(caught.value)


def test_auto_says_what_it_takes(spoken, corpus, monkeypatch, tmp_path, caplog):
    from melcnn.data import prepared

    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(synthetic, "synthesize", lambda words: spoken)
    caplog.set_level(logging.INFO)
    assert load_clips("auto").dataset == "synthetic"
    (notice,) = caplog.messages
    assert "no real speech" in notice and "melbench data prepare" in notice
    prepared.prepare(corpus, ("yes", "no"))
    assert load_clips("auto").dataset == "speech_commands"
    with pytest.raises(InputError, match="'stop' is not prepared .*data prepare --words go,stop|'go' is not prepared"):
        load_clips("auto", ("go", "stop"))
