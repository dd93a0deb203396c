"""The figures of a report: points in, charts out. `bench.report.style` says how they look."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt

from bench.formats import Point
from bench.report.configurations import AXES
from bench.report.findings import CURVES, OUT_OF_FOLD, TEST, VALIDATION, Findings
from bench.report.style import PHONE, STUDY, Figure, Keys, Style, few_ticks, figure, keys, round_numbers, tooltip
from melcnn.config import SETTINGS

# Marks that show a curve's values to who points at them, of all curves of a figure: more would slow a page down.
MOST_TO_POINT_AT = 1500
# Losses that fall further than by this factor are drawn over a logarithmic axis.
FAR = 5
# Points of equal MACs stand side by side, in at most so many times the size of letters.
WIDEST = 2.5

AXIS_TITLES = {"groups": "groups", "n_mels": "mel filters"}
INTERVALS = "95% intervals for other speakers and other trainings like these"
CURVE_TITLES = {
    "train_loss": "Training loss",
    "validation_loss": "Validation loss",
    "validation_accuracy": "Validation accuracy",
}
# By field: the name of the figure's files, its title, the axis' title and format, the caption.
COSTS = {
    "params": ("params", "Parameters", "parameters", "~s", "Exact counts."),
    "macs": (
        "macs",
        "Multiply-accumulates",
        "MACs of one clip",
        "~s",
        "Exact counts, of convolution, linear and matmul.",
    ),
    "epoch_time_s": (
        "epoch-time",
        "Epoch time",
        "epoch time in s",
        "~g",
        "The median of one training pass by one network.",
    ),
}


def figures(found: Findings, style: Style) -> list[Figure]:
    """Return all figures that these findings have points for; an axis shows only what varies along it.

    Of several sweeps only what stands over no axis: each sweep has its own figures.
    """
    measured = {point["measure"] for point in found.accuracies if point["configuration"] is not None}
    measures = [measure for measure in dict.fromkeys((found.basis, TEST)) if measure in measured]
    made = [_tradeoff(found, measure, style) for measure in measures]
    if len(found.sweeps) > 1:
        return made + ([_confusion(found, style)] if found.confusion else [])
    accuracies = _accuracies(found, measures)
    for axis in AXES:
        if _varies(axis, [point for point in accuracies if point["configuration"] is not None]):
            made.append(_accuracy_over(axis, accuracies, found, style))
        for cost in COSTS:
            if _varies(axis, points := [point for point in found.costs if point[cost] is not None]):
                made.append(_cost_over(axis, cost, points, found, style))
    for curve in CURVES:
        if points := [point for point in found.curves if point["curve"] == curve]:
            made.append(_curve(curve, points, found, style))
    if found.confusion:
        made.append(_confusion(found, style))
    return made


def _varies(axis: str, points: Sequence[Point]) -> bool:
    return len({point[axis] for point in points}) > 1


def _accuracies(found: Findings, measures: Sequence[str]) -> list[Point]:
    """Return the points of these measures, with the study's."""
    # The study has no out-of-fold predictions: its validation accuracies stand beside them.
    studys = [VALIDATION if measure == OUT_OF_FOLD else measure for measure in measures]
    return [p for p in found.accuracies if p["measure"] in (studys if p["configuration"] is None else measures)]


@dataclass(frozen=True)
class Look:
    """The keys of a figure's configurations: one of colours and one of shapes, or one of both."""

    by_colour: Keys
    by_shape: Keys

    @property
    def colour(self) -> alt.Color:
        return self.by_colour.colour

    @property
    def shape(self) -> alt.Shape:
        return self.by_shape.shape


def _look(points: Sequence[Point], found: Findings, style: Style, lines: bool = False, named: bool = False) -> Look:
    """Return the keys of the configurations, which look the same in all figures of these findings.

    Args:
        named: the figure itself names what has which colour: the legend names the study alone.
    """
    colours, shapes = (tuple(dict.fromkeys(point[name] for point in found.costs)) for name in ("colour", "shape"))
    if found.keys.colour == found.keys.shape:
        one = keys(points, "colour", style, found.keys.colour, lines, colours, legend="study" if named else "all")
        return Look(one, one)
    return Look(
        # The study's points stand in the other key, of shapes: in both they would be named twice.
        keys(points, "colour", style, found.keys.colour, lines, colours, legend="" if named else "ours"),
        keys(points, "shape", style, found.keys.shape, lines, shapes, each_dash=1, on_top=True),
    )


def _told_by_measure(points: Sequence[Point]) -> tuple[list[Point], str]:
    """Return the points, of which the study's name their measure if there are several, and the title of their axis."""
    measures = list(dict.fromkeys(point["measure"] for point in points))

    def of_study(point: Point) -> Point:
        name = STUDY if len(measures) == 1 else f"{STUDY} ({point['measure']})"
        return point | ({"colour": name, "shape": name} if point["configuration"] is None else {})

    return [of_study(point) for point in points], f"{measures[0]} accuracy" if len(measures) == 1 else "accuracy"


