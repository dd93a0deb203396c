"""What README and docs/ tell a person to do works: every command and every line of Python, in order, page by page."""

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch

from bench.baselines import convolutions
from bench.measurement import launcher, peaks
from bench.timing import verdicts
from melcnn import native
from melcnn.data import prepared, synthetic
from tests.helpers.pages import DOCS, README, blocks, commands, page

# What no test can run here, with the reason; everything else is run.
NOT_RUN = {
    "python -m venv .venv": "the tests run in such an environment",
    ". .venv/bin/activate": "likewise",
    "pip install -e '.[synthetic]'": "it fetches packages; CI runs it before the first sweep",
    "pip install -e '.[test]'": "it fetches packages; CI runs it before the tests",
    "pip install -e '.[tensorboard]'": "it fetches packages",
    "pip install -e '.[ray]'": "it fetches packages",
    "ray start --head": "tests/executors/test_ray.py makes a cluster of its own",
    "ray start --address=192.168.0.1:6379": "likewise",
    "melbench sweep groups --seeds 32 --executor ray --ray-address auto": "tests/executors/test_ray.py runs one",
    "ray stop": "likewise",
    "pytest": "it is what runs this",
    "pip install -e '.[gpu]'": "it fetches packages",
    "melbench sweep groups --seeds 32 --device cuda": "bench.studies.gpu trains as many; results/gpu",
    "melbench time groups --device cuda --precision tf32": "tests/cuda times on a device",
    "pytest tests/cuda": "pytest runs these tests, where there is a device",
    "python -m bench.studies.gpu OUT speech_commands_v0.02": "tests/studies/test_gpu.py runs it in short",
    "pytest bench --benchmark-only --benchmark-json after/1.json": "tests/suite/test_benchmarks.py runs one like it",
}


def in_short(arguments):
    """The same command with fewer networks, epochs, processes and rounds, and without the download."""
    name, more = arguments[0], []
    if name in ("sweep", "train", "recommend"):
        more = ["--epochs", "1", "--seeds", "1" if name == "recommend" else "2"]
        more += ["--jobs", "2"] if "--jobs" in arguments else []
    elif name == "reproduce":
        more = ["--seeds", "2"]
    elif "baseline" in arguments:
        more = ["--seeds", "1"]
    elif name == "time" and "--against" not in arguments:
        more = ["--launches", "1", "--max-time", "3"] + ([] if "--what" in arguments else ["--what", "latency"])
    elif name == "compare" and "=" in arguments[1]:
        more = ["--effect", "1"]
    elif arguments[:2] == ["data", "prepare"] and "--data" not in arguments:
        more = ["--data", "speech_commands_v0.02"]
    return [*arguments, *more]


@pytest.fixture(scope="module")
def measured_once(tmp_path_factory):
    """A folder for what every machine measures or compiles once, whatever the data."""
    return tmp_path_factory.mktemp("measured")


