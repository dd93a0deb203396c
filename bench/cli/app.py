"""The command `melbench`. Heavy imports wait until a command needs them."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.cli.data import data_app
from bench.cli.decide import choosing_app
from bench.cli.output import deliver
from bench.cli.report import reporting_app
from bench.cli.results import results_app
from bench.cli.terminal import chosen_format, finish, note, resumable, split_words, stderr
from bench.cli.timing import timing_app
from melcnn.config import DEFAULT_RECIPE, VARIANTS
from melcnn.errors import InputError
from melcnn.files import check_writable

if TYPE_CHECKING:
    from bench.records import TrialRecord
    from bench.stats.noninferiority import Recommendation
    from melcnn.checkpoint import Checkpoint

HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    context_settings=HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
app.add_typer(data_app, name="data")
app.add_typer(timing_app)
app.add_typer(choosing_app)
app.add_typer(reporting_app)
app.add_typer(results_app, name="results")


def _print_version(wanted: bool) -> None:
    if wanted:
        from bench.system.environment import describe

        print(describe())
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="What runs where, and exit.")
    ] = False,
) -> None:
    """Find the cheapest log-mel keyword-spotting network that still recognises the word.

    Start with: melbench sweep groups
    """


@app.command(no_args_is_help=True)
def sweep(
    axes: Annotated[
        list[str],
        typer.Argument(
            help=f"groups, mels, or any grid as name=value,value ...; variants: {', '.join(VARIANTS)}",
            show_default=False,
        ),
    ],
    data: options.Data = "auto",
    words: options.Words = "yes,no",
    seeds: options.Seeds = 5,
    recipe: options.Recipe = DEFAULT_RECIPE,
    batch_size: options.BatchSize = None,
    epochs: options.Epochs = None,
    target: Annotated[
        float | None,
        typer.Option(
            "--target",
            help="Also show the seconds to this validation accuracy, such as 0.99.",
            min=0,
            max=1,
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    kernels: options.Kernels = "fastest",
    precision: options.Precision = "fp32",
    device: options.Device = "auto",
    executor: options.ExecutorName = "local",
    jobs: options.Jobs = None,
    ray_address: options.RayAddress = None,
    retry_failed: options.RetryFailed = False,
    out: options.Out = Path("runs"),
    csv: options.Csv = None,
    format: options.Format = "table",
    json: options.Json = False,
) -> int:
    """Train and time a grid of configurations, and show what each costs and how accurate it is.

    groups stands for groups=1,2,4,8,16 and mels for n_mels=20,40,80. A grid takes any setting: n_mels, n_fft,
    hop_length, groups, channels, variant, recipe (default, plain), batch_size, epochs, and the ingredients of recipes,
    such as label_smoothing.

    Examples:

      melbench sweep groups

      melbench sweep n_mels=20,40 groups=1,2,4 --data speech_commands_v0.02 --csv table.csv

      melbench sweep groups variant=plain,shuffle

      melbench sweep groups --recipe plain --seeds 32 --target 0.97

      melbench sweep groups mels --executor ray --ray-address auto
    """
    format = chosen_format(format, json, csv)
    from bench.analysis import summary
    from bench.cli.session import Session, TrainingOptions
    from bench.grid import parse_axes, plan
    from bench.records.failures import log_failures, with_failures
    from bench.sweep.run import sweep as run_sweep

    trials = plan(parse_axes(axes), split_words(words), recipe, batch_size, epochs)
    chosen = TrainingOptions(device, executor, jobs, ray_address, out, retry_failed, kernels, precision)
    result = Session(chosen, data, split_words(words)).train(run_sweep, trials, seeds)
    decided = summary.recommended(result.trials)
    rows = summary.rows(result.trials, result.timing, target, decided)
    sheet = summary.sheet(rows, decided)
    if decided:
        given: dict[str, object] = {
            "--words": None if words == "yes,no" else words,
            "--recipe": None if recipe == DEFAULT_RECIPE else recipe,
        }
        given |= {"--batch-size": batch_size, "--epochs": epochs}
        named = ["--data", data] * (data != "auto")
        sheet = replace(sheet, command=_after_sweep(result.trials, decided, axes, named, given))
    deliver([with_failures(sheet, result.failures, trials)], format, csv)
    log_failures(result.failures, trials, out)
    return int(bool(result.failures) or result.timing is None)


def _after_sweep(
    records: "Sequence[TrialRecord]",
    decided: "Recommendation",
    axes: Sequence[str],
    data: Sequence[str],
    given: Mapping[str, object],
) -> str:
    """Return the command that trains the winner of a sweep or, without one, cross-validates the same grid.

    Args:
        data: the arguments that name the data.
        given: the sweep's other options by name; None: the default.
    """
    from bench.analysis import summary
    from bench.grid import train_command

    if decided.chosen:
        groups = list(summary.by_configuration(records).values())
        return train_command(groups[decided.results.index(decided.chosen)][0].trial, data)
    same = [text for name, value in given.items() if value is not None for text in (name, str(value))]
    return shlex.join(["melbench", "recommend", *axes, *data, *same])


@app.command()
def train(
    axes: options.Configuration = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The checkpoint to write.", rich_help_panel=options.OUTPUT)
    ] = Path("melbench.safetensors"),
    force: Annotated[
        bool,
        typer.Option("--force", help="Overwrite the checkpoint if it exists.", rich_help_panel=options.OUTPUT),
    ] = False,
    n_mels: options.NMels = None,
    n_fft: options.NFft = None,
    hop_length: options.HopLength = None,
    groups: options.Groups = None,
    channels: options.Channels = None,
    variant: options.Variant = None,
    data: options.Data = "auto",
    words: options.Words = "yes,no",
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds", help="Networks trained; the best on validation is kept.", rich_help_panel=options.TRAINING
        ),
    ] = 1,
    recipe: options.Recipe = DEFAULT_RECIPE,
    batch_size: options.BatchSize = None,
    epochs: options.Epochs = None,
    kernels: options.Kernels = "fastest",
    precision: options.Precision = "fp32",
    device: options.Device = "auto",
    format: options.Format = "table",
    json: options.Json = False,
) -> int:
    """Train one configuration and keep the network.

    Example:

      melbench train groups=4 variant=shuffle --seeds 3 -o yesno.safetensors
    """
    format = chosen_format(format, json)
    if output.exists() and not force:
        raise InputError(f"{output} exists: name another checkpoint with -o, or overwrite it with --force")
    check_writable(output)
    from bench.cli import listings
    from bench.cli.progress import SweepProgress
    from bench.grid import single
    from bench.sweep.run import train_best
    from bench.system.environment import pick_device
    from melcnn.checkpoint import checkpoint_of, save_checkpoint
    from melcnn.data.loading import load_clips

    front_end = {"n_mels": n_mels, "n_fft": n_fft, "hop_length": hop_length}
    network = {"groups": groups, "channels": channels, "variant": variant}
    trial = single(axes or (), split_words(words), recipe, batch_size, epochs, front_end | network)
    chosen = pick_device(device, precision)
    clips = load_clips(data, split_words(words))
    with resumable("nothing was written"), SweepProgress(stderr) as on_event:
        networks, best, failed = train_best(trial, seeds, clips, chosen, on_event, options.kernels_of(kernels))
    source = data if data in ("auto", "synthetic") else str(Path(data).resolve())
    save_checkpoint(checkpoint_of(best, trial, clips, "synthetic" if clips.dataset == "synthetic" else source), output)
    deliver([listings.trained(networks, best, trial, clips.dataset, output)], format)
    for failure in failed:
        note(f"failed: seed {failure.seed} ({failure.kind}): {failure.message}")
    return 1 if failed else 0


@app.command()
def evaluate(
    checkpoint: options.Checkpoint,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="auto, synthetic, a folder or an archive; what the network was trained on unless given.",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="train, validation, test, or all clips.")] = "test",
    device: options.Device = "auto",
    format: options.Format = "table",
    json: options.Json = False,
) -> None:
    """Evaluate a checkpoint: accuracy with its interval, confusion, the most wrong clips.

    Example:

      melbench evaluate yesno.safetensors --data my_recordings --split all
    """
    format = chosen_format(format, json)
    from bench.cli import listings
    from bench.system.environment import pick_device
    from melcnn import evaluation
    from melcnn.data.clips import SPLITS
    from melcnn.data.loading import load_clips

    if split not in (*SPLITS, "all"):
        raise InputError(f"there is no split {split!r}: use {', '.join(SPLITS)} or all")
    chosen = pick_device(device)
    loaded = _load(checkpoint)
    source = data or loaded.data or "auto"
    if data is None and source not in ("auto", "synthetic") and not Path(source).exists():
        raise InputError(f"{checkpoint} was trained on {source}, which is not here: name the data with --data")
    clips = load_clips(source, loaded.trial.data.words, every_split=split != "all")
    if clips.dataset != loaded.dataset:
        note(f"{checkpoint} was trained on {loaded.dataset} and is evaluated on {clips.dataset}")
    elif clips.fingerprint_for(loaded.trial.training) != loaded.data_fingerprint:
        note(f"the data is not what {checkpoint} was trained on: it may have been trained on some of these clips")
    elif split != "test":
        note(f"split {split} holds clips that {checkpoint} was trained on or chosen by: this flatters it")
    found = evaluation.evaluate(loaded, clips, split, chosen)
    about = {"checkpoint": str(checkpoint), "dataset": clips.dataset, "split": split}
    deliver(listings.evaluated(found, about), format)


@app.command()
def predict(
    checkpoint: options.Checkpoint,
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Audio files, folders of them, or - for standard input."),
    ],
    device: options.Device = "auto",
    format: options.Format = "table",
    json: options.Json = False,
) -> None:
    """Predict the word in each file, with its probability.

    Files may have any rate, channels and common format; of a long one the loudest second counts.

    Example:

      melbench predict yesno.safetensors recording.wav my_recordings/
    """
    format = chosen_format(format, json)
    import numpy as np

    from bench.cli import listings
    from bench.system.environment import pick_device
    from melcnn import evaluation
    from melcnn.data.audio import audio_files, read_clip
    from melcnn.data.source import printable

    chosen = pick_device(device)
    loaded = _load(checkpoint)
    names, waveforms, failures = [], [], 0
    for name in audio_files(files):
        try:
            waveforms.append(read_clip(sys.stdin.buffer if name == "-" else name))
            names.append(printable(name))
        except InputError as error:
            note(f"left out: {error}")
            failures += 1
    if names:
        probabilities = evaluation.predict(loaded, np.stack(waveforms), chosen)
        deliver([listings.predicted(names, loaded.trial.data.words, probabilities)], format)
    if failures:
        raise InputError(f"{failures} of {failures + len(names)} files gave no clip: see above")


@app.command()
def profile(
    axes: options.Configuration = None,
    n_mels: options.NMels = None,
    n_fft: options.NFft = None,
    hop_length: options.HopLength = None,
    groups: options.Groups = None,
    channels: options.Channels = None,
    variant: options.Variant = None,
    words: options.Words = "yes,no",
    model: options.Model = None,
    input: options.Input = None,
    allow_uncounted: Annotated[
        bool, typer.Option("--allow-uncounted", help="Show an operator without a formula instead of stopping.")
    ] = False,
    format: options.Format = "table",
    json: options.Json = False,
) -> None:
    """Count what a network costs, layer by layer, beside what other counters say.

    Examples:

      melbench profile groups=4

      melbench profile --model my_models:SmallNet --input 1,80,101
    """
    format = chosen_format(format, json)
    options.check_model(model, input)
    from bench.counting import cost_tables
    from bench.counting.formulas import UncountedOperator
    from bench.grid import single

    if model and axes:
        raise InputError(f"{axes[0]} is of melbench's own network, and --model names another: give one of them")
    try:
        if model is None:
            front_end = {"n_mels": n_mels, "n_fft": n_fft, "hop_length": hop_length}
            network = {"groups": groups, "channels": channels, "variant": variant}
            sheets = cost_tables.of_trial(single(axes or (), split_words(words), options=front_end | network))
        else:
            shapes = [cost_tables.parse_shape(shape) for shape in input or ()]
            sheets = cost_tables.of_model(model, cost_tables.load_model(model), shapes, allow_uncounted)
    except UncountedOperator as error:
        raise InputError(str(error)) from error
    deliver(sheets, format, main="layers")


def _load(path: Path) -> "Checkpoint":
    from melcnn.checkpoint import load_checkpoint

    loaded = load_checkpoint(path)
    if loaded.dataset == "synthetic":
        note(f"{path} was trained on synthetic words, not on real speech")
    return loaded


def main() -> None:
    """Run the console script."""
    finish(lambda: app(standalone_mode=False))
