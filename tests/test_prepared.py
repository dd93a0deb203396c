import os
import shutil
import tarfile
import time

import pytest

from melcnn import InputError, load_clips
from melcnn.data import download, prepared


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "speech_commands"


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_or_an_archive_and_more_words_later(corpus, home, tmp_path, clips):
    corpus = shutil.copytree(corpus, tmp_path / "corpus")
    noise = corpus / "_background_noise_"
    noise.mkdir()
    (noise / "hum.wav").write_bytes((corpus / str(clips.names[0])).read_bytes())
    assert prepared.prepare(corpus, ("yes", "no")) == home and prepared.words() == ["no", "yes"]
    before = contents(home)
    assert {name.split("/")[0] for name in before} == {
        "yes", "no", "_background_noise_", "validation_list.txt", "testing_list.txt", ".origin",
    }  # fmt: skip
    prepared.prepare(corpus, ("go", "yes"))
    after = contents(home)
    assert prepared.words() == ["go", "no", "yes"] and before.items() <= after.items()
    assert load_clips("auto").fingerprint == clips.fingerprint
    assert sorted(p.name for p in home.parent.iterdir() if not p.name.startswith("clips-")) == ["speech_commands"]


def test_words_of_two_sources_are_not_mixed(corpus, home, tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(corpus, ".")
    prepared.prepare(tmp_path / "a.tar.gz", ("yes", "no"))
    with pytest.raises(InputError, match="was prepared from .*a.tar.gz, not from .*remove that folder"):
        prepared.prepare(corpus, ("go",))
    assert prepared.words() == ["no", "yes"]


def test_what_a_killed_run_left_is_removed_in_time(corpus, home):
    for name, age in ((".prepare-old", 2 * prepared.STALE_S), (".prepare-new", 0)):
        folder = home.parent / name
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age,) * 2)
    prepared.prepare(corpus, ("yes", "no"))
    assert sorted(p.name for p in home.parent.glob(".prepare-*")) == [".prepare-new"]


def test_a_download_is_kept_for_more_words(corpus, home, tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(corpus, ".")
    fetched = []
    monkeypatch.setattr(prepared, "fetch", lambda file, folder, progress: fetched.append(file) or tmp_path / "a.tar.gz")
    prepared.prepare(None, ("yes", "no"))
    assert fetched == [download.SPEECH_COMMANDS] and prepared.words() == ["no", "yes"]


def test_what_cannot_be_prepared_leaves_what_was(corpus, home, tmp_path, monkeypatch):
    prepared.prepare(corpus, ("yes", "no"))
    before = contents(home)
    (tmp_path / "own" / "yes").mkdir(parents=True)
    (tmp_path / "own" / "yes" / "a.wav").write_bytes(b"x")
    cut = tmp_path / "cut.tar.gz"
    with tarfile.open(cut, "w:gz") as archive:
        archive.add(corpus, ".")
    cut.write_bytes(cut.read_bytes()[:-1000])
    for source, words, message in [
        (tmp_path / "nowhere", ("yes",), "does not exist"),
        (corpus, ("yes", "maybe"), "'maybe' is not in"),
        (tmp_path / "own", ("yes",), "no testing_list.txt"),
        (cut, ("yes", "no"), "whole tar archive"),
    ]:
        monkeypatch.setattr(prepared, "_check_origin", lambda home, origin: None)
        with pytest.raises(InputError, match=message):
            prepared.prepare(source, words)
        assert contents(home) == before and [p.name for p in home.parent.iterdir()] == ["speech_commands"]


def test_a_cache_that_cannot_be_written(corpus, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="MELBENCH_CACHE"):
        prepared.prepare(corpus, ("yes", "no"))
