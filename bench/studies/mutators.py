"""Damaged and malicious inputs: bytes, JSON, tables, tar archives, checkpoints and cached arrays.

Pure functions of their arguments and a random generator: the same generator makes the same input again.
"""

import bz2
import copy
import gzip
import io
import json
import lzma
import random
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

# Values at which sizes, counts and offsets go wrong.
INTEGERS = [
    *(0, 1, 2, 3, 4, 7, 8, 16, 64, 100, 127, 128, 255, 256, 1000, 4096, 16_384, 32_767, 65_535, 65_536, 1_000_000),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**33, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -1, -2, -512, -(2**31), -(2**63)),
]

# Code that must never run leaves a folder of this name in the folder that is watched.
CANARY = "executed"
CODE = f"__import__('os').mkdir('{CANARY}')"

TEXTS = [
    *("", " ", "0", "-1", "nan", "inf", "1e400", "yes", "a\nb", "a\x00b", "\x1b[2J\x1b]0;x\x07", "\u202egnp", "\ufeff"),
    *("../evil", "/etc/evil", "..\\..\\evil", "C:/evil", "=1+1", "@SUM(A1)", '"', "'", ",", CODE, "\U0001f600" * 9),
    *("x" * 300, "x" * 70_000, "{{7*7}}", "<script>", "%s%n", "None", "true", "٣", "１"),
]

# Written into the text as they are, because no object prints so.
RAW_JSON = [
    *("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e-400", "-0.0", "0.1e1", "01", "+1", "1_0", "'a'", "nul"),
    *("1" * 400, "1" * 5000, "-" + "9" * 4300, '"\\ud800"', '"\\u0000"', '"\\u001b[2J"', '"\\x"', '"\\ud83d"', "[1,]"),
    *("[" * 500 + "]" * 500, "[" * 50_000, '{"a":' * 400 + "1" + "}" * 400, "[" + "0," * 20_000 + "0]"),
    *("[" + '"a",' * 20_000 + '"a"]', '{"a":1,"a":2}', "/**/1", "", "{", "]"),
]


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Return `content` with one to sixteen random changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        content = rng.choice(_BYTE_CHANGES)(content, rng)
    return content


def _position(content: bytes, rng: random.Random) -> int:
    # Near the start more often than elsewhere: headers say how the rest is read.
    return rng.randrange(1 + min(len(content), rng.choice((16, 64, 512, len(content)))))


def _flip(content: bytes, rng: random.Random) -> bytes:
    at = _position(content, rng)
    return content[:at] + bytes(byte ^ 1 << rng.randrange(8) for byte in content[at : at + 1]) + content[at + 1 :]


def _truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _delete(content: bytes, rng: random.Random) -> bytes:
    at = _position(content, rng)
    return content[:at] + content[at + rng.choice((1, 2, 4, 8, 100, 512)) :]


def _insert(content: bytes, rng: random.Random) -> bytes:
    at = _position(content, rng)
    new = rng.choice((rng.randbytes(rng.randrange(1, 40)), bytes([rng.randrange(256)]) * 4096))
    return content[:at] + new + content[at:]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    begin, to = _position(content, rng), _position(content, rng)
    part = content[begin : begin + rng.choice((1, 4, 16, 512, 4096))]
    return content[:to] + part * rng.choice((1, 2, 16)) + content[to:]


def _overwrite(content: bytes, rng: random.Random) -> bytes:
    at = _position(content, rng)
    size, order = rng.choice(((1, "big"), *((n, o) for n in (2, 3, 4, 8) for o in ("big", "little"))))
    value = (rng.choice(INTEGERS) % 256**size).to_bytes(size, order)
    return content[:at] + value + content[at + size :]


_BYTE_CHANGES = (_flip, _flip, _truncate, _delete, _insert, _repeat, _overwrite, _overwrite)


