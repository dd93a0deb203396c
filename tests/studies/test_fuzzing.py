"""The long command in its short form, and whether it finds what it looks for."""

import csv
import ctypes
import hashlib
import io
import json
import os
import pickle
import random
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from bench.report.findings import OUT_OF_FOLD
from bench.studies import fuzz_record_targets, fuzz_targets, fuzzing, mutators
from bench.studies.fuzz_targets import KINDS, Kind
from bench.studies.fuzzing import FINDING, REFUSED, VALUE, fuzz, main, make_input, message_problem
from melcnn import InputError
from melcnn.errors import Failed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="it needs Linux"),
]

ROOT = Path(__file__).parents[2]


def test_every_kind_is_read_or_refused(tmp_path, capsys):
    code = main(["100", str(tmp_path / "robustness")])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    with (tmp_path / "robustness" / "fuzzing.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == list(KINDS)
    for row in rows:
        assert int(row["inputs"]) == int(row["values"]) + int(row["refused"]) == 100
        # Damage that is never seen, or always, would find nothing. A damaged cache is never refused: it is made again.
        assert int(row["values"]) > 0 and (int(row["refused"]) > 0) == (row["kind"] != "cached clips"), row
    assert (tmp_path / "robustness" / "fuzzing.md").read_text().strip() == captured.out.strip()
    assert not (tmp_path / "robustness" / "findings").exists()


def test_the_same_seed_makes_the_same_inputs_in_every_process():
    code = "from tests.studies.test_fuzzing import digest; print(digest(0), digest(1))"
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    here = [digest(0), digest(1)]
    assert other.stdout.split() == here and here[0] != here[1]


def digest(seed):
    found = hashlib.sha256()
    for kind in KINDS:
        inputs = [make_input(kind, seed, index) for index in range(10)]
        # libsndfile writes the time into some formats, and at random a number into others.
        found.update(str([len(each) for each in inputs]).encode() if kind == "audio" else b"".join(inputs))
    return found.hexdigest()


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("record", fuzz_record_targets.trial_content()),
        ("fold record", fuzz_record_targets.fold_content()),
        ("failure record", fuzz_record_targets.failure_content()),
        ("timing record", fuzz_record_targets.timing_content()),
    ],
)
def test_a_record_is_put_to_all_uses_that_others_make_of_it(kind, content, tmp_path):
    text = json.dumps(content).encode()
    path = tmp_path / KINDS[kind].name(text)
    path.write_bytes(text)
    _, (checked, (found,), marks, (merged,)) = KINDS[kind].read(path)
    # Together with the other records it makes one whole chapter.
    chapter = found.chapter
    assert [len(of) for of in (chapter.trials, chapter.folds, chapter.timings, chapter.failures)] == [4, 10, 1, 1]
    assert found.decided and found.basis == OUT_OF_FOLD and len(marks) == 2
    assert json.loads(checked[0])[0]["findings"] == 0
    assert merged.records == {"trial": 14, "failure": 1, "timing": 1} and merged.written == 0


def test_holes_of_gigabytes_are_among_the_odd_members():
    odd = [mutators._odd_member([("yes/a.wav", b"sound")], random.Random(number)) for number in range(2000)]
    holes = [member for member in odd if member[257:265] == b"ustar  \0"]
    with tarfile.open(fileobj=io.BytesIO(b"".join(holes) + bytes(1024))) as archive:
        sizes = [member.size for member in archive if member.issparse()]
    assert len(sizes) == len(holes)
    assert min(sizes) >= 2**20 and max(sizes) > 2**32 and {*map(len, holes)} == {tarfile.BLOCKSIZE}


def _raise(path):
    raise KeyError("epochs")


def _raise_by_itself(path):
    class Panic(BaseException):
        pass

    raise Panic("thread 'main' panicked")


def _hang(path):
    while True:
        try:
            time.sleep(60)
        except Exception:  # as code does that takes any exception for damage
            continue


def _fill_the_memory(path):
    return bytearray(16 * fuzzing.MEMORY_BYTES)


def _write_where_it_runs(path):
    return Path("note").write_text("")


def _write_beside(path):
    return os.mkdir(path.parent.parent / "evil")


def _open_to_everybody(path):
    return path.with_name("a").touch()


