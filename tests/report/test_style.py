"""Colours that everybody tells apart, on the page and on paper; keys of many series; ticks."""

import itertools
import re
from pathlib import Path

import altair as alt
import numpy as np
import pytest

from bench.measurement import workloads
from bench.report import charts, style, time_breakdown, time_charts
from bench.report.findings import find
from bench.report.style import DASHES, N_COLOURS, PAGE, PAPER, SHAPES, STUDY, keys, round_numbers
from tests.helpers.configurations import plain
from tests.helpers.records import chapter, measurement, network, timing_record

CSS = (Path(style.__file__).parent / "templates" / "page.css").read_text()


def variables(condition):
    """The variables that the style sheet sets under a condition; "" without one."""
    block = re.search(rf"{re.escape(condition)}\s*:root {{(.*?)}}", CSS, re.DOTALL)[1]
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


THEMES = {
    "light": variables(""),
    "dark": variables("@media (prefers-color-scheme: dark) {\n "),
    "print": variables("@media print {\n "),
}
SERIES = [f"series-{number}" for number in range(1, N_COLOURS + 1)]

# Machado, Oliveira and Fernandes, IEEE Transactions on Visualization and Computer Graphics 15, 2009, severity 1: linear
# sRGB as the colour-blind see it.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# Ottosson, A perceptual color space for image processing, 2020.
TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# Colours that can just be told apart are 0.02 apart in OKLab (CSS Color Module Level 4, 13.2). Marks are small and not
# side by side: five times that. Okabe and Ito's eight, which the field uses, are 0.076 apart at the least, and most of
# them too pale for paper.
APART = 5 * 0.02