def _tradeoff(found: Findings, measure: str, style: Style) -> Figure:
    """Return accuracy against MACs; with the Pareto front and the answer for the measure that decides."""
    decides = measure == found.basis
    points, title = _told_by_measure(_accuracies(found, [measure]))
    points = _side_by_side(points, style)
    named = _named_by_macs(points, found)
    legend = _look(points, found, style, named=named)
    x = alt.X("macs:Q", title="MACs of one clip (log scale)", scale=alt.Scale(type="log", nice=False, padding=20))
    x = x.axis(format="~s", values=round_numbers([point["macs"] for point in points]), grid=False)
    tips = tooltip(configuration="", macs=",", accuracy=".4f", low=".4f", high=".4f")
    aside = alt.ExprRef("datum.beside_px")
    layers = _with_bars(points, x, title, legend, tips, aside)
    clauses = _of_intervals(points)
    if named:
        # One name for all points of the same MACs, above their intervals.
        names = alt.Chart().mark_text(dy=-1.1 * style.font_size, baseline="bottom", aria=False)
        names = names.transform_calculate(end="isValid(datum.high) ? datum.high : datum.accuracy")
        names = names.transform_filter("isValid(datum.configuration)")
        names = names.transform_aggregate(top="max(end)", groupby=["macs", "colour"])
        layers.append(names.encode(x=x, y=_accuracy("top", title), text="colour:N"))
        clauses.insert(0, f"Numbers above the points are {AXIS_TITLES.get(found.keys.colour, found.keys.colour)}.")
    if decides and found.answer:
        certain = found.decided is not None and found.decided.chosen is not None
        ring = alt.Chart().mark_point(
            size=28 * style.font_size,
            filled=False,
            strokeWidth=style.line,
            strokeDash=[1, 0] if certain else [3, 2],
            color=style.ink,
            xOffset=aside,
            aria=False,
        )
        ring = ring.transform_filter(alt.FieldEqualPredicate(field="configuration", equal=found.answer))
        layers.append(ring.encode(x=x, y=_accuracy("accuracy", title)))
        clauses.insert(0, f"The ring marks {'the recommended configuration' if certain else 'the best so far'}.")
    if any(point["beside_px"] for point in points):
        clauses.append("Points of equal MACs stand side by side.")
    if not decides:
        clauses.append("The test split decides nothing.")
    elif sum(point["on_front"] for point in points) > 1:
        # Aside as its points are: where several are equal it goes through each, in the order in which they stand.
        dotted: dict[str, Any] = {"interpolate": "step-after", "strokeDash": [2, 3], "color": style.ink}
        front = alt.Chart().mark_line(**dotted, xOffset=aside, aria=False)
        front = front.transform_filter("datum.on_front === 'True'")
        layers.insert(0, front.encode(x=x, y=_accuracy("accuracy", title), order="macs:Q"))
        clauses.append("The dotted line is the Pareto front.")
    return figure(
        name="accuracy-macs" if decides else "accuracy-macs-test",
        title=f"{measure.capitalize()} accuracy against cost (MACs)",
        caption=" ".join(clauses),
        layers=layers,
        points=points,
        style=style,
    )


def _named_by_macs(points: Sequence[Point], found: Findings) -> bool:
    """Return whether the key of colours is of one setting, of which points of equal MACs have one value."""
    own = {(point["macs"], point["colour"]) for point in points if point["configuration"] is not None}
    return found.keys.colour in SETTINGS and len({macs for macs, _ in own}) == len(own) > 1


def _side_by_side(points: Sequence[Point], style: Style) -> list[Point]:
    """Return the points with `beside_px`, the pixels by which each is drawn to the right of its MACs.

    Those on the front stay; others of the same MACs, which are below, go right: left of it the front may be as low.
    """
    by_macs: dict[int, list[int]] = {}
    for number, point in enumerate(points):
        by_macs.setdefault(point["macs"], []).append(number)
    step = min(1, WIDEST / max(map(len, by_macs.values()))) * style.font_size
    beside = {}
    for alike in by_macs.values():
        best = [number for number in alike if points[number]["on_front"]]
        # Around the MACs: equal ones on the front; where nobody is on it, all.
        middle = (len(best or alike) - 1) / 2
        for place, number in enumerate([*best, *(number for number in alike if number not in best)]):
            beside[number] = round((place - middle) * step, 3)
    return [point | {"beside_px": beside[number]} for number, point in enumerate(points)]


