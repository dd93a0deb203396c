import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from melcnn import InputError, load_clips, locking
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


def test_what_a_killed_run_left_is_removed_whatever_the_clock_says(corpus, home):
    for name, time in (("old", 0), ("of-a-clock-that-jumped", 2**32)):
        folder = home.parent / f".prepare-{name}"
        (folder / "yes").mkdir(parents=True)
        os.utime(folder, (time, time))
    prepared.prepare(corpus, ("yes", "no"))
    assert [path.name for path in home.parent.iterdir()] == ["speech_commands"]


def test_one_at_a_time_prepares(corpus, home, monkeypatch):
    """The other one would go on with the same `.part` file, and take the folder in work for one that was left."""
    monkeypatch.setattr(locking, "PATIENCE_SECONDS", 0)
    (home.parent / ".prepare-of-the-other").mkdir(parents=True)
    with (
        locking.held(home.parent, ""),
        pytest.raises(InputError, match=f"in use by process {os.getpid()} .* set MELBENCH_CACHE to another folder"),
    ):
        prepared.prepare(corpus, ("yes", "no"))
    assert [path.name for path in home.parent.iterdir()] == [".prepare-of-the-other"]
    prepared.prepare(corpus, ("yes", "no"))
    assert prepared.words() == ["no", "yes"]


def test_with_an_open_mask_it_is_still_not_open_to_everybody(corpus, home):
    code = "import os, sys, pathlib; os.umask(0); from melcnn.data.prepared import prepare; "
    code += "prepare(pathlib.Path(sys.argv[1]), ('yes', 'no'))"
    subprocess.run([sys.executable, "-c", code, corpus], check=True, cwd=Path(__file__).parents[3])
    made = [home.parent, home, *home.rglob("*")]
    assert len(made) > 80 and not [path for path in made if path.stat().st_mode & 0o002]


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
