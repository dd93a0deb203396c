"""The commands that conclude: `melbench recommend` and `melbench reproduce`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.output import deliver
from bench.cli.terminal import chosen_format, split_words
from melcnn.config import DEFAULT_RECIPE
from melcnn.errors import InputError

choosing_app = typer.Typer()

GRID = ("groups", "mels", "variant=plain,shuffle")


@choosing_app.command()
def recommend(
    axes: Annotated[
        list[str] | None,
        typer.Argument(help=f"groups, mels, or any grid as name=value,value ... ({' '.join(GRID)})"),
    ] = None,
    data: options.Data = "auto",
    words: options.Words = "yes,no",
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds",
            help="Networks trained for each configuration in each fold.",
            rich_help_panel=options.TRAINING,
        ),
    ] = 5,
    recipe: options.Recipe = DEFAULT_RECIPE,
    batch_size: options.BatchSize = None,
    epochs: options.Epochs = None,
    margin: Annotated[
        float,
        typer.Option(
            "--margin",
            help="How much worse than the best is good enough, as a fraction.",
            min=0,
            max=1,
            rich_help_panel=options.BUDGET,
        ),
    ] = 0.005,
    max_params: Annotated[int | None, options.limit("--max-params", "Most parameters, such as 10000 or 10k.")] = None,
    max_macs: Annotated[int | None, options.limit("--max-macs", "Most MACs for one clip, such as 500k.")] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(
            "--max-latency-ms",
            help="Most milliseconds for one clip, measured here.",
            min=0,
            rich_help_panel=options.BUDGET,
        ),
    ] = None,
    max_weight_bytes: Annotated[
        int | None, options.limit("--max-weight-bytes", "Most bytes of float32 weights, such as 32k.")
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
    """Recommend the cheapest configuration that is not worse than the best by more than a margin.

    Every configuration within the budget is cross-validated: five folds of the training and validation clips, no
    speaker in two of them. The test split is not used. Cheapest means fewest MACs. The recommendation is wrong at
    most once in 20 times, over speakers and trainings like these; where there is no clear winner, it says how many
    more seeds are needed.

    Examples:

      melbench recommend

      melbench recommend groups mels channels=16,32 variant=plain,shuffle --max-params 8000 --csv candidates.csv
    """
    format = chosen_format(format, json, csv)
    from bench.analysis import recommendation
    from bench.cli.session import Session, TrainingOptions
    from bench.grid import check_seeds, parse_axes, plan, train_command
    from bench.measurement import side_by_side
    from bench.records.failures import log_failures, with_failures
    from bench.sweep.crossval import out_of_fold
    from bench.system.environment import pick_device

    check_seeds(seeds)
    trials = plan(parse_axes(axes or GRID), split_words(words), recipe, batch_size, epochs)
    chosen = TrainingOptions(device, executor, jobs, ray_address, out, retry_failed, kernels, precision)
    session = Session(chosen, data, split_words(words))
    budget = recommendation.Budget(max_params, max_macs, max_weight_bytes, max_latency_ms)
    # Latency is measured on this machine, wherever networks are trained.
    latency = max_latency_ms is not None
    costs = side_by_side.costs(
        trials, pick_device(device, precision) if latency else "cpu", latency, options.kernels_of(kernels)
    )
    kept = recommendation.within(budget, costs)
    found, failed = session.train(out_of_fold, kept, seeds)
    decided, rows = recommendation.choose(found, costs, margin)
    sheet = recommendation.sheet(decided, rows, session.clips.dataset)
    if winner := next((row.found.trial for row in rows if row.result is decided.chosen), None):
        sheet = replace(sheet, command=train_command(winner, ["--data", data] * (data != "auto")))
    deliver([with_failures(sheet, failed, kept)], format, csv)
    log_failures(failed, kept, out)
    return int(bool(failed))


@choosing_app.command()
def reproduce(
    data: options.Data = "auto",
    seeds: options.Seeds = 10,
    recipe: options.Recipe = "plain",
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
    """Repeat the study that this began with: its two tables beside yours, and whether its claims hold.

    Groups 1 to 16 and 20, 40, 80 mel filters on yes and no; what --out holds already is not trained again. CSV holds
    the claims.

    Example:

      melbench reproduce --data speech_commands_v0.02
    """
    format = chosen_format(format, json, csv)
    from bench.analysis import study
    from bench.cli.session import Session, TrainingOptions
    from bench.grid import parse_axes, plan
    from bench.records.failures import log_failures
    from bench.sweep.run import sweep_for_study

    if seeds < 2:
        raise InputError("--seeds 1 tells no spread, and without it no claim: give 2 or more")
    by_axis = [plan(parse_axes([axis]), recipe=recipe) for axis in ("groups", "mels")]
    trials = list(dict.fromkeys(trial for several in by_axis for trial in several))
    chosen = TrainingOptions(device, executor, jobs, ray_address, out, retry_failed, kernels, precision)
    result, by_torch = Session(chosen, data, ("yes", "no")).train(sweep_for_study, trials, seeds)
    deliver(study.sheets(result.trials, result.timing, by_torch), format, csv, main="claims")
    log_failures(result.failures, trials, out)
    return int(bool(result.failures) or result.timing is None or by_torch is None)
