"""The look of figures, drawn by Vega-Altair: sizes, fonts and colours for a page and for paper, and the layers they
share.

Each figure is a single view that fits its width, so that it holds on a phone and in a column of a paper.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from bench.formats import Point, Sheet, to_csv
from melcnn.errors import visible

# What the study's series are called in every figure; more may follow, as in "the study (validation)".
STUDY = "the study"


@dataclass(frozen=True)
class Style:
    """Sizes in px, which are points on paper, and colours as in CSS.

    Attributes:
        width: None fills the page's width.
        series: colours that the colour-blind can distinguish; shapes and dashes repeat the distinction.
    """

    width: int | None
    height: int
    font: str
    font_size: int
    line: float
    ink: str
    soft: str
    faint: str
    paper: str
    series: tuple[str, ...]


# The page's style sheet gives these variables their values: in light, in dark, in print.
N_COLOURS = 8
PAGE = Style(
    width=None,
    height=300,
    font="system-ui, sans-serif",
    font_size=12,
    line=2,
    ink="var(--ink)",
    soft="var(--soft)",
    faint="var(--rule)",
    paper="var(--paper)",
    series=tuple(f"var(--series-{number})" for number in range(1, N_COLOURS + 1)),
)
# A column of most papers is 3.5 inches wide, of 72 points each; captions have 7 to 9 points.
PAPER = Style(
    width=252,
    height=150,
    font="Liberation Sans, Arial, Helvetica, sans-serif",
    font_size=8,
    line=1.2,
    ink="#1a1a1a",
    soft="#808080",
    faint="#d9d9d9",
    paper="#ffffff",
    series=("#1818a8", "#b88800", "#801800", "#0098e8", "#107060", "#582058", "#c03000", "#888890"),
)

SHAPES = ("circle", "square", "triangle-up", "triangle-down", "triangle-right")
DASHES = ([1, 0], [5, 3], [2, 2], [8, 3, 2, 3], [10, 3])
MOST_SHAPES = min(len(SHAPES), len(DASHES))
# The width of a figure on a phone, in px.
PHONE = 340
# More entries nobody looks up; the page names each by pointing at it.
MOST_IN_LEGEND = 24


@dataclass(frozen=True)
class Keys:
    """The colours, shapes and (for lines) dashes of the values of one field, with one legend.

    Attributes:
        names: the values that occur.
        every: all values that could occur; their places give colours, shapes and dashes.
        shown: the values in the legend.
        each_dash: so many values in a row have one dash.
        on_top: the legend stands above the figure, and not below.
    """

    field: str
    title: str
    names: tuple[str, ...]
    every: tuple[str, ...]
    shown: tuple[str, ...]
    style: Style
    lines: bool
    each_dash: int
    on_top: bool

    def _scale(self, choices: Sequence[Any], study: Sequence[Any] = (), each: int = 1) -> alt.Scale:
        own = [name for name in self.every if not (study and name.startswith(STUDY))]
        chosen = {name: choices[number // each % len(choices)] for number, name in enumerate(own)}
        chosen |= dict(zip((name for name in self.names if name not in chosen), study, strict=False))
        return alt.Scale(domain=list(self.names), range=[chosen[name] for name in self.names])

    def _legend(self) -> alt.Legend | None:
        if len(self.names) < 2 or not self.shown:
            return None
        title = self.title
        if len(self.shown) > MOST_IN_LEGEND:
            title = f"{title} ({MOST_IN_LEGEND} of {len(self.shown)})".strip()
        # In a figure as narrow as it gets, beside the axis, the title and the symbol, for letters half as wide as high.
        em, symbol = self.style.font_size, 1 + self.lines
        room = (self.style.width or PHONE) - (6 + 0.6 * len(title)) * em
        columns = max(1, int(room / (0.55 * em * max(map(len, self.shown)) + (1.5 + symbol) * em)))
        limits: dict[str, Any] = {"symbolOpacity": 1, "labelLimit": room - symbol * em - 10}
        if self.shown != self.names or len(self.shown) > MOST_IN_LEGEND:
            limits["values"] = list(self.shown[:MOST_IN_LEGEND])
        if self.on_top:  # It has no colours.
            limits |= {"symbolFillColor": self.style.ink, "symbolStrokeColor": self.style.ink}
        if self.lines:
            limits |= {"symbolType": "stroke", "symbolSize": 4 * em**2, "symbolStrokeWidth": 1.5 * self.style.line}
            # A row is as high as its symbol, which here is as high as it is long.
            limits["rowPadding"] = -0.6 * em
        side: Any = {"orient": "top" if self.on_top else "bottom", "titleOrient": "left"}
        return alt.Legend(title=title or None, columns=columns, **side, **limits)

    @property
    def colour(self) -> alt.Color:
        scale = self._scale(self.style.series, study=(self.style.ink, self.style.ink))
        return alt.Color(self.field, type="nominal", scale=scale, legend=self._legend())

    @property
    def shape(self) -> alt.Shape:
        scale = self._scale(SHAPES, study=("diamond", "cross"))
        return alt.Shape(self.field, type="nominal", scale=scale, legend=self._legend())

    @property
    def dash(self) -> alt.StrokeDash:
        scale = self._scale(DASHES, each=self.each_dash)
        return alt.StrokeDash(self.field, type="nominal", scale=scale, legend=self._legend() if self.lines else None)


def keys(
    points: Sequence[Point],
    field: str,
    style: Style,
    title: str = "",
    lines: bool = False,
    every: Sequence[str] = (),
    legend: Literal["all", "ours", "study", ""] = "all",
    each_dash: int = 0,
    on_top: bool = False,
) -> Keys:
    """Return the key of a field's values, in the order in which they first appear, the study last.

    Args:
        lines: the legend shows lines.
        every: all values that there can be, in their order; each then looks the same in all figures.
        legend: what the legend names.
        each_dash: so many values in a row have one dash; as many as there are colours unless given.
        on_top: the legend stands above the figure.
    """
    found = dict.fromkeys(point[field] for point in points)
    known = [name for name in every if name in found]
    others = sorted((name for name in found if name not in known), key=lambda name: name.startswith(STUDY))
    names = (*known, *others)
    study = tuple(name for name in names if name.startswith(STUDY))
    ours = tuple(name for name in names if name not in study)
    shown = {"all": names, "ours": ours, "study": study, "": ()}[legend]
    title = "" if legend == "study" else title
    return Keys(field, title, names, tuple(every) or names, shown, style, lines, each_dash or len(style.series), on_top)


@dataclass(frozen=True)
class Figure:
    """A figure of a report.

    Attributes:
        name: for its files and its place in a page.
        caption: what is drawn and how to read it.
        spec: for Vega-Lite.
        points: one for each mark that carries a value.
    """

    name: str
    title: str
    caption: str
    spec: dict[str, Any]
    points: Sequence[Point]


def figure(
    name: str, title: str, caption: str, layers: Sequence[alt.Chart], points: Sequence[Point], style: Style
) -> Figure:
    """Return a figure of layers over `points`."""
    return Figure(name, title, caption, drawn(layers, points, style, f"{title}. {caption}"), points)


def few_ticks(format: str = "") -> alt.Axis:
    """Return an axis of about five ticks, of which nought has no unit."""
    # Nothing has no unit: "0", never "0k"; and a last number stays under its tick.
    zero: dict[str, Any] = {"format": format, "labelExpr": "datum.value === 0 ? '0' : datum.label"} if format else {}
    return alt.Axis(tickCount=5, labelFlush=False, **zero)


def tooltip(**formats: str) -> list[alt.Tooltip]:
    """Return the fields that a tooltip shows, each with its number format, or "" for text."""
    return [
        alt.Tooltip(name, type="quantitative", format=format) if format else alt.Tooltip(name, type="nominal")
        for name, format in formats.items()
    ]


def round_numbers(values: Sequence[float]) -> list[float]:
    """Return 1, 2 and 5 times powers of ten within the range of the values; the values themselves if fewer than two."""
    low, high = min(values, default=1), max(values, default=1)
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    inside = [m * 10**power for power in powers for m in (1, 2, 5) if 0.9 * low <= m * 10**power <= 1.1 * high]
    return inside if len(inside) > 1 else sorted(set(values))


def drawn(layers: Sequence[alt.Chart], points: Sequence[Point], style: Style, description: str) -> dict[str, Any]:
    """Return a Vega-Lite specification of the layers over `points`, which a page filters by the signal `hidden`.

    Args:
        description: the text for screen readers.
    """
    chart = alt.layer(*layers, data=_data(points)).add_params(alt.param(name="hidden", value=[]))
    chart = chart.transform_filter("indexof(hidden, datum.configuration) < 0")
    width = "container" if style.width is None else style.width
    return finished(chart.properties(width=width, height=style.height, description=description), style)


def finished(chart: alt.TopLevelMixin, style: Style) -> dict[str, Any]:
    """Return the specification of a chart in a style."""
    size, ink = style.font_size, style.ink
    text: dict[str, Any] = {"labelFontSize": size, "titleFontSize": size, "titleFontWeight": "normal"}
    coloured: dict[str, Any] = {"labelColor": ink, "titleColor": ink}
    axis: dict[str, Any] = {"domainColor": ink, "tickColor": ink, "gridColor": style.faint, "titlePadding": 6}
    configured = chart.configure(
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        background="transparent" if style.width is None else style.paper,
        font=style.font,
        axis=alt.AxisConfig(**text, **coloured, **axis),
        title=alt.TitleConfig(fontSize=style.font_size, fontWeight="normal", color=style.ink),
        header=alt.HeaderConfig(**text, **coloured),
        legend=alt.LegendConfig(**text, **coloured, symbolSize=8 * style.font_size),
        line=alt.LineConfig(strokeWidth=style.line),
        rule=alt.MarkConfig(strokeWidth=style.line),
        text=alt.MarkConfig(fontSize=style.font_size - 1, color=style.ink),
        point=alt.MarkConfig(size=6 * style.font_size, filled=True, opacity=1),
        view=alt.ViewConfig(stroke="transparent"),
    )
    # Held against the schema by a test: of hundreds of configurations that takes seconds.
    return configured.to_dict(validate=False)


def _data(points: Sequence[Point]) -> alt.InlineData:
    """Return points as CSV, which is a third as long as JSON."""
    kinds = {int: "number", float: "number"}
    # As a number what is missing makes no mark, as a text it would stand at nought.
    parse = {
        name: next((kinds.get(type(point[name]), "string") for point in points if point[name] is not None), "number")
        for name in points[0]
    }
    # A chart shows text as it is; the apostrophe before a formula is for spreadsheets (`bench.report.page` adds it).
    text = to_csv(Sheet("", [], [], points), escape=visible)
    return alt.InlineData(values=text, format=alt.CsvDataFormat(type="csv", parse=parse))
