"""The options that several commands share: one name, one meaning, one help text."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melcnn.config import VARIANTS
from melcnn.errors import InputError

if TYPE_CHECKING:
    from bench.executors.base import Executor

Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="auto, synthetic, or a folder or archive of word folders, such as Speech Commands. "
        "auto: Speech Commands once 'melbench data prepare' has run, else synthetic.",
    ),
]
Words = Annotated[str, typer.Option("--words", help="The words to tell apart, such as yes,no or go,stop.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
NMels = Annotated[int, typer.Option("--n-mels", help="Mel filters.")]
NFft = Annotated[int, typer.Option("--n-fft", help="Samples of a Fourier transform.")]
HopLength = Annotated[int, typer.Option("--hop-length", help="Samples from one frame to the next.")]
Groups = Annotated[int, typer.Option("--groups", help="Groups of the convolutions.")]
Channels = Annotated[int, typer.Option("--channels", help="Channels of the convolutions.")]
Variant = Annotated[str, typer.Option("--variant", help=f"Of the convolutions: {', '.join(VARIANTS)}.")]
Recipe = Annotated[
    str, typer.Option("--recipe", help="How networks are trained: default, our best, or plain, as the study would.")
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", help="Clips in a training step; the recipe's unless given (64).")
]
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", help="The most epochs, the recipe's unless given."),
]
Seeds = Annotated[int, typer.Option("--seeds", help="Networks trained for each configuration.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of records; what is finished there is not run again.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run again what failed before.")]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", help="Train in so many processes, each on one core, or on a GPU of its own.", min=1),
]
ExecutorName = Annotated[
    str, typer.Option("--executor", help="Where to train: local, on this machine, or ray, as tasks of Ray.")
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray-address", help="A Ray cluster: auto, or host:port. Ray on this machine unless given."),
]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write the table to this CSV file too.")]
Format = Annotated[
    str, typer.Option("--format", help="What is printed: table, json, csv, markdown or latex (booktabs).")
]
Json = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
MaxTime = Annotated[
    float | None,
    typer.Option("--max-time", help="Seconds allowed to each interleaved run (3; to a comparison 30).", min=0.001),
]
Model = Annotated[
    str | None, typer.Option("--model", help="Any model instead, as package.module:factory; runs its code.")
]
Input = Annotated[
    list[str] | None, typer.Option("--input", help="Shape of the model's input, such as 1,80,101; one a tensor.")
]
Checkpoint = Annotated[Path, typer.Argument(help="A file written by 'melbench train'.", show_default=False)]


def _check_kernels(kernels: str) -> str:
    if kernels not in ("fastest", "torch"):
        raise InputError(f"--kernels {kernels} is not known: use fastest or torch")
    return kernels


Kernels = Annotated[
    str,
    typer.Option(
        "--kernels",
        help="Convolution kernels: fastest (melbench's or torch's, whichever is faster for each shape), or torch.",
        callback=_check_kernels,
    ),
]


def kernels_of(kernels: str) -> str | None:
    """Return the kernels that compute: "torch", or None for the faster of torch's and melbench's."""
    # The environment variable says the same for a whole shell; passed on as a value, it holds on a cluster too.
    return "torch" if "torch" in (kernels, os.environ.get("MELBENCH_KERNELS")) else None


def opened(executor: str, jobs: int | None, ray_address: str | None, device: str) -> "AbstractContextManager[Executor]":
    """Return the executor that the options name. Raises `InputError` for an unknown name or combination."""
    if executor not in ("local", "ray"):
        raise InputError(f"there is no executor {executor!r}: use local or ray")
    if executor == "ray":
        if jobs is not None:
            raise InputError("--jobs counts processes of --executor local: Ray fills the cores or GPUs that it has")
        from bench.executors.ray import Ray

        return Ray(device, ray_address)
    if ray_address is not None:
        raise InputError("--ray-address goes with --executor ray: give both, or neither")
    from bench.executors.processes import Processes
    from bench.executors.threads import Threads
    from bench.system.environment import pick_device

    chosen = pick_device(device)
    return nullcontext(Threads(chosen)) if jobs is None else Processes(chosen, jobs)


def check_model(model: str | None, input: list[str] | None) -> None:
    """Raise `InputError` unless both or neither of --model and --input are given."""
    if (model is None) != (not input):
        raise InputError("--model and --input go together: give both, such as --model my_models:Net --input 1,80,101")