def _of_intervals(points: Sequence[Point]) -> list[str]:
    """Return a caption's sentence about the points' bars, and about points without."""
    clauses = [f"Bars are {INTERVALS}."] if any(point["low"] is not None for point in points) else []
    single = [point for point in points if point["low"] is None]
    if len(single) == len(points):
        clauses.append("All are single runs, without intervals.")
    elif any(point["configuration"] is not None for point in single):
        clauses.append("Points without bars are single runs.")
    elif single:
        clauses.append("The study's points are single runs.")
    return clauses


def _accuracy_over(axis: str, accuracies: Sequence[Point], found: Findings, style: Style) -> Figure:
    points, title = _told_by_measure(accuracies)
    # What stands side by side over one value of the axis.
    points = [point | {"series": f"{point[f'beside_{axis}']} {point['measure']}"} for point in points]
    points.sort(key=lambda point: (point["configuration"] is None, point["measure"] == TEST))
    legend = _look(points, found, style, named=found.keys.colour == axis)
    tips = tooltip(configuration="", measure="", accuracy=".4f", low=".4f", high=".4f")
    beside = alt.XOffset("series:N", scale=alt.Scale(domain=list(dict.fromkeys(point["series"] for point in points))))
    layers = _with_bars(points, _step(axis), title, legend, tips)
    clauses = _of_intervals(points)
    if len({point["measure"] for point in points if point["configuration"] is not None}) > 1:
        # Of a figure with two measures the one that decides nothing is hollow.
        filled = alt.condition(f"datum.measure === '{TEST}'", alt.value(0), alt.value(1))
        layers[-1] = layers[-1].encode(fillOpacity=filled, stroke=alt.Stroke(**legend.colour._kwds))
        clauses.insert(0, f"Filled marks are {found.basis} accuracies, hollow ones {TEST} accuracies.")
    return figure(
        name=f"{axis.replace('_', '-')}-accuracy",
        title=f"Accuracy against {AXIS_TITLES[axis]}",
        caption=" ".join(clauses),
        layers=[layer.encode(xOffset=beside) for layer in layers],
        points=points,
        style=style,
    )


def _cost_over(axis: str, cost: str, points: Sequence[Point], found: Findings, style: Style) -> Figure:
    name, title, unit, format, caption = COSTS[cost]
    if len({(point[axis], point[cost]) for point in points}) < len(points):
        caption += " Of marks that lie on each other the last is seen."
    legend = _look(points, found, style, named=found.keys.colour == axis)
    y = alt.Y(cost, type="quantitative", title=unit, scale=alt.Scale(zero=True), axis=few_ticks(format))
    line = alt.Chart().mark_line(aria=False, color=style.soft, strokeWidth=style.line / 2)
    line = line.encode(x=_step(axis), y=y, detail=f"beside_{axis}:N")
    tips = tooltip(configuration="", **{cost: ".4f" if cost.endswith("_s") else ","})
    marks = alt.Chart().mark_point().encode(x=_step(axis), y=y, color=legend.colour, shape=legend.shape, tooltip=tips)
    layers = [line, marks]
    if cost == "epoch_time_s" and any(point["held_up"] for point in points):
        caption += " ! Other processes held up this time: it is too long."
        doubts = alt.Chart().mark_text(text="!", dy=-6, baseline="bottom", fontWeight="bold", aria=False)
        layers.append(doubts.transform_filter("datum.held_up === 'True'").encode(x=_step(axis), y=y))
    return figure(
        name=f"{axis.replace('_', '-')}-{name}",
        title=f"{title} against {AXIS_TITLES[axis]}",
        caption=caption,
        layers=layers,
        points=list(points),
        style=style,
    )


def _curve(curve: str, points: list[Point], found: Findings, style: Style) -> Figure:
    legend = _look(points, found, style, lines=True)
    lowest, highest = min(point["lowest"] for point in points), max(point["highest"] for point in points)
    far = curve != "validation_accuracy" and lowest > 0 and highest / lowest > FAR
    scale = alt.Scale(type="log", nice=False, padding=5) if far else alt.Scale(zero=False)
    ticks = alt.Axis(values=round_numbers([lowest, highest])) if far else few_ticks()
    titled: dict[str, Any] = {
        "title": CURVE_TITLES[curve].lower() + " (log scale)" * far,
        "axis": ticks,
        "scale": scale,
    }
    y, low = (alt.Y(name, type="quantitative", **titled) for name in ("mean", "lowest"))
    x = alt.X("epoch:Q", axis=few_ticks(), scale=alt.Scale(nice=False))
    band = alt.Chart().mark_area(opacity=0.15, aria=False)
    band = band.encode(x=x, y=low, y2="highest:Q", detail="shape:N")
    # Of a single epoch there is no line to see.
    line = alt.Chart().mark_line(point=not _varies("epoch", points)).encode(x=x, y=y, strokeDash=legend.by_shape.dash)
    layers = [band, line]
    if style.width is None:  # A page has something to point at.
        every = math.ceil(len(points) / MOST_TO_POINT_AT)
        tips = tooltip(configuration="", epoch=",", mean=".4f", lowest=".4f", highest=".4f", networks=",")
        marks = alt.Chart().mark_point(opacity=0, aria=False).encode(x=x, y=y, tooltip=tips)
        layers.append(marks.transform_filter(f"(datum.epoch - 1) % {every} === 0"))
    return figure(
        name=curve.replace("_", "-"),
        title=f"{CURVE_TITLES[curve]} by epoch",
        caption=_of_networks(points, not found.chapter.trials),
        layers=[layer.encode(color=legend.colour) for layer in layers],
        points=points,
        style=style,
    )


