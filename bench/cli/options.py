"""The options that several commands share: one name, one meaning, one help text."""

import os
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melcnn.errors import InputError

if TYPE_CHECKING:
    from bench.executors.base import Executor

# The panels of the help texts.
DATA, TRAINING, EXECUTION, BUDGET, OUTPUT = "Data", "Training", "Execution", "Budget", "Output"


def count(text: str) -> int:
    """Return a whole number, at least 1, from text such as `10000`, `10k` or `1.5M`. Raises `typer.BadParameter`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kM]?)", text.strip().replace(",", "").replace("_", ""))
    number = float(found[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[found[2]] if found else 0
    if number < 1 or number != int(number):
        raise typer.BadParameter(f"{text!r} is not a count: write a whole number such as 10000, 10k or 1.5M")
    return int(number)


def limit(name: str, help: str) -> Any:
    """Return a budget's option for a count."""
    return typer.Option(name, help=help, parser=count, metavar="COUNT", rich_help_panel=BUDGET)


Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="auto, synthetic, or a folder or archive of word folders, such as Speech Commands. "
        "auto: Speech Commands once 'melbench data prepare' has run, else synthetic.",
        rich_help_panel=DATA,
    ),
]
Words = Annotated[
    str, typer.Option("--words", help="Words to recognise, such as yes,no or go,stop.", rich_help_panel=DATA)
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.", rich_help_panel=EXECUTION)]
Configuration = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME=VALUE",
        help="Settings of the configuration, such as groups=4 variant=shuffle; those of 'melbench sweep'.",
        show_default=False,
    ),
]
# The same settings as options, as they were named before they were axes.
NMels = Annotated[int | None, typer.Option("--n-mels", hidden=True)]
NFft = Annotated[int | None, typer.Option("--n-fft", hidden=True)]
HopLength = Annotated[int | None, typer.Option("--hop-length", hidden=True)]
Groups = Annotated[int | None, typer.Option("--groups", hidden=True)]
Channels = Annotated[int | None, typer.Option("--channels", hidden=True)]
Variant = Annotated[str | None, typer.Option("--variant", hidden=True)]
Recipe = Annotated[
    str,
    typer.Option(
        "--recipe",
        help="How networks are trained: default (best accuracy) or plain (the original study's).",
        rich_help_panel=TRAINING,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", help="Clips in a training step; the recipe's (64) unless given.", rich_help_panel=TRAINING
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", help="Most epochs; the recipe's unless given.", rich_help_panel=TRAINING),
]
Seeds = Annotated[
    int, typer.Option("--seeds", help="Networks trained for each configuration.", rich_help_panel=TRAINING)
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", help="Folder of records; a trial that is finished there is not run again.", rich_help_panel=OUTPUT
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Run trials again that failed before.", rich_help_panel=EXECUTION)
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        help="Train in this many processes, each on one core or one GPU.",
        min=1,
        rich_help_panel=EXECUTION,
    ),
]
ExecutorName = Annotated[
    str, typer.Option("--executor", help="local (this machine) or ray (tasks of Ray).", rich_help_panel=EXECUTION)
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        help="Ray cluster: auto or host:port; Ray on this machine unless given.",
        rich_help_panel=EXECUTION,
    ),
]
Csv = Annotated[
    Path | None, typer.Option("--csv", help="Also write the table to this CSV file.", rich_help_panel=OUTPUT)
]
Format = Annotated[
    str,
    typer.Option("--format", help="Print as table, json, csv, markdown or latex (booktabs).", rich_help_panel=OUTPUT),
]
# As it was called before --format; kept for scripts.
Json = Annotated[bool, typer.Option("--json", hidden=True)]
MaxTime = Annotated[
    float | None,
    typer.Option("--max-time", help="Seconds for each interleaved run (3; a comparison 30).", min=0.001),
]
Model = Annotated[
    str | None,
    typer.Option("--model", help="Any model instead, as package.module:factory. Runs its code."),
]
Input = Annotated[
    list[str] | None,
    typer.Option("--input", help="Shape of the model's input, such as 1,80,101; one for each tensor."),
]
Checkpoint = Annotated[Path, typer.Argument(help="A file written by 'melbench train'.", show_default=False)]


def _choice(name: str, *known: str, help: str) -> Any:
    """Return an option of execution that takes one of the known values."""

    def check(value: str) -> str:
        if value not in known:
            raise InputError(f"{name} {value} is not known: use {' or '.join(known)}")
        return value

    return typer.Option(name, help=help, callback=check, rich_help_panel=EXECUTION)


Kernels = Annotated[
    str,
    _choice(
        "--kernels",
        *("fastest", "torch"),
        help="Convolution kernels: fastest (melbench's or torch's, by shape) or torch.",
    ),
]
Precision = Annotated[
    str,
    _choice(
        "--precision",
        *("fp32", "tf32"),
        help="Convolutions and products on CUDA: fp32, or tf32 (faster, less exact).",
    ),
]


def kernels_of(kernels: str) -> str | None:
    """Return the kernels that compute: "torch", or None for the faster of torch's and melbench's."""
    # The environment variable says the same for a whole shell; passed on as a value, it holds on a cluster too.
    return "torch" if "torch" in (kernels, os.environ.get("MELBENCH_KERNELS")) else None


def opened(
    executor: str, jobs: int | None, ray_address: str | None, device: str, precision: str
) -> "AbstractContextManager[Executor]":
    """Return the executor that the options name. Raises `InputError` for an unknown name or combination."""
    if executor not in ("local", "ray"):
        raise InputError(f"there is no executor {executor!r}: use local or ray")
    if executor == "ray":
        if jobs is not None:
            raise InputError("--jobs counts processes of --executor local: Ray fills the cores or GPUs that it has")
        from bench.executors.ray import Ray
        from melcnn.kernels import cuda

        cuda.set_precision(precision)  # Its tasks take it over; this machine need not have a GPU.
        return Ray(device, ray_address)
    if ray_address is not None:
        raise InputError("--ray-address goes with --executor ray: give both, or neither")
    from bench.executors.processes import Processes
    from bench.executors.threads import Threads
    from bench.system.environment import pick_device

    chosen = pick_device(device, precision)
    return nullcontext(Threads(chosen)) if jobs is None else Processes(chosen, jobs)


def check_model(model: str | None, input: list[str] | None) -> None:
    """Raise `InputError` unless both or neither of --model and --input are given."""
    if (model is None) != (not input):
        raise InputError("--model and --input go together: give both, such as --model my_models:Net --input 1,80,101")
