import numpy as np
import pytest

from melcnn.data.renditions import SNR_DB, add_noise, change_speed

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
    clips = np.stack([tone(500 + 100 * n) for n in range(50)])
    noise = np.random.default_rng(1).normal(0, 500, 5 * RATE).astype(np.int16)
    heard = add_noise(clips, noise)
    added = heard.astype(float) - clips
    ratios = 10 * np.log10((clips.astype(float) ** 2).mean(1) / (added**2).mean(1))
    low, high = SNR_DB
    assert low - 0.1 < ratios.min() < low + 5 and high - 5 < ratios.max() < high + 0.1
    assert np.array_equal(add_noise(clips, noise), heard), "the same each time"