def _of_networks(points: Sequence[Point], of_folds: bool) -> str:
    """Return a caption's sentence about the networks in curves."""
    if max(point["networks"] for point in points) == 1:
        return "Each line is a single run."
    met: dict[str, set[int]] = {}
    for point in points:
        met.setdefault(point["configuration"], set()).add(point["networks"])
    ended = any(len(numbers) > 1 for numbers in met.values())
    all_of, one = ("seeds and folds", "network") if of_folds else ("seeds", "seed")
    return f"Lines are means over {all_of}, bands reach from the lowest to the highest {one}" + (
        f"; where a {one} stopped early, of the others." if ended else "."
    )


def _confusion(found: Findings, style: Style) -> Figure:
    points = list(found.confusion)
    words = dict.fromkeys(point["spoken"] for point in points)
    # Letters, half as wide as high, that a cell has room for.
    room = 0.7 * (style.width or PHONE) / len(words) / (0.55 * style.font_size)
    flat = max(map(len, words)) <= room
    limits: dict[str, Any] = {"labelLimit": 12 * style.font_size}
    x = alt.X("predicted:N", sort=None, axis=alt.Axis(labelAngle=0 if flat else -90, orient="top", **limits))
    y = alt.Y("spoken:N", sort=None, axis=alt.Axis(**limits))
    shade = alt.FillOpacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.05, 0.5]), legend=None)
    tips = tooltip(spoken="", predicted="", times=",", share=".4f")
    layers = [alt.Chart().mark_rect(fill=style.series[0]).encode(x=x, y=y, fillOpacity=shade, tooltip=tips)]
    digits = next((digits for digits in (2, 0) if room >= len(f"{100:.{digits}f}")), None)
    if digits is not None:
        texts = alt.Chart().mark_text(color=style.ink, fontSize=style.font_size, aria=False)
        texts = texts.transform_calculate(percent="100 * datum.share")
        layers.append(texts.encode(x=x, y=y, text=alt.Text("percent:Q", format=f".{digits}f")))
    return figure(
        name="confusion",
        title="Confusion on the test split" if found.chapter.trials else "Confusion on the folds held out",
        caption=f"How often, in percent, each spoken word is recognised as each, by {found.shown_in_confusion}, all "
        f"{'seeds' if found.chapter.trials else 'seeds and folds'} together.",
        layers=layers,
        points=points,
        style=replace(style, height=max(style.height, round(1.5 * style.font_size * len(words)))),
    )


def _step(axis: str) -> alt.X:
    return alt.X(axis, type="ordinal", title=AXIS_TITLES[axis], axis=alt.Axis(labelAngle=0))


def _accuracy(field: str, title: str) -> alt.Y:
    # Room for what is written above the points, and nothing that could be read as an accuracy there.
    possible: dict[str, Any] = {"condition": {"test": "datum.value > 1", "value": 0}, "value": 1}
    ticks = few_ticks()
    ticks.gridOpacity = ticks.tickOpacity = ticks.labelOpacity = possible
    return alt.Y(field, type="quantitative", title=title, scale=alt.Scale(zero=False, padding=20), axis=ticks)


def _with_bars(
    points: Sequence[Point], x: alt.X, title: str, legend: Look, tips: list[alt.Tooltip], aside: alt.ExprRef | int = 0
) -> list[alt.Chart]:
    """Return layers of accuracies with their intervals.

    Args:
        aside: pixels to the right of x.
    """
    # A low that is missing makes no mark.
    bars = alt.Chart().mark_rule(aria=False, xOffset=aside)
    bars = bars.encode(x=x, y=_accuracy("low", title), y2="high:Q", color=legend.colour)
    marks = alt.Chart().mark_point(xOffset=aside).encode(color=legend.colour, shape=legend.shape, tooltip=tips)
    marks = marks.encode(x=x, y=_accuracy("accuracy", title))
    # Of no marks at all the browser would complain.
    return [bars, marks] if any(point["low"] is not None for point in points) else [marks]
