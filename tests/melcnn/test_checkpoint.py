import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from melcnn import (
    InputError,
    checkpoint_of,
    evaluate,
    extract,
    fit,
    load_checkpoint,
    predict,
    save_checkpoint,
)
from melcnn.evaluation import Evaluation
from tests.helpers.configurations import plain

SETTINGS = {"n_mels": 16, "n_fft": 256, "hop_length": 400, "channels": 8, "groups": 2, "batch_size": 16, "epochs": 12}


@pytest.fixture(scope="module")
def trained(clips):
    trial = plain(**SETTINGS)
    features = extract(clips, trial.front_end)
    (run,) = fit(trial, features, [3])
    return checkpoint_of(run, trial, clips), run


@pytest.fixture
def saved(trained, tmp_path):
    save_checkpoint(trained[0], tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"cannot be read \(not a regular file\)"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_round_trip(trained, saved, clips):
    checkpoint, run = trained
    loaded = load_checkpoint(saved)
    assert loaded.trial == checkpoint.trial and loaded.seed == 3 and loaded.dataset == "speech_commands"
    assert (loaded.test_accuracy, loaded.data_fingerprint) == (run.test_accuracy, clips.fingerprint)
    test = clips.split("test")
    probabilities = predict(loaded, clips.waveforms[test])
    np.testing.assert_allclose(probabilities, run.test_logits.softmax(-1).numpy(), rtol=1e-4, atol=1e-6)
    evaluation = evaluate(loaded, clips)
    assert evaluation.correct.mean() == run.test_accuracy
    assert evaluation.confusion.sum() == 16 and len(evaluate(loaded, clips, "all").labels) == len(clips)


def test_an_evaluation_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.45, 0.55]])
    evaluation = Evaluation(("a", "b"), ["w", "x", "y", "z"], list("1122"), np.array([0, 0, 1, 0]), probabilities)
    assert evaluation.predicted.tolist() == [0, 1, 1, 1]
    assert evaluation.confusion.tolist() == [[1, 2], [0, 1]]
    # of the misheard x and z, x's spoken word has the smaller probability: 0.4 against 0.45
    assert evaluation.most_wrong() == [1, 3] and evaluation.most_wrong(1) == [1]


def test_words_that_are_not_the_checkpoints(trained, corpus):
    from melcnn import load_clips

    with pytest.raises(InputError, match="yes,no apart"):
        evaluate(trained[0], load_clips(corpus, ("go", "stop")))


class Bomb:
    def __reduce__(self):
        import os

        return os.mkdir, ("executed",)


def rewritten(saved, **changes):
    with safetensors.safe_open(saved, "pt") as file:
        metadata, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.torch.save_file({**weights, **changes.pop("weights", {})}, saved, {**metadata, **changes})


SPOILERS = {
    "pickle": (lambda path: path.write_bytes(pickle.dumps(Bomb())), "pickled"),
    "old pickle": (lambda path: path.write_bytes(pickle.dumps(Bomb(), protocol=0)), "no whole safetensors"),
    "torch.save": (lambda path: torch.save({"a": Bomb()}, path), "pickled"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "no whole safetensors"),
    "empty": (lambda path: path.write_bytes(b""), "no whole safetensors"),
    "text": (lambda path: path.write_text("hello, this is no checkpoint"), "no whole safetensors"),
    "other tensors": (lambda path: safetensors.torch.save_file({"a": torch.zeros(2)}, path), "no melbench config"),
    "another program's": (lambda path: rewritten(path, format="other"), "no melbench config"),
    "newer": (lambda path: rewritten(path, format_version="2"), "upgrade melbench"),
    "bad trial": (lambda path: rewritten(path, trial='{"model": {"depth": 9}}'), "is damaged"),
    "other shapes": (lambda path: rewritten(path, trial=plain().canonical()), "do not belong together"),
    "huge": (
        lambda path: rewritten(path, trial=plain(channels=4096, n_mels=64, groups=1).canonical()),
        "do not belong together",
    ),
    "nan": (lambda path: rewritten(path, weights={"classifier.bias": torch.full((2,), float("nan"))}), "not numbers"),
    "no about": (lambda path: rewritten(path, about=json.dumps({})), "is damaged"),
    "missing": (lambda path: path.unlink(), "cannot be read"),
}


