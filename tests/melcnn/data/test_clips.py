import os
from dataclasses import replace

import numpy as np
import pytest

from melcnn import InputError
from melcnn.data.clips import Clip, assemble, cached
from melcnn.files import cache_folder


@pytest.fixture
def open_mask():
    before = os.umask(0)
    yield
    os.umask(before)


def clip(word, split, name, samples=4, value=1):
    return Clip(f"{word}/{name}", word, name, split, np.full(samples, value, np.int16))


def every_split(words):
    return [clip(word, split, f"{split}-{word}") for word in words for split in ("test", "train", "validation")]


def test_order_padding_and_splits():
    clips = assemble("d", ("b", "a"), 8, 6, [clip("a", "train", "z", samples=9, value=5), *every_split(("a", "b"))])
    assert clips.names.tolist() == [
        "b/train-b", "a/train-a", "a/z", "b/validation-b", "a/validation-a", "b/test-b", "a/test-a",
    ]  # fmt: skip
    assert clips.labels.tolist() == [0, 1, 1, 0, 1, 0, 1]
    assert clips.waveforms[0].tolist() == [1, 1, 1, 1, 0, 0] and clips.waveforms[2].tolist() == [5] * 6
    assert clips.lengths.tolist() == [4, 4, 9, 4, 4, 4, 4]
    assert [clips.names[clips.split(s)].size for s in ("train", "validation", "test")] == [3, 2, 2]


def test_the_fingerprint_is_of_content_alone():
    a, b = (assemble("d", ("a", "b"), 8, 6, clips) for clips in (every_split("ab"), every_split("ba")))
    assert a.fingerprint == b.fingerprint
    changes = {
        "dataset": "e",
        "words": ("b", "a"),
        "sample_rate": 9,
        "waveforms": a.waveforms * 2,
        "labels": 1 - a.labels,
        "splits": np.sort(a.splits)[::-1],
        "names": np.char.add(a.names, "x"),
        "speakers": np.char.add(a.speakers, "x"),
    }
    others = {replace(a, **{name: value}).fingerprint for name, value in changes.items()}
    assert len(others | {a.fingerprint}) == len(changes) + 1
    assert replace(a, lengths=a.lengths + 1, remarks=("seen",)).fingerprint == a.fingerprint


def test_a_word_without_clips_in_a_split():
    clips = assemble("d", ("a", "b"), 8, 6, every_split("a") + every_split("b")[1:])
    with pytest.raises(InputError, match="'b' has no clip in the test split"):
        clips.check_splits()
    assemble("d", ("a", "b"), 8, 6, every_split("ab")).check_splits()


def test_cache(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path / "deep" / "cache"))
    made = []

    def make():
        made.append(assemble("d", ("a", "b"), 8, 6, every_split("ab")))
        return made[-1]

    first = cached("key", make)
    again = cached("key", make)
    assert len(made) == 1 and first.fingerprint == again.fingerprint and not caplog.messages
    cached("other key", make)
    assert len(made) == 2

    for damage in (
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"\x01\x00" * 4, b"\x02\x00" * 4),
    ):
        for file in cache_folder().iterdir():
            file.write_bytes(damage(file.read_bytes()))
        assert cached("key", make).fingerprint == first.fingerprint
        assert "damaged" in caplog.messages[-1]
        caplog.clear()
        assert cached("key", make).fingerprint == first.fingerprint and not caplog.messages


def test_a_cache_file_of_other_content_is_made_again(monkeypatch, tmp_path, caplog):
    """Whole as a file, but its clips are not those that its fingerprint is of."""
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path))
    cached("key", lambda: assemble("d", ("a", "b"), 8, 6, every_split("ab")))
    (path,) = tmp_path.iterdir()
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **{**arrays, "labels": 1 - arrays["labels"]})
    caplog.clear()
    clips = cached("key", lambda: assemble("d", ("a", "b"), 8, 6, every_split("ab")))
    assert clips.labels.tolist() == arrays["labels"].tolist() and "damaged" in caplog.messages[0]


def test_a_cache_that_cannot_be_written_costs_a_warning(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path / "file"))
    caplog.clear()
    assert len(cached("key", lambda: assemble("d", ("a", "b"), 8, 6, every_split("ab")))) == 6
    assert "MELBENCH_CACHE" in caplog.messages[0]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("lengths", lambda lengths: lengths[:-1]),
        ("lengths", lambda lengths: lengths.astype(str)),
        ("splits", lambda splits: splits[None]),
        ("labels", lambda labels: labels[:, None]),
        ("waveforms", np.ravel),
        ("waveforms", lambda waveforms: waveforms.view(np.uint16)),
        ("noise", lambda noise: np.zeros((2, 2), np.int16)),
        ("noise", lambda noise: np.array("hum")),
        ("noise", lambda noise: np.array([{"a": 1}], object)),
    ],
)
def test_a_cache_file_with_arrays_of_another_shape_or_type(monkeypatch, tmp_path, name, other, caplog):
    """Of which the fingerprint knows nothing: it is of the bytes of some."""
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path))
    made = cached("key", lambda: assemble("d", ("a", "b"), 8, 6, every_split("ab")))
    (path,) = tmp_path.iterdir()
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **{**arrays, name: other(arrays[name])})
    caplog.clear()
    clips = cached("key", lambda: assemble("d", ("a", "b"), 8, 6, every_split("ab")))
    assert "damaged" in caplog.messages[0] and np.array_equal(getattr(clips, name), getattr(made, name))


def test_with_an_open_mask_the_cache_is_still_not_open_to_everybody(monkeypatch, tmp_path, open_mask):
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path / "deep" / "cache"))
    cached("key", lambda: assemble("d", ("a", "b"), 8, 6, every_split("ab")))
    made = list(tmp_path.rglob("*"))
    assert len(made) == 3 and not [path for path in made if path.stat().st_mode & 0o002]
