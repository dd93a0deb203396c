from dataclasses import replace

import numpy as np
import pytest
import torch

from melcnn import extract
from melcnn.data.renditions import add_noise, change_speed
from melcnn.kernels.log_mel import log_mel
from tests.helpers.configurations import plain

RATE = 16_000


def tone(hertz, seconds=1.0):
    return np.round(8000 * np.sin(2 * np.pi * hertz * np.arange(int(RATE * seconds)) / RATE)).astype(np.int16)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_speed_changes_pitch_and_length_alike(factor):
    played = change_speed(tone(1000)[None], factor)
    assert played.shape == (1, RATE) and played.dtype == np.int16
    # In the middle half second, which no end reaches: 1000 Hz at `factor` times the speed.
    spectrum = np.abs(np.fft.rfft(played[0, RATE // 4 : 3 * RATE // 4]))
    assert 2 * spectrum.argmax() == pytest.approx(1000 * factor, abs=2)


def test_what_is_faster_is_mirrored_at_the_ends():
    click = np.zeros((1, RATE), np.int16)
    click[0, 200] = 20_000
    heard = change_speed(click, 1.1)[0]
    # 16000 / 1.1 = 14546 samples in the middle, 727 before them: the click is 200 / 1.1 = 182 behind their first, and
    # as much before it.
    assert sorted(np.argsort(heard)[-2:]) == [727 - 182, 727 + 182]


def test_noise_is_as_much_softer_as_it_says():
    # 5 to 25 dB, uniform: of 1000 clips the least and the most lie within 0.2 dB of the ends, a quarter in each 5 dB.
    clips = np.stack([tone(500 + n) for n in range(1000)])
    noise = np.random.default_rng(1).normal(0, 500, 5 * RATE).astype(np.int16)
    heard = add_noise(clips, noise)
    added = heard.astype(float) - clips
    ratios = 10 * np.log10((clips.astype(float) ** 2).mean(1) / (added**2).mean(1))
    assert ratios.min() == pytest.approx(5, abs=0.2) and ratios.max() == pytest.approx(25, abs=0.2)
    assert np.histogram(ratios, [4, 10, 15, 20, 26])[0] == pytest.approx([250] * 4, abs=60)
    assert np.array_equal(add_noise(clips, noise), heard), "the same each time"


def test_a_training_sees_slower_and_faster_clips_and_noise(clips):
    noisy = replace(clips, noise=np.random.default_rng(1).normal(0, 500, 5 * RATE).astype(np.int16))
    trial = plain(n_mels=16, n_fft=256, hop_length=400, speed=0.1, noise=True)
    features = extract(noisy, trial.front_end)
    waveforms = clips.waveforms[clips.split("train")]
    x, labels = features.to_train(trial.training)
    expected = [
        waveforms,
        change_speed(waveforms, 0.9),
        change_speed(waveforms, 1.1),
        add_noise(waveforms, noisy.noise),
    ]
    assert len(labels) == len(waveforms) and len(x) == 4 * len(waveforms)
    for part, made in zip(x.split(len(waveforms)), expected, strict=True):
        assert torch.equal(part, log_mel(made, trial.front_end, "cpu"))


def test_what_is_too_loud_is_cut_at_full_scale():
    # A clip at full scale in noise at 5 dB or more: the sum goes beyond, and stays within int16 without wrapping round.
    square = np.where(np.arange(RATE) % 2, 32767, -32768).astype(np.int16)[None]
    noise = np.random.default_rng(0).normal(0, 8000, 2 * RATE).astype(np.int16)
    made = add_noise(square, noise)
    assert made.min() == -32768 and made.max() == 32767
    assert (np.sign(made.astype(int)) == np.sign(square.astype(int))).mean() > 0.9


def test_silence_gets_noise_of_about_one_step():
    # Silence counts as power 1, as if of one step of int16: at 5 to 25 dB below it the noise rounds to 2 steps at most.
    noise = np.random.default_rng(0).normal(0, 500, 2 * RATE).astype(np.int16)
    made = add_noise(np.zeros((8, RATE), np.int16), noise)
    assert 0 < np.abs(made.astype(int)).max() <= 3


def test_clips_beyond_one_batch_are_changed_alike(monkeypatch):
    clips = np.stack([tone(300 + 10 * n) for n in range(5)])
    whole = change_speed(clips, 1.1)
    monkeypatch.setattr("melcnn.data.renditions.CLIPS_AT_ONCE", 2)
    assert np.array_equal(change_speed(clips, 1.1), whole)
    # The middle stays in the middle: what a clip that reads the same from both ends becomes does so, too.
    even = np.concatenate([tone(400, 0.5), tone(400, 0.5)[::-1]])[None]
    for factor in (0.9, 1.1):
        made = change_speed(even, factor)[0].astype(int)
        assert np.abs(made - made[::-1]).max() <= 2500, factor
