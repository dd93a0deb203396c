"""The commands about time: `melbench time` and `melbench compare`. They parse, call, render."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from bench.cli import options
from bench.cli.output import deliver
from bench.cli.terminal import chosen_format, note, resumable, split_words, stderr
from melcnn.errors import Failed, InputError, visible
from melcnn.files import check_writable

if TYPE_CHECKING:
    from bench.formats import Sheet
    from bench.measurement.comparison import ComparedWorkload
    from melcnn.config import Trial

timing_app = typer.Typer()


@timing_app.command(no_args_is_help=True)
def time(
    axes: Annotated[
        list[str] | None,
        typer.Argument(help="groups, mels, or any grid as name=value,value ...", show_default=False),
    ] = None,
    model: options.Model = None,
    input: options.Input = None,
    what: Annotated[
        str | None,
        typer.Option("--what", help="Any of step, epoch, latency, throughput and front-end; all unless given."),
    ] = None,
    batch_size: options.BatchSize = None,
    launches: Annotated[
        int | None, typer.Option("--launches", help="Processes started, one after another (5).", min=1)
    ] = None,
    max_time: options.MaxTime = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="baseline: trainings against what you would write; torch: convolutions."),
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="With --against: as for sweep.")] = None,
    words: Annotated[str | None, typer.Option("--words", help="With --against: as for sweep.")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="With --against: as for sweep.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="With --against: as for sweep.")] = None,
    kernels: options.Kernels = "fastest",
    precision: options.Precision = "fp32",
    device: options.Device = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Keep the measurement in this file, for 'melbench compare'.")
    ] = None,
    csv: options.Csv = None,
    format: options.Format = "table",
    json: options.Json = False,
) -> None:
    """Time a grid of configurations, or any model, side by side, and say what binds it.

    step and epoch train (an epoch of the study's 6358 clips); latency is inference of one clip, throughput of 16,
    64 and 256. What is kept with -o is timed beside reference work, in as many launches as a comparison needs (5 to
    twice as many).

    --against baseline trains every configuration with --seeds seeds on --data, once with melbench and once with each
    of two plain PyTorch scripts, in interleaved rounds; with --what front-end it compares the front-end with
    torchaudio's. --against torch times each layer's convolution by melbench's kernels and by torch's, with --seeds of
    as many networks side by side.

    Examples:

      melbench time groups

      melbench time groups batch_size=16,64,256 --what step

      melbench time --model my_models:SmallNet --input 1,80,101 --what latency -o before.json

      melbench time groups --against baseline --epochs 2

      melbench time groups --against torch
    """
    format = chosen_format(format, json)
    options.check_model(model, input)
    for path in (output, csv):
        if path:
            check_writable(path)
    from bench.counting.cost_tables import parse_shape
    from bench.grid import parse_axes, plan
    from bench.measurement import measurements, time_tables, workloads
    from bench.measurement.launcher import measure
    from bench.system import environment
    from bench.timing.verdicts import FEWEST_LAUNCHES
    from melcnn.config import SETTINGS

    if model and axes:
        raise InputError("a grid and --model are both given: time one of them")
    of_races = {"--data": data, "--words": words, "--seeds": seeds, "--epochs": epochs}
    of_others = {"--model": model, "-o": output, "--launches": launches, "--max-time": max_time}
    if unused := [name for name, value in (of_others if against else of_races).items() if value is not None]:
        raise InputError(f"{unused[0]} goes {'not ' if against else 'only '}with --against: leave it out")
    on = environment.pick_device(device, precision)
    grid = parse_axes(axes or [])
    # A table of times has no column for them.
    if others := [name for name in grid if SETTINGS[name] == "training" and name != "batch_size"]:
        raise InputError(f"{others[0]} is no axis of time: use front-end and network settings, or batch_size")
    if against:
        of_races.pop("--seeds")
        if against == "torch" and (unused := [name for name, value in of_races.items() if value is not None]):
            raise InputError(f"{unused[0]} goes not with --against torch: leave it out")
        trials = plan(grid, split_words(words or "yes,no"), batch_size=batch_size, epochs=epochs)
        if any(trial.model.variant != "plain" for trial in trials):
            raise InputError("--against knows the plain network alone: leave out variant")
        deliver([_against(against, trials, what, data or "auto", seeds, on, options.kernels_of(kernels))], format, csv)
        return
    kinds = _kinds(what or ",".join(workloads.WHAT))
    if model:
        shapes = [parse_shape(shape) for shape in input or []]
        chosen = workloads.of_model(model, shapes, kinds, 64 if batch_size is None else batch_size)
    else:
        trials = plan(grid, batch_size=batch_size)
        chosen = list(dict.fromkeys(work for trial in trials for work in workloads.of_trial(trial, kinds)))

    def keep(measurement: measurements.Measurement) -> None:
        if output:
            measurements.write_measurement(measurement, output)
            done = len(measurement.launches)
            note(f"{done} launch{' is' if done == 1 else 'es are'} kept in {output}")

    env = environment.collect(on)
    with resumable("the launch under way is lost" if output else "nothing was kept"), stderr.status("timing") as status:

        def progress(stage: str, detail: str) -> None:
            status.update(Text(visible(f"{stage} {detail}")))
            if not stderr.is_terminal and not detail:
                note(stage)

        launches = FEWEST_LAUNCHES if launches is None else launches
        fewest = max(launches, FEWEST_LAUNCHES) if output else launches
        measured = measure(
            chosen, on, fewest, max_time, output is not None, env, progress, keep, options.kernels_of(kernels)
        )
    for remark in time_tables.remarks(measured):
        note(remark)
    deliver([time_tables.times(measured)], format, csv)
    if measured.stopped:
        raise Failed(f"{measured.stopped}; what was timed before is shown")


@timing_app.command(no_args_is_help=True)
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A measurement, or a configuration such as groups=1.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another of the same kind: is it faster or slower than A?")],
    what: Annotated[
        str | None, typer.Option("--what", help="What is timed of two configurations; step unless given.")
    ] = None,
    effect: Annotated[
        float, typer.Option("--effect", help="The smallest effect of interest: 0.02 is 2%.", min=0.001, max=1)
    ] = 0.02,
    across: Annotated[
        str, typer.Option("--across", help="Differences of machine or settings to compare across, such as cpu,torch.")
    ] = "",
    max_time: options.MaxTime = None,
    kernels: options.Kernels = "fastest",
    precision: options.Precision = "fp32",
    device: options.Device = "auto",
    csv: options.Csv = None,
    format: options.Format = "table",
    json: options.Json = False,
) -> None:
    """Say whether B is FASTER or SLOWER than A, or the SAME; ends with exit code 1 if anything is SLOWER.

    Two measurements (files of 'melbench time -o', or JSON files of 'pytest bench --benchmark-json', one launch
    each, in a folder) are compared through the reference work timed beside them. Two configurations are timed now,
    interleaved.

    Examples:

      melbench compare before.json after.json

      melbench compare groups=1 groups=16 --what step,latency
    """
    format = chosen_format(format, json)
    if csv:
        check_writable(csv)
    from bench.measurement import comparison, reader, time_tables
    from bench.system import environment
    from bench.timing.verdicts import SLOWER

    failure = None
    files = [_is_file(text) for text in (a, b)]
    if files[0] != files[1]:
        raise InputError(f"{a} and {b} are not alike: give two measurements or two configurations")
    if files[0]:
        if what:
            raise InputError("--what is for two configurations: measurements are compared in all that both hold")
        one, two = (reader.read(Path(text)) for text in (a, b))
        found = comparison.stored(one, two, effect, split_words(across))
        times = "means over the launches that count; B / A is taken relative to the reference work beside each"
        for remark in comparison.caveats(one, two):
            note(remark)
    else:
        times = "A's mean over the paired rounds that count, and that times B / A"
        on = environment.pick_device(device, precision)
        found, failure = _side_by_side(a, b, _kinds(what or "step"), effect, max_time, on, options.kernels_of(kernels))
    deliver([time_tables.compared(found, a, b, effect, times)], format, csv)
    if failure:
        raise failure
    if any(one.comparison.verdict == SLOWER for one in found):
        raise typer.Exit(1)


def _against(
    baseline: str,
    trials: Sequence["Trial"],
    what: str | None,
    data: str,
    seeds: int | None,
    on: str,
    kernels: str | None,
) -> "Sheet":
    """Return the table of melbench beside the baselines: of trainings, of the front-end, or of convolutions."""
    from bench.baselines import convolutions, front_ends, race
    from bench.grid import check_seeds
    from bench.system import environment
    from melcnn.data.loading import load_clips

    if baseline not in ("baseline", "torch"):
        raise InputError(f"--against {baseline!r} is not known: use --against baseline or --against torch")
    if what not in (None, "front-end") or (what and baseline == "torch"):
        raise InputError(
            f"--what {what} does not go with --against {baseline}: baseline times whole trainings, or --what "
            "front-end; torch times convolutions"
        )
    if what and len({trial.front_end for trial in trials}) > 1:
        raise InputError("--what front-end --against baseline takes one front-end: give one n_mels, n_fft, hop_length")
    name = environment.collect(on).device
    with resumable("nothing was kept"), stderr.status("timing") as status:

        def progress(text: str) -> None:
            status.update(Text(visible(text)))
            if not stderr.is_terminal:
                note(text)

        if baseline == "torch":
            check_seeds(seeds or 1)
            shapes = convolutions.of_trials(trials, seeds or 1)
            return convolutions.sheet(convolutions.measure(shapes, on, status.update, kernels))
        clips = load_clips(data, trials[0].data.words)
        if what:
            return front_ends.sheet(front_ends.measure(trials[0].front_end, clips, on, name))
        seeds = 5 if seeds is None else seeds
        found = race.race(trials, seeds, clips, on, progress, kernels=kernels)
        return race.sheet(race.rows(found, trials, seeds, clips, name))


def _side_by_side(
    a: str, b: str, kinds: Sequence[str], effect: float, max_time: float | None, on: str, kernels: str | None
) -> tuple[list["ComparedWorkload"], Failed | None]:
    """Return the comparisons, and the failure that cut them short if there was one."""
    from bench.measurement import diagnostics, side_by_side, workloads
    from bench.measurement.measurements import samples_of
    from bench.system import monitor

    sides = [workloads.of_trial(_configuration(text), kinds) for text in (a, b)]
    found: list[ComparedWorkload] = []
    before = monitor.conditions(on)
    for one, two in zip(*sides, strict=True):
        try:
            compared, run = side_by_side.side_by_side(one, two, on, effect, max_time, kernels=kernels)
        except Failed as failure:
            return found, failure
        found.append(compared)
        for text in dict.fromkeys(
            text for name in run.series for text in diagnostics.of_samples(samples_of(run, name))
        ):
            note(f"{compared.label}: {text}")
        for name, reason in run.unmet.items():
            note(f"{compared.label}: stopped before {name or 'it'} was precise ({reason}): time it longer (--max-time)")
    for remark in diagnostics.of_machine(before, monitor.conditions(on)):
        note(remark)
    return found, None


def _configuration(text: str) -> "Trial":
    from bench.grid import parse_axes
    from melcnn.config import configure

    settings = parse_axes(text.replace(",", " ").split())
    return configure(**{"recipe": "plain"} | {name: values[0] for name, values in settings.items()})


def _is_file(text: str) -> bool:
    if Path(text).exists():
        return True
    if "=" in text and not text.endswith(".json"):
        return False
    raise InputError(f"{text} is no file and no configuration: name a measurement, or settings such as groups=4")


def _kinds(text: str) -> list[str]:
    from bench.measurement.workloads import WHAT

    kinds = split_words(text)
    if unknown := [kind for kind in kinds if kind not in WHAT]:
        raise InputError(f"--what {unknown[0]!r} is not known: use any of {', '.join(WHAT)}")
    if not kinds:
        raise InputError(f"--what names nothing: use any of {', '.join(WHAT)}")
    return list(dict.fromkeys(kinds))
