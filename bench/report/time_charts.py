"""The figures of where time goes: a bar for each configuration, of the parts of the time of one clip."""

from collections.abc import Sequence
from dataclasses import replace

import altair as alt

from bench.formats import Point
from bench.report.style import Figure, Style, few_ticks, figure, keys, tooltip
from bench.report.time_breakdown import FRONT_END, FUSED_BLOCK, PARTS, WHOLE


def times(points: Sequence[Point], style: Style) -> list[Figure]:
    """Return the figures of the time of one clip, by batch size, from the points of `bench.report.time_breakdown`."""
    return [
        _times([point for point in points if point["batch_size"] == batch], batch, style)
        for batch in dict.fromkeys(point["batch_size"] for point in points)
    ]


def _times(points: Sequence[Point], batch: int, style: Style) -> Figure:
    legend = keys(points, "part", style, every=PARTS)
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
    bars = alt.Chart().mark_bar().encode(y=y, x2="to_ms:Q", color=legend.colour, tooltip=tips)
    bars = bars.encode(x=alt.X("from_ms:Q", title="ms for one clip", scale=scale, axis=few_ticks("~g")))
    bound = alt.Chart().mark_text(align="left", dx=4, aria=False).transform_filter(f"datum.part !== '{FRONT_END}'")
    bound = bound.transform_aggregate(end="max(to_ms)", groupby=["configuration", "bound_by"])
    clauses = ["Beside each bar stands what binds the network, the front-end aside, by the roofline model."]
    if FUSED_BLOCK in legend.names:
        clauses.insert(0, "A fused block is a grouped convolution with ReLU, BatchNorm and pooling, in one call.")
    if WHOLE not in legend.names:
        clauses.insert(0, "The network's time is split by the shares that the profiler sees.")
    return figure(
        name=f"batch-{batch}",
        title="One clip at a time" if batch == 1 else f"In batches of {batch}",
        caption=" ".join(clauses),
        layers=[bars, bound.encode(y=y, x="end:Q", text="bound_by:N")],
        points=placed,
        style=replace(style, height=min(style.height, style.height // 4 + 3 * style.font_size * len(ends))),
    )
