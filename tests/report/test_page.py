"""The report's page as text: what its first screen says, that it hides nothing that is missing, and that no name gets
out of its place in it."""

import base64
import csv
import functools
import gzip
import hashlib
import io
import itertools
import json
import random
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import vl_convert

from bench.formats import Sheet
from bench.measurement import workloads
from bench.report.findings import CURVES, find
from bench.report.load import ReportInput
from bench.report.page import _file, numeric, page, sort_value
from melcnn import configure
from melcnn.errors import visible
from tests.helpers.configurations import plain
from tests.helpers.records import (
    ENVIRONMENT,
    chapter,
    diverged,
    failure_record,
    folds,
    heard,
    measurement,
    network,
    timing_record,
)

ONE, FOUR = (configure(groups=groups, recipe="default") for groups in (1, 4))

# Markup, the end of the element that data lies in, formulas, and what terminals and browsers obey instead of showing.
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!--",
    "\" onclick='alert(1)'",
    "{{ 7 * 7 }}",
    "=HYPERLINK(1)",
    "+1+cmd",
    "-2+3",
    "@SUM(1)",
    "\u202egnorw",
    "\x1b[31m\x07",
    "two\nlines",
)
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture(autouse=True, scope="module")
def bundled_once():
    """The bundle takes seconds, and is the same each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vl_convert, "javascript_bundle", functools.cache(vl_convert.javascript_bundle))
        yield


class Parsed(HTMLParser):
    """A page as a browser takes it: elements in their order, text outside scripts and styles, scripts by their id."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts, self.scripts, self.within = [], [], {}, None
        self.feed(html)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.within = tag

    def handle_endtag(self, tag):
        self.within = None

    def handle_data(self, data):
        if self.within == "script":
            identity = self.elements[-1][1].get("id", "")
            self.scripts[identity] = self.scripts.get(identity, "") + data
        elif self.within != "style":
            self.texts.append(data)

    @property
    def figures(self):
        return gzip.decompress(base64.b64decode(self.scripts["figures"])).decode()

    def values(self, tag, attribute):
        return [own[attribute] for name, own in self.elements if name == tag and attribute in own]

    @property
    def tables(self):
        """The cells of each table that the page offers as CSV."""
        links = [href for href in self.values("a", "href") if not href.startswith("#")]
        kind = "data:text/csv;charset=utf-8;base64,"
        assert links and all(link.startswith(kind) for link in links)
        texts = [base64.b64decode(link.removeprefix(kind)).decode() for link in links]
        return [list(csv.reader(io.StringIO(text))) for text in texts]


def html_of(*chapters, measurements=None):
    return page(ReportInput(tuple(chapters), measurements or {}), "melbench report runs -o report.html")


def page_of(*chapters, measurements=None):
    return Parsed(html_of(*chapters, measurements=measurements))


def two(seeds=2, **changes):
    """The networks of two configurations, which hear everything."""
    return [network(trial, seed, **changes) for trial in (ONE, FOUR) for seed in range(seeds)]


# The first screen and the sections


def test_a_time_of_a_busy_machine_is_marked_and_not_bold():
    timed = timing_record(ONE, FOUR, seconds=(0.5,))
    held_up = timed.model_copy(update={"timed": [one.model_copy(update={"held_up": True}) for one in timed.timed]})
    html = html_of(chapter(two(), timings=[held_up]))
    assert re.search(r'<dd class="doubtful">0.5 s ! <small>busy machine: too long</small>', html)
    assert 'class="doubtful"' not in html_of(chapter(two(), timings=[timed]))
    assert re.search(r"\.doubtful {[^}]*font-weight: 400", _file("page.css"))


def test_the_data_stand_above_the_answer_and_synthetic_ones_in_the_title():
    real, synthetic = (page_of(chapter(two(dataset=name))) for name in ("speech_commands", "synthetic"))
    assert "speech_commands: 20 training, 20 validation and 20 test clips." in real.text
    assert "(synthetic speech)" in synthetic.text and "Not a measure of real speech." in synthetic.text
    assert "synthetic" not in real.text