def mutate_json(content: object, rng: random.Random) -> str:
    """Return JSON of `content` with one to four changes of values, keys and lists; some texts are not valid JSON."""
    content = copy.deepcopy(content)
    raw: list[str] = []

    def value() -> object:
        if rng.random() < 0.4:
            raw.append(rng.choice(RAW_JSON))
            return f"\x00{len(raw) - 1}\x00"
        return rng.choice(
            [
                *(None, True, False, [], {}, [[]], {"a": 1}, 0.5, -1.5, 1e308, 5e-324, 1e30, [0] * 3, ["a", "a"]),
                *(rng.choice(INTEGERS), rng.choice(TEXTS), rng.random(), rng.randrange(100)),
            ]
        )

    for _ in range(rng.choice((1, 1, 2, 4))):
        _change(rng.choice(_places([content])), value, rng)
    text = json.dumps(content)
    for number, one in enumerate(raw):
        text = text.replace(json.dumps(f"\x00{number}\x00"), one)
    return text


def json_mutator(seed: Callable[[], object]) -> Callable[[random.Random], bytes]:
    """Return a function that makes files of what `seed` returns, changed as JSON and sometimes as bytes too."""

    def mutate(rng: random.Random) -> bytes:
        content = mutate_json(seed(), rng).encode(errors="surrogatepass")
        return mutate_bytes(content, rng) if rng.random() < 0.1 else content

    return mutate


def _places(content: Any) -> list[tuple[Any, int | str]]:
    """Return every value inside as its container and key; the first five of each list."""
    keys: Iterable[int | str]
    keys = list(content) if isinstance(content, dict) else range(min(len(content), 5))
    found = [(content, key) for key in keys]
    return found + [p for key in keys if isinstance(content[key], list | dict) for p in _places(content[key])]


def _change(place: tuple[Any, int | str], value: Callable[[], object], rng: random.Random) -> None:
    within, key = place
    old = within[key]
    what = rng.randrange(8)
    if what == 0 and isinstance(within, dict):
        del within[key]
    elif what == 1 and isinstance(within, dict):
        within[rng.choice([*TEXTS, *within])] = within.pop(key)
    elif what == 2 and isinstance(old, dict):
        old[rng.choice(["surprise", "format_version", "trial", *TEXTS])] = value()
    elif what == 3 and isinstance(old, list):
        within[key] = old[: rng.randrange(len(old) + 1)] + [value()] * rng.choice((0, 1, 3))
    elif what == 4 and isinstance(old, list):
        within[key] = old * rng.choice((0, 2, 10))
    elif what == 5 and isinstance(old, int | float):
        within[key] = rng.choice((-old, old + 1, old * 2, old / 2, old * 1e10, str(old), float(old)))
    else:
        within[key] = value()


def mutate_table(content: str, rng: random.Random) -> str:
    """Return CSV with one to four changes of cells, lines or columns."""
    lines = [line.split(",") for line in content.splitlines()]
    for _ in range(rng.choice((1, 1, 2, 4))):
        row = rng.randrange(len(lines)) if lines else 0
        what = rng.randrange(8)
        if not lines or what == 0:
            lines.insert(row, [rng.choice(TEXTS)] * rng.choice((0, 1, 3, 300)))
        elif what == 1:
            del lines[row]
        elif what == 2:
            lines += [lines[row]] * rng.choice((1, 50))
        elif what == 3:
            lines[row] = lines[row][: rng.randrange(len(lines[row]) + 1)]
        elif lines[row]:
            lines[row][rng.randrange(len(lines[row]))] = rng.choice(
                [*TEXTS, str(rng.choice(INTEGERS)), '"unclosed', "x" * 200_000, "1e308", "5e-324", "-0.5", "9" * 5000]
            )
    return rng.choice(("\n", "\n", "\r\n", "\r")).join(",".join(line) for line in lines) + rng.choice(("\n", ""))


def sort_header(content: bytes) -> bytes:
    """Return a safetensors file with the keys of its header sorted; the library writes them in any order."""
    header, tensors = _split(content)
    return _join(json.dumps(header, sort_keys=True), tensors)


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the tensors of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _join(header: str, tensors: bytes) -> bytes:
    new = header.encode(errors="surrogatepass")
    return len(new).to_bytes(8, "little") + new + tensors