@pytest.mark.parametrize("spoil, message", SPOILERS.values(), ids=SPOILERS)
def test_files_that_are_no_checkpoint(saved, spoil, message, monkeypatch):
    monkeypatch.chdir(saved.parent)
    spoil(saved)
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)
    assert not (saved.parent / "executed").exists()


def test_a_place_that_cannot_be_written(trained, tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        save_checkpoint(trained[0], tmp_path / "nowhere" / "a.safetensors")


def header(path, change):
    """Rewrites the header of a safetensors file as the library never would."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    said = json.loads(content[8 : 8 + length])
    change(said)
    new = json.dumps(said).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + content[8 + length :])


def dtype(name):
    return lambda path: header(path, lambda said: said["classifier.weight"].update(dtype=name))


HOSTILE = {
    "long header": (
        lambda path: path.write_bytes((2**20 + 1).to_bytes(8, "little") + b"{" + b" " * 2**21),
        r"no whole safetensors file \(ValueError: its header is longer than 1,048,576 bytes",
    ),
    "endless header": (lambda path: path.write_bytes(b"\xff" * 7 + b"\x00" * 9), "its header is longer than"),
    "other numbers": (dtype("I32"), "weights and configuration do not belong together"),
    "numbers of four bits": (dtype("F4"), "no whole safetensors file"),
    "unknown numbers": (dtype("X"), "no whole safetensors file"),
    "other offsets": (
        lambda path: header(path, lambda said: said["classifier.weight"].update(data_offsets=[0, 2**62])),
        "no whole safetensors file",
    ),
    "other digits": (lambda path: rewritten(path, format_version="\u0661"), "no melbench config"),
    "no number": (
        lambda path: rewritten(path, trial='{"training": {"learning_rate": Infinity}}'),
        r"is damaged \(its configuration: learning_rate",
    ),
    "many problems": (
        lambda path: rewritten(path, trial=json.dumps({"data": {"words": [1] * 1000}})),
        "is damaged .its configuration: 1,000 values are not what they should be",
    ),
    "nested": (lambda path: rewritten(path, about="[" * 100_000), "is damaged"),
}


@pytest.mark.parametrize("spoil, message", HOSTILE.values(), ids=HOSTILE)
def test_checkpoints_of_somebodys_making(saved, spoil, message):
    spoil(saved)
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


def test_a_header_of_any_length(trained, tmp_path):
    # The library pads headers to a multiple of eight: in 32 lengths in a row the lowest byte takes all its values.
    lowest = set()
    for padding in range(0, 256, 8):
        path = tmp_path / f"{padding}.safetensors"
        save_checkpoint(replace(trained[0], dataset="x" * padding), path)
        lowest.add(path.read_bytes()[0])
        assert load_checkpoint(path).dataset == "x" * padding
    assert lowest == set(range(0, 256, 8)) and 0x80 in lowest


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_not_opened(tmp_path, protocol):
    path = tmp_path / "a.safetensors"
    for content in (Bomb(), {}, None, [0] * 1000, "x" * 4000):
        path.write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(InputError, match="is a pickled file"):
            load_checkpoint(path)


def test_float_audio_is_heard_as_int16(trained, clips):
    test = clips.waveforms[clips.split("test")]
    expected = predict(trained[0], test)
    assert np.array_equal(predict(trained[0], test.astype(np.float32) / 32768), expected)
    assert np.array_equal(predict(trained[0], torch.from_numpy(test) / 32768.0), expected)
    quiet = np.pad(test, ((0, 0), (0, 16_000)))
    assert np.array_equal(predict(trained[0], quiet), expected)
    with pytest.raises(InputError, match="divide int16 samples by 32768"):
        predict(trained[0], test.astype(np.float32))
