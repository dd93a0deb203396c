"""The experiment: log-mel front-end, grouped-convolution networks, data, and training to convergence.

Names are imported when first used, so that `import melcnn` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # For type checkers and editors, which do not follow the lazy imports below.
    from melcnn.checkpoint import Checkpoint, checkpoint_of, load_checkpoint, save_checkpoint
    from melcnn.config import FrontEnd, Trial, configure
    from melcnn.data.audio import read_clip
    from melcnn.data.clips import ClipSet
    from melcnn.data.loading import load_clips
    from melcnn.errors import InputError, TrainingDiverged
    from melcnn.evaluation import evaluate, predict
    from melcnn.features import extract
    from melcnn.frontend import LogMelFilterBanks
    from melcnn.kernels.grouped_conv import grouped_conv1d
    from melcnn.model import MelCNN, stack
    from melcnn.training import fit

    __version__: str

__all__ = [
    "Checkpoint",
    "ClipSet",
    "FrontEnd",
    "InputError",
    "LogMelFilterBanks",
    "MelCNN",
    "TrainingDiverged",
    "Trial",
    "__version__",
    "checkpoint_of",
    "configure",
    "evaluate",
    "extract",
    "fit",
    "grouped_conv1d",
    "load_checkpoint",
    "load_clips",
    "predict",
    "read_clip",
    "save_checkpoint",
    "stack",
]

_HOMES = {
    "Checkpoint": "checkpoint",
    "ClipSet": "data.clips",
    "FrontEnd": "config",
    "InputError": "errors",
    "LogMelFilterBanks": "frontend",
    "MelCNN": "model",
    "TrainingDiverged": "errors",
    "Trial": "config",
    "checkpoint_of": "checkpoint",
    "configure": "config",
    "evaluate": "evaluation",
    "extract": "features",
    "fit": "training",
    "grouped_conv1d": "kernels.grouped_conv",
    "load_checkpoint": "checkpoint",
    "load_clips": "data.loading",
    "predict": "evaluation",
    "read_clip": "data.audio",
    "save_checkpoint": "checkpoint",
    "stack": "model",
}


if not TYPE_CHECKING:  # A type checker that sees this function takes any name for a public one.

    def __getattr__(name: str) -> object:
        if name == "__version__":
            return _version()
        if name in _HOMES:
            return getattr(import_module(f"melcnn.{_HOMES[name]}"), name)
        raise AttributeError(f"module 'melcnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


def _version() -> str:
    """Return the version of the installed package; "0+unknown" where melbench is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("melbench")
    except PackageNotFoundError:
        return "0+unknown"
