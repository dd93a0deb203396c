"""Tables in terminals of several widths: nothing is broken, what has no room is named, and the answer stands alone."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench import formats
from bench.formats import Sheet

GOLDEN = Path(__file__).parent / "golden"
WIDTHS = (60, 80, 120, 200)

ROWS = [
    ["1", "18,850", "1,010,432", "1,039,106", "3,071,027", "0.9973 (≥0.9937) ≈", "0.9900 ±0.0024", "0.083 s"],
    ["4", "8,482", "255,872", "284,546", "2,316,467", "0.9984 (≥0.9953) ≈", "0.9950 ±0.0018", "0.053 s !"],
    ["16", "5,890", "67,232", "95,906", "2,127,827", "0.9904 ±0.0055", "0.9818 ±0.0031", "0.047 s"],
]
SWEEP = Sheet(
    title="speech_commands: yes,no (1328 training and 824 test clips), recipe default, 10 seeds, Some CPU, 2 threads",
    headings=[
        *("groups", "params", "MACs", "MACs (all layers)", "MACs (with front-end)"),
        *("val accuracy (last epoch)", "test accuracy", "epoch time"),
    ],
    cells=ROWS,
    records=[{"groups": int(row[0])} for row in ROWS],
    notes=["± 95% interval of the mean over seeds.", "≈ statistically tied with the best in validation."],
    spare=["MACs (all layers)", "MACs (with front-end)", "params", "epoch time"],
    verdict="Recommended: groups=4 (255,872 MACs). It has the best accuracy, and no cheaper one is shown to be "
    "within 0.5 points of the best (187 clips of 103 speakers, 10 seeds).",
)


def shown(sheet, width, **terminal):
    out = io.StringIO()
    Console(file=out, width=width, **terminal).print(formats.to_table(sheet, width))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


@pytest.mark.parametrize("width", WIDTHS)
def test_golden(width):
    assert shown(SWEEP, width) == (GOLDEN / f"sweep-{width}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", WIDTHS)
def test_every_cell_that_is_shown_is_whole(width):
    text = shown(SWEEP, width)
    assert max(map(len, text.splitlines())) <= width
    said = re.search(r"Not shown at this width: (.*?)\.\n", text, re.DOTALL)
    hidden = " ".join(said[1].split()).split(", ") if said else []
    # The columns go in the order that the sheet states, and no more of them than needed.
    assert sorted(hidden) == sorted(SWEEP.spare[: {60: 4, 80: 2, 120: 0, 200: 0}[width]])
    for heading, *cells in zip(SWEEP.headings, *ROWS, strict=True):
        assert all((cell in text) == (heading not in hidden) for cell in cells if len(cell) > 5), heading


@pytest.mark.parametrize("width", WIDTHS)
def test_the_verdict_stands_on_a_line_of_its_own_above_the_notes(width):
    lines = shown(SWEEP, width).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("Recommended: groups=4 (255,872 MACs)."))
    assert not lines[at - 1].strip() and lines.index("± 95% interval of the mean over seeds.") > at


@pytest.mark.parametrize(
    ("variables", "sequences"),
    [
        ({"TERM": "xterm-256color"}, {"\x1b[1m", "\x1b[3m", "\x1b[0m"}),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, {"\x1b[1m", "\x1b[3m", "\x1b[0m"}),
        ({"TERM": "dumb"}, set()),
    ],
)
def test_on_a_terminal_the_text_is_the_same_as_in_a_pipe(variables, sequences):
    text = shown(SWEEP, 80, force_terminal=True, _environ=variables)
    assert set(re.findall(r"\x1b\[[\d;]*m", text)) == sequences
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert [line.rstrip() for line in plain.splitlines()] == shown(SWEEP, 80).splitlines()


def test_a_command_is_never_broken(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    command = "melbench recommend groups mels --data speech_commands_v0.02 --words yes,no,up,down --epochs 5"
    formats.show([replace(SWEEP, command=command)], "table")
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    at = lines.index(command)
    assert lines[at - 1].endswith("10 seeds).") and lines[at + 1].startswith("± ")


def test_long_text_is_wrapped_between_words_and_beside_it_nothing_is_lost():
    remark = "in 4 groups no convolution mixes the groups: fewer groups (1, 2) mix more, and the last layers mix all"
    sheet = Sheet("remarks", ["layer", "remark", "MACs"], [["blocks.0.0", remark, "1,000,000"]], [{"a": 1}])
    text = shown(sheet, 60)
    assert "blocks.0.0" in text and "1,000,000" in text and "Not shown" not in text
    assert max(map(len, text.splitlines())) <= 60
    words = re.sub(r"blocks\.0\.0|1,000,000", "", text)
    assert remark in " ".join(words.split())


def test_a_name_longer_than_half_of_the_terminal_is_folded_and_no_column_lost():
    sheet = Sheet("", ["file", "word", "probability"], [["f" * 90, "yes", "0.9876"]], [{"a": 1}])
    text = shown(sheet, 60)
    assert "yes" in text and "0.9876" in text and text.count("f") == 90 + 1