def _complain(path):
    # An exception in a function that C calls cannot be caught.
    ctypes.CFUNCTYPE(None)(lambda: 1 // 0)()


def _unpickle(path):
    return pickle.loads(path.read_bytes())


def _start_a_program(path):
    return subprocess.run(["true"])


def _refuse(path):
    raise InputError(f"{path} is no input: give another")


def _fail(path):
    raise Failed(f"{path} cannot be read: try again")


READERS = {
    "raises": (_raise, FINDING, r"KeyError: 'epochs'.* test_fuzzing\.py:\d+"),
    "panics": (_raise_by_itself, FINDING, r"Panic: thread 'main' panicked"),
    "hangs": (_hang, FINDING, r"not done after 0\.2 s"),
    "fills the memory": (_fill_the_memory, FINDING, "MemoryError"),
    "writes where it runs": (_write_where_it_runs, FINDING, r"did what is forbidden: open /.*/outside/note"),
    "writes beside": (_write_beside, FINDING, r"did what is forbidden: os\.mkdir /.*/evil"),
    "opens to everybody": (_open_to_everybody, FINDING, r"left /.*/inside/a to be written by everybody"),
    "prints a traceback": (_complain, FINDING, r"printed a traceback: .*ZeroDivisionError"),
    "unpickles": (_unpickle, FINDING, r"did what is forbidden: pickle\.find_class \('\w+', 'mkdir'\)"),
    "starts a program": (_start_a_program, FINDING, r"did what is forbidden: subprocess\.Popen"),
    "refuses": (_refuse, REFUSED, ""),
    "fails": (_fail, REFUSED, ""),
    "reads": (Path.read_bytes, VALUE, ""),
}


def plant():
    """Replace all kinds by `READERS`, and the time limit by one that a test can wait for."""
    fuzzing.LIMIT_SECONDS = 0.2
    fuzz_targets.KINDS = {kind: Kind(lambda rng: mutators.pickles()[0], read) for kind, (read, *_) in READERS.items()}


def command(*arguments):
    """`python -m bench.studies.fuzzing` with `READERS`, in a process of its own: its limits stay with it."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.studies import test_fuzzing as t; t.plant(); "
    return [sys.executable, "-c", code + "t.main(sys.argv[1:])", *arguments]


@pytest.fixture
def planted(monkeypatch):
    real = fuzzing._command
    monkeypatch.setattr(fuzzing, "LIMIT_SECONDS", None)
    monkeypatch.setattr(fuzz_targets, "KINDS", None)
    monkeypatch.setattr(fuzzing, "_command", lambda *given: command(*real(*given)[3:]))
    plant()


def test_whatever_a_reader_does_that_it_must_not_is_a_finding(planted, monkeypatch, tmp_path):
    tallies = fuzz(list(READERS), 1, tmp_path)
    for kind, (_, outcome, says) in READERS.items():
        assert tallies[kind].outcomes == {VALUE: 0, REFUSED: 0, FINDING: 0, outcome: 1}, kind
        assert re.search(says, "".join(tallies[kind].findings)), tallies[kind].findings
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    expected = {f"{kind.replace(' ', '_')}-0-0" for kind, (_, outcome, _) in READERS.items() if outcome == FINDING}
    assert found == dict.fromkeys(expected, mutators.pickles()[0])
    # In this process, which must stay as it is.
    monkeypatch.setattr(fuzzing, "confine", lambda sandbox: sandbox.outside.mkdir())
    monkeypatch.setenv("MELBENCH_CACHE", "")
    assert fuzzing.replay(tmp_path / "raises-0-0") == f"finding: {tallies['raises'].findings[0]}"


# A process that answers as `work` does, but for some inputs.
UNRELIABLE = """
import json, os, signal, sys, time
count, inputs, done, kinds = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]
def say(line):
    os.write(1, line + b"\\n")
say(b"ready")
for kind, index in [(kind, index) for kind in kinds for index in range(count)][done:]:
    what = index if kind == "first" else 0
    os.makedirs(inputs, exist_ok=True)
    open(f"{inputs}/{kind}-5-{index}", "w").write(f"{kind} {index}")
    if what == 1: os.kill(os.getpid(), signal.SIGKILL)
    if what == 2: os._exit(0)
    if what == 3: say(b"RIFF header")
    if what == 4: say(json.dumps([kind, 99, "value", "", 0.5]).encode())
    if what == 5: time.sleep(600)
    if what == 6: os.close(1); time.sleep(600)
    say(json.dumps([kind, index, "value", "", 0.5]).encode())
"""


def test_a_process_that_does_not_survive_an_input_is_one_finding(monkeypatch, tmp_path):
    monkeypatch.setattr(fuzzing, "PATIENCE_SECONDS", 2)

    def command(count, seed, root, done, kinds):
        return [sys.executable, "-I", "-S", "-c", UNRELIABLE, str(count), f"{root}/inputs", str(done), *kinds]

    monkeypatch.setattr(fuzzing, "_command", command)
    (tmp_path / "first-5-1").write_text("kept by an earlier run")
    tallies = fuzz(["first", "second"], 8, tmp_path, seed=5)
    assert tallies["first"].findings == [
        "the process ended with -9",
        "the process ended with 0",
        "the process said b'RIFF header\\n'",
        """the process said b'["first", 99, "value", "", 0.5]\\n'""",
        "the process said nothing for 2 s",
        "the process said b''",
    ]
    assert tallies["first"].outcomes == {VALUE: 2, REFUSED: 0, FINDING: 6}
    assert tallies["second"].outcomes == {VALUE: 8, REFUSED: 0, FINDING: 0} and tallies["second"].slowest == 0.5
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        f"first-5-{index}": f"first {index}" for index in range(1, 7)
    }


def test_a_process_that_does_not_start_finds_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(fuzzing, "_command", lambda *given: [sys.executable, "-I", "-S", "-c", "print('no torch')"])
    with pytest.raises(Failed, match=r"does not start \(it said b'no torch\\n'\)"):
        fuzz(["audio"], 3, tmp_path)


@pytest.mark.parametrize("message", ["", "two\nlines", "\x1b[2J", "half \ud800", "\u2028", "x" * 501])
def test_what_is_no_message(message):
    assert message_problem(message) and not message_problem("Grüße from 'a b.wav' …"[:500])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give 'COUNT FOLDER"),
        (("ten", "folder"), "give 'COUNT FOLDER"),
        (("10", "folder", "video"), "no kind 'video': use any of archive, audio, cached clips"),
        (("replay", "video-0-1"), "video-0-1 does not begin with a kind"),
    ],
)
def test_bad_input(arguments, says):
    with pytest.raises(InputError, match=says):
        main(arguments)
