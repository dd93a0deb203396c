"""Every format of a sheet with all that is awkward in it, against stored text, and what other programs make of it."""

import csv
import io
import itertools
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from bench import formats
from bench.formats import Sheet, escaping, latex
from melcnn import errors
from tests.helpers.sheets import RESULTS, csv_sheets

GOLDEN = Path(__file__).parent / "golden"
WORDS = [
    "yes",
    "yes, no",
    'say "yes"',
    "=HYPERLINK(A1)",
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    " =1+1",
    "\t=1+1",
    "\r=1+1",
    "＝1+1",
    "-",
    "two\nlines",
    "a|b `c` *d* _e_ f_g ~~h~~",
    "<script>alert(1)</script> &amp;",
    "[link](javascript:alert(1)) ![i](x)",
    "[bold red]not markup[/bold red]",
    "\x1b[31mred\x1b[0m \x9b31m \x07",
    "\u202egnp.exe",
    "# 1. heading",
    "\\input{/etc/passwd} %&#$_{}~^",
    "[3pt] after a row",
    "* after a row",
    "?` !` -- --- ``''",
    "naïve Übermaß Łódź čeština",
    "你好 😀 привет",
    "± ≈ µ × – — … ≤ ≥ − → °",
    "\udcff",
    "",
]
FIGURES = [-0.0013, 0.5, math.nan, math.inf, None]


def awkward():
    """A row for each of `WORDS`, with figures beside it: negative, not finite, and none."""
    records = [
        {"word": word, "clips": 1000 * i, "gain": FIGURES[i % len(FIGURES)], "best": i == 1, "=column": "a|b"}
        for i, word in enumerate(WORDS)
    ]
    cells = [
        [r["word"], f"{r['clips']:,}", "" if r["gain"] is None else f"{r['gain']:.4f} (-0.002 to +0.001)", "a|b"]
        for r in records
    ]
    headings = ["word", "clips", "gain of | this", "=column"]
    notes = ["± is *the* interval.", "<b>`x`</b> first: 1_000 \x1b[1m", "- no list; # no heading"]
    title, verdict = "- words of 你好|<i>me</i> [x] 100%", "Recommended: *a*_b_ **c** (1,000 MACs)."
    command = "melbench train groups=4 --words '*a*,`b`,<c>' --data 'a  b' -o network.safetensors" + " x" * 20
    return Sheet(title, headings, cells, records, notes, spare=["=column"], verdict=verdict, command=command)


def on_a_terminal(sheet, width=100):
    out = io.StringIO()
    Console(file=out, width=width).print(formats.to_table(sheet, width), crop=False)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


FORMATS = {
    "txt": on_a_terminal,
    "csv": formats.to_csv,
    "json": formats.to_json,
    "md": formats.to_markdown,
    "tex": formats.to_latex,
}
OBEYED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("name", FORMATS)
def test_golden(name):
    text = FORMATS[name](awkward())
    assert text == (GOLDEN / f"awkward.{name}").read_text(encoding="utf-8")
    assert not OBEYED.search(text), "what a terminal obeys, but for the ends of lines"


# CSV


def check_pandas(sheet):
    """pandas reads the CSV without options: numbers and truth values as such, text as text, the rest as missing."""
    frame = pandas.read_csv(io.StringIO(formats.to_csv(sheet)))
    assert list(frame.columns) == [escaping.spreadsheet(name) for name in sheet.records[0]]
    assert len(frame) == len(sheet.records)
    for record, found in zip(sheet.records, frame.itertuples(index=False), strict=True):
        for value, cell in zip(record.values(), found, strict=True):
            if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
                assert pandas.isna(cell)
            elif isinstance(value, str):
                assert str(cell) == escaping.spreadsheet(value)
            else:
                assert cell == pytest.approx(value, rel=1e-12)


def test_pandas_reads_what_is_awkward():
    check_pandas(awkward())


