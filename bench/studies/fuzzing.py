"""Reads thousands of mutated files of each kind as the commands do, and says what was not refused in one line.

    python -m bench.studies.fuzzing 10000 results/robustness          all kinds, or those named after the folder
    python -m bench.studies.fuzzing replay results/robustness/findings/audio-0-17

A finding is an exception, a hang, a crash, a lack of memory, a file outside the folder or open to everybody, or code
that ran. Each is kept as a file. The same seed makes the same inputs again, but for sounds: they are of the formats
that this build of libsndfile knows, and it writes the time into some.
"""

import contextlib
import functools
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.cli.output import keep
from bench.cli.terminal import finish, note
from bench.formats import Sheet, sheet_of, show
from bench.studies.mutators import CANARY
from melcnn.errors import Failed, InputError, first_line
from melcnn.files import make_folder, opener

VALUE, REFUSED, FINDING = "value", "refused", "finding"

# The limit for one input, and the time after which a process that does not even hear its alarm is ended.
SECONDS = 5.0
PATIENCE = 60.0
# Above what the process has when everything is imported. Inputs are small: whoever needs this much was told to.
MEMORY = 2 * 2**30
# A line that says what to do is shorter, whatever names it quotes.
LONGEST_LINE = 500
SEED = 0

# What reading a file has no business with.
FORBIDDEN = (
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "socket.connect"),
)
# What may be done in the folder alone: the number of paths that the event begins with.
PLACED = {"open": 1, "os.mkdir": 1, "os.truncate": 1, "os.chmod": 1, "os.link": 2, "os.rename": 2, "os.symlink": 2}

# What a process says first, when everything is imported.
READY = b"ready\n"


class _Hang(BaseException):
    """Out of time; no `except Exception` takes it for damage."""


