"""Find waste in a configuration or a network; each finding names its remedy."""

import itertools
from collections.abc import Sequence

from bench.counting.profile import CountedOperator, Profile
from melcnn.config import Trial, legal_groups
from melcnn.frontend import empty_filters_remedy, mel_filters

NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
POOLS = ("max_pool1d", "max_pool2d_with_indices", "avg_pool1d", "avg_pool2d", "mean", "_adaptive_avg_pool2d")


def of_trial(trial: Trial) -> list[str]:
    """Return findings about the front-end's filters and the groups, one line each."""
    findings = []
    front_end, model = trial.front_end, trial.model
    bins = (mel_filters(front_end) > 0).sum(0)
    if empty := int((bins == 0).sum()):
        findings.append(empty_filters_remedy(front_end, empty))
    if single := int((bins == 1).sum()):
        findings.append(
            f"{single} of {front_end.n_mels} mel filters see a single FFT bin (n_fft {front_end.n_fft}): they are "
            "bins, not bands; use fewer n_mels or a longer n_fft"
        )
    if model.groups > 1:
        fewer = [g for g in legal_groups(front_end.n_mels, model.channels) if g < model.groups]
        findings.append(
            f"in {model.groups} groups no convolution mixes the groups: each output channel of the first sees "
            f"{front_end.n_mels // model.groups} of {front_end.n_mels} mel channels, and only the linear layers after "
            f"the last bring them together; fewer groups ({', '.join(map(str, fewer))}) mix more"
        )
    return findings


def of_profile(profile: Profile) -> list[str]:
    """Return findings about layers that ran and change nothing."""
    findings = []
    computing = [o for o in profile.operations if o.cost]
    biased = [
        before.layer
        for before, after in itertools.pairwise(computing)
        if before.cost
        and before.cost.bias
        and after.operator in NORMS
        and after.inputs
        and after.inputs[0] == before.output
    ]
    if biased:
        findings.append(
            f"the bias of {_some(biased)} is pure overhead: the normalisation right after it takes every constant "
            "away again; build the layer with bias=False"
        )
    findings += [
        f"the pooling {o.layer} leaves its input's shape {'x'.join(map(str, o.output))}: with one element a window it "
        "changes nothing; remove it"
        for o in computing
        if _pools_nothing(o)
    ]
    if profile.unused:
        findings.append(
            f"parameters that nothing reads: {_some(profile.unused)}; remove them, or see that the forward uses them"
        )
    return findings


def _pools_nothing(operation: CountedOperator) -> bool:
    return operation.operator in POOLS and bool(operation.inputs) and operation.inputs[0] == operation.output


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