def test_pandas_reads_every_table(clips):
    for sheet in csv_sheets(clips).values():
        check_pandas(sheet)


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.csv")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_pandas_reads_the_reference_results(path):
    frame = pandas.read_csv(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(frame.columns) == list(rows[0]) and len(frame) == len(rows)
    for name in frame.columns:
        cells = [row[name] for row in rows if row[name]]
        if cells and all(re.fullmatch(r"[-+]?(\d.*|inf)", cell) for cell in cells) and name != "seeds":
            assert [float(cell) for cell in cells] == pytest.approx(frame[name].dropna().tolist(), rel=1e-12)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1", "'=1"),
        ("  @x", "'  @x"),
        ("\t=1", r"\t=1"),
        ("a;=1", "a;'=1"),
        ("a; =1; +2", "a;' =1;' +2"),
        ("a=1", "a=1"),
        ("a,=1", "a,=1"),  # in quotation marks
        ("-", "-"),
        ("'=1", "'=1"),
    ],
)
def test_what_begins_like_a_formula_has_an_apostrophe(text, cell):
    assert escaping.spreadsheet(text) == cell
    (row,) = csv.reader(io.StringIO(formats.to_csv(Sheet("", [], [], [{"word": text}])).splitlines()[1]))
    assert row == [cell]


# JSON


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_is_strict_and_has_names_as_they_are():
    for record, row in zip(awkward().records, strict(formats.to_json(awkward())), strict=True):
        gain = record["gain"]
        assert row == record | {"gain": gain if gain is not None and math.isfinite(gain) else None}


def test_several_sheets_are_one_object(capsys):
    one = Sheet("most wrong", ["a"], [["nan"]], [{"a": math.nan}])
    formats.show(
        [one, Sheet("x", ["a"], [["1"]], [{"a": 1}], single=True, key="totals"), Sheet("y", [], [], [])], "json"
    )
    assert strict(capsys.readouterr().out) == {"most_wrong": [{"a": None}], "totals": {"a": 1}, "y": []}


# Markdown


