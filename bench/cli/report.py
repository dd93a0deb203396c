"""The command `melbench report`."""

from pathlib import Path
from typing import Annotated

import typer

from melcnn.errors import InputError
from melcnn.files import check_writable, write_whole

reporting_app = typer.Typer()


@reporting_app.command()
def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN...", help="Folders of records (runs), and files of 'melbench time -o'."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The page to write (report.html).")] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Write the figures into this folder, as PNG, SVG and PDF.")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", help="Write the curves into this folder, for TensorBoard.")
    ] = None,
) -> None:
    """Make one page of records: the recommendation with its evidence, tables, figures, and how to make it again.

    The page opens from disk, without a network. Nothing is trained or timed.

    Examples:

      melbench report runs

      melbench report runs times.json -o report.html

      melbench report runs --figures figures/
    """
    runs = runs or [Path("runs")]
    if output is None and not figures and not tensorboard:
        output = Path("report.html")
    if output:
        check_writable(output)
    from bench.report.load import load_report

    gathered = load_report(runs)
    if output:
        from bench.report import shell_commands
        from bench.report.page import page

        html = page(gathered, shell_commands.of_report(runs, output))
        write_whole(output, lambda file: file.write(html.encode()))
        print(output)
    if figures:
        from bench.report.export import write_figures

        for path in write_figures(gathered, figures):
            print(path)
    if tensorboard:
        from bench.report.tensorboard import write_curves

        if not gathered.chapters:
            raise InputError("--tensorboard: these are measurements of time, without a curve; name a folder of records")
        print(write_curves(gathered, tensorboard))
