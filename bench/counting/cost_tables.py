"""`melbench profile`: what to count, and the sheets that show it."""

import importlib
import sys
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import nn

from bench.counting import lint
from bench.counting.profile import Layer, Profile, make_inputs, materialise, profile
from bench.counting.reconcile import Missing, Reconciled, reconcile
from bench.formats import Sheet, sheet_of
from melcnn.config import Trial
from melcnn.errors import InputError, first_line
from melcnn.frontend import LogMelFilterBanks
from melcnn.model import MelCNN

CLIP_SECONDS = 1

# The front-end's operators, by what they are for; the order is that of the computation.
STAGES = {"mul": "window", "_fft_r2c": "FFT", "abs": "power", "pow": "power", "mm": "mel matrix (dense, as computed)"}
LOGARITHM = "logarithm"


def load_model(text: str) -> nn.Module:
    """Return the module that `package.module:factory` names: a class, a function without arguments, or a module.

    Runs the user's code.

    Raises:
        InputError: it does not exist, raises, or makes no module.
    """
    module_name, colon, attribute = text.partition(":")
    if not colon or not module_name or not attribute:
        raise InputError(f"--model {text!r} is not of the form package.module:factory, such as my_models.small:build")
    if "" not in sys.path:
        sys.path.insert(0, "")  # As `python -m` would, so that a model beside the user is found.
    try:
        factory = importlib.import_module(module_name)
        for part in attribute.split("."):
            factory = getattr(factory, part)
    except ModuleNotFoundError as error:
        hint = (
            "write the module's name without .py" if module_name.endswith(".py") else "looked here and in site-packages"
        )
        raise InputError(f"--model {text}: there is no module {error.name!r} ({hint})") from error
    except AttributeError:
        raise InputError(f"--model {text}: {module_name} has no {attribute!r}") from None
    except Exception as error:
        raise InputError(f"--model {text}: importing {module_name} raised {first_line(error)}") from error
    if not isinstance(factory, nn.Module):
        if not callable(factory):
            raise InputError(f"--model {text} is a {type(factory).__name__}, expected a factory of an nn.Module")
        try:
            made = factory()
        except Exception as error:
            raise InputError(f"--model {text} raised {first_line(error)}") from error
        if not isinstance(made, nn.Module):
            raise InputError(f"--model {text} made a {type(made).__name__}, expected an nn.Module")
        return made
    return factory


def parse_shape(text: str) -> tuple[int, ...]:
    """Return `1,80,101` as a tuple. Raises `InputError`."""
    parts = text.replace("x", ",").split(",")
    if not all(part.strip().isdigit() and int(part) for part in parts):
        raise InputError(f"--input {text!r} is no shape: write positive numbers with commas, such as 1,80,101")
    return tuple(int(part) for part in parts)


def of_model(name: str, model: nn.Module, shapes: Sequence[tuple[int, ...]], allow_uncounted: bool) -> list[Sheet]:
    """Return the sheets of any model on inputs of `shapes`."""
    inputs = make_inputs(model, shapes)
    materialise(model, inputs)
    found = profile(model, inputs, allow_uncounted)
    counters = reconcile(model, inputs, found)
    remarks = [*lint.of_profile(found), *_unexplained(counters)]
    if found.reads_values:
        remarks.insert(
            0,
            "the model reads values on the host, so its path may depend on the data: only the path of this "
            "(random) input was counted",
        )
    on = " and ".join("x".join(map(str, shape)) for shape in shapes)
    about = f"{name} on {on}, {inputs[0].dtype}, {inputs[0].device}"
    return _sheets(found, found.pipeline_macs, [], counters, remarks, about)


def _unexplained(counters: Sequence[Reconciled | Missing]) -> list[str]:
    return [
        f"{one.counter} differs by {sum(one.unexplained.values()):+,} MACs for a reason that melbench does not know; "
        "melbench's own count is of the operators that ran"
        for one in counters
        if isinstance(one, Reconciled) and one.unexplained
    ]