@dataclass
class Tally:
    """What came of the inputs of one kind."""

    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys((VALUE, REFUSED, FINDING), 0))
    slowest: float = 0.0
    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Where inputs are read: in `inside`, with `outside` as the working folder, in which nothing may appear.

    inputs: the one in work, and findings until they are kept. errors: what was written to standard error.
    """

    root: Path

    @property
    def inside(self) -> Path:
        return self.root / "inside"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    @property
    def inputs(self) -> Path:
        return self.root / "inputs"

    @property
    def errors(self) -> Path:
        return self.root / "stderr"

    @property
    def lasting(self) -> tuple[Path, ...]:
        return self.outside, self.inputs, self.errors

    def amiss(self) -> str:
        """What lies where nothing should, or is open to everybody; empty if all is well."""
        found = [path for path in self.root.iterdir() if path not in (self.inside, *self.lasting)]
        found += self.outside.iterdir()
        found += [path for path in self.inside.rglob("*") if "evil" in path.name or path.name == CANARY]
        if found:
            return f"wrote {found[0]}"
        shared = [p for p in self.inside.rglob("*") if not p.is_symlink() and p.stat().st_mode & 0o002]
        return f"left {shared[0]} to be written by everybody" if shared else ""


def judge(kind: str, content: bytes, place: Place) -> tuple[str, str]:
    """Reads one input: `VALUE`, `REFUSED` or `FINDING`, and what was said or went wrong."""
    from bench.studies.fuzz_targets import KINDS

    _clear(place)
    place.inside.mkdir(0o700)
    os.environ["MELBENCH_CACHE"] = str(place.inside / "cache")
    path = place.inside / KINDS[kind].name(content)
    with open(path, "xb", opener=opener) as file:
        file.write(content)
    heard_before = place.errors.stat().st_size if place.errors.exists() else 0
    _WATCHED[:] = [str(place.inside)]
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        KINDS[kind].read(path)
        outcome, said = VALUE, ""
    except (InputError, Failed) as error:
        outcome, said = REFUSED, str(error)
    except _Hang:
        outcome, said = FINDING, f"not done after {SECONDS:g} s: {_where(sys.exc_info()[1])}"
    except BaseException as error:  # Also what is no Exception: a panic of a library, an exit.
        outcome, said = FINDING, f"{first_line(error)}: {_where(error)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _WATCHED.clear()
    wrong = (
        (untidy(said) if outcome == REFUSED else "")
        or (f"did what is forbidden: {_HEARD[0]}" if _HEARD else "")
        or place.amiss()
        or _complaint(place.errors, heard_before)
    )
    _HEARD.clear()
    return (FINDING, wrong) if wrong and outcome != FINDING else (outcome, said)


def _clear(place: Place) -> None:
    """Removes what the last input left, also where it should not be: it is no finding of the next one."""
    for path in [*place.root.iterdir(), *place.outside.iterdir()]:
        if path in place.lasting:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def untidy(message: str) -> str:
    """What is wrong with a message as one line for a person; empty if nothing is."""
    if not message or len(message) > LONGEST_LINE:
        return f"a message of {len(message)} characters: {message[:100]!r}"
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in message):
        return f"a message that is no line of text: {message!r}"
    return ""


def _where(error: BaseException) -> str:
    """The last lines of our own code that an exception went through."""
    frames = traceback.extract_tb(error.__traceback__)
    packages = {"bench", "melcnn"}
    ours = [f for f in frames if "fuzzing" not in f.filename and packages & {*Path(f.filename).parts}]
    return " ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in [*ours[-2:], *frames[-1:]])


def _complaint(errors: Path, start: int) -> str:
    """A traceback that a callback of C printed, because nobody could catch it."""
    if not errors.exists():
        return ""
    with errors.open("rb") as file:
        file.seek(start)
        heard = file.read()
    return f"printed a traceback: {heard[-200:]!r}" if b"Traceback" in heard else ""


_WATCHED: list[str] = []
_HEARD: list[str] = []


def _hook(event: str, arguments: tuple) -> None:
    if not _WATCHED:
        return
    if event in FORBIDDEN:
        _HEARD.append(f"{event} {arguments!r:.200}")
    if event not in PLACED or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return
    # What is no text is the number of a file that is open.
    paths = [os.path.abspath(os.fsdecode(path)) for path in arguments[: PLACED[event]] if isinstance(path, str | bytes)]
    for path in paths:
        harmless = event == "os.mkdir" and os.path.isdir(path)  # it fails
        if not path.startswith((*_WATCHED, os.devnull)) and not harmless:
            _HEARD.append(f"{event} {path}")


def _end(number: int, frame: object) -> None:
    raise _Hang


def confine(place: Place) -> None:
    """Makes this process one in which any input may be read: an alarm, a limit of memory, ears, no kernels of ours."""
    import torch
    import torchaudio  # noqa: F401 - before the limits: what is imported late would count as the input's

    import bench.studies.fuzz_targets  # noqa: F401

    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    os.environ["MELBENCH_KERNELS"] = "torch"  # else the first one starts a compiler
    os.umask(0)
    place.outside.mkdir(exist_ok=True)
    place.inputs.mkdir(exist_ok=True)
    os.chdir(place.outside)
    signal.signal(signal.SIGALRM, _end)
    sys.addaudithook(_hook)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def made(kind: str, seed: int, index: int) -> bytes:
    """Input `index` of a kind."""
    from bench.studies.fuzz_targets import KINDS

    return KINDS[kind].mutated(random.Random(f"{seed} {kind} {index}"))


def work(count: int, seed: int, root: Path, done: int, kinds: Sequence[str]) -> None:
    """A process of inputs: an answer a line for each of `_inputs`, but for the first `done`."""
    place = Place(root)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    errors = os.open(place.errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    confine(place)
    answers.write(READY)
    for kind, index in _inputs(kinds, count)[done:]:
        content = made(kind, seed, index)
        kept = place.inputs / _name(kind, seed, index)
        kept.write_bytes(content)
        begin = time.perf_counter()
        outcome, said = judge(kind, content, place)
        seconds = time.perf_counter() - begin
        if outcome != FINDING and seconds > SECONDS:
            outcome, said = FINDING, f"took {seconds:.1f} s"
        if outcome != FINDING:
            kept.unlink()
        answers.write(json.dumps([kind, index, outcome, said, seconds]).encode() + b"\n")


def _name(kind: str, seed: int, index: int) -> str:
    return f"{kind.replace(' ', '_')}-{seed}-{index}"


def _inputs(kinds: Sequence[str], count: int) -> list[tuple[str, int]]:
    return [(kind, index) for kind in kinds for index in range(count)]


def fuzz(kinds: Sequence[str], count: int, kept: Path, seed: int = SEED) -> dict[str, Tally]:
    """Reads inputs 0 to `count` - 1 of each kind in a process that may crash; findings go to the folder `kept`.

    Raises `Failed` if such a process does not even start.
    """
    tallies = {kind: Tally() for kind in kinds}
    inputs = _inputs(kinds, count)
    done = 0
    with tempfile.TemporaryDirectory(prefix="melbench-fuzzing-") as root:
        while done < len(inputs):
            with subprocess.Popen(
                _command(count, seed, root, done, kinds), stdout=subprocess.PIPE, bufsize=0
            ) as process:
                for (kind, index), (outcome, said, seconds) in _outcomes(process, inputs[done:]):
                    done += 1
                    tally = tallies[kind]
                    tally.outcomes[outcome] += 1
                    tally.slowest = max(tally.slowest, seconds)
                    if outcome == FINDING:
                        tally.findings.append(said)
                        make_folder(kept)
                        name = _name(kind, seed, index)
                        with contextlib.suppress(FileNotFoundError):  # It could not even be made.
                            shutil.move(Place(Path(root)).inputs / name, kept / name)
                        note(f"{kind} {index}: {said}")
    return tallies


def _command(count: int, seed: int, root: str, done: int, kinds: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "bench.studies.fuzzing", "work", str(count), str(seed), root, str(done), *kinds]


def _outcomes(
    process: subprocess.Popen, inputs: Sequence[tuple[str, int]]
) -> Iterator[tuple[tuple[str, int], tuple[str, str, float]]]:
    """Each input with what came of it; the last one is a finding if the process did not survive it, and is ended."""
    if (first := _line(process)) != READY:
        process.kill()
        raise Failed(f"the process that reads inputs does not start (it said {first!r:.100}): run it by itself")
    for expected in inputs:
        line = _line(process)
        try:
            kind, index, outcome, said, seconds = json.loads(line or b"")
            if (kind, index) != expected or outcome not in (VALUE, REFUSED, FINDING):
                raise ValueError
        except (ValueError, TypeError):
            yield expected, (FINDING, _end_of(process, line), 0.0)
            return
        yield expected, (outcome, said, seconds)


def _line(process: subprocess.Popen) -> bytes | None:
    """The next line, empty at the end; None if there is none for `PATIENCE`."""
    # The pipe has no buffer of Python's, so that select sees all that can be read.
    return process.stdout.readline() if select.select([process.stdout], [], [], PATIENCE)[0] else None


def _end_of(process: subprocess.Popen, line: bytes | None) -> str:
    """Ends a process that said `line` instead of an answer; what is wrong with it."""
    if line == b"":
        with contextlib.suppress(subprocess.TimeoutExpired):
            return f"the process ended with {process.wait(PATIENCE)}"
    process.kill()
    return f"the process said nothing for {PATIENCE:g} s" if line is None else f"the process said {line!r:.100}"


def sheet(tallies: dict[str, Tally]) -> Sheet:
    """What came of all inputs, a row a kind."""
    rows = [
        {
            "kind": kind,
            "inputs": sum(tally.outcomes.values()),
            "values": tally.outcomes[VALUE],
            "refused": tally.outcomes[REFUSED],
            "findings": tally.outcomes[FINDING],
            "slowest_time_s": round(tally.slowest, 2),
        }
        for kind, tally in tallies.items()
    ]
    legend = (
        "values: read all the same; refused: in one line; findings: anything else, such as a traceback, a hang of more "
        f"than {SECONDS:g} s, {MEMORY // 2**30} GB of memory, a crash, a file outside the folder, code that ran"
    )
    return sheet_of("files mutated at random, read as the commands read them", rows, legend)


def replay(path: Path) -> str:
    """Reads a finding again, in this process; what came of it. Raises `InputError` for a file that has not its name."""
    from bench.studies.fuzz_targets import KINDS

    kind = path.name.partition("-")[0].replace("_", " ")
    if kind not in KINDS:
        raise InputError(f"{path.name} does not begin with a kind: name it as findings are, such as audio-0-17")
    content = path.read_bytes()
    with tempfile.TemporaryDirectory(prefix="melbench-fuzzing-") as root:
        place = Place(Path(root))
        confine(place)
        return ": ".join(judge(kind, content, place))


def main(arguments: Sequence[str]) -> int | None:
    match list(arguments):
        case ["work", count, seed, root, done, *kinds]:
            work(int(count), int(seed), Path(root), int(done), kinds)
        case ["replay", path]:
            print(replay(Path(path)))
        case [count, folder, *kinds] if count.isdecimal():
            from bench.studies.fuzz_targets import KINDS

            if unknown := [kind for kind in kinds if kind not in KINDS]:
                raise InputError(f"there is no kind {unknown[0]!r}: use any of {', '.join(KINDS)}")
            tallies = fuzz(kinds or list(KINDS), int(count), Path(folder) / "findings")
            found = sheet(tallies)
            make_folder(Path(folder))
            keep(found, Path(folder) / "fuzzing.csv")
            show([found], "markdown")
            return int(any(tally.findings for tally in tallies.values()))
        case _:
            raise InputError("give 'COUNT FOLDER [KIND ...]' or 'replay FILE'")


if __name__ == "__main__":
    finish(functools.partial(main, sys.argv[1:]))