def linear(colour):
    """sRGB as "#rrggbb" to linear light (IEC 61966-2-1)."""
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG 2.1: the ratio of relative luminances, each with 0.05 of stray light."""
    dark, light = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) + 0.05 for colour in (one, other))
    return light / dark


def distance(one, other, vision):
    """In OKLab, as somebody of such vision sees the two."""
    seen = [np.clip(VISION[vision] @ linear(colour), 0, 1) for colour in (one, other)]
    a, b = (TO_OKLAB @ np.cbrt(TO_LMS @ light) for light in seen)
    return float(np.linalg.norm(a - b))


def test_the_measures_by_known_figures():
    # Black on white is 21:1; #767676 on white 4.54:1, the palest grey that text may have.
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#767676", "#ffffff") == pytest.approx(
        4.54, abs=0.005
    )
    # White is (1, 0, 0), red (0.628, 0.225, 0.126).
    assert distance("#ffffff", "#000000", "normal") == pytest.approx(1, abs=1e-4)
    assert distance("#ff0000", "#ffffff", "normal") == pytest.approx(
        np.hypot(1 - 0.628, np.hypot(0.225, 0.126)), abs=1e-3
    )
    # Who lacks red or green takes this green for that red.
    assert distance("#c74e00", "#8a6500", "protanopia") < 0.02 < distance("#c74e00", "#8a6500", "normal")
    okabe_ito = ["#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"]
    least = min(distance(*pair, vision) for pair in itertools.combinations(okabe_ito, 2) for vision in VISION)
    assert least == pytest.approx(0.076, abs=5e-4)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", THEMES)
def test_everybody_tells_the_series_apart(theme, vision):
    # The study's marks have the colour of ink.
    colours = {name: THEMES[theme][name] for name in [*SERIES, "ink"]}
    for (one, a), (other, b) in itertools.combinations(colours.items(), 2):
        assert distance(a, b, vision) >= APART, f"{one} and {other}"


@pytest.mark.parametrize("theme", THEMES)
def test_marks_and_texts_stand_out(theme):
    colours = THEMES[theme]
    for name in SERIES:
        assert contrast(colours[name], colours["paper"]) >= 3, name  # WCAG 2.1, 1.4.11
    for name, paper in itertools.product(("ink", "soft", "accent"), ("paper", "card")):
        assert contrast(colours[name], colours[paper]) >= 4.5, (name, paper)  # 1.4.3


@pytest.mark.parametrize("theme", THEMES)
def test_a_confusions_numbers_are_read_on_its_darkest_cell(theme):
    # Of opacity 0.5 at most: halfway, as sRGB has it, between the first series and the paper.
    fill, paper = (np.array([int(THEMES[theme][n][i : i + 2], 16) for i in (1, 3, 5)]) for n in ("series-1", "paper"))
    cell = "#" + "".join(f"{round(value):02x}" for value in (fill + paper) / 2)
    assert contrast(THEMES[theme]["ink"], cell) >= 4.5


def test_paper_has_the_pages_light_colours():
    assert list(PAPER.series) == [THEMES["light"][name] for name in SERIES]
    assert [THEMES["print"][name] for name in SERIES] == list(PAPER.series)
    assert PAPER.paper == THEMES["light"]["paper"] == THEMES["print"]["paper"]
    assert list(PAGE.series) == [f"var(--{name})" for name in SERIES]
    assert {"paper", "ink", "rule"} <= set(THEMES["light"]) and set(THEMES["light"]) == set(THEMES["dark"])
    assert contrast(PAPER.ink, PAPER.paper) >= 4.5
    assert all(distance(PAPER.ink, colour, vision) >= APART for colour in PAPER.series for vision in VISION)


def channels(names, **how):
    """Colour, shape and dash of series of these names, as Vega-Lite hears of them."""
    found = keys([{"series": name} for name in names], "series", PAPER, **how)
    return [channel.to_dict() for channel in (found.colour, found.shape, found.dash)]


def test_a_value_of_a_fixed_set_looks_the_same_whichever_others_occur():
    every = ("a", "b", "c", "d")
    all_of_them = told(["d", "b", "a", "c"], every=every)
    assert list(all_of_them) == list(every)
    assert told(["c", "b"], every=every) == {name: all_of_them[name] for name in ("b", "c")}


def told(names, **how):
    """Of each name its colour, shape and dash."""
    scales = [channel["scale"] for channel in channels(names, **how)]
    assert all(scale["domain"] == scales[0]["domain"] for scale in scales)
    return dict(zip(scales[0]["domain"], zip(*(scale["range"] for scale in scales), strict=True), strict=True))


def test_keys_are_in_order_with_the_study_last_in_ink():
    found = told([f"{STUDY}, test", "b", STUDY, "a", "b"])
    assert list(found) == ["b", "a", f"{STUDY}, test", STUDY]
    assert [colour for colour, _, _ in found.values()] == [*PAPER.series[:2], PAPER.ink, PAPER.ink]
    shapes = [shape for _, shape, _ in found.values()]
    assert (
        shapes[:2] == list(SHAPES[:2]) and set(shapes[2:]) == {"diamond", "cross"} and not set(shapes[2:]) & set(SHAPES)
    )


def test_colours_that_come_again_have_another_dash_and_shape():
    found = list(told([f"s{number}" for number in range(40)], lines=True).values())
    assert [colour for colour, _, _ in found] == 5 * list(PAPER.series)
    assert [dash for _, _, dash in found] == [DASHES[number // 8 % len(DASHES)] for number in range(40)]
    # Eight colours with five shapes are 40 that differ, with four dashes 32.
    assert len({(colour, shape) for colour, shape, _ in found}) == 40
    assert len({(colour, tuple(dash)) for colour, _, dash in found[:32]}) == 32


def test_a_single_series_needs_no_legend():
    assert [channel["legend"] for channel in channels(["a", "a"], lines=True)] == [None] * 3


def test_a_legend_of_lines_shows_their_dashes_and_one_of_marks_their_shapes():
    colour, _, dash = channels(["a", "b"], lines=True)
    assert colour["legend"] == dash["legend"] and colour["legend"]["symbolType"] == "stroke"
    colour, shape, dash = channels(["a", "b"])
    assert colour["legend"] == shape["legend"] and "symbolType" not in colour["legend"] and dash["legend"] is None


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        # 1, 2 and 5 times powers of ten from 0.9 of the lowest to 1.1 of the highest.
        ([67_232, 1_010_432], [100_000, 200_000, 500_000, 1_000_000]),
        ([1, 1000], [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]),
        ([0.035, 0.5], [0.05, 0.1, 0.2, 0.5]),
        ([1.05, 1.9], [1, 2]),
        # Of less than two of these the values themselves.
        ([130_112], [130_112]),
        ([67_232, 90_000], [67_232, 90_000]),
        ([300, 300], [300]),
    ],
)
def test_round_numbers(values, ticks):
    assert round_numbers(values) == pytest.approx(ticks)


def test_round_numbers_of_nothing():
    assert round_numbers([]) == []


@pytest.mark.parametrize("style", [PAGE, PAPER], ids=["page", "paper"])
def test_what_is_drawn_is_as_the_schema_says(style):
    trials = [plain(n_mels=n_mels, groups=groups) for n_mels in (40, 80) for groups in (1, 2)]
    networks = [network(trial, seed) for trial in trials for seed in (0, 1)]
    figures = charts.figures(find(chapter(networks, timings=(timing_record(*trials),))), style)
    timed = [workloads.Workload(what="latency", clips=1, batch_size=1, trial=trial) for trial in trials]
    figures += time_charts.times(time_breakdown.points(measurement(timed, [0.001] * len(timed))), style)
    assert len(figures) == 15
    for figure in figures:
        alt.LayerChart.from_dict(figure.spec)  # raises


@pytest.mark.parametrize("seeds", [1, 2])
def test_points_without_intervals_have_no_bars(seeds):
    networks = [network(plain(groups=groups), seed) for groups in (1, 2) for seed in range(seeds)]
    for figure in charts.figures(find(chapter(networks)), PAGE):
        if "accuracy" in figure.points[0]:
            marks = {layer["mark"]["type"] for layer in figure.spec["layer"]}
            # Of an empty layer a browser would complain.
            assert "point" in marks and ("rule" in marks) == (seeds > 1)