def mutate_checkpoint(content: bytes, rng: random.Random) -> bytes:
    """Return a safetensors file with another header, configuration or tensors; the lengths mostly agree."""
    header, tensors = _split(content)
    metadata = header["__metadata__"]
    what = rng.randrange(6)
    if what < 3:
        key = rng.choice(("trial", "about"))
        metadata[key] = mutate_json(json.loads(metadata[key]), rng)
    elif what == 3:
        name = rng.choice([name for name in header if name != "__metadata__"])
        header[name]["dtype"] = rng.choice(
            "BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0 F4 F6_E2M3 I16 U16 F16 BF16 I32 U32 F32 C64 I64 U64 F64 X".split()
        )
    elif what == 4:
        tensors = mutate_bytes(tensors, rng)
    text = mutate_json(header, rng) if rng.random() < 0.4 else json.dumps(header)
    made = _join(text, tensors)
    return (rng.choice(INTEGERS) % 2**64).to_bytes(8, "little") + made[8:] if rng.random() < 0.05 else made


class _Bomb:
    """An object whose pickle runs code: it makes the folder `CANARY`."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        import os

        return os.mkdir, (CANARY,)


def pickles() -> list[bytes]:
    """Return files that run code if they are loaded as pickles."""
    import pickle

    import torch

    zipped = io.BytesIO()
    torch.save({"a": _Bomb()}, zipped)
    arrays = io.BytesIO()
    np.savez(arrays, waveforms=np.array([_Bomb()], object), fingerprint=np.array(_Bomb(), object))
    return [*(pickle.dumps(_Bomb(), protocol) for protocol in range(6)), zipped.getvalue(), arrays.getvalue()]


def mutate_arrays(content: bytes, rng: random.Random) -> bytes:
    """Return an `.npz` file with arrays that are missing, pickled, or of another shape or type."""
    with np.load(io.BytesIO(content)) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(list(arrays))
        array = arrays.pop(name)
        others = (
            array[None],
            array.ravel()[:-1],
            array.astype(rng.choice(("i4", "u2", "f4", "c8", "?", "S9")) if array.dtype.kind in "iufb" else str),
            np.array(_Bomb(), object),
            np.zeros(rng.choice(((0,), (3, 0), (2, 2, 2)))),
            np.array(rng.choice([text for text in TEXTS if len(text) < 400])),
        )
        if (what := rng.randrange(1 + len(others))) < len(others):
            arrays[name] = others[what]
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


# Names of members of an archive.
NAMES = [
    *("../evil.wav", "/var/tmp/evil.wav", "yes/../../evil.wav", "yes/..", "yes/../no/a.wav", "..", "", ".", "/"),
    *("//yes/a.wav", "yes/\x1b[2J.wav", "yes/a\nb.wav", "yes/\udcff\udc80.wav", "yes/a\x00b.wav", "yes/ .wav"),
    *("a/" * 2000 + "yes/b.wav", "yes\\..\\..\\evil.wav", "yes/..\\evil.wav", "C:/evil.wav", "yes/C:b.wav"),
    *("validation_list.txt", "yes/validation_list.txt", "testing_list.txt/a.wav", "_background_noise_/n.wav"),
    *("yes/" + "a" * 300 + ".wav", "yes/b.wav/c.wav", "no/e\u0301.wav", "yes/\u202egnp.wav", "./yes/d.wav"),
    *("yes/new.wav", "yes/.b.wav", "yes", "maybe/a.wav", ".origin"),
]


def make_archive(files: Sequence[tuple[str, bytes]], rng: random.Random) -> bytes:
    """Return a tar archive of `files` and one to four members that no honest archive has, compressed or not."""
    members = [_member(name, content) for name, content in files]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        members.insert(rng.randrange(len(members) + 1), _odd_member(files, rng))
    archive = b"".join(members) + bytes(rng.choice((1024, 1024, 10_240, 512, 0)))
    if rng.random() < 0.2:
        archive = mutate_bytes(archive, rng)
        if rng.random() < 0.5:
            archive = _fix_checksums(archive)
    if rng.random() < 0.01:  # A bomb: compressed, it is a thousandth of its size.
        archive = archive[:-1024] + _member("yes/bomb.wav", bytes(50_000_000)) + bytes(1024)
    packers = (bytes, bytes, bytes, lambda a: gzip.compress(a, 6, mtime=0), bz2.compress, lzma.compress)
    packed = rng.choice(packers)(archive)
    return mutate_bytes(packed, rng) if packed is not archive and rng.random() < 0.2 else packed


def _odd_member(files: Sequence[tuple[str, bytes]], rng: random.Random) -> bytes:
    name, link, content = rng.choice(NAMES), rng.choice(NAMES), rng.choice(files)[1]
    kind = rng.choice([bytes([k]) for k in b"\x0012345673LKSxgXDZNMV"]) if rng.random() < 0.3 else b"0"
    size = rng.choice(INTEGERS) if rng.random() < 0.2 else len(content)
    odd = _member(name, content if rng.random() < 0.9 else b"", kind, link, size)
    if kind == b"S" and rng.random() < 0.5:
        odd = sparse_member(name, rng)
    if rng.random() < 0.3:
        odd = _extension_header(name, link, rng) * rng.choice((1, 1, 2, 300, 1500)) + odd
    return odd


def sparse_member(name: str, rng: random.Random) -> bytes:
    """Return a sparse file of GNU tar that is nothing but a hole of any size, in a header of 512 bytes."""
    block = bytearray(_member(name, b"", b"S"))
    real = rng.choice((2**20, 2**26, 2**27, 2**32, 8**11 - 1))
    block[257:265] = b"ustar  \0"
    block[386:410] = b"%011o\0" % real + b"%011o\0" % 0  # one piece, at the very end
    block[483:495] = b"%011o\0" % real
    return _fix_checksums(bytes(block))


def _extension_header(name: str, link: str, rng: random.Random) -> bytes:
    """Return a PAX or GNU header that describes the next member."""
    if rng.random() < 0.3:
        return _member("././@LongLink", name.encode(errors="surrogateescape") + b"\0", rng.choice((b"L", b"K")))
    number = str(rng.choice(INTEGERS))
    lines = {
        "path": name,
        "linkpath": link,
        "size": number,
        "mtime": rng.choice(("nan", "inf", "1e400", number, "x")),
        "uid": number,
        "hdrcharset": rng.choice(("BINARY", "x")),
        "GNU.sparse.major": rng.choice("01x"),
        "GNU.sparse.minor": rng.choice("01"),
        "GNU.sparse.map": rng.choice(("0,1", f"0,{number}", f"{number},1,2", "x", "," * 1000)),
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": number,
        "GNU.sparse.size": number,
        "GNU.sparse.offset": number,
        "GNU.sparse.numbytes": number,
    }
    chosen = rng.sample(sorted(lines), rng.randrange(1, 4))
    content = b"".join(_pax_line(key, lines[key], rng) for key in chosen)
    return _member("PaxHeaders/x", content, rng.choice((b"x", b"x", b"g", b"X")))


def _pax_line(key: str, value: str, rng: random.Random) -> bytes:
    text = b" %s=%s\n" % (key.encode(), value.encode(errors="surrogateescape"))
    length = len(text) + len(str(len(text)))
    length += len(str(length)) - len(str(len(text)))
    stated = rng.choice(INTEGERS) if rng.random() < 0.05 else length
    return str(stated).encode() + text


def _member(name: str, content: bytes, kind: bytes = b"0", link: str = "", size: int | None = None) -> bytes:
    """Return a header of 512 bytes, with a right checksum whatever it says, and `content` in whole blocks."""
    size = len(content) if size is None else size
    # Sizes beyond eleven octal digits, and below zero, are written in binary, with the highest bit set.
    digits = b"%011o\0" % size if 0 <= size < 8**11 else struct.pack(">Bxxxq", 0xFF if size < 0 else 0x80, size % 2**63)
    header = struct.pack(
        "100s8s8s8s12s12s8sc100s8s247x",
        name.encode(errors="surrogateescape")[:100],
        *(b"0000644\0", b"0000000\0", b"0000000\0", digits, b"00000000000\0", b" " * 8, kind),
        *(link.encode(errors="surrogateescape")[:100], b"ustar\x0000"),
    )
    return _fix_checksums(header) + content + bytes(-len(content) % 512)


def _fix_checksums(archive: bytes) -> bytes:
    """Return `archive` with right checksums in all blocks that look like headers."""
    blocks = [archive[at : at + 512] for at in range(0, len(archive), 512)]
    for number, block in enumerate(blocks):
        if block[257:262] == b"ustar" and len(block) == 512:
            total = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
            blocks[number] = block[:148] + b"%06o\0 " % total + block[156:]
    return b"".join(blocks)