def test_several_sweeps_are_sections_each_with_its_chart_and_table():
    mels = [configure(n_mels=n_mels, recipe="default") for n_mels in (20, 40, 80)]
    groups = [configure(groups=number, recipe="default") for number in (1, 2, 4)]
    html = html_of(chapter([network(trial, seed) for trial in dict.fromkeys([*mels, *groups]) for seed in (0, 1)]))
    assert re.findall("<h2>([^<]*)</h2>", html)[:3] == [
        "Sweep over n_mels",
        "Sweep over groups",
        "speech_commands: yes, no: all sweeps together",
    ]
    shown = json.loads(Parsed(html).figures)
    assert {"data-1-accuracy-macs", "data-1-sweep-1-accuracy-macs", "data-1-sweep-2-accuracy-macs"} <= set(shown)
    # What stands over an axis is of a sweep, and a sweep's labels name what varies in it.
    assert "data-1-sweep-2-groups-accuracy" in shown and "data-1-groups-accuracy" not in shown
    assert re.findall('value="([^"]*)"> ', html)[3:6] == ["groups=1", "groups=2", "groups=4"]


def test_columns_of_numbers_are_right_aligned():
    sheet = Sheet("of", ["groups", "speaker", "time", "none"], [["1", "0a1b", "2 s !", ""], ["16", "7", "", ""]], [])
    assert numeric(sheet) == [True, False, True, False]
    assert re.search(r"th\.number, td\.number {[^}]*text-align: right", _file("page.css"))


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("16", 16),
        ("1,010,432", 1010432),
        ("0.9900 ±0.0023", 0.99),
        ("0.9973 ±0.0020 ≈", 0.9973),
        ("-0.0029 (at least -0.0069)", -0.0029),
        ("+0.0000", 0),
        ("x 0.47", 0.47),
        ("1e-05", 1e-5),
        ("2 s", 2),
        ("50 ms", 0.05),
        ("7 µs", 7e-6),
        ("9 ns", 9e-9),
        ("3 speakers", 3),
        ("", None),
        ("plain", None),
        ("0a1b2c3d", None),
        ("80to32", None),
        ("1e999", None),
        ("nan", None),
    ],
)
def test_a_column_sorts_by_the_number_that_a_cell_begins_with(cell, value):
    assert sort_value(cell) == (value if value is None else pytest.approx(value, rel=1e-12))


# What is missing


def test_what_is_missing_or_doubtful_is_said():
    other = ENVIRONMENT.model_copy(update={"device": "Another CPU, 64 threads"})
    records = [network(ONE), network(FOUR, environment=other)]
    whole = replace(chapter(records), failures=(failure_record(trial=FOUR),))
    shown = page_of(whole)
    remarks = find(whole).remarks
    for what in ("a single seed", "no epoch times", "failed: ", "different devices"):
        assert any(what in remark for remark in remarks), what
    for remark in remarks:
        assert remark in shown.text
    assert f"Missing or doubtful in these records: {len(remarks)}" in shown.text
    assert "No measurement of where time goes" in shown.text
    assert not [one for one in shown.values("figure", "id") if "epoch-time" in one]
    # Each device stands once among what ran where, with the one record that is of it.
    assert [row[:2] for row in shown.tables[-1][1:]] == [["1", ENVIRONMENT.device], ["1", other.device]]


def test_a_network_that_diverged_breaks_nothing():
    found = chapter([*two(), diverged(ONE, 2), network(FOUR, 2)])
    shown = page_of(found)
    assert "diverged" in shown.text and "NaN" not in shown.figures


def test_folds_alone_have_a_page():
    shown = page_of(chapter([], [fold for trial in (ONE, FOUR) for seed in (0, 1) for fold in folds(trial, seed)]))
    assert "groups=4" in shown.text and "data-1-accuracy-macs" in json.loads(shown.figures)


def test_measurements_alone_have_a_page_that_does_not_say_where_they_lie():
    timed = [workloads.of_trial(trial, ["latency"])[0] for trial in (ONE, FOUR)]
    shown = page_of(measurements={"/home/ann/secret/times.json": measurement(timed, (0.002, 0.001))})
    assert "Where time goes" in shown.text and "No records of trainings" in shown.text
    assert "times.json" in shown.text and "secret" not in shown.text


# Whose page it is


def test_the_same_records_make_the_same_page():
    assert html_of(chapter(two())) == html_of(chapter(two()))


