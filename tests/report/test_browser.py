"""The report's page in headless Chromium: it asks nobody, complains of nothing, draws, sorts, hides and prints."""

import csv
import io
import re
import shutil
from pathlib import Path

import pytest

from bench.report import charts, findings
from bench.report.load import ReportInput, load_report
from bench.report.page import page
from bench.report.style import PAGE
from melcnn.errors import visible
from tests.helpers.configurations import plain
from tests.helpers.records import chapter, network
from tests.report.test_page import HOSTILE, named

pytestmark = pytest.mark.slow

playwright = pytest.importorskip("playwright.sync_api")
expected = playwright.expect

RESULTS = Path(__file__).parents[2] / "results"
RUNS = [RESULTS / "recipes" / "records", RESULTS / "recommendation" / "records"]
# What a browser asks its maker for by itself, which has nothing to do with the page.
QUIET = [f"--disable-{what}" for what in ("gpu", "quic", "background-networking", "component-update", "sync")]
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=[*QUIET, "--no-sandbox", "--no-first-run"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page(load_report(RUNS), "melbench report"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def figures():
    (chapter,) = load_report(RUNS).chapters
    return {f"data-1-{figure.name}": figure for figure in charts.figures(findings.find(chapter), PAGE)}


class Opened:
    """A page that was opened and has drawn all its figures; complaints and requests as they came."""

    def __init__(self, browser, path, folded=False, **context):
        self.complaints, self.requests = [], []
        self.page = browser.new_context(**context).new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        # Asked from outside: the page's policy lets nobody evaluate text within.
        waiting = ".answer .plot:not([data-drawn])" if folded else ".plot:not([data-drawn])"
        expected(self.page.locator(waiting)).to_have_count(0, timeout=120_000)

    def column(self, table, number):
        return self.page.locator(f"#{table} tbody tr td:nth-child({number})").all_text_contents()


@pytest.fixture(scope="module")
def opened(browser, report):
    opened = Opened(browser, report, viewport={"width": 1280, "height": 900})
    yield opened
    opened.page.context.close()


def test_it_asks_nobody_and_complains_of_nothing(opened, report):
    assert opened.requests == [report.as_uri()]
    assert opened.complaints == []
    assert set(opened.page.locator(".plot").evaluate_all("plots => plots.map((p) => p.dataset.drawn)")) == {"yes"}


def marks(page, figure, kind):
    return page.locator(f'[data-figure="{figure}"] svg [aria-roledescription="{kind}"]').count()


def test_every_figure_has_a_mark_for_every_point(opened, figures):
    assert len(figures) > 8
    for name, figure in figures.items():
        if "epoch" in figure.points[0]:  # curves: a line for each configuration
            assert marks(opened.page, name, "line mark") == len({p["configuration"] for p in figure.points}), name
        else:
            kind = "rect mark" if figure.name == "confusion" else "point"
            assert marks(opened.page, name, kind) == len(figure.points), name


def test_the_tables_have_the_numbers_of_the_stored_csv(opened):
    with open(RESULTS / "recipes" / "groups.csv") as file:
        stored = list(csv.DictReader(file))
    table = "data-1-configurations"
    assert opened.column(table, 2) == [f"{int(row['params']):,}" for row in stored]
    assert opened.column(table, 3) == [f"{int(row['macs']):,}" for row in stored]
    means = [f"{float(row['test_accuracy']):.4f} ±{float(row['test_accuracy_ci95']):.4f}" for row in stored]
    assert opened.column(table, 7) == means


def test_figures_show_the_numbers_of_the_tables(opened, figures):
    """What a mark says of itself, which pointing at it shows too, is what the table under it has."""
    name = "data-1-accuracy-macs-test"
    said = opened.page.locator(f'[data-figure="{name}"] svg [aria-roledescription="point"]')
    labels = said.evaluate_all("marks => marks.map((mark) => mark.getAttribute('aria-label'))")
    accuracies = {f"{point['accuracy']:g}" for point in figures[name].points}
    assert {part.removeprefix("test accuracy: ") for label in labels for part in label.split("; ")} >= accuracies


def test_a_column_sorts_by_number_and_back_by_mouse_and_keyboard(opened):
    table = "data-1-configurations"
    heading = opened.page.locator(f"#{table} th", has_text="MACs").first
    before = opened.column(table, 3)
    number = [int(text.replace(",", "")) for text in before]
    heading.locator("button").click()
    assert [int(text.replace(",", "")) for text in opened.column(table, 3)] == sorted(number)
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").focus()
    opened.page.keyboard.press("Enter")
    assert [int(text.replace(",", "")) for text in opened.column(table, 3)] == sorted(number, reverse=True)
    # Another column takes the order over.
    opened.page.locator(f"#{table} th button").first.click()
    assert heading.get_attribute("aria-sort") is None
    assert opened.column(table, 1) == ["1", "2", "4", "8", "16"]  # by number: as text 16 would be second


def test_a_configuration_can_be_hidden_by_keyboard(opened, figures):
    name = "data-1-groups-params"
    shown = len(figures[name].points)
    box = opened.page.get_by_role("checkbox", name="groups=4 variant=plain")
    box.focus()
    opened.page.keyboard.press("Space")
    points = opened.page.locator(f'[data-figure="{name}"] svg [aria-roledescription=point]')
    expected(points).to_have_count(shown - 1)
    box.check()
    expected(points).to_have_count(shown)


def test_what_was_hidden_before_it_was_drawn_is_hidden(browser, report, figures, tmp_path):
    # As a browser restores the boxes of a page that is loaded again, before its script runs.
    shown, hidden = report.read_text(encoding="utf-8"), tmp_path / "hidden.html"
    hidden.write_text(shown.replace(' checked value="groups=4 variant=plain"', ' value="groups=4 variant=plain"'))
    assert hidden.stat().st_size == report.stat().st_size - len(" checked")
    opened = Opened(browser, hidden)
    for name in ("data-1-groups-params", "data-1-accuracy-macs"):
        left = [point for point in figures[name].points if point["configuration"] != "groups=4 variant=plain"]
        assert marks(opened.page, name, "point") == len(left) < len(figures[name].points)
    opened.page.context.close()


def test_the_arrow_of_a_heading_is_not_read_out(opened):
    table = opened.page.locator("#data-1-configurations")
    assert table.get_by_role("button", name="test accuracy", exact=True).count() == 1


def test_no_other_script_runs(browser, report, tmp_path):
    foreign = tmp_path / "foreign.html"
    page = report.read_text(encoding="utf-8")
    foreign.write_text(page.replace("</main>", "<script>alert(1)</script><img src=x onerror=alert(2)></main>"))
    opened = Opened(browser, foreign)
    # A script, a picture and what is to run in its stead: all three are refused, and said to be.
    assert len(opened.complaints) == 3 and all("Content Security Policy" in one for one in opened.complaints)
    opened.page.context.close()


@pytest.mark.parametrize("first", [0, 5, 10])  # words that are markup, formulas, a terminal's commands
def test_names_are_shown_and_not_obeyed(browser, tmp_path, first):
    names = (*HOSTILE[first:], *HOSTILE[:first])
    hostile = tmp_path / "hostile.html"
    hostile.write_text(named(names), encoding="utf-8")
    opened = Opened(browser, hostile)
    assert (opened.complaints, opened.requests) == ([], [hostile.as_uri()])
    # The two words are at the confusion's axes, as they are but for their length, without what spreadsheets need.
    labels = opened.page.locator('[data-figure="data-1-confusion"] svg .role-axis-label text').all_text_contents()
    begun = {label.rstrip("…") for label in labels}
    assert [sum(visible(name).startswith(label) for label in begun) for name in names[:2]] == [1, 1] and len(begun) == 2
    opened.page.context.close()


def test_curves_can_be_downloaded(opened, figures):
    name = "data-1-train-loss"
    with opened.page.expect_download() as waited:
        opened.page.locator(f'button.download[data-figure="{name}"]').click()
    rows = list(csv.DictReader(io.StringIO(Path(waited.value.path()).read_text())))
    assert waited.value.suggested_filename == f"{name}.csv"
    assert [float(row["mean"]) for row in rows] == [point["mean"] for point in figures[name].points]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser, report, scheme):
    opened = Opened(browser, report, viewport=PHONE, is_mobile=True, color_scheme=scheme)
    assert opened.complaints == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    # No figure reaches over its column, its legend included.
    widths = opened.page.locator(".plot svg").evaluate_all("all => all.map((svg) => svg.getBoundingClientRect().right)")
    assert max(widths) <= PHONE["width"]
    opened.page.context.close()


def colours(page):
    return page.evaluate(
        "['body', '.plot svg [aria-roledescription=point]'].map((query) => {"
        "const style = getComputedStyle(document.querySelector(query));"
        "return query === 'body' ? style.backgroundColor : style.fill; })"
    )


def test_dark_is_dark_and_paper_is_white(browser, report):
    opened = Opened(browser, report, color_scheme="dark")
    paper, ink = colours(opened.page)
    assert max(map(int, paper.removeprefix("rgb(").rstrip(")").split(","))) < 64
    opened.page.emulate_media(media="print", color_scheme="dark")
    printed, printed_ink = colours(opened.page)
    assert printed == "rgb(255, 255, 255)" and printed_ink != ink  # figures follow
    opened.page.context.close()


def test_tables_fit_on_paper(browser, report):
    # A4 is 210 mm wide, less two margins of 10 mm, at 96 px to 25.4 mm: 718 px.
    opened = Opened(browser, report, viewport={"width": 718, "height": 1000})
    opened.page.emulate_media(media="print")
    wide = "[...document.querySelectorAll('.scroll')].filter((home) => home.scrollWidth > home.clientWidth).length"
    assert opened.page.evaluate(wide) == 0
    opened.page.context.close()


@pytest.fixture(scope="module")
def one_sweep(tmp_path_factory):
    """A page of one sweep of five configurations."""
    path = tmp_path_factory.mktemp("report") / "sweep.html"
    path.write_text(page(load_report(RUNS[:1]), "melbench report"), encoding="utf-8")
    return path


@pytest.mark.parametrize("of", ["report", "one_sweep"])
@pytest.mark.parametrize("screen", [{"width": 1280, "height": 800}, PHONE], ids=["desktop", "phone"])
def test_the_first_screen_has_the_data_the_answer_and_its_chart(browser, request, of, screen):
    opened = Opened(browser, request.getfixturevalue(of), viewport=screen, is_mobile=screen is PHONE)
    for what in ("h1", ".lead", ".answer h2", ".answer .sure", ".answer .tiles div:first-child small", ".answer .plot"):
        box = opened.page.locator(what).first.bounding_box()
        assert box["height"] > 0 and box["y"] >= 0 and box["y"] + box["height"] <= screen["height"], what
    # The chart has the Pareto front, intervals and the ring around the answer.
    chart = opened.page.locator(".answer .plot svg").first
    assert chart.locator(".mark-line path").count() == 1 and chart.locator(".mark-rule line").count() >= 5
    assert chart.locator(".mark-symbol.role-mark").count() == 2
    opened.page.context.close()


def test_a_sweep_of_five_is_printed_on_four_pages(browser, one_sweep):
    opened = Opened(browser, one_sweep, viewport={"width": 1280, "height": 800})
    printed = opened.page.pdf(format="A4")
    assert 1 <= len(re.findall(rb"/Type\s*/Page[^s]", printed)) <= 4
    opened.page.context.close()


def test_numbers_stand_right_under_their_headings_and_texts_left(opened):
    aligned = "cells => [...new Set(cells.map((cell) => getComputedStyle(cell).textAlign))]"
    for table in ("data-1-configurations", "data-1-out-of-fold"):
        for row in ("thead th", "tbody td"):
            assert opened.page.locator(f"#{table} {row}:nth-child(1)").evaluate_all(aligned) == ["right"]
    for row in ("thead th", "tbody td"):
        assert opened.page.locator(f"#data-1-wrong {row}:nth-child(3)").evaluate_all(aligned) == ["left"]


def test_a_table_that_scrolls_sideways_says_so(browser, one_sweep):
    for screen, said in ((PHONE, True), ({"width": 1280, "height": 800}, False)):
        opened = Opened(browser, one_sweep, viewport=screen)
        hint = opened.page.locator(".scroll:has(#data-1-configurations)").locator("xpath=preceding-sibling::p[1]")
        assert "scrolls sideways" in hint.text_content() and hint.is_visible() == said
        opened.page.context.close()


def test_what_is_folded_up_is_drawn_when_it_is_opened(browser, tmp_path):
    settings = [{"groups": 1}, {"groups": 2}, {"groups": 4}, {"n_mels": 20}, {"n_mels": 40}]
    records = [network(plain(**own), seed) for own in settings for seed in (0, 1)]
    path = tmp_path / "several.html"
    path.write_text(page(ReportInput((chapter(records),), {}), "melbench report"), encoding="utf-8")
    opened = Opened(browser, path, folded=True)
    more = opened.page.locator("details.more").first
    assert more.locator("svg").count() == 0
    more.locator("> summary").click()
    expected(more.locator(".plot:not([data-drawn=yes])")).to_have_count(0, timeout=60_000)
    assert more.locator(".plot svg").first.bounding_box()["width"] > 300 and opened.complaints == []
    opened.page.context.close()
