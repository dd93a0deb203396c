"""The kinds of files that may be of anybody's making: for each a mutated one, and how the commands read it.

What is read is also put to its first use, because a file that only fails there was not refused in time.
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
    a_fold,
    failure,
    named,
    own,
    read_failure,
    read_timing,
    read_trial,
    timing,
)
from bench.system.monitor import Conditions
from melcnn import checkpoint
from melcnn.config import Trial, configure, descriptions
from melcnn.data import audio, loading, prepared
from melcnn.data.clips import SPLITS, Clip, ClipSet, assemble, cached
from melcnn.data.source import LISTS
from melcnn.errors import one_line
from melcnn.evaluation import predict
from melcnn.model import MelCNN, drawing


@dataclass(frozen=True)
class Kind:
    """mutated: an input, of a random generator. read: what the commands do with the file. name: the file's, of its
    content."""

    mutated: Callable[[random.Random], bytes]
    read: Callable[[Path], object]
    name: Callable[[bytes], str] = lambda content: "input"


RATE = 8000


def _waveform(seconds: float = 0.05) -> np.ndarray:
    return 0.3 * np.sin(np.arange(int(RATE * seconds)) * 0.3)


def _encoded(format: str, subtype: str | None, channels: int = 1) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.stack([_waveform()] * channels, 1), RATE, format=format, subtype=subtype)
    return out.getvalue()


# What libsndfile both writes and knows by its first bytes, whatever the file's name says; also what we refuse.
_AUDIO = [
    *(("WAV", kind) for kind in ("PCM_16", "PCM_U8", "PCM_24", "FLOAT", "DOUBLE", "ULAW")),
    *(("WAV", kind) for kind in ("IMA_ADPCM", "MS_ADPCM", "GSM610")),
    *((kind, "PCM_16") for kind in ("FLAC", "AIFF", "AU", "W64", "RF64", "WAVEX", "VOC", "NIST", "IRCAM", "PVF")),
    *((kind, "PCM_16") for kind in ("MAT4", "MAT5", "PAF", "SVX", "SDS", "HTK", "AVR", "MPC2K")),
    *(("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "FLOAT"), ("AU", "FLOAT")),
    *(("AU", "G721_32"), ("CAF", "ALAC_16"), ("XI", "DPCM_16"), ("WVE", "ALAW")),
]


@functools.cache
def _sounds() -> list[bytes]:
    found = []
    for format, subtype in _AUDIO:
        for channels in (1, 2):
            try:
                found.append(_encoded(format, subtype, channels))
            except RuntimeError:  # A format that this build of libsndfile lacks, or that has one channel alone.
                continue
    return found


def _sound(rng: random.Random) -> bytes:
    return mutators.of_bytes(rng.choice(_sounds()), rng)


def _hear(path: Path) -> np.ndarray:
    waveform = audio.read_clip(path)
    assert waveform.shape == (audio.SAMPLES,) and waveform.dtype == np.int16
    return waveform


@functools.cache
def _files() -> list[tuple[str, bytes]]:
    sound = _encoded("WAV", "PCM_16")
    lists = [(name, b"yes/b.wav\nno/b.wav\n") for name in LISTS.values()]
    return lists + [(f"{word}/{name}.wav", sound) for word in (*WORDS, "_background_noise_") for name in "abc"]


def _archive(rng: random.Random) -> bytes:
    return mutators.an_archive(_files(), rng)


def _unpack(path: Path) -> object:
    """As `melbench data prepare --data` and then `--data auto`, and as `--data ARCHIVE` by itself."""
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
    """The name and the content of a file of the cache."""
    before = os.environ.get("MELBENCH_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MELBENCH_CACHE"] = folder
        cached("key", _clips, str)
        (file,) = Path(folder).iterdir()
        content = file.read_bytes()
    if before is not None:
        os.environ["MELBENCH_CACHE"] = before
    return file.name, content


def _damaged_clips(rng: random.Random) -> bytes:
    if rng.random() < 0.02:
        return rng.choice(mutators.pickles())
    return rng.choice((mutators.of_bytes, mutators.of_arrays))(_stored_clips()[1], rng)


def _clips_again(path: Path) -> ClipSet:
    os.environ["MELBENCH_CACHE"] = str(path.parent)
    found = cached("key", _clips, str)
    for split in SPLITS:
        part = found.split(split)
        assert len(found.waveforms[part]) == len(found.lengths[part]) == len(found.speakers[part]) == len(WORDS)
    assert found.fingerprint == _clips().fingerprint and not np.any(found.noise)
    return found


SMALL = {"n_mels": 8, "n_fft": 64, "hop_length": 800, "channels": 8}


@functools.cache
def _checkpoint() -> bytes:
    trial = configure(WORDS, **SMALL)
    with drawing():
        torch.manual_seed(0)
        network = MelCNN.of(trial).eval()
    kept = checkpoint.Checkpoint(trial, network, 0, "synthetic", "f00", 0.5, 0.5)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save_checkpoint(kept, Path(folder) / "a")
        return mutators.in_order((Path(folder) / "a").read_bytes())


def _weights(rng: random.Random) -> bytes:
    if rng.random() < 0.05:
        return rng.choice(mutators.pickles())
    of = rng.choice((mutators.of_bytes, mutators.of_checkpoint, mutators.of_checkpoint))
    return of(_checkpoint(), rng)


def _load(path: Path) -> np.ndarray:
    loaded = checkpoint.load_checkpoint(path)
    return predict(loaded, np.zeros((1, audio.SAMPLES), np.int16))


@functools.cache
def _measurement() -> dict:
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
    works = of_trial(configure(), ["latency"]) + of_trial(configure(groups=4), ["latency"])
    found = Measurement(
        works=works,
        facts=[WorkloadFacts(params=1, macs=2, floor=floor)] * 2,
        ceilings=Peaks(flops_per_second=1e9, bytes_per_second={2**20: 1e9}, launch_seconds=1e-6),
        launches=[Launch(samples=[samples] * 2, before=calm, after=calm)] * 2,
        environment=ENVIRONMENT,
        finished_at="2026-01-01",
    )
    content = json.loads(found.model_dump_json())
    content["launches"][1]["samples"][0]["seconds"][0] = 1.5
    return content


@functools.cache
def _suite() -> dict:
    """As pytest-benchmark writes it, of the works of `_measurement`."""
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


def _measured(path: Path) -> object:
    measurement = reader.read(path)
    return time_tables.rows(measurement), comparison.stored(measurement, measurement, 0.02)


def _compared(path: Path) -> object:
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


def _rows(rng: random.Random) -> bytes:
    content = mutators.of_table(_table(), rng).encode(errors="surrogatepass")
    return mutators.of_bytes(content, rng) if rng.random() < 0.3 else content


def _read_rows(path: Path) -> object:
    return convolutions.sheet(convolution_grid.read(path))


def _configuration() -> dict:
    return json.loads(configure(recipe="default").model_dump_json())


def _configured(path: Path) -> object:
    with one_line("configuration"):
        trial = Trial.model_validate_json(path.read_bytes())
    with torch.device("meta"), drawing():
        MelCNN.of(trial)
    return descriptions([trial]), Trial.model_validate_json(trial.canonical()) == trial


_MOST_CONFIGURATIONS = 1000


def _axes(rng: random.Random) -> bytes:
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


def _planned(path: Path) -> object:
    axes = grid.parse_axes(path.read_bytes().decode(errors="replace").split())
    if math.prod(map(len, axes.values())) > _MOST_CONFIGURATIONS:
        return axes
    return grid.expand(axes, WORDS)[0]


KINDS = {
    "archive": Kind(_archive, _unpack),
    "audio": Kind(_sound, _hear),
    "cached clips": Kind(_damaged_clips, _clips_again, lambda content: _stored_clips()[0]),
    "checkpoint": Kind(_weights, _load),
    "record": Kind(mutators.json_of(own), read_trial, named(TrialRecord)),
    "fold record": Kind(a_fold, read_trial, named(TrialRecord)),
    "failure record": Kind(mutators.json_of(failure), read_failure, named(FailureRecord)),
    "timing record": Kind(mutators.json_of(timing), read_timing, named(TimingRecord)),
    "measurement": Kind(mutators.json_of(_measurement), _measured),
    "suite": Kind(mutators.json_of(_suite), _compared),
    "table": Kind(_rows, _read_rows),
    "configuration": Kind(
        mutators.json_of(lambda: json.loads(configure(recipe="default").model_dump_json())), _configured
    ),
    "axes": Kind(_axes, _planned),
}