def test_it_loads_nothing_and_runs_nothing_but_its_own_script():
    shown = page_of(chapter(two()))
    tags = Counter(tag for tag, _ in shown.elements)
    assert not set(tags) & {"link", "img", "iframe", "object", "embed", "form", "base", "audio", "video"}
    for tag, attributes in shown.elements:
        assert "src" not in attributes and not any(name.startswith("on") for name in attributes), tag
        assert attributes.get("href", "#").startswith(("#", "data:text/csv;")), tag
    assert not re.search(r"https?:", shown.text) and not re.search(r"url\(|@import", _file("page.css"))
    # The policy allows the one script that is no data, by its hash, and no evaluation.
    (policy,) = (own["content"] for tag, own in shown.elements if own.get("http-equiv") == "Content-Security-Policy")
    allowed = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert set(shown.scripts) == {"figures", ""} and tags["script"] == 2
    digest = base64.b64encode(hashlib.sha256(shown.scripts[""].encode()).digest()).decode()
    assert allowed == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest}'",
        "style-src": "'unsafe-inline'",  # Vega's tooltips
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def named(names):
    """A page of which words, clips, speakers, the data set, the device and a measurement's file have these names."""
    words = names[:2]
    trials = [plain(words=words, groups=groups) for groups in (1, 4)]
    clips = heard(len(names), wrong=range(len(names)), n_words=2)
    clips = clips.model_copy(update={"names": list(names), "speakers": [f"who says {name}" for name in names]})
    environment = ENVIRONMENT.model_copy(update={"device": names[2], "cpu": names[3]})
    records = [
        network(trial, seed, test=clips, dataset=names[4], environment=environment)
        for trial in trials
        for seed in (0, 1)
    ]
    timed = [workloads.of_trial(trial, ["latency"])[0] for trial in trials]
    return html_of(chapter(records), measurements={f"folder/{names[0]}": measurement(timed, (0.002, 0.001))})


@pytest.fixture(scope="module", params=range(0, len(HOSTILE), 4))
def hostile(request):
    """A page of these names, each in the place of a word and of a data set in its turn."""
    turned = (*HOSTILE[request.param :], *HOSTILE[: request.param])
    return turned, named(turned)


def test_hostile_names_are_text(hostile):
    names, html = hostile
    harmless = Parsed(named([f"name {number}" for number in range(len(names))]))
    shown = Parsed(html)
    # Element by element the page of harmless names, with no attribute more.
    assert [(t, set(own)) for t, own in shown.elements] == [(t, set(own)) for t, own in harmless.elements]
    assert not OBEYED.search(html)
    for name in names:
        assert " ".join(visible(name).split()) in shown.text, name


def test_hostile_names_end_no_script(hostile):
    names, html = hostile
    shown = Parsed(html)
    assert re.fullmatch(r"[\w+/=]+", shown.scripts["figures"])
    # It is whole, and the first word is in the figure of what is heard as what.
    ((drawn,),) = (
        spec["datasets"].values() for name, spec in json.loads(shown.figures).items() if name.endswith("confusion")
    )
    spoken = {row["spoken"].removeprefix("'") for row in csv.DictReader(io.StringIO(drawn))}
    assert spoken == {visible(name) for name in names[:2]}


def test_no_spreadsheet_computes_a_name(hostile):
    names, html = hostile
    cells = [cell for table in Parsed(html).tables for row in table for cell in row]
    numbers = re.compile(r"-?\d+(\.\d+)?(e[-+]\d+)?")
    assert not [cell for cell in cells if re.match(r"[-=+@]", cell) and not numbers.fullmatch(cell)]
    for name in names:
        # Escaped is what begins like a formula, and nothing else gets an apostrophe.
        expected = f"'{name}" if name[0] in "=+-@" else visible(name)
        assert expected in cells, name


def test_numbers_and_ordinary_names_are_as_they_were_in_a_spreadsheet():
    # Told from a formula: a sign within a name, a sign alone, a number below zero.
    ordinary = ["yes", "no", "it's", "a-b=c", "-", "e+1", "5", "naïve, or not"]
    cells = [cell for table in Parsed(named(ordinary)).tables for row in table for cell in row]
    assert set(ordinary) <= set(cells) and not [cell for cell in cells if cell.startswith("'")]
    assert "1000000" in cells and "1.0" in cells  # the MACs of groups=1; what all hear


def test_two_hundred_trials_fit_into_a_page_that_can_be_mailed():
    # Of 120 epochs each, and no two alike: 200 x 3 x 120 points, whose noise no compression takes away.
    rng = random.Random(0)
    grid = itertools.product((1, 2, 4, 8, 16), (16, 32, 48, 64, 80), (16, 32, 48, 64), ("plain", "shuffle"))
    records = [
        network(
            plain(groups=groups, n_mels=mels, channels=channels, variant=variant),
            epochs=120,
            **{curve: [rng.random() for _ in range(120)] for curve in CURVES},
        )
        for groups, mels, channels, variant in grid
    ]
    assert len(records) == 200
    assert len(page(ReportInput((chapter(records),), {}), "melbench report")) < 5_000_000
