"""The look of figures, drawn by Vega-Altair: sizes, fonts and colours for a page and for paper, and the layers they
share.

Each figure is a single view that fits its width, so that it holds on a phone and in a column of a paper.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    faint="#d9d9d9",
    paper="#ffffff",
    series=("#1818a8", "#b88800", "#801800", "#0098e8", "#107060", "#582058", "#c03000", "#888890"),
)

SHAPES = ("circle", "square", "triangle-up", "triangle-down", "triangle-right")
DASHES = ([1, 0], [5, 3], [2, 2], [8, 3, 2, 3])
# The width of a figure on a phone, in px.
PHONE = 340
# More entries nobody looks up; the page names each by pointing at it.
MOST_IN_LEGEND = 24


@dataclass(frozen=True)
class Keys:
    """The colours, shapes and (for lines) dashes that tell the values of one field apart, with one legend.

    Attributes:
        names: the values that occur.
        every: all values that could occur; their places give colours, shapes and dashes.
    """

    field: str
    names: tuple[str, ...]
    every: tuple[str, ...]
    style: Style
    lines: bool

    def _scale(self, choices: Sequence[Any], study: Sequence[Any] = (), each: int = 1) -> alt.Scale:
        own = [name for name in self.every if not (study and name.startswith(STUDY))]
        chosen = {name: choices[number // each % len(choices)] for number, name in enumerate(own)}
        chosen |= dict(zip((name for name in self.names if name not in chosen), study, strict=False))
        return alt.Scale(domain=list(self.names), range=[chosen[name] for name in self.names])

    def _legend(self) -> alt.Legend | None:
        if len(self.names) < 2:
            return None
        # In a figure as narrow as it gets, beside the axis and the symbol, for letters half as wide as high.
        em, width, symbol = self.style.font_size, self.style.width or PHONE, 1 + self.lines
        columns = 2 if 0.55 * em * max(map(len, self.names)) <= width / 2 - (4.5 + symbol) * em else 1
        limits: dict[str, Any] = {"symbolOpacity": 1, "labelLimit": width - (6 + symbol) * em - 10}
        title = None
        if len(self.names) > MOST_IN_LEGEND:
            limits["values"] = list(self.names[:MOST_IN_LEGEND])
            title = f"{MOST_IN_LEGEND} of {len(self.names)}"
        if self.lines:
            limits |= {"symbolType": "stroke", "symbolSize": 4 * em**2, "symbolStrokeWidth": 1.5 * self.style.line}
            # A row is as high as its symbol, which here is as high as it is long.
            limits["rowPadding"] = -0.6 * em
        return alt.Legend(title=title, orient="bottom", columns=columns, **limits)

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
        # With the second round of colours the second dash.
        scale = self._scale(DASHES, each=len(self.style.series))
        return alt.StrokeDash(self.field, type="nominal", scale=scale, legend=self._legend() if self.lines else None)


def keys(points: Sequence[Point], field: str, style: Style, lines: bool = False, every: Sequence[str] = ()) -> Keys:
    """Return the keys of a field's values, in the order in which they first appear, the study last.

    Args:
        lines: the legend shows lines.
        every: all values that there can be, in their order; each then looks the same in all figures.
    """
    found = dict.fromkeys(point[field] for point in points)
    names = tuple(name for name in every if name in found) or tuple(
        sorted(found, key=lambda name: name.startswith(STUDY))
    )
    return Keys(field, names, tuple(every) or names, style, lines)


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
