"""What the README tells a person to do works: its Python, its commands."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(corpus, tmp_path, monkeypatch):
    """A folder with the README's data set in it, small."""
    (tmp_path / "speech_commands_v0.02").symlink_to(corpus)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_lines(folder):
    (code,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    accuracies = ast.literal_eval(done.stdout)
    assert len(accuracies) == 3 and all(0 <= accuracy <= 1 for accuracy in accuracies)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("melbench")]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands(folder, melbench, command):
    arguments = shlex.split(command, comments=True)[1:]
    if arguments[0] == "sweep":  # in a short form
        arguments += ["--epochs", "1", "--seeds", "1"]
    code, out, err = melbench(*arguments)
    assert code == 0, err
    assert out
    assert ("--csv" in arguments) <= (folder / "groups.csv").exists()
