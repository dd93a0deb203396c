"""Synthetic data: words spoken by eSpeak NG in many voices, in noise. It needs no download and is no real speech.

It is good for tests and for a first try. Results on it hold for these voices alone.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.signal import lfilter

from melcnn.data.audio import SAMPLE_RATE, SAMPLES, fit_length, resample
from melcnn.data.clips import SPLITS, Clip, ClipSet, assemble
from melcnn.errors import InputError

# Raise when the clips change: they are then made anew, and results on them are not mixed with older ones.
VERSION = 1

CLIPS = {"train": 1600, "validation": 400, "test": 600}

# The voice variants of eSpeak NG that sound like a person. Each split has voices of its own, in every accent.
VOICES = (
    "Alex Alicia Andrea Andy Annie Denis Diogo Gene Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen Reed "
    "adam anika announcer antonio aunty belinda benjamin boris caleb david ed edward f1 f2 f3 f4 f5 grandma grandpa "
    "gustave ian iven john linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo max michel miguel norbert pablo paul pedro quincy "
    "rob robert sandro shelby steph travis victor zac"
).split()
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc")
VOICE_SHARE = {"train": 0.6, "validation": 0.15, "test": 0.25}

RATE = (110, 240)  # words per minute
PITCH = (15, 85)  # on eSpeak NG's scale of 0 to 99
LEVEL_DB = (-30.0, -1.0)  # the loudest sample of the clip, in dB of full scale
SNR_DB = (-5.0, 15.0)  # the power of the word while it sounds against that of the noise
NOISE_POLE = (0.0, 0.95)  # the pole of the one-pole filter of the noise: white to low-pass


def synthesize(words: Sequence[str], seed: int = 0) -> ClipSet:
    """Return clips of `words`, equally many of each, in splits that share no voice; a seed fixes them.

    Voice, accent, pitch, rate, offset, level and noise are drawn for every clip.

    Raises:
        InputError: without the extra `synthetic`, for a word that eSpeak NG cannot speak, and for words that it speaks
            alike.
    """
    words = tuple(words)
    rng = np.random.default_rng([seed, VERSION])
    requests = _requests(words, rng)
    # Each word once in the same voice, to find silent words and words that sound alike.
    plain = [{"text": word, "voice": f"{ACCENTS[0]}+{VOICES[0]}", "rate": 160, "pitch": 50} for word in words]
    sounds = _speak(plain + [request for _, request in requests])
    _check_sounds(words, sounds[: len(words)])
    sounds = sounds[len(words) :]
    clips = []
    for number, ((split, request), sound) in enumerate(zip(requests, sounds, strict=True)):
        word, voice = request["text"], request["voice"]
        accent, variant = voice.split("+")
        clips.append(
            Clip(
                name=f"{word}/{variant}_{accent}_p{request['pitch']}_r{request['rate']}_{number}",
                word=word,
                speaker=variant,
                split=split,
                waveform=_in_noise(sound, rng),
            )
        )
    return assemble("synthetic", words, SAMPLE_RATE, SAMPLES, clips)


def _check_sounds(words: tuple[str, ...], sounds: list[np.ndarray]) -> None:
    spoken: dict[bytes, str] = {}
    for word, sound in zip(words, sounds, strict=True):
        if not sound.any():
            raise InputError(f"eSpeak NG cannot speak the word {word!r}: choose a word of letters or digits")
        if (twin := spoken.setdefault(sound.tobytes(), word)) != word:
            raise InputError(f"eSpeak NG speaks {twin!r} and {word!r} alike: choose words that sound different")


def _requests(words: tuple[str, ...], rng: np.random.Generator) -> list[tuple[str, dict]]:
    voices = rng.permutation(VOICES).tolist()
    bounds = np.cumsum([0] + [round(VOICE_SHARE[split] * len(voices)) for split in SPLITS])
    bounds[-1] = len(voices)
    requests = []
    for split, first, last in zip(SPLITS, bounds, bounds[1:], strict=False):
        for number in range(CLIPS[split]):
            voice = voices[int(rng.integers(first, last))]
            request = {
                "text": words[number % len(words)],
                "voice": f"{ACCENTS[int(rng.integers(len(ACCENTS)))]}+{voice}",
                "rate": int(rng.integers(RATE[0], RATE[1] + 1)),
                "pitch": int(rng.integers(PITCH[0], PITCH[1] + 1)),
            }
            requests.append((split, request))
    # Switching voices takes longer than speaking, so requests for one voice follow each other.
    return sorted(requests, key=lambda r: (SPLITS.index(r[0]), r[1]["voice"], json.dumps(r[1])))


def _in_noise(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return one second, int16, with `sound` (float, at 16 kHz) at a random offset and level in random noise."""
    loud = np.flatnonzero(np.abs(sound) > 0.01 * np.abs(sound).max())
    sound = sound[loud[0] : loud[-1] + 1]
    if len(sound) > SAMPLES:
        sound = fit_length(sound)
    clip = lfilter([1.0], [1.0, -rng.uniform(*NOISE_POLE)], rng.standard_normal(SAMPLES))
    clip *= np.sqrt(10 ** (-rng.uniform(*SNR_DB) / 10) / np.mean(clip**2))
    offset = int(rng.integers(SAMPLES - len(sound) + 1))
    clip[offset : offset + len(sound)] += sound / np.sqrt(np.mean(sound**2))
    clip *= 10 ** (rng.uniform(*LEVEL_DB) / 20) / np.abs(clip).max()
    return np.rint(clip * 32767).astype(np.int16)


def _speak(requests: list[dict]) -> list[np.ndarray]:
    """Return the speech of eSpeak NG as float in -1 to 1 at 16 kHz; eSpeak NG runs in a process of its own."""
    if find_spec("espeakng_loader") is None:
        raise InputError(
            "--data synthetic needs eSpeak NG: pip install 'melbench[synthetic]' (in a checkout: "
            "pip install -e '.[synthetic]'), or give real speech with --data"
        )
    process = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("espeak_process.py"))],
        input="".join(json.dumps(request) + "\n" for request in requests).encode(),
        capture_output=True,
    )
    if process.returncode:
        reason = (process.stderr.decode(errors="replace").strip().splitlines() or ["it crashed"])[-1]
        raise InputError(
            f"eSpeak NG failed ({reason}): reinstall it with pip install --force-reinstall espeakng-loader"
        )
    output = memoryview(process.stdout)
    rate = int.from_bytes(output[:4], "little")
    sounds, at = [], 4
    while at < len(output):
        length = 2 * int.from_bytes(output[at : at + 4], "little")
        pcm = np.frombuffer(output[at + 4 : at + 4 + length], "<i2")
        sounds.append(resample(pcm / 32768.0, rate))
        at += 4 + length
    return sounds
