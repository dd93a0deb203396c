"""Output in an encoding that lacks our marks: nothing is raised, and what stands for them can be read."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest

from bench import formats
from bench.formats import FORMATS, Sheet
from bench.formats.escaping import encodable

WORD = "größe 👋"
SHEET = Sheet(
    title="speech: größe 👋",
    headings=["word", "time", "accuracy"],
    cells=[[WORD, "1.5 µs", "0.99 ±0.01 ≈"]],
    records=[{"word": WORD, "accuracy": 0.99}],
    notes=["± is the interval – of the mean…"],
)


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("0.9 ±0.1 ≈ 5 µs", "utf-8", "0.9 ±0.1 ≈ 5 µs"),
        ("0.9 ±0.1 ≈ 5 µs", "ascii", "0.9 +-0.1 ~ 5 us"),
        ("0.9 ±0.1 ≈ 5 µs", "cp1252", "0.9 ±0.1 ~ 5 µs"),
        ("a – b — c… “d”", "ascii", 'a - b - c... "d"'),
        ("größe 👋", "ascii", "gr\\xf6\\xdfe \\U0001f44b"),
        ("größe", "latin-1", "größe"),
        ("━╸─│⠋", "ascii", "---**"),
    ],
)
def test_marks(text, encoding, expected):
    assert encodable(text, encoding) == expected


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_every_format_in_every_encoding(monkeypatch, format, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding, errors="strict"))
    formats.show([SHEET], format)
    sys.stdout.flush()
    text = written.getvalue().decode(encoding)
    if format == "json":
        assert json.loads(text) == [{"word": WORD, "accuracy": 0.99}]
    elif format == "csv":
        assert [row["word"] for row in csv.DictReader(io.StringIO(text))] == [encodable(WORD, encoding)]
    elif format == "table":
        assert encodable("0.99 ±0.01 ≈", encoding) in text
        # The columns are as wide as what stands in them; a frame of ASCII closes each line.
        lines = [line for line in text.splitlines() if line.startswith(("+", "|")) and not line.startswith("+- is")]
        assert (encoding == "utf-8" and not lines) or (len(lines) == 5 and len({*map(len, lines)}) == 1)


@pytest.mark.parametrize("command", [["profile", "--groups", "4"], ["sweep", "--help"]])
def test_a_command_in_a_pipe_of_ascii(command):
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    code = f"import sys; sys.argv = ['melbench', *{command!r}]\nfrom bench.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True)
    assert done.returncode == 0 and done.stdout.isascii() and b"Traceback" not in done.stderr


def test_an_error_in_a_pipe_of_ascii():
    env = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    code = "import sys; sys.argv = ['melbench', 'sweep', 'größe']\nfrom bench.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True)
    assert done.returncode == 2 and done.stderr.startswith(b"melbench: there is no axis 'gr\\xf6\\xdfe'")


def test_whatever_a_command_prints():
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    code = "from bench.cli.terminal import finish\nfinish(lambda: print('größe ≈ 1'))"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True)
    assert (done.returncode, done.stdout.strip()) == (0, b"gr\\xf6\\xdfe ~ 1")


def test_files_are_utf_8_whatever_the_terminal(tmp_path):
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = (
        "from pathlib import Path\nfrom bench.cli.output import deliver\n"
        "from tests.formats.test_encodings import SHEET\n"
        f"deliver([SHEET], 'markdown', Path({str(tmp_path / 'a.csv')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == formats.to_csv(SHEET)
