"""The commands about folders of records: `melbench results check` and `melbench results merge`."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.output import deliver
from bench.cli.terminal import chosen_format

results_app = typer.Typer(no_args_is_help=True, help="Put folders of records in order, or together.")


@results_app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A folder of records.")] = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what is wrong; move nothing.")] = False,
    format: options.Format = "table",
    json: options.Json = False,
) -> None:
    """Move damaged, duplicate and foreign files of a folder of records aside; exit code 1 if there are any.

    Found are files that are truncated or cannot be read, duplicates, foreign ones (no records, renamed, of a newer
    format), stale ones (of an earlier version of melbench's numbers), newer ones (of a later one) and what an
    interrupted write left. They go into FOLDER/aside, each with its reason beside it. Nothing is deleted.

    Example:

      melbench results check runs
    """
    format = chosen_format(format, json)
    from bench.records import RecordFolder, audit

    found, moved = (audit.inspect(folder), {}) if dry_run else audit.move_aside(RecordFolder(folder))
    deliver(audit.sheets(folder, found, moved), format, main="findings")
    if found.findings:
        raise typer.Exit(1)


@results_app.command(no_args_is_help=True)
def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders of records.", show_default=False)],
    out: options.Out = Path("runs"),
    mix_timings: Annotated[
        bool, typer.Option("--mix-timings", help="Take epoch times of different machines or versions, too.")
    ] = False,
    format: options.Format = "table",
    json: options.Json = False,
) -> None:
    """Put the records of several folders into one, such as those of a sweep on several machines.

    What --out holds stays. Accuracies of different machines may be mixed; epoch times are not unless you say so.

    Example:

      melbench results merge runs-a runs-b --out runs
    """
    format = chosen_format(format, json)
    from bench.records import RecordFolder, merging

    deliver([merging.sheet(merging.merge(folders, RecordFolder(out), mix_timings), out)], format)
