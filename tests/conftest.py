"""Shared fixtures: a tiny corpus that needs no download, and real speech where it is at hand.

`MELBENCH_SPEECH_COMMANDS` names a folder or archive of Speech Commands v0.02, whole or a subset with the
complete test split; tests that need real speech skip without it.
"""

import logging
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench.measurement import peaks
from bench.measurement.peaks import Peaks
from bench.system import environment
from melcnn import load_clips

CLIPS = {"train": 24, "validation": 8, "test": 8}
PITCH = {"yes": 700.0, "no": 900.0, "go": 1200.0, "stop": 1500.0}


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Run the tests in two processes, but not with -n, a debugger or --cov; here, because `pytest bench` must not."""
    alone = "PYTEST_XDIST_WORKER" in os.environ or config.getoption("usepdb") or config.getoption("cov_source", None)
    if not alone and config.getoption("numprocesses", 0) is None:
        config.option.numprocesses, config.option.dist = 2, "worksteal"
        # Threads of torch that spin while they wait would take the cores of the other process: five times the time.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory, worker_id):
    """Give the tests a cache of their own, which all their processes share: kernels are compiled once."""
    home = tmp_path_factory.getbasetemp()
    path = (home if worker_id == "master" else home.parent) / "cache"
    path.mkdir(exist_ok=True)
    os.environ["MELBENCH_CACHE"] = str(path)
    # Beside the other process of the tests every measurement is disturbed, and peaks would never be kept.
    top = Peaks(flops_per_second=1e11, bytes_per_second={2**20: 1e10}, launch_seconds=1e-6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peaks, "measure", lambda device, clock: top)
        peaks.device_peaks(environment.collect("cpu"), "cpu")


@pytest.fixture(autouse=True)
def quiet_log():
    """A command in this process shows what is logged; the next test must not see more for that."""
    yield
    for name in ("melcnn", "bench"):
        logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger(name).handlers.clear()


@pytest.fixture(autouse=True)
def hears_interruptions():
    """What a shell starts in the background ignores Ctrl-C, and so do its children: not these tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def write_corpus(folder: Path, words=tuple(PITCH), clips=CLIPS) -> Path:
    """Noisy tones, one pitch a word, in the layout of Speech Commands; each file is of another speaker."""
    rng = np.random.default_rng(0)
    time = np.arange(16_000) / 16_000
    lists = {"validation": [], "test": [], "train": []}
    for number, word in enumerate(words):
        (folder / word).mkdir(parents=True)
        for split, count in clips.items():
            for i in range(count):
                speaker = f"{number:02x}{i:04x}{list(clips).index(split):02x}"
                name = f"{word}/{speaker}_nohash_0.wav"
                tone = 0.1 * np.sin(2 * np.pi * PITCH[word] * rng.uniform(0.8, 1.2) * time)
                wave = tone + rng.normal(0, 0.15, time.size)
                soundfile.write(folder / name, wave[: 16_000 - 500 * (i % 3)], 16_000, subtype="PCM_16")
                lists[split].append(name)
    (folder / "validation_list.txt").write_text("\n".join(lists["validation"]) + "\n")
    (folder / "testing_list.txt").write_text("\n".join(lists["test"]) + "\n")
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def clips(corpus):
    return load_clips(corpus, ("yes", "no"))


@pytest.fixture(scope="session")
def speech() -> Path:
    """Real speech; skips the test where there is none."""
    path = os.environ.get("MELBENCH_SPEECH_COMMANDS")
    if not path:
        pytest.skip("MELBENCH_SPEECH_COMMANDS is not set")
    return Path(path)


@pytest.fixture
def melbench(monkeypatch, capsys):
    """Runs the command in this process: `melbench("sweep", "groups") -> (exit code, stdout, stderr)`."""
    from bench.cli import app

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["melbench", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            app.main()
        captured = capsys.readouterr()
        return exit.value.code or 0, captured.out, captured.err

    return run
