"""Fuzz targets: the kinds of files that melbench did not write itself, how each is mutated, and how commands read it.

The content is also put to its first use, because a file that only fails there was not refused in time.
"""

import functools
import io
import json
import math
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from bench import grid
from bench.baselines import convolutions
from bench.baselines.convolutions import ConvolutionRow
from bench.formats import to_csv
from bench.measurement import comparison, reader, time_tables
from bench.measurement.measurements import Launch, Measurement, Samples
from bench.measurement.peaks import Peaks
from bench.measurement.reader import KEY
from bench.measurement.roofline import Floor
from bench.measurement.workloads import WorkloadFacts, of_trial
from bench.records import FailureRecord, TimingRecord, TrialRecord
from bench.studies import convolution_grid, mutators
from bench.studies.fuzz_record_targets import (
    ENVIRONMENT,
    WORDS,
    failure_content,
    file_name_of,
    mutate_fold,
    read_failure,
    read_timing,
    read_trial,
    timing_content,
    trial_content,
)
from bench.system.monitor import Conditions
from melcnn import checkpoint
from melcnn.config import Settings, Trial, configure, descriptions
from melcnn.data import audio, loading, prepared
from melcnn.data.clips import SPLITS, Clip, ClipSet, assemble, cached
from melcnn.data.source import LISTS
from melcnn.errors import one_line
from melcnn.evaluation import predict
from melcnn.model import MelCNN, isolated_random_numbers


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        mutate: makes an input from a random generator.
        read: does with the file what the commands do.
        name: returns the file's name for its content.
    """

    mutate: Callable[[random.Random], bytes]
    read: Callable[[Path], object]
    name: Callable[[bytes], str] = lambda content: "input"


RATE = 8000


def _waveform(seconds: float = 0.05) -> np.ndarray:
    return 0.3 * np.sin(np.arange(int(RATE * seconds)) * 0.3)


def _encode(format: str, subtype: str | None, channels: int = 1) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.stack([_waveform()] * channels, 1), RATE, format=format, subtype=subtype)
    return out.getvalue()


# Formats that libsndfile writes and knows by their first bytes, whatever the file's name; melbench refuses some.
_AUDIO = [
    *(("WAV", kind) for kind in ("PCM_16", "PCM_U8", "PCM_24", "FLOAT", "DOUBLE", "ULAW")),
    *(("WAV", kind) for kind in ("IMA_ADPCM", "MS_ADPCM", "GSM610")),
    *((kind, "PCM_16") for kind in ("FLAC", "AIFF", "AU", "W64", "RF64", "WAVEX", "VOC", "NIST", "IRCAM", "PVF")),
    *((kind, "PCM_16") for kind in ("MAT4", "MAT5", "PAF", "SVX", "SDS", "HTK", "AVR", "MPC2K")),
    *(("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "FLOAT"), ("AU", "FLOAT")),
    *(("AU", "G721_32"), ("CAF", "ALAC_16"), ("XI", "DPCM_16"), ("WVE", "ALAW")),
]


@functools.cache
def _encodings() -> list[bytes]:
    found = []
    for format, subtype in _AUDIO:
        for channels in (1, 2):
            try:
                found.append(_encode(format, subtype, channels))
            except RuntimeError:  # This build of libsndfile lacks the format, or it holds a single channel only.
                continue
    return found


def _mutate_audio(rng: random.Random) -> bytes:
    return mutators.mutate_bytes(rng.choice(_encodings()), rng)


def _read_audio(path: Path) -> np.ndarray:
    waveform = audio.read_clip(path)
    assert waveform.shape == (audio.SAMPLES,) and waveform.dtype == np.int16
    return waveform


@functools.cache
def _files() -> list[tuple[str, bytes]]:
    sound = _encode("WAV", "PCM_16")
    lists = [(name, b"yes/b.wav\nno/b.wav\n") for name in LISTS.values()]
    return lists + [(f"{word}/{name}.wav", sound) for word in (*WORDS, "_background_noise_") for name in "abc"]


def _mutate_archive(rng: random.Random) -> bytes:
    return mutators.make_archive(_files(), rng)


def _read_archive(path: Path) -> object:
    """Read it as `--data ARCHIVE` does, and as `melbench data prepare --data` and then `--data auto` do."""
    loaded = loading.load_clips(path, WORDS, every_split=False)
    prepared.prepare(path, WORDS)
    return loaded, loading.load_clips("auto", WORDS, every_split=False)


@functools.cache
def _clips() -> ClipSet:
    wave = (100 * np.arange(800)).astype(np.int16)
    names = [f"{word}/{split}" for word in WORDS for split in SPLITS]
    made = [Clip(name, name.split("/")[0], name, name.split("/")[1], wave) for name in names]
    return assemble("synthetic", WORDS, audio.SAMPLE_RATE, 800, made)


@functools.cache
def _stored_clips() -> tuple[str, bytes]:
    """Return name and content of a file of the cache."""
    before = os.environ.get("MELBENCH_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MELBENCH_CACHE"] = folder
        cached("key", _clips)
        (file,) = Path(folder).iterdir()
        content = file.read_bytes()
    if before is not None:
        os.environ["MELBENCH_CACHE"] = before
    return file.name, content


def _mutate_clips(rng: random.Random) -> bytes:
    if rng.random() < 0.02:
        return rng.choice(mutators.pickles())
    return rng.choice((mutators.mutate_bytes, mutators.mutate_arrays))(_stored_clips()[1], rng)


def _read_clips(path: Path) -> ClipSet:
    os.environ["MELBENCH_CACHE"] = str(path.parent)
    found = cached("key", _clips)
    for split in SPLITS:
        part = found.split(split)
        assert len(found.waveforms[part]) == len(found.lengths[part]) == len(found.speakers[part]) == len(WORDS)
    assert found.fingerprint == _clips().fingerprint and not np.any(found.noise)
    return found


SMALL: Settings = {"recipe": "plain", "n_mels": 8, "n_fft": 64, "hop_length": 800, "channels": 8}


@functools.cache
def _checkpoint() -> bytes:
    trial = configure(WORDS, **SMALL)
    with isolated_random_numbers():
        torch.manual_seed(0)
        network = MelCNN.of(trial).eval()
    kept = checkpoint.Checkpoint(trial, network, 0, "synthetic", "f00", 0.5, 0.5)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save_checkpoint(kept, Path(folder) / "a")
        return mutators.sort_header((Path(folder) / "a").read_bytes())


def _mutate_checkpoint(rng: random.Random) -> bytes:
    if rng.random() < 0.05:
        return rng.choice(mutators.pickles())
    mutate = rng.choice((mutators.mutate_bytes, mutators.mutate_checkpoint, mutators.mutate_checkpoint))
    return mutate(_checkpoint(), rng)


def _read_checkpoint(path: Path) -> np.ndarray:
    loaded = checkpoint.load_checkpoint(path)
    return predict(loaded, np.zeros((1, audio.SAMPLES), np.int16))


@functools.cache
def _measurement() -> dict[str, Any]:
    calm = Conditions(threads=2, affinity=[0, 1], load=0.1, cpu_mhz=3000.0)
    seconds = [1.0 + i / 100 for i in range(12)]
    samples = Samples(
        cold_seconds=2.0,
        seconds=seconds,
        waited=[0.0] * 12,
        reference_seconds=seconds,
        reference_waited=[0.0] * 12,
        shares={"convolution": 0.5, "python": 0.5},
    )
    floor = Floor(seconds=1e-3, bound="memory", bound_when_busy="memory", operators=3, flops=1.0, bytes=2)
    works = [work for groups in (1, 4) for work in of_trial(configure(recipe="plain", groups=groups), ["latency"])]
    found = Measurement(
        works=works,
        facts=[WorkloadFacts(params=1, macs=2, floor=floor)] * 2,
        ceilings=Peaks(flops_per_second=1e9, bytes_per_second={2**20: 1e9}, launch_seconds=1e-6),
        launches=[Launch(samples=[samples] * 2, before=calm, after=calm)] * 2,
        environment=ENVIRONMENT,
        finished_at="2026-01-01",
    )
    content: dict[str, Any] = json.loads(found.model_dump_json())
    content["launches"][1]["samples"][0]["seconds"][0] = 1.5
    return content


@functools.cache
def _suite() -> dict[str, Any]:
    """Return the workloads of `_measurement` as pytest-benchmark writes them."""
    whole = _measurement()
    launch = whole["launches"][0]
    return {
        "datetime": "2026-01-01",
        KEY: {
            **{n: whole[n] for n in ("format_version", "reference_version", "kernels", "environment", "ceilings")},
            **{n: launch[n] for n in ("before", "after")},
        },
        "benchmarks": [
            {
                "stats": {"data": launch["samples"][i]["seconds"]},
                "extra_info": {
                    KEY: {"work": whole["works"][i], "facts": whole["facts"][i]}
                    | {"reference_seconds": launch["samples"][i]["reference_seconds"]}
                },
            }
            for i in range(2)
        ],
    }


def _read_measurement(path: Path) -> object:
    measurement = reader.read(path)
    return time_tables.rows(measurement), comparison.stored(measurement, measurement, 0.02)


def _read_suite(path: Path) -> object:
    measurement = reader.read(path)
    return comparison.stored(measurement, measurement, 0.02)


@functools.cache
def _table() -> str:
    row = ConvolutionRow(
        layer=1,
        groups=4,
        channels_in=80,
        channels_out=32,
        frames=101,
        batch_size=64,
        direction="forward",
        macs=10,
        torch_time_s=0.1,
        melbench_time_s=0.05,
        speed_ratio=2.0,
        speed_ratio_low95=1.9,
        speed_ratio_high95=2.1,
        torch_times_floor=9.0,
        melbench_times_floor=4.5,
        chosen="melcnn",
        device="a CPU",
    )
    return to_csv(convolutions.sheet([row, row.model_copy(update={"layer": 2})]))


def _mutate_table(rng: random.Random) -> bytes:
    content = mutators.mutate_table(_table(), rng).encode(errors="surrogatepass")
    return mutators.mutate_bytes(content, rng) if rng.random() < 0.3 else content


def _read_table(path: Path) -> object:
    return convolutions.sheet(convolution_grid.read(path))


def _configuration() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(configure(recipe="default").model_dump_json())
    return content


def _read_configuration(path: Path) -> object:
    with one_line("configuration"):
        trial = Trial.model_validate_json(path.read_bytes())
    with torch.device("meta"), isolated_random_numbers():
        MelCNN.of(trial)
    return descriptions([trial]), Trial.model_validate_json(trial.canonical()) == trial


_MAX_CONFIGURATIONS = 1000


def _mutate_axes(rng: random.Random) -> bytes:
    names = [
        "groups",
        "mels",
        "n_mels",
        "channels",
        "recipe",
        "epochs",
        "learning_rate",
        "shift",
        "variant",
        "patience",
    ]
    values = ["1", "2", "4", "80", "0.5", "plain", "default", "none", "shuffle", *mutators.TEXTS]
    values += [str(number) for number in mutators.INTEGERS]
    axes = [
        f"{rng.choice([*names, rng.choice(mutators.TEXTS)])}{rng.choice('====, ')}"
        + ",".join(rng.choice(values) for _ in range(rng.randrange(4)))
        for _ in range(rng.randrange(4))
    ]
    return "\n".join(axes).encode(errors="surrogatepass")


def _read_axes(path: Path) -> object:
    axes = grid.parse_axes(path.read_bytes().decode(errors="replace").split())
    if math.prod(map(len, axes.values())) > _MAX_CONFIGURATIONS:
        return axes
    return grid.expand(axes, WORDS)[0]


KINDS = {
    "archive": Kind(_mutate_archive, _read_archive),
    "audio": Kind(_mutate_audio, _read_audio),
    "cached clips": Kind(_mutate_clips, _read_clips, lambda content: _stored_clips()[0]),
    "checkpoint": Kind(_mutate_checkpoint, _read_checkpoint),
    "record": Kind(mutators.json_mutator(trial_content), read_trial, file_name_of(TrialRecord)),
    "fold record": Kind(mutate_fold, read_trial, file_name_of(TrialRecord)),
    "failure record": Kind(mutators.json_mutator(failure_content), read_failure, file_name_of(FailureRecord)),
    "timing record": Kind(mutators.json_mutator(timing_content), read_timing, file_name_of(TimingRecord)),
    "measurement": Kind(mutators.json_mutator(_measurement), _read_measurement),
    "suite": Kind(mutators.json_mutator(_suite), _read_suite),
    "table": Kind(_mutate_table, _read_table),
    "configuration": Kind(mutators.json_mutator(_configuration), _read_configuration),
    "axes": Kind(_mutate_axes, _read_axes),
}
