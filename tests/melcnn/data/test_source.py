"""Archives of somebody's making: each what one hostile member, header or stream is, and the line that refuses it."""

import bz2
import functools
import gzip
import io
import lzma
import random
import sys
import tarfile

import pytest

from bench.studies import mutators
from melcnn import InputError
from melcnn.data import source
from melcnn.data.source import members, printable


def tar(*members, path, format=tarfile.PAX_FORMAT):
    """An archive at `path` of `(name, content)`, or of `TarInfo`s with another type than a file's."""
    with tarfile.open(path, "w", format=format) as archive:
        for each in members:
            if isinstance(each, tarfile.TarInfo):
                archive.addfile(each)
                continue
            info = tarfile.TarInfo(each[0])
            info.size = len(each[1])
            archive.addfile(info, io.BytesIO(each[1]))
    return path


def special(name, kind, link="", **changes):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    for attribute, value in changes.items():
        setattr(info, attribute, value)
    return info


def refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        list(members(path, ["yes"]))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.tar"


GOOD = ("yes/a.wav", b"sound")


@pytest.mark.parametrize(
    "name",
    ["yes\\..\\..\\evil.wav", "C:/evil.wav", "\\\\host\\share\\evil.wav", "//yes/a.wav", "yes/../a.wav"],
)
def test_a_name_that_points_outside_on_any_system(path, name):
    refused(tar(GOOD, (name, b""), path=path), "points outside")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device_or_a_pipe_wherever_it_lies(path, kind):
    refused(tar(GOOD, special("elsewhere/null", kind), path=path), "a device or a pipe as a member, 'elsewhere/null'")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_place_of_a_recording(path, kind):
    refused(tar(GOOD, special("yes/b.wav", kind, "yes/a.wav"), path=path), "holds yes/b.wav as a link, .* --deref")
    # Where nobody would read it, it does no harm.
    assert len(list(members(tar(GOOD, special("no/b.wav", kind, "yes/a.wav"), path=path), ["yes"]))) == 1


def test_a_recording_of_more_bytes_than_one_has(path, monkeypatch, tmp_path):
    monkeypatch.setattr(source, "MAX_BYTES", 4)
    refused(tar(GOOD, path=path), "holds yes/a.wav of 5 bytes, and a recording has at most 4: cut it into words")
    (tmp_path / "folder" / "yes").mkdir(parents=True)
    (tmp_path / "folder" / "yes" / "a.wav").write_bytes(b"sound")
    refused(tmp_path / "folder", "holds yes/a.wav of 5 bytes")


def test_more_members_than_any_data_set_has(path, monkeypatch):
    monkeypatch.setattr(source, "MAX_MEMBERS", 2)
    assert len(list(members(tar(GOOD, ("b", b""), path=path), ["yes"]))) == 1
    refused(tar(GOOD, ("b", b""), ("c", b""), path=path), "more than 2 members: give a part of it")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("skipped", [True, False])
def test_an_archive_that_unpacks_to_a_hundred_times_its_size(path, monkeypatch, pack, skipped):
    monkeypatch.setattr(source, "SMALL_BYTES", 1000)
    content = tar(GOOD, ("other/zeros" if skipped else "yes/b.wav", bytes(2_000_000)), path=path).read_bytes()
    path.write_bytes(pack(content))
    refused(path, "unpacks to more than 100 times its size")


def test_zeros_behind_the_end_of_an_archive_are_unpacked_too(path, monkeypatch):
    monkeypatch.setattr(source, "SMALL_BYTES", 1000)
    path.write_bytes(gzip.compress(tar(GOOD, path=path).read_bytes() + bytes(5_000_000)))
    refused(path, "unpacks to more than 100 times its size")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_of_megabytes_is_not_read(path, kind):
    refused(tar(GOOD, special("x", kind, size=2**20 + 1), path=path), "a header says a size of 1048577 bytes")


def test_a_size_below_nothing(path):
    tar(special("yes/a.wav", tarfile.REGTYPE, size=-512), path=path, format=tarfile.GNU_FORMAT)
    refused(path, "a header says a size of -512 bytes")


def test_a_size_that_no_archive_has_is_not_skipped_for_ever(path):
    tar(special("other/a", tarfile.REGTYPE, size=2**62), path=path, format=tarfile.GNU_FORMAT)
    refused(path, "ends too early")


@pytest.mark.parametrize(
    "said",
    [
        {"GNU.sparse.map": "x", "GNU.sparse.size": "1"},
        {"size": "-512"},
    ],
)
def test_more_about_a_member_that_cannot_be(path, said):
    refused(tar(special("yes/b.wav", tarfile.REGTYPE, pax_headers=said), path=path), "cannot be read as a folder or")


@pytest.mark.parametrize("name", ["yes/b.wav", "other/b"])
@pytest.mark.parametrize(
    "said",
    [
        {"GNU.sparse.map": "99999999,0", "GNU.sparse.size": "99999999"},
        {"GNU.sparse.size": "99999999", "GNU.sparse.offset": "99999999", "GNU.sparse.numbytes": "0"},
        # Of which tarfile reads the whole map, if the header asks for it.
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"},
        {},
    ],
)
def test_a_sparse_file_wherever_it_lies(path, name, said):
    tar(special(name, tarfile.REGTYPE, pax_headers=said), GOOD, path=path)
    if not said:
        path.write_bytes(mutators.sparse_member(name, random.Random(0)) + path.read_bytes()[tarfile.BLOCKSIZE :])
    refused(path, "holds a sparse file, which is not read: pack it without tar --sparse")


def test_a_thousand_headers_of_one_member(path, request):
    # tarfile reads each header within the last one; another library may have raised the limit on that.
    request.addfinalizer(functools.partial(sys.setrecursionlimit, sys.getrecursionlimit()))
    sys.setrecursionlimit(1000)
    one = tar(special("x", tarfile.XHDTYPE), path=path).read_bytes()[: tarfile.BLOCKSIZE]
    path.write_bytes(one * 3000 + tar(GOOD, path=path).read_bytes())
    refused(path, "cannot be read as a folder or a whole tar archive")


def test_what_a_name_would_have_a_terminal_do():
    assert printable("a\x1b[2J\nb\u202e") == "a\\x1b[2J\\nb\\u202e"
    assert printable("\udcff") == "\\xff" and printable("Grüße 👋") == "Grüße 👋"
