"""Workloads that can be timed, of a configuration or of any model: a step, an epoch, latency, throughput, the
front-end.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.measurement import roofline
from melcnn.config import SETTINGS, Training, Trial, configure, descriptions
from melcnn.errors import InputError

WHAT = ("step", "epoch", "latency", "throughput", "front-end")

EPOCH_CLIPS = 6358  # The study's training clips: yes and no of Speech Commands v0.02.
THROUGHPUT_BATCHES = (16, 64, 256)
FRONT_END_BATCHES = (1, 64)


class Workload(BaseModel):
    """Something to time, for a configuration (`trial`) or for a model (`model`, `input_shapes` of one clip each,
    without the batch dimension). Equal workloads are comparable.

    Attributes:
        clips: how many one call processes.
        batch_size: how many at once.
        slowdown: an injected delay, as a share of the call's own time; only calibration asks for one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: Literal["step", "epoch", "latency", "throughput", "front-end"]
    clips: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    trial: Trial | None = None
    model: str | None = None
    input_shapes: tuple[tuple[int, ...], ...] = ()
    slowdown: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _check(self) -> "Workload":
        if (self.trial is None) == (self.model is None):
            raise ValueError("a work is of a trial or of a model")
        if self.what == "front-end" and self.trial is None:
            raise ValueError("the front-end is a trial's")
        return self

    def canonical(self) -> str:
        """Return a text that is equal for equal workloads."""
        return self.model_dump_json()


class WorkloadFacts(BaseModel):
    """The arithmetic of a workload: params and macs of its module for one clip (of the front-end with its Fourier
    transforms, as `pipeline_macs`), and the floor of one call.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    params: int
    macs: int
    floor: roofline.Floor


def of_trial(trial: Trial, what: Sequence[str]) -> list[Workload]:
    """Return the workloads of one configuration."""
    batch_size = trial.training.batch_size
    sizes = {
        "step": [(batch_size, batch_size)],
        "epoch": [(EPOCH_CLIPS, batch_size)],
        "latency": [(1, 1)],
        "throughput": [(size, size) for size in THROUGHPUT_BATCHES],
        "front-end": [(size, size) for size in FRONT_END_BATCHES],
    }
    # Inference is the same however the network was trained, a front-end whatever network follows: works that are
    # equal must look equal.
    untrained = trial.model_copy(update={"training": Training()})
    of = {
        "step": trial,
        "epoch": trial,
        "latency": untrained,
        "throughput": untrained,
        "front-end": Trial(front_end=trial.front_end),
    }
    return [Workload(what=kind, clips=c, batch_size=b, trial=of[kind]) for kind in what for c, b in sizes[kind]]


def of_model(model: str, shapes: Sequence[tuple[int, ...]], what: Sequence[str], batch_size: int) -> list[Workload]:
    """Return the workloads of any model.

    Args:
        shapes: of its inputs, with a batch dimension, which is ignored.
    """
    if list(what) == ["front-end"]:
        raise InputError("the front-end is melbench's own: time it without --model")
    rows = of_trial(configure(recipe="plain", batch_size=batch_size), [kind for kind in what if kind != "front-end"])
    inputs = tuple(shape[1:] for shape in shapes)
    return [
        Workload(what=row.what, clips=row.clips, batch_size=row.batch_size, model=model, input_shapes=inputs)
        for row in rows
    ]


def labels(works: Sequence[Workload]) -> list[str]:
    """Return a name for each workload that distinguishes it from the others, such as `step groups=4`."""
    named = descriptions(work.trial for work in works if work.trial)
    found = []
    for work in works:
        batch = f"batch {work.batch_size} " if work.what in ("throughput", "front-end") else ""
        delayed = f" delayed by {work.slowdown:.0%}" if work.slowdown else ""
        of = named[work.trial] if work.trial else str(work.model)
        if work.trial and work.what == "front-end":  # no network follows it
            of = " ".join(part for part in of.split() if SETTINGS[part.partition("=")[0]] == "front_end")
            of = of or f"n_mels={work.trial.front_end.n_mels}"
        found.append(f"{work.what} {batch}{of}{delayed}")
    return found