@pytest.fixture
def reader(tmp_path, corpus, clips, measured_once, monkeypatch):
    """The folder that a reader works in, with the data sets and the recording that pages name, small; and a cache."""
    folder, cache = tmp_path / "folder", tmp_path / "cache"
    folder.mkdir(), cache.mkdir()
    for name in ("kernels", "choices", "ceilings"):
        (measured_once / name).mkdir(exist_ok=True)
        (cache / name).symlink_to(measured_once / name)
    (folder / "speech_commands_v0.02").symlink_to(corpus)
    shutil.copy(corpus / clips.names[0], folder / "recording.wav")
    for word, source in {"hey": "go", "stop": "stop", "_background_noise_": "yes"}.items():
        (folder / "my_recordings" / word).mkdir(parents=True)
        for number, path in enumerate(sorted((corpus / source).iterdir())):
            speaker = hashlib.sha1(f"Ann {number}".encode()).hexdigest()[:8]  # some in every split
            shutil.copy(path, folder / "my_recordings" / word / f"{speaker}_nohash_0.wav")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("MELBENCH_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(synthetic, "CLIPS", {"train": 80, "validation": 40, "test": 40})
    monkeypatch.setattr(peaks, "TRIES", 1)
    monkeypatch.setattr(convolutions, "ROUNDS", 5)
    monkeypatch.setattr(verdicts, "FEWEST_LAUNCHES", 1)
    monkeypatch.setattr(launcher, "MOST_LAUNCHES", 1)
    # One thread each: threads that wait for each other are slow where other processes have the cores.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sys.modules.pop("my_models", None)  # another test may have had one of its own
    yield folder
    sys.modules.pop("my_models", None)
    torch.set_num_threads(threads)


@pytest.fixture
def follow(reader, melbench, monkeypatch, capsys):
    """Does what a page says, block by block; returns `(what, standard output)` of each command and piece of Python."""

    @contextlib.contextmanager
    def environment(variables):
        with monkeypatch.context() as context:
            for name, value in variables.items():
                context.setenv(name, value)
            native._switch.cache_clear()
            yield
        os.environ.pop(native.SWITCH, None)  # which --kernels sets, for a process that ends
        native._switch.cache_clear()

    def execute(command):
        words = shlex.split(command)
        variables = dict(word.split("=", 1) for word in words[: words.index("melbench")])
        words = words[len(variables) + 1 :]
        target = words.pop() if words[-2:-1] == [">"] and words.pop(-2) else None
        with environment(variables):
            code, out, err = melbench(*in_short(words))
        # Whether one machine is slower at one moment than at another is not a page's to say.
        assert code in ((0, 1) if words[0] == "compare" else (0,)), (command, err)
        assert out, command
        if target:
            Path(target).write_text(out)
        return out

    def follow(name):
        done, variables = [], {"__name__": name}
        for number, block in enumerate(blocks(name)):
            if block.language == "sh":
                ran = [(command, execute(command)) for command in commands(block.text) if command not in NOT_RUN]
                done += ran
            elif block.language == "text":
                printed = {" ".join(line.split()) for _, out in ran for line in out.splitlines()}
                assert [line for line in block.text.splitlines() if " ".join(line.split()) not in printed] == []
            elif block.language == "python" and (file := re.match(r"# (\w+\.py)\n", block.text)):
                (reader / file[1]).write_text(block.text)
            elif block.language == "python":
                capsys.readouterr()
                exec(compile(block.text, f"{name}, block {number}", "exec"), variables)
                done.append((block.text, capsys.readouterr().out))
        return done

    return follow


def test_the_readme(follow, reader):
    shutil.rmtree(reader / "my_recordings" / "_background_noise_")
    for number, path in enumerate(sorted((reader / "my_recordings").glob("*/*.wav"))):
        path.rename(path.with_name(f"{number}.wav"))
    done = follow(README)
    sweeps = [(command, out) for command, out in done if command.startswith("melbench sweep")]
    prepared_at = next(i for i, (command, _) in enumerate(done) if command.startswith("melbench data prepare"))
    # The first sweep has nothing prepared, those after `data prepare` have.
    for command, out in sweeps:
        assert ("synthetic" in out) == (done.index((command, out)) < prepared_at), command
    assert {"synthetic" in out for _, out in sweeps} == {True, False}
    assert (reader / "report.html").exists() and (reader / "groups.csv").exists()
    python = " ".join(out for command, out in done if not command.startswith("melbench"))
    numbers = [float(number) for number in re.findall(r"[\d.]*\d[\d.]*(?:e-?\d+)?", python)]
    # three accuracies; accuracy and confusion of 2 x 2; two probabilities
    assert len(numbers) == 3 + 1 + 4 + 2
    assert numbers[3] == numbers[0] and sum(numbers[4:8]) == 16 and sum(numbers[8:]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", [name for name in DOCS if blocks(name)])
def test_a_page_of_the_guide(name, follow, reader, corpus, melbench):
    """Who reads it has been through the README: speech is prepared, and `runs` holds a sweep."""
    prepared.prepare(corpus.resolve(), ("yes", "no", "go", "stop"))
    if "report runs" in page(name):
        assert melbench(*in_short(["sweep", "groups"]))[0] == 0
    follow(name)


def test_nothing_is_left_out_without_a_reason():
    every = [(name, block) for name in (README, *DOCS) for block in blocks(name)]
    assert {block.language for _, block in every} <= {"sh", "python", "text", ""}
    assert all(page(name).count("```") == 2 * len(blocks(name)) for name in (README, *DOCS))
    told = {command for _, block in every if block.language == "sh" for command in commands(block.text)}
    assert set(NOT_RUN) <= told
    assert all("melbench" in shlex.split(command) for command in told - set(NOT_RUN))