def rendered(text):
    """What a reader sees of Markdown: the text of each paragraph and of each cell, which holds nothing but text."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    found = []
    for before, token in itertools.pairwise(tokens):
        if token.type == "code_block":
            found.append(("code", token.content.rstrip("\n")))
        if token.type == "inline":
            kinds = [child.type for child in token.children if child.type != "text"]
            bold = kinds == ["strong_open", "strong_close"]
            assert bold or not kinds, token.content
            found.append(("strong" if bold else before.tag, "".join(child.content for child in token.children)))
    assert {token.tag for token in tokens} <= {"", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "code"}
    return found


def check_markdown(sheet):
    shown = [*(("th", text) for text in sheet.headings), *(("td", text) for cells in sheet.cells for text in cells)]
    expected = [
        ("p", sheet.title),
        *shown,
        ("strong", sheet.verdict),
        ("code", sheet.command),
        *(("p", note) for note in sheet.notes),
    ]
    assert [(tag, text) for tag, text in rendered(formats.to_markdown(sheet))] == [
        (tag, errors.visible(text).strip()) for tag, text in expected if tag in ("th", "td") or text
    ]


def test_markdown_shows_what_the_cells_hold():
    check_markdown(awkward())


texts = st.text(st.one_of(st.sampled_from("|\\`*_[]<>&~#-+=1.!$%{}^\"';@ \n\t\x1b"), st.characters()), max_size=12)


@settings(deadline=None)  # a busy machine takes longer
@given(st.lists(texts, min_size=3, max_size=3), texts)
def test_any_text_is_text(cells, title):
    title = f"{title}x"  # of white space alone there is no paragraph
    sheet = Sheet(title, ["a", "b", "c"], [cells], [dict(zip("abc", cells, strict=True))], [f"{title}."], verdict=title)
    check_markdown(sheet)
    assert strict(formats.to_json(sheet)) == sheet.records
    (_, row) = csv.reader(io.StringIO(formats.to_csv(sheet)))
    assert row == [escaping.spreadsheet(cell) for cell in cells]
    assert not any(cell.lstrip()[:1] in tuple("=+-@") and len(cell.strip()) > 1 for cell in row)
    for text in (on_a_terminal(sheet), formats.to_csv(sheet), formats.to_markdown(sheet), formats.to_latex(sheet)):
        assert not OBEYED.search(text)
    for cell in cells:
        check_latex(latex.escaped(cell))


# LaTeX


def check_latex(text):
    """Commands of ours, and nothing that TeX obeys beside them."""
    assert text.isascii()
    text = re.sub(r"\\[_%&#${}]|\\[a-zA-Z]+|\\[`'^~=.\"](?=\{)|\$[^$]*\$", "", text)
    assert not set(text) & set("\\%&#_^"), text
    assert text.count("{") == text.count("}")


def test_columns_of_numbers_are_flush_right():
    rows = [["a", "1,000", "-0.5 (-1 to +1)", "x 0.53", "12 ms ±3%", "1.wav", "1e-05", "nan", ""], [""] * 8 + ["x"]]
    sheet = Sheet("", ["h"] * 9, rows, [{}])
    assert r"\begin{tabular}{lrrrrlrrl}" in formats.to_latex(sheet)
    rules = [":---", "---:", "---:", "---:", "---:", ":---", "---:", "---:", ":---"]
    assert formats.to_markdown(sheet).splitlines()[1] == f"| {' | '.join(rules)} |"


def test_a_wide_table_is_wrapped_set_smaller_and_spared_columns():
    def made(*lengths):
        headings = [str(i) for i in range(len(lengths))]
        return formats.to_latex(Sheet("", headings, [["x" * length for length in lengths]], [{}], spare=["3"]))

    # A line holds 70 characters, with 2.5 beside each column: 40 + 25 + 5 are enough.
    assert r"\begin{tabular}{ll}" in made(40, 25)
    # One more is too much; the longer one, of more than 30, gets the 70 - 25 - 5 = 40 that are left.
    assert r"\begin{tabular}{p{0.57\linewidth}l}" in made(41, 25) and "makebox" not in made(41, 25)
    # 70 + 10 = 80, and nothing is long: of \footnotesize 82 go on a line.
    assert r"\footnotesize\makebox[\linewidth]" in made(20, 20, 20, 10) and "{llll}" in made(20, 20, 20, 10)
    # 100 + 10 = 110 are the most that the margins bear.
    assert r"\scriptsize" in made(25, 25, 25, 25) and "{llll}" in made(25, 25, 25, 25)
    assert "{lll}" in made(25, 25, 25, 26) and "Not shown for lack of room: 3." in made(25, 25, 25, 26)


def test_a_heading_wider_than_its_column_is_stacked():
    # In as few lines as nine and fourteen characters allow, the lines about equally long.
    headings = ["MACs (all layers)", "val accuracy (last epoch)"]
    sheet = Sheet("", headings, [["1,039,106", "0.9973 ±0.0020"]], [{}])
    stacked = r"\shortstack[r]{MACs (all\\layers)} & \shortstack[r]{val accuracy\\(last epoch)} \\"
    assert stacked in formats.to_latex(sheet)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="there is no pdflatex here")
def test_pdflatex_sets_it(clips, tmp_path):
    every = [chr(code) for code in [*range(0x20, 0x180), *range(0x2010, 0x2040), 0x3B1, 0x4E00, 0x1F600]]
    cells = [["".join(every[i : i + 8])] * 2 for i in range(0, len(every), 8)]
    characters = Sheet("", ["", "value"], [["[", "*"], *cells[:20]], [{}]), Sheet("x", ["*", "["], cells[20:], [{}])
    sheets = [awkward(), *characters, *(sheet for sheet in csv_sheets(clips).values() if sheet.cells)]
    document = [r"\documentclass{article}\usepackage{booktabs}\begin{document}", *map(formats.to_latex, sheets)]
    (tmp_path / "tables.tex").write_text("\n\\clearpage\n".join([*document, r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "tables.log").read_text(errors="replace")
    assert "Missing character" not in log and "Float too large" not in log and (tmp_path / "tables.pdf").exists()
