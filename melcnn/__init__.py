"""The experiment: log-mel front-end, grouped-convolution networks, data, and training to convergence.

Names are imported when first used, so that `import melcnn` does not import torch.
"""

from importlib import import_module

_HOMES = {
    "Trial": "melcnn.config",
    "configure": "melcnn.config",
    "FrontEnd": "melcnn.config",
    "Checkpoint": "melcnn.checkpoint",
    "load_checkpoint": "melcnn.checkpoint",
    "save_checkpoint": "melcnn.checkpoint",
    "checkpoint_of": "melcnn.checkpoint",
    "ClipSet": "melcnn.data.clips",
    "load_clips": "melcnn.data.loading",
    "read_clip": "melcnn.data.audio",
    "InputError": "melcnn.errors",
    "TrainingDiverged": "melcnn.errors",
    "evaluate": "melcnn.evaluation",
    "predict": "melcnn.evaluation",
    "extract": "melcnn.features",
    "LogMelFilterBanks": "melcnn.frontend",
    "MelCNN": "melcnn.model",
    "stack": "melcnn.model",
    "grouped_conv1d": "melcnn.kernels.grouped_conv",
    "fit": "melcnn.training",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'melcnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
