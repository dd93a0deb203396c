"""What the README tells a person to do works: its Python, its commands, in order, in one folder."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(corpus, clips, tmp_path, monkeypatch):
    """A folder with the README's data sets and recording in it, small."""
    (tmp_path / "speech_commands_v0.02").symlink_to(corpus)
    for word, source in (("hey", "go"), ("stop", "stop")):
        shutil.copytree(corpus / source, tmp_path / "my_recordings" / word)
    for number, path in enumerate(sorted((tmp_path / "my_recordings").glob("*/*.wav"))):
        path.rename(path.with_name(f"take {number}.wav"))
    shutil.copy(corpus / clips.names[0], tmp_path / "recording.wav")
    (tmp_path / "my_models.py").write_text("from melcnn import MelCNN as SmallNet\n")
    monkeypatch.delitem(sys.modules, "my_models", raising=False)  # another test may have had one of its own
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_lines(folder):
    code = "\n".join(blocks("python"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers = [float(number) for number in re.findall(r"[\d.]*\d[\d.]*(?:e-?\d+)?", done.stdout)]
    # three accuracies; accuracy and confusion of 2 x 2; two probabilities
    assert len(numbers) == 3 + 1 + 4 + 2
    assert numbers[3] == numbers[0] and sum(numbers[4:8]) == 16 and sum(numbers[8:]) == pytest.approx(1, abs=1e-3)


def commands():
    lines = [line.split("#")[0] for block in blocks("sh") for line in block.splitlines()]
    return [part.strip() for line in lines for part in line.split("&&") if part.strip().startswith("melbench")]


def test_the_commands(folder, melbench, monkeypatch):
    monkeypatch.setenv("MELBENCH_CACHE", str(folder / "cache"))
    seen = []
    for command in commands():
        arguments = shlex.split(command)[1:]
        seen.append(arguments[0] if arguments[0] != "data" else f"data {arguments[1]}")
        if arguments[0] in ("sweep", "train", "recommend"):  # in a short form
            arguments += ["--epochs", "1", "--seeds", "1"]
        if arguments[0] == "reproduce":
            arguments += ["--seeds", "2"]
        if "baseline" in arguments:
            arguments += ["--seeds", "1"]
        elif arguments[0] == "time" and "--against" not in arguments:
            arguments += ["--launches", "1"] + ([] if "--what" in arguments else ["--what", "latency"])
        if arguments[:2] == ["data", "prepare"]:  # without the download
            arguments += ["--data", "speech_commands_v0.02"]
        code, out, err = melbench(*arguments)
        # Whether one machine is slower at one moment than at another is not the README's to say.
        assert code in ((0, 1) if arguments[0] == "compare" else (0,)) and out, (command, err)
        # The first command has nothing prepared, those after `data prepare` have.
        if arguments[0] == "sweep":
            assert ("synthetic" in out) == ("data prepare" not in seen)
    trained = {"sweep", "train", "evaluate", "predict"}
    assert set(seen) == trained | {"recommend", "reproduce"} | {
        "data prepare",
        "data info",
        "profile",
        "time",
        "compare",
    }
    assert (folder / "groups.csv").exists()


def test_commands_in_the_text_exist(melbench):
    for command in re.findall(r"`melbench ([^`]*)`", README):
        words = [word for word in command.split() if not word.startswith("-")]
        name = words[: 2 if words[:1] == ["data"] else 1]
        if name:
            assert melbench(*name, "--help")[0] == 0
