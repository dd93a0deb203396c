"""A trained network in one file: its weights as safetensors, its configuration in the header.

Loading reads numbers and JSON and executes no code. Files that could execute code are refused.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from melcnn.config import Trial, descriptions
from melcnn.data.clips import ClipSet
from melcnn.errors import InputError, check_type, first_line, one_line
from melcnn.files import open_file, write_whole
from melcnn.model import MelCNN
from melcnn.training import TrainedNetwork

# Raise when the meaning of a checkpoint changes; older ones stay readable.
FORMAT_VERSION = 1

# The header is read at once: ours has some kilobytes, and a thousand words would add ten.
MAX_HEADER_BYTES = 2**20


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained plain network, in evaluation mode, with its configuration and its data.

    Attributes:
        data_fingerprint: of the clips, as `ClipSet.fingerprint_for` returns it.
        data: where the clips are from, as `melcnn.load_clips` takes it; empty if unknown, as in older files.
        validation_accuracy, test_accuracy: at the kept epoch.
    """

    trial: Trial
    network: MelCNN
    seed: int
    dataset: str
    data_fingerprint: str
    validation_accuracy: float
    test_accuracy: float
    data: str = ""

    def __repr__(self) -> str:
        (settings,) = descriptions([self.trial]).values()
        accuracies = f"{self.validation_accuracy:.4f} in validation, {self.test_accuracy:.4f} in test"
        return f"Checkpoint({settings}: {','.join(self.trial.data.words)}, seed {self.seed}, accuracy {accuracies})"


def checkpoint_of(run: TrainedNetwork, trial: Trial, clips: ClipSet, data: str = "") -> Checkpoint:
    """Return the checkpoint of one network of `melcnn.fit`, trained as `trial` on `clips` from `data`."""
    check_type(run, TrainedNetwork, "give one of the networks that melcnn.fit returns")
    check_type(trial, Trial, "give the configuration that the network was trained as")
    check_type(clips, ClipSet, "give the clips that the network was trained on")
    return Checkpoint(
        trial=trial,
        network=run.network,
        seed=run.seed,
        dataset=clips.dataset,
        data_fingerprint=clips.fingerprint_for(trial.training),
        validation_accuracy=run.validation_accuracy,
        test_accuracy=run.test_accuracy,
        data=data,
    )


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write `checkpoint` to `path`, whole or not at all.

    Raises:
        InputError: if it cannot be written.
    """
    check_type(checkpoint, Checkpoint, "give melcnn.checkpoint_of(network, trial, clips), and then the path")
    about = {
        "seed": checkpoint.seed,
        "dataset": checkpoint.dataset,
        "data_fingerprint": checkpoint.data_fingerprint,
        "validation_accuracy": checkpoint.validation_accuracy,
        "test_accuracy": checkpoint.test_accuracy,
        "data": checkpoint.data,
    }
    metadata = {
        "format": "melbench",
        "format_version": str(FORMAT_VERSION),
        "trial": checkpoint.trial.canonical(),
        "about": json.dumps(about),
    }
    weights = {name: tensor.contiguous() for name, tensor in checkpoint.network.state_dict().items()}
    content = safetensors.torch.save(weights, metadata)
    try:
        write_whole(Path(path), lambda file: file.write(content))
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): choose another file") from None


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Return the checkpoint that `save_checkpoint` wrote.

    Raises:
        InputError: for a file that is missing, damaged, of another format or of a newer version, and for a pickled
            file, which is not opened.
    """
    if not isinstance(path, (str, Path)):
        raise InputError(f"path expected, not {type(path).__name__}: name a file written by 'melbench train'")
    path = Path(path)
    try:
        with open_file(path) as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(f"the checkpoint {path} cannot be read ({error.strerror})") from None
    # Eight bytes for the header's length, then JSON. The lowest of these bytes may be 0x80, with which pickles begin.
    header_bytes = int.from_bytes(start[:8], "little")
    is_safetensors = header_bytes <= MAX_HEADER_BYTES and start[8:] == b"{"
    # A zip (torch.save) or a pickle protocol mark: either could run code when loaded.
    if not is_safetensors and (start[:4] == b"PK\x03\x04" or start[:1] == b"\x80"):
        raise InputError(
            f"{path} is a pickled file, which could execute code, and was not opened: give a checkpoint written by "
            "'melbench train'"
        )
    try:
        if header_bytes > MAX_HEADER_BYTES:
            raise ValueError(f"its header is longer than {MAX_HEADER_BYTES:,} bytes")
        with safetensors.safe_open(path, framework="pt") as file:
            return _rebuild(path, file)
    except InputError:
        raise
    # The errors that safetensors raises for types and offsets that no checkpoint has.
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, LookupError, RuntimeError) as error:
        raise InputError(
            f"{path} is no whole safetensors file ({first_line(error)}): give a checkpoint of 'melbench train'"
        ) from None


def _rebuild(path: Path, file: safetensors.safe_open) -> Checkpoint:
    metadata = file.metadata() or {}
    version = metadata.get("format_version", "")
    if metadata.get("format") != "melbench" or not (version.isascii() and version.isdecimal()) or len(version) > 9:
        raise InputError(
            f"{path} holds tensors but no melbench configuration: give a checkpoint written by 'melbench train'"
        )
    if int(version) > FORMAT_VERSION:
        raise InputError(
            f"{path} has checkpoint format {version}, and this melbench reads up to {FORMAT_VERSION}: upgrade melbench"
        )
    try:
        with one_line("its configuration"):
            trial = Trial.model_validate_json(metadata["trial"])
        with torch.device("meta"):  # Shapes are compared before any memory is taken.
            expected = MelCNN.of(trial).state_dict()
        if {n: list(t.shape) for n, t in expected.items()} != {n: file.get_slice(n).get_shape() for n in file.keys()}:  # noqa: SIM118
            raise ValueError("weights and configuration do not belong together")
        weights = {name: file.get_tensor(name) for name in expected}
        if any(weights[name].dtype != tensor.dtype for name, tensor in expected.items()):
            raise ValueError("weights and configuration do not belong together")
        if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
            raise ValueError("weights that are not numbers")
        network = MelCNN.of(trial).eval()
        network.load_state_dict(weights)
        about = json.loads(metadata["about"])
        return Checkpoint(
            trial=trial,
            network=network,
            seed=int(about["seed"]),
            dataset=str(about["dataset"]),
            data_fingerprint=str(about["data_fingerprint"]),
            validation_accuracy=float(about["validation_accuracy"]),
            test_accuracy=float(about["test_accuracy"]),
            data=str(about.get("data", "")),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else first_line(error)
        raise InputError(f"{path} is damaged ({reason}): give a checkpoint of 'melbench train'") from None
