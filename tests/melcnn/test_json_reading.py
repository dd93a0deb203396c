"""JSON that is whole, and what is none to rely on."""

import json
import os

import pytest

from melcnn import files
from melcnn.files import MAX_JSON_DIGITS, MAX_JSON_KEYS, read_json


@pytest.fixture
def read(tmp_path):
    def of(content):
        (tmp_path / "a.json").write_bytes(content)
        return read_json(tmp_path / "a.json")

    return of


def test_what_is_whole_is_as_json_reads_it(read):
    content = b'{"a": [1, -2.5, 1e3, NaN, null, true], "b": "\\u00fc \\ud83d\\udc4b", "c": {}, "d": 999999999999999999}'
    assert repr(read(content)) == repr(json.loads(content))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"seed": 1, "seed": 2}', "an object with a key twice"),
        (b"1" * (MAX_JSON_DIGITS + 1), "a number of more than 18 digits"),
        (b"-" + b"9" * 5000, "a number of more than 18 digits"),
        (json.dumps(dict.fromkeys(map(str, range(MAX_JSON_KEYS + 1)))).encode(), "an object of more than 1000 keys"),
        (b'["\\ud800"]', "half a character"),
        (b'{"\\udc4b\\ud83d": 1}', "half a character"),
        (b'["\xed\xa0\x80"]', "utf-8"),
        (b"\xff\xfe[\x00]\x00", "utf-8"),
        (b'["cut', "Unterminated"),
        (b"[1] 2", "Extra data"),
        (b"", "Expecting value"),
    ],
)
def test_what_is_refused(read, content, why):
    with pytest.raises(ValueError, match=why):
        read(content)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(OSError, match="not a regular file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")


def test_what_is_too_large_is_not_even_parsed(read, monkeypatch):
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 10)
    assert read(b"[12345678]") == [12345678]
    with pytest.raises(ValueError, match="longer than 10 bytes"):
        read(b"[" * 11)