def of_trial(trial: Trial) -> list[Sheet]:
    """Return the sheets of one configuration with its front-end, for a clip of one second."""
    front_end = LogMelFilterBanks(**trial.front_end.model_dump())
    network = MelCNN.of(trial)
    waveform = torch.randn(1, CLIP_SECONDS * trial.front_end.sample_rate, generator=torch.Generator().manual_seed(0))
    before = profile(front_end, [waveform], training=False)
    features = front_end(waveform)
    found = profile(network, [features])
    remarks = [
        _dominant(before.pipeline_macs, found.pipeline_macs),
        *lint.of_trial(trial),
        *lint.of_profile(found),
    ]
    stages = _stages(before, front_end, features.shape[-1])
    about = f"n_mels={trial.front_end.n_mels} groups={trial.model.groups} channels={trial.model.channels}, one second"
    return _sheets(
        found,
        before.pipeline_macs + found.pipeline_macs,
        stages,
        reconcile(network, [features], found),
        remarks,
        about,
    )


def _dominant(front_end: int, network: int) -> str:
    share = front_end / (front_end + network)
    part = "front-end" if share > 0.5 else "network"
    return (
        f"the {part} dominates: {max(share, 1 - share):.0%} of the pipeline's {front_end + network:,} MACs "
        f"(front-end {front_end:,}, network {network:,})"
    )


def _stages(found: Profile, front_end: LogMelFilterBanks, frames: int) -> list[dict[str, object]]:
    macs: dict[str, float] = defaultdict(float)
    flops: dict[str, float] = defaultdict(float)
    for operation in found.operations:
        stage = STAGES.get(operation.operator, LOGARITHM)
        if cost := operation.cost:
            macs[stage] += cost.macs + cost.fft_flops / 2
            flops[stage] += cost.flops
    rows = [{"stage": stage, "macs": round(macs[stage]), "flops": round(flops[stage])} for stage in flops]
    # Each filter is a triangle over a few bins; all other products are with zero.
    sparse = int((front_end.filters > 0).sum()) * frames
    return [*rows, {"stage": "mel matrix, sparse as it could be", "macs": sparse, "flops": 2 * sparse}]


def _sheets(
    found: Profile,
    pipeline_macs: int,
    stages: list[dict[str, object]],
    counters: Sequence[Reconciled | Missing],
    remarks: list[str],
    about: str,
) -> list[Sheet]:
    totals: dict[str, object] = {
        "params": found.total("params"),
        "weight_bytes": found.total("weight_bytes"),
        "macs": found.total("macs"),
        "macs_all_layers": found.total("macs_all_layers"),
        "flops": found.total("flops"),
        "pipeline_macs": pipeline_macs,
        "activations": found.total("activations"),
        "peak_activation_bytes": found.peak_bytes,
        "training_macs": found.training_macs,
    }
    kinds = [{"kind": kind, "macs_all_layers": amount} for kind, amount in found.by_kind.items() if amount]
    kinds += [{"kind": f"{name} (no formula)", "macs_all_layers": ""} for name in found.uncounted]
    return [
        sheet_of("totals", [totals], [f"{about}.", "macs is the figure to quote."], single=True),
        sheet_of("layers", [_layer(layer) for layer in found.layers], spare=_SPARE),
        sheet_of("kinds", kinds),
        sheet_of(
            "front end", stages, ["FFT: modelled as 2.5 N log2 N FLOPs for N real points, and half as many MACs."]
        ),
        sheet_of("counters", [row for counter in counters for row in _differences(counter)]),
        sheet_of("remarks", [{"remark": remark} for remark in remarks]),
    ]


_SPARE = ("type", "weight bytes", "macs all layers", "flops", "peak bytes")


def _layer(layer: Layer) -> dict[str, object]:
    return {
        "layer": layer.name or "(itself)",
        "type": layer.type,
        "params": layer.params,
        "weight_bytes": layer.weight_bytes,
        "macs": layer.macs,
        "macs_all_layers": round(layer.macs_all_layers),
        "flops": round(layer.flops),
        "activations": layer.activations,
        "peak_bytes": layer.peak_bytes,
    }


def _differences(counter: Reconciled | Missing) -> list[dict[str, object]]:
    """Return the rows from our MACs to a counter's total: what it counts in addition and what it leaves out."""
    if isinstance(counter, Missing):
        return [{"counter": counter.counter, "item": counter.reason, "macs": ""}]
    lines = {"our macs": counter.macs, **counter.items, "its total": counter.total}
    return [{"counter": counter.counter, "item": item, "macs": amount} for item, amount in lines.items()]
