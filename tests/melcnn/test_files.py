import os
from pathlib import Path

import pytest

from melcnn.files import make_folder, opener, write_whole


def test_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a"
    write_whole(path, lambda file: file.write(b"one"))
    assert path.read_bytes() == b"one"

    def fail(file):
        file.write(b"two")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert path.read_bytes() == b"one" and os.listdir(tmp_path) == ["a"]


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o022)
    try:
        write_whole(tmp_path / "a", lambda file: file.write(b""))
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_what_an_open_mask_would_open_to_everybody(tmp_path):
    before = os.umask(0)
    try:
        make_folder(tmp_path / "a" / "b")
        write_whole(tmp_path / "a" / "b" / "c", lambda file: file.write(b""))
        with open(tmp_path / "d", "wb", opener=opener):
            pass
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"a": 0o775, "b": 0o775, "c": 0o664, "d": 0o664}


def test_a_folder_that_is_there_stays_as_it_is(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o700)
    make_folder(tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        make_folder(tmp_path / "file" / "b")


def test_file_and_folder_are_on_the_disk_before_and_after_the_rename(tmp_path, monkeypatch):
    done, path = [], tmp_path / "a.json"
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: done.append((os.readlink(f"/proc/self/fd/{fd}"), sync(fd))[0]))
    monkeypatch.setattr(Path, "replace", lambda one, other: done.append("renamed") or replace(one, other))
    write_whole(path, lambda file: file.write(b"content"))
    file, renamed, folder = done
    assert file.endswith(".tmp") and renamed == "renamed" and folder == str(tmp_path)
