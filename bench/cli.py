"""The command `melbench`: parses, calls, renders. Heavy imports wait until a command needs them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from melcnn.errors import InputError, TrainingDiverged

app = typer.Typer(
    name="melbench",
    help="Finds the cheapest log-mel keyword-spotting network that still hears the word.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

# Standard output carries the result alone.
stderr = Console(stderr=True)


@app.callback()
def root() -> None:
    """Finds the cheapest log-mel keyword-spotting network that still hears the word."""


def note(text: str) -> None:
    """A one-line notice for the person, apart from the result."""
    stderr.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def resumable() -> Iterator[None]:
    """Ends an interrupted command with how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        note("interrupted: finished trials are kept, and the same command goes on where this one stopped")
        raise typer.Exit(130) from None


DataOption = Annotated[
    str, typer.Option("--data", help="Speech Commands: a folder or an archive in the official layout.")
]
WordsOption = Annotated[str, typer.Option("--words", help="The words to tell apart, such as yes,no or go,stop.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
RecipeOption = Annotated[str, typer.Option("--recipe", help="How networks are trained: plain.")]
BatchSizeOption = Annotated[int | None, typer.Option("--batch-size", help="Clips in a training step.  [default: 64]")]
EpochsOption = Annotated[
    int | None,
    typer.Option("--epochs", help="The most epochs; a network stops before once it has converged.  [default: 30]"),
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of records; what is finished there is not run again.")]
CsvOption = Annotated[Path | None, typer.Option("--csv", help="Write the table to this CSV file too.")]
FormatOption = Annotated[str, typer.Option("--format", help="What is printed: table, json, csv, markdown or latex.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]


@app.command(no_args_is_help=True)
def sweep(
    axes: Annotated[
        list[str],
        typer.Argument(help="groups, mels, or any grid as name=value,value ...", show_default=False),
    ],
    data: DataOption,
    words: WordsOption = "yes,no",
    seeds: Annotated[int, typer.Option("--seeds", help="Networks trained for each configuration.")] = 5,
    recipe: RecipeOption = "plain",
    batch_size: BatchSizeOption = None,
    epochs: EpochsOption = None,
    device: DeviceOption = "auto",
    out: OutOption = Path("runs"),
    csv: CsvOption = None,
    format: FormatOption = "table",
    json: JsonOption = False,
) -> None:
    """Train and time a grid of configurations, and show what each costs and how well it hears.

    groups stands for groups=1,2,4,8,16 and mels for n_mels=20,40,80. A grid takes any of n_mels, n_fft,
    hop_length, groups, channels, variant, recipe, batch_size and epochs.

    Examples:

      melbench sweep groups --data speech_commands_v0.02

      melbench sweep n_mels=20,40 groups=1,2,4 --data speech_commands_v0.02 --csv table.csv
    """
    from bench import tables
    from bench.environment import pick_device
    from bench.progress import SweepProgress
    from bench.records import RecordFolder
    from bench.sweep import parse_axes, plan
    from bench.sweep import sweep as run_sweep
    from melcnn.data.speech_commands import load_clips

    format = "json" if json else format
    if format not in tables.FORMATS:
        raise InputError(f"there is no format {format!r}: use one of {', '.join(tables.FORMATS)}")
    _check_writable(csv)
    grid = parse_axes(axes)
    options = {"recipe": recipe, "batch_size": batch_size, "epochs": epochs}
    # An axis and its option's default do not clash; an option that was given and an axis do.
    settings = {k: v for k, v in options.items() if v is not None and not (k == "recipe" and k in grid)}
    trials = plan(grid, note, words=_words(words), **settings)
    chosen = pick_device(device)
    folder = RecordFolder(out)
    folder.prepare()
    clips = load_clips(data, _words(words), note)
    with resumable(), SweepProgress(stderr) as listener:
        result = run_sweep(trials, seeds, clips, folder, chosen, listener)
    rows = tables.rows(result.trials, result.timing)
    if csv:
        csv.write_text(tables.to_csv(rows))
    _print(rows, format)


def _print(rows, format: str) -> None:
    from bench import tables

    if format == "table":
        console = Console()
        console.print(tables.table(rows, console.width))
    else:
        sys.stdout.write(getattr(tables, f"to_{format}")(rows))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _check_writable(path: Path | None) -> None:
    """Hours of training must not end at a file that cannot be written."""
    if path is None:
        return
    existed = path.exists()
    try:
        with path.open("a"):
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): choose another file") from None
    if not existed:
        path.unlink()


def main() -> None:
    """The console script: exit code 0 good, 1 failed, 2 bad input, 130 interrupted."""
    try:
        app()
    except (InputError, TrainingDiverged) as error:
        stderr.print(f"melbench: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, InputError) else 1)
