"""Draw the times of `bench.baselines.convolutions` against multiply-accumulates, by melbench's kernels and torch's."""

from collections.abc import Sequence
from pathlib import Path

import altair as alt

from bench.baselines.convolutions import FORWARD, TRAINING, ConvolutionRow
from bench.formats import Point
from bench.report.export import image
from bench.report.style import PAPER, finished, keys, round_numbers
from melcnn.files import write_whole


def picture(rows: Sequence[ConvolutionRow], path: Path) -> None:
    """Draw time against multiply-accumulates, a panel for each layer and pass at the largest batch.

    Args:
        path: a PNG, SVG or PDF file.

    Raises:
        InputError: for another kind of file.
    """
    assert PAPER.width  # only the page's style has none
    batch = max(row.batch_size for row in rows)
    points: list[Point] = [
        {
            "panel": f"{row.channels_in} to {row.channels_out}, {row.frames} frames",
            "direction": row.direction,
            "groups": row.groups,
            "macs": row.macs * batch,
            "by": by,
            "time_ms": 1e3 * seconds,
        }
        for row in sorted(rows, key=lambda row: row.layer or 0)
        if row.batch_size == batch
        for by, seconds in (
            ("torch", row.torch_time_s),
            ("melbench", row.melbench_time_s),
            ("floor", row.torch_times_floor and row.torch_time_s / row.torch_times_floor),
        )
        if seconds is not None
    ]
    legend = keys(points, "by", PAPER)
    log = alt.Scale(type="log", nice=False, padding=8)
    grid = {name: round_numbers([point[name] for point in points]) for name in ("macs", "time_ms")}
    across = alt.Axis(format="~s", values=[value for value in grid["macs"] if str(value)[0] == "1"])
    x = alt.X("macs:Q", title=f"MACs of {batch} clips, forward", scale=log, axis=across)
    y = alt.Y("time_ms:Q", title="ms", scale=log, axis=alt.Axis(format="~g", values=grid["time_ms"]))
    chart = alt.Chart().mark_line(point=True).encode(x=x, y=y, color=legend.colour, shape=legend.shape)
    numbers = alt.Chart().mark_text(dy=8, fontSize=PAPER.font_size - 1).transform_filter("datum.by === 'melbench'")
    panels = alt.layer(chart, numbers.encode(x=x, y=y, text="groups:N"), data=alt.Data(values=points))
    directions = alt.Row("direction:N", title=None, sort=[FORWARD, TRAINING])
    panels = panels.properties(width=PAPER.width * 0.7, height=PAPER.height * 0.7)
    title = f"Grouped convolutions, batch {batch} ({rows[0].device}); numbers are groups"
    spec = finished(
        panels.facet(row=directions, column=alt.Column("panel:N", title=None, sort=None), title=title), PAPER
    )
    content = image(spec, path.suffix)
    write_whole(path, lambda file: file.write(content))
