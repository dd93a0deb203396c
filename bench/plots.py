"""The figures of a report: points in, charts out. `bench.drawing` says how they look."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt

from bench.breakdown import CONVOLUTION, FRONT_END
from bench.drawing import PHONE, STUDY, Keys, Point, Style, drawn, keys, round_numbers, tooltip
from bench.findings import OUT_OF_FOLD, TEST, VALIDATION, Findings

# Marks that show a curve's values to who points at them, of all curves of a figure: more would slow a page down.
MOST_TO_POINT_AT = 1500
# Losses that fall further than by this factor are drawn over a logarithmic axis.
FAR = 5

AXIS_TITLES = {"groups": "groups", "n_mels": "mel filters"}
INTERVALS = {
    VALIDATION: "95% intervals of the mean over seeds, for these very clips",
    TEST: "95% intervals of the mean over seeds, for these very clips",
    OUT_OF_FOLD: "95% intervals for other speakers and other trainings like these",
}
CURVE_TITLES = {
    "train_loss": "Training loss",
    "validation_loss": "Validation loss",
    "validation_accuracy": "Validation accuracy",
}


@dataclass(frozen=True)
class Figure:
    """name: of its files, and of its place in a page. caption: what is drawn and how to read it. spec: for Vega-Lite.
    points: what is drawn, one for each mark that carries a value."""

    name: str
    title: str
    caption: str
    spec: dict[str, Any]
    points: Sequence[Point]


def figures(found: Findings, style: Style) -> list[Figure]:
    """All figures that these findings have points for."""
    measures = dict.fromkeys((found.basis, TEST))
    made = [_tradeoff(found, measure, style) for measure in measures]
    for axis in AXIS_TITLES:
        if len({point[axis] for point in found.costs}) > 1:
            made += [_accuracy_over(axis, found, style), *_costs_over(axis, found, style)]
    made += [_curve(found, curve, style) for curve in CURVE_TITLES]
    made.append(_confusion(found, style))
    return [figure for figure in made if figure.points]


def _tradeoff(found: Findings, measure: str, style: Style) -> Figure:
    """Accuracy against MACs; of the measure that decides with the Pareto front."""
    decides = measure == found.basis
    # The study has no out-of-fold predictions: its validation accuracies stand beside them.
    study = VALIDATION if measure == OUT_OF_FOLD else measure
    points = [
        point | {"series": _series(point, "groups")}
        for point in found.accuracies
        if point["measure"] == (measure if point["configuration"] else study)
    ]
    told = keys(points, "series", style)
    x = alt.X("macs:Q", title="MACs of one clip", scale=alt.Scale(type="log", nice=False, padding=20))
    x = x.axis(format="~s", values=round_numbers([point["macs"] for point in points]), grid=False)
    title = f"{measure} accuracy"
    y = _accuracy("accuracy", title)
    layers = [
        *_with_bars(x, title, told, tooltip(configuration="", macs=",", accuracy=".4f", low=".4f", high=".4f")),
        alt.Chart()
        .mark_text(dx=style.font_size / 2 + 2, align="left", fontSize=style.font_size - 1, color=style.ink, aria=False)
        .encode(x=x, y=y, text="groups:N"),
    ]
    if decides:
        front = alt.Chart().mark_line(interpolate="step-after", strokeDash=[2, 3], color=style.ink, aria=False)
        layers.insert(0, front.transform_filter("datum.on_front === 'True'").encode(x=x, y=y, order="macs:Q"))
    beside = ", beside its validation accuracies" if study != measure else ""
    return Figure(
        name="accuracy-macs" if decides else "accuracy-macs-test",
        title=f"{measure.capitalize()} accuracy against multiply-accumulates",
        caption=f"Numbers at the points are groups. Bars are {INTERVALS[measure]}; the study's single runs have none"
        + (f"{beside}. The dotted line is the Pareto front." if decides else ". The test split decides nothing."),
        spec=drawn(layers, points, style),
        points=points,
    )


def _accuracy_over(axis: str, found: Findings, style: Style) -> Figure:
    points = []
    for point in found.accuracies:
        if point["configuration"] is None or point["measure"] in (found.basis, TEST):
            points.append(point | {"series": f"{_series(point, axis)}, {point['measure']}"})
    told = keys(points, "series", style)
    x = alt.X(axis, type="ordinal", title=AXIS_TITLES[axis], axis=alt.Axis(labelAngle=0))
    tips = tooltip(configuration="", measure="", accuracy=".4f", low=".4f", high=".4f")
    apart = alt.XOffset("series:N", scale=alt.Scale(domain=list(told.names)))
    layers = [layer.encode(xOffset=apart) for layer in _with_bars(x, "accuracy", told, tips)]
    bars = [f"{measure}: {INTERVALS[measure]}" for measure in dict.fromkeys((found.basis, TEST))]
    return Figure(
        name=f"{axis.replace('_', '-')}-accuracy",
        title=f"Accuracy against {AXIS_TITLES[axis]}",
        caption=f"Bars of {'; of '.join(bars)}.",
        spec=drawn(layers, points, style),
        points=points,
    )


COSTS = {
    "params": ("params", "Parameters", "parameters", "Exact counts."),
    "macs": ("macs", "Multiply-accumulates", "MACs of one clip", "Exact counts, of convolution, linear and matmul."),
    "epoch_time_s": ("epoch-time", "Epoch time", "epoch time in s", "The median of one training pass by one network."),
}


def _costs_over(axis: str, found: Findings, style: Style) -> list[Figure]:
    made = []
    for cost, (name, title, unit, caption) in COSTS.items():
        points = [point | {"series": _series(point, axis)} for point in found.costs if point[cost] is not None]
        told = keys(points, "series", style)
        x = alt.X(axis, type="ordinal", title=AXIS_TITLES[axis], axis=alt.Axis(labelAngle=0))
        y = alt.Y(
            cost,
            type="quantitative",
            title=unit,
            scale=alt.Scale(zero=True),
            axis=_few_ticks("~g" if cost == "epoch_time_s" else "~s"),
        )
        line = alt.Chart().mark_line(aria=False).encode(x=x, y=y, color=told.colour, strokeDash=told.dash)
        tips = tooltip(configuration="", **{cost: ".4f" if cost.endswith("_s") else ","})
        marks = alt.Chart().mark_point().encode(x=x, y=y, color=told.colour, shape=told.shape, tooltip=tips)
        made.append(
            Figure(
                name=f"{axis.replace('_', '-')}-{name}",
                title=f"{title} against {AXIS_TITLES[axis]}",
                caption=caption,
                spec=drawn([line, marks], points, style),
                points=points,
            )
        )
    return made


def _curve(found: Findings, curve: str, style: Style) -> Figure:
    points = [point for point in found.curves if point["curve"] == curve]
    told = keys(points, "configuration", style, lines=True)
    lowest, highest = min((p["lowest"] for p in points), default=0), max((p["highest"] for p in points), default=0)
    far = curve != "validation_accuracy" and lowest > 0 and highest / lowest > FAR
    scale = alt.Scale(type="log", nice=False, padding=5) if far else alt.Scale(zero=False)
    ticks = alt.Axis(values=round_numbers([lowest, highest])) if far else _few_ticks()
    titled = {"title": CURVE_TITLES[curve].lower(), "axis": ticks, "scale": scale}
    y, low = (alt.Y(name, type="quantitative", **titled) for name in ("mean", "lowest"))
    x = alt.X("epoch:Q", axis=_few_ticks(), scale=alt.Scale(nice=False))
    band = alt.Chart().mark_area(opacity=0.15, aria=False).encode(x=x, y=low, y2="highest:Q")
    line = alt.Chart().mark_line().encode(x=x, y=y, strokeDash=told.dash)
    layers = [band, line]
    if style.width is None:  # A page has something to point at.
        every = math.ceil(len(points) / MOST_TO_POINT_AT)
        tips = tooltip(configuration="", epoch=",", mean=".4f", lowest=".4f", highest=".4f", seeds=",")
        marks = alt.Chart().mark_point(opacity=0, aria=False).encode(x=x, y=y, tooltip=tips)
        layers.append(marks.transform_filter(f"(datum.epoch - 1) % {max(every, 1)} === 0"))
    layers = [layer.encode(color=told.colour) for layer in layers]
    return Figure(
        name=curve.replace("_", "-"),
        title=f"{CURVE_TITLES[curve]} by epoch",
        caption="Lines are means over seeds, bands reach from the lowest to the highest seed; where a seed stopped "
        "early, of the others.",
        spec=drawn(layers, points, style),
        points=points,
    )


def _confusion(found: Findings, style: Style) -> Figure:
    points = list(found.confusion)
    words = dict.fromkeys(point["spoken"] for point in points)
    # Letters, half as wide as high, that a cell has room for.
    room = 0.7 * (style.width or PHONE) / max(len(words), 1) / (0.55 * style.font_size)
    flat = max(map(len, words), default=0) <= room
    limits = {"labelLimit": 12 * style.font_size}
    x = alt.X("heard:N", sort=None, axis=alt.Axis(labelAngle=0 if flat else -90, orient="top", **limits))
    y = alt.Y("spoken:N", sort=None, axis=alt.Axis(**limits))
    shade = alt.FillOpacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.05, 0.5]), legend=None)
    tips = tooltip(spoken="", heard="", times=",", share=".4f")
    layers = [alt.Chart().mark_rect(fill=style.series[0]).encode(x=x, y=y, fillOpacity=shade, tooltip=tips)]
    digits = next((digits for digits in (2, 0) if room >= len(f"{100:.{digits}f}")), None)
    if digits is not None:
        texts = alt.Chart().mark_text(color=style.ink, fontSize=style.font_size, aria=False)
        texts = texts.transform_calculate(percent="100 * datum.share")
        layers.append(texts.encode(x=x, y=y, text=alt.Text("percent:Q", format=f".{digits}f")))
    return Figure(
        name="confusion",
        title="Confusion on the test split",
        caption=f"How often, in percent, each spoken word is heard as each, by {found.shown_in_confusion}, all seeds "
        "together.",
        spec=drawn(layers, points, replace(style, height=max(style.height, 1.5 * style.font_size * len(words)))),
        points=points,
    )


def times(points: Sequence[Point], style: Style) -> list[Figure]:
    """Where the time of one clip goes, by batch size; points: of `bench.breakdown`."""
    return [
        _times([point for point in points if point["batch_size"] == batch], batch, style)
        for batch in dict.fromkeys(point["batch_size"] for point in points)
    ]


def _times(points: Sequence[Point], batch: int, style: Style) -> Figure:
    told = keys(points, "part", style)
    ends: dict[str, float] = {}
    placed = []
    for point in points:
        begin = ends.get(point["configuration"], 0.0)
        ends[point["configuration"]] = end = begin + 1e3 * point["time_s"]
        placed.append(point | {"from_ms": begin, "to_ms": end})
    # Room for the words beside the longest bar.
    scale = alt.Scale(domain=[0, 1.4 * max(ends.values())], nice=False)
    y = alt.Y("configuration:N", sort=None, title=None, axis=alt.Axis(labelLimit=20 * style.font_size))
    tips = tooltip(configuration="", part="", time_s=".3s", bound_by="")
    bars = alt.Chart().mark_bar().encode(y=y, x2="to_ms:Q", color=told.colour, tooltip=tips)
    bars = bars.encode(x=alt.X("from_ms:Q", title="ms for one clip", scale=scale, axis=_few_ticks("~g")))
    bound = alt.Chart().mark_text(align="left", dx=4, fontSize=style.font_size - 1, color=style.ink, aria=False)
    bound = bound.transform_filter(f"datum.part !== '{FRONT_END}' && datum.part !== '{CONVOLUTION}'")
    height = min(style.height, style.height // 4 + 3 * style.font_size * len(ends))
    return Figure(
        name=f"batch-{batch}",
        title="One clip at a time" if batch == 1 else f"In batches of {batch}",
        caption="The network's time is split by the shares that the profiler sees; beside each bar stands what binds "
        "it, by the roofline model.",
        spec=drawn([bars, bound.encode(y=y, x="to_ms:Q", text="bound_by:N")], placed, replace(style, height=height)),
        points=points,
    )


def _series(point: Point, axis: str) -> str:
    return STUDY if point["configuration"] is None else point[f"beside_{axis}"] or "melbench"


def _accuracy(field: str, title: str) -> alt.Y:
    return alt.Y(field, type="quantitative", title=title, scale=alt.Scale(zero=False, padding=10), axis=_few_ticks())


def _few_ticks(format: str = "") -> alt.Axis:
    return alt.Axis(tickCount=5, **({"format": format} if format else {}))


def _with_bars(x: alt.X, title: str, told: Keys, tips: list[alt.Tooltip]) -> list[alt.Chart]:
    """Accuracies with the intervals that they have."""
    bars = alt.Chart().mark_rule(aria=False).transform_filter("isValid(datum.low)")
    bars = bars.encode(x=x, y=_accuracy("low", title), y2="high:Q", color=told.colour)
    marks = alt.Chart().mark_point().encode(color=told.colour, shape=told.shape, tooltip=tips)
    return [bars, marks.encode(x=x, y=_accuracy("accuracy", title))]
