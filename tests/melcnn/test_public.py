"""The public names of melcnn: imported when first used, and known to type checkers and editors."""

import importlib.metadata
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import pytest

import melcnn
from melcnn import (
    InputError,
    checkpoint_of,
    configure,
    evaluate,
    extract,
    fit,
    load_checkpoint,
    load_clips,
    predict,
    save_checkpoint,
)
from melcnn.config import DEFAULT_RECIPE, SETTINGS, Settings, Trial

ROOT = Path(melcnn.__file__).parents[1]
NAMES = sorted({*melcnn.__all__} - {"__version__"})


def test_every_public_name_exists_and_others_do_not():
    assert {*NAMES} == {*melcnn._HOMES} and dir(melcnn) == melcnn.__all__
    for name in NAMES:
        assert getattr(melcnn, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'melcnn' has no attribute 'configur'"):
        _ = melcnn.configur


def test_the_import_alone_is_light():
    code = "import sys, melcnn; assert not {'torch', 'numpy', 'pydantic', 'importlib.metadata'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_version_is_that_of_the_installed_package(monkeypatch):
    def found(name):
        assert name == "melbench"
        return "1.2.3"

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", found)
    assert melcnn.__version__ == "1.2.3"
    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert melcnn.__version__ == "0+unknown"


def test_the_types_of_settings_are_those_of_the_fields():
    fields = {name: get_type_hints(Trial.model_fields[section].annotation)[name] for name, section in SETTINGS.items()}
    assert get_type_hints(Settings) == fields


def test_the_packages_are_marked_as_typed():
    assert all((ROOT / package / "py.typed").is_file() for package in ("melcnn", "bench"))


@pytest.fixture
def errors(tmp_path, monkeypatch):
    """Gives the errors that mypy finds in a text."""
    api = pytest.importorskip("mypy.api")
    monkeypatch.setenv("MYPYPATH", str(ROOT))

    def check(text):
        (tmp_path / "user.py").write_text(text)
        # Without torch's and pydantic's types this takes a second, and no error below depends on them.
        options = ["--config-file=", "--no-site-packages", "--ignore-missing-imports", "--follow-imports=silent"]
        found, problem, _ = api.run([*options, f"--cache-dir={tmp_path / 'cache'}", str(tmp_path / "user.py")])
        assert not problem
        return [line for line in found.splitlines() if ": error: " in line]

    return check


def test_a_type_checker_finds_misspelled_names_and_settings(errors):
    first, second = errors("import melcnn\nmelcnn.configur(groups=4)\nmelcnn.configure(group=4)\n")
    assert ':2: error: Module has no attribute "configur"' in first
    assert ':3: error: Unexpected keyword argument "group" for "configure"' in second
    assert 'incompatible type "str"; expected "int"' in errors("import melcnn\nmelcnn.configure(groups='4')\n")[0]


def test_a_type_checker_knows_every_public_name(errors):
    uses = "".join(f"melcnn.{name}\n" for name in melcnn.__all__)
    assert (
        errors(f"import melcnn\n{uses}melcnn.configure(('go', 'stop'), groups=4, patience=None).training.epochs\n")
        == []
    )


@pytest.fixture
def trained(clips):
    trial = configure(n_mels=16, n_fft=256, hop_length=800, channels=8, epochs=1)
    features = extract(clips, trial.front_end)
    (network,) = fit(trial, features)
    return trial, features, network, checkpoint_of(network, trial, clips)


def test_configure_has_the_commands_recipe():
    assert configure() == configure(recipe=DEFAULT_RECIPE) != configure(recipe="plain")
    assert configure(groups=4).training.recipe == "default"


def test_what_is_given_in_the_place_of_another_is_refused_in_one_line(trained, clips, tmp_path):
    trial, features, network, checkpoint = trained
    path = tmp_path / "network.safetensors"
    for call, says in [
        (lambda: fit(trial, clips), "Features expected, not ClipSet: make them with melcnn.extract(clips, trial.front"),
        (lambda: fit(features, trial), "Trial expected, not Features: make one with melcnn.configure"),
        (lambda: extract(clips, trial), "FrontEnd expected, not Trial: give the front_end of"),
        (lambda: extract("yes-no", trial.front_end), "ClipSet expected, not str: load clips with melcnn.load_clips"),
        (lambda: predict(str(path), clips.waveforms), "Checkpoint expected, not str: load it with melcnn.load_checkp"),
        (lambda: evaluate(path, clips), "Checkpoint expected, not PosixPath: load it with"),
        (lambda: evaluate(checkpoint, clips.waveforms), "ClipSet expected, not ndarray: load clips with"),
        (lambda: predict(clips.waveforms, checkpoint), "Checkpoint expected, not ndarray: give the checkpoint first"),
        (lambda: predict(network, clips.waveforms), "Checkpoint expected, not TrainedNetwork: make one with melcnn.c"),
        (lambda: predict(checkpoint, "a.wav"), "waveforms expected, not a path: melcnn.read_clip(path)[None]"),
        (lambda: predict(checkpoint, clips), "waveforms expected, not ClipSet: give its waveforms and sample_rate"),
        (lambda: load_checkpoint(checkpoint), "path expected, not Checkpoint: name a file written by"),
        (lambda: fit(trial, features, 3), "seeds must be several, such as range(3), not 3"),
        (lambda: configure("yes,no"), "words must be several texts, such as ('yes', 'no'), not 'yes,no'"),
        (lambda: configure(4), "words must be several texts, such as ('yes', 'no'), not 4"),
        (lambda: load_clips("synthetic", "yes,no"), "words must be several texts"),
        (lambda: evaluate(checkpoint, clips, 3), "there is no split 3: use train"),
        (lambda: evaluate(checkpoint, clips, "tset"), "there is no split 'tset', did you mean test?: use train, valid"),
        (lambda: clips.split("all"), "there is no split 'all': the splits are train, validation, test"),
        (lambda: predict(checkpoint, clips.waveforms[0]), "waveforms must be (clips, samples), not (16000,): give one"),
        (lambda: checkpoint_of(trial, network, clips), "TrainedNetwork expected, not Trial: give one of the networks"),
        (lambda: checkpoint_of(network, trial, features), "ClipSet expected, not Features"),
        (lambda: save_checkpoint(path, checkpoint), "Checkpoint expected, not PosixPath: give melcnn.checkpoint_of"),
        (lambda: configure(group=4), "there is no setting 'group', did you mean groups?: the settings are n_mels,"),
    ]:
        with pytest.raises(InputError) as error:
            call()
        assert str(error.value).startswith(says) and "\n" not in str(error.value)


def test_a_short_repr(trained, clips):
    _, features, network, checkpoint = trained
    one = checkpoint.validation_accuracy, checkpoint.test_accuracy
    accuracies = f"accuracy {one[0]:.4f} in validation, {one[1]:.4f} in test"
    of_clips = f"ClipSet({clips.dataset!r}: yes,no, 48 train, 16 validation, 16 test, 16000 Hz)"
    assert repr(clips) == of_clips
    assert repr(features) == f"Features(80 clips, 16 mels, 21 frames, cpu, of {of_clips})"
    assert repr(network) == f"TrainedNetwork(seed 0, epoch 1, {accuracies})"
    assert repr(checkpoint).startswith("Checkpoint(") and repr(checkpoint).endswith(f": yes,no, seed 0, {accuracies})")
    found = evaluate(checkpoint, clips)
    none = replace(found, labels=found.labels[:0], probabilities=found.probabilities[:0])
    assert repr(none) == "Evaluation(0 clips of yes,no)"
    assert repr(found) == f"Evaluation(16 clips of yes,no, accuracy {one[1]:.4f})"
