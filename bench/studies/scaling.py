"""Measure the cost of scheduling: a sweep of thousands of trials with a fake training, by each executor.

    python -m bench.studies.scaling results/robustness/scaling.csv --trials 10000

Everything but the training (`bench.studies.fake_training`) is real: plan, executor, records, their writing, the table.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli.output import keep
from bench.cli.terminal import finish
from bench.formats import Sheet, show
from bench.studies.fake_training import GROUPS, SEEDS, measure
from melcnn.errors import InputError
from melcnn.files import check_writable

EXECUTORS = ("threads", "processes", "ray")


def main(
    file: Annotated[Path, typer.Argument(help="The CSV file to write; a Markdown file is written beside it.")],
    trials: Annotated[int, typer.Option(help="Trials of each sweep.", min=len(GROUPS) * SEEDS)] = 10_000,
    executors: Annotated[str, typer.Option(help="Any of threads, processes and ray.")] = "threads,processes,ray",
) -> None:
    """Measure what a trial costs the driver, in seconds and in memory."""
    check_writable(file)
    names = executors.split(",")
    if unknown := set(names) - set(EXECUTORS):
        raise InputError(f"there is no executor {', '.join(unknown)}: use {', '.join(EXECUTORS)}")
    table = sheet([measure(name, trials) for name in names])
    keep(table, file)
    show([table], "table")


def sheet(rows: Sequence[dict[str, Any]]) -> Sheet:
    """Return the table of all executors, from what `fake_training.measure` returned for each."""
    first = rows[0]
    cells = [
        [
            str(row["executor"]),
            f"{row['trials']:,}",
            str(row["slots"]),
            f"{row['scheduling_time_ms']:.3g} ms",
            f"{row['driver_peak_bytes'] / 1e6:,.0f} MB",
            f"{row['driver_before_bytes'] / 1e6:,.0f} MB",
            f"{row['bytes_a_trial'] / 1e3:,.1f} kB",
        ]
        for row in rows
    ]
    return Sheet(
        title=f"scheduling without training, {first['configurations']:,} configurations, {first['device']}",
        headings=["executor", "trials", "at once", "a trial", "driver's memory", "before", "of it a trial"],
        cells=cells,
        records=list(rows),
        notes=[
            f"Each trial is a stack and a record of its own, of {first['clips']:,} clips and {first['epochs']} epochs.",
            "driver's memory: the most that was resident.",
        ],
    )


if __name__ == "__main__":
    finish(lambda: typer.run(main))
