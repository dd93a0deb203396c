"""Read thousands of mutated files of each kind as the commands do, and report those not refused in one line.

    python -m bench.studies.fuzzing 10000 results/robustness          all kinds, or those named after the folder
    python -m bench.studies.fuzzing replay results/robustness/findings/audio-0-17

A finding is an exception, a hang, a crash, a lack of memory, a file outside the folder or open to everybody, or code
that ran. Each is kept as a file. The same seed makes the same inputs again, except for audio: it is in the formats that
this build of libsndfile knows, and libsndfile writes the time into some.
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
from typing import Any

from bench.cli.output import keep
from bench.cli.terminal import finish, note
from bench.formats import Sheet, sheet_of, show
from bench.studies.mutators import CANARY
from melcnn.errors import Failed, InputError, first_line
from melcnn.files import make_folder, opener

VALUE, REFUSED, FINDING = "value", "refused", "finding"

# The limit for one input, and the time after which a process that does not react to its alarm is ended.
LIMIT_SECONDS = 5.0
PATIENCE_SECONDS = 60.0
# Memory that an input may take, beyond the imports. Inputs are small: only one that asks for this much needs it.
MEMORY_BYTES = 2 * 2**30
# Characters of a message; one that says what to do is shorter, whatever names it quotes.
MAX_MESSAGE = 500
SEED = 0

# Audit events that reading a file never needs.
FORBIDDEN = (
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "socket.connect"),
)
# Audit events that are allowed in the sandbox's folder only, and the number of paths among their first arguments.
CONFINED = {"open": 1, "os.mkdir": 1, "os.truncate": 1, "os.chmod": 1, "os.link": 2, "os.rename": 2, "os.symlink": 2}

# The first line of a process, once everything is imported.
READY = b"ready\n"


class _TimeOut(BaseException):
    """Raised when the time is over; no `except Exception` catches it."""


@dataclass
class Tally:
    """The outcomes of the inputs of one kind.

    Attributes:
        slowest: seconds of the slowest input.
        findings: what each finding was.
    """

    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys((VALUE, REFUSED, FINDING), 0))
    slowest: float = 0.0
    findings: list[str] = field(default_factory=list)


class Sandbox:
    """The folder that inputs are read in.

    Attributes:
        inside: where the input lies.
        outside: the working folder, in which nothing may appear.
        inputs: the input that is being read, and findings until they are kept.
        errors: the file of standard error.
        lasting: what stays from one input to the next.
    """

    def __init__(self, root: Path):
        self.root, self.inside, self.outside = root, root / "inside", root / "outside"
        self.inputs, self.errors = root / "inputs", root / "stderr"
        self.lasting = (self.outside, self.inputs, self.errors)

    def problem(self) -> str:
        """Return which file lies outside `inside` or is writable by everybody; empty if none does."""
        found = [path for path in self.root.iterdir() if path not in (self.inside, *self.lasting)]
        found += self.outside.iterdir()
        found += [path for path in self.inside.rglob("*") if "evil" in path.name or path.name == CANARY]
        if found:
            return f"wrote {found[0]}"
        shared = [p for p in self.inside.rglob("*") if not p.is_symlink() and p.stat().st_mode & 0o002]
        return f"left {shared[0]} to be written by everybody" if shared else ""


def judge(kind: str, content: bytes, sandbox: Sandbox) -> tuple[str, str]:
    """Read one input and return `VALUE`, `REFUSED` or `FINDING`, and the message or the problem."""
    from bench.studies.fuzz_targets import KINDS

    _clean(sandbox)
    sandbox.inside.mkdir(0o700)
    os.environ["MELBENCH_CACHE"] = str(sandbox.inside / "cache")
    path = sandbox.inside / KINDS[kind].name(content)
    with open(path, "xb", opener=opener) as file:
        file.write(content)
    errors_before = sandbox.errors.stat().st_size if sandbox.errors.exists() else 0
    _ALLOWED[:] = [str(sandbox.inside)]
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        KINDS[kind].read(path)
        outcome, message = VALUE, ""
    except (InputError, Failed) as error:
        outcome, message = REFUSED, str(error)
    except _TimeOut as error:
        outcome, message = FINDING, f"not done after {LIMIT_SECONDS:g} s: {_where(error)}"
    except BaseException as error:  # Including those that are no Exception: a panic of a library, an exit.
        outcome, message = FINDING, f"{first_line(error)}: {_where(error)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _ALLOWED.clear()
    problem = (
        (message_problem(message) if outcome == REFUSED else "")
        or (f"did what is forbidden: {_VIOLATIONS[0]}" if _VIOLATIONS else "")
        or sandbox.problem()
        or _printed_traceback(sandbox.errors, errors_before)
    )
    _VIOLATIONS.clear()
    return (FINDING, problem) if problem and outcome != FINDING else (outcome, message)


def _clean(sandbox: Sandbox) -> None:
    """Remove what the last input left, also outside `inside`: it is no finding of the next one."""
    for path in [*sandbox.root.iterdir(), *sandbox.outside.iterdir()]:
        if path in sandbox.lasting:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def message_problem(message: str) -> str:
    """Return why a message is not one line for a person; empty if it is."""
    if not message or len(message) > MAX_MESSAGE:
        return f"a message of {len(message)} characters: {message[:100]!r}"
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in message):
        return f"a message that is no line of text: {message!r}"
    return ""


def _where(error: BaseException) -> str:
    """Return the last lines of our own code that an exception went through."""
    frames = traceback.extract_tb(error.__traceback__)
    packages = {"bench", "melcnn"}
    ours = [f for f in frames if "fuzzing" not in f.filename and packages & {*Path(f.filename).parts}]
    return " ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in [*ours[-2:], *frames[-1:]])


def _printed_traceback(errors: Path, start: int) -> str:
    """Return the traceback that a callback of C printed since byte `start`, because it could not be caught."""
    if not errors.exists():
        return ""
    with errors.open("rb") as file:
        file.seek(start)
        text = file.read()
    return f"printed a traceback: {text[-200:]!r}" if b"Traceback" in text else ""


# The audit hook cannot be removed, so it reads its state here: the folders that may be written, empty between inputs.
_ALLOWED: list[str] = []
_VIOLATIONS: list[str] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _ALLOWED:
        return
    if event in FORBIDDEN:
        _VIOLATIONS.append(f"{event} {arguments!r:.200}")
    if event not in CONFINED or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return
    # An argument that is not text is the number of an open file.
    texts = [path for path in arguments[: CONFINED[event]] if isinstance(path, str | bytes)]
    for path in (os.path.abspath(os.fsdecode(text)) for text in texts):
        harmless = event == "os.mkdir" and os.path.isdir(path)  # it fails
        if not path.startswith((*_ALLOWED, os.devnull)) and not harmless:
            _VIOLATIONS.append(f"{event} {path}")


def _time_out(number: int, frame: object) -> None:
    raise _TimeOut


def confine(sandbox: Sandbox) -> None:
    """Prepare this process to read any input: an alarm, a memory limit, an audit hook, no kernels of ours."""
    import torch
    import torchaudio  # noqa: F401 - before the limits: a late import would count as the input's memory

    import bench.studies.fuzz_targets  # noqa: F401

    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    os.environ["MELBENCH_KERNELS"] = "torch"  # otherwise the first input would start a compiler
    os.umask(0)
    sandbox.outside.mkdir(exist_ok=True)
    sandbox.inputs.mkdir(exist_ok=True)
    os.chdir(sandbox.outside)
    signal.signal(signal.SIGALRM, _time_out)
    sys.addaudithook(_audit)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, now + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def make_input(kind: str, seed: int, index: int) -> bytes:
    """Return input `index` of a kind."""
    from bench.studies.fuzz_targets import KINDS

    return KINDS[kind].mutate(random.Random(f"{seed} {kind} {index}"))


def work(count: int, seed: int, root: Path, done: int, kinds: Sequence[str]) -> None:
    """Read the inputs of `_inputs` after the first `done`, and write one line of JSON for each to standard output."""
    sandbox = Sandbox(root)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    errors = os.open(sandbox.errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    confine(sandbox)
    answers.write(READY)
    for kind, index in _inputs(kinds, count)[done:]:
        content = make_input(kind, seed, index)
        kept = sandbox.inputs / _name(kind, seed, index)
        kept.write_bytes(content)
        begin = time.perf_counter()
        outcome, message = judge(kind, content, sandbox)
        seconds = time.perf_counter() - begin
        if outcome != FINDING and seconds > LIMIT_SECONDS:
            outcome, message = FINDING, f"took {seconds:.1f} s"
        if outcome != FINDING:
            kept.unlink()
        answers.write(json.dumps([kind, index, outcome, message, seconds]).encode() + b"\n")


def _name(kind: str, seed: int, index: int) -> str:
    return f"{kind.replace(' ', '_')}-{seed}-{index}"


def _inputs(kinds: Sequence[str], count: int) -> list[tuple[str, int]]:
    return [(kind, index) for kind in kinds for index in range(count)]


def fuzz(kinds: Sequence[str], count: int, kept: Path, seed: int = SEED) -> dict[str, Tally]:
    """Read inputs 0 to `count` - 1 of each kind in a process that may crash; findings go to the folder `kept`.

    Raises:
        Failed: if such a process does not start.
    """
    tallies = {kind: Tally() for kind in kinds}
    inputs = _inputs(kinds, count)
    done = 0
    with tempfile.TemporaryDirectory(prefix="melbench-fuzzing-") as root:
        while done < len(inputs):
            with subprocess.Popen(
                _command(count, seed, root, done, kinds), stdout=subprocess.PIPE, bufsize=0
            ) as process:
                for (kind, index), (outcome, message, seconds) in _outcomes(process, inputs[done:]):
                    done += 1
                    tally = tallies[kind]
                    tally.outcomes[outcome] += 1
                    tally.slowest = max(tally.slowest, seconds)
                    if outcome == FINDING:
                        tally.findings.append(message)
                        make_folder(kept)
                        name = _name(kind, seed, index)
                        with contextlib.suppress(FileNotFoundError):  # The input could not be made.
                            shutil.move(Sandbox(Path(root)).inputs / name, kept / name)
                        note(f"{kind} {index}: {message}")
    return tallies


def _command(count: int, seed: int, root: str, done: int, kinds: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "bench.studies.fuzzing", "work", str(count), str(seed), root, str(done), *kinds]


def _outcomes(
    process: subprocess.Popen[bytes], inputs: Sequence[tuple[str, int]]
) -> Iterator[tuple[tuple[str, int], tuple[str, str, float]]]:
    """Yield each input with outcome, message and seconds; one that the process did not survive is the last."""
    if (first := _read_line(process)) != READY:
        process.kill()
        raise Failed(f"the process that reads inputs does not start (it said {first!r:.100}): run it by itself")
    for expected in inputs:
        line = _read_line(process)
        try:
            kind, index, outcome, message, seconds = json.loads(line or b"")
            if (kind, index) != expected or outcome not in (VALUE, REFUSED, FINDING):
                raise ValueError
        except (ValueError, TypeError):
            yield expected, (FINDING, _end_process(process, line), 0.0)
            return
        yield expected, (outcome, message, seconds)


def _read_line(process: subprocess.Popen[bytes]) -> bytes | None:
    """Return the next line, empty at the end; None if there is none for `PATIENCE_SECONDS`."""
    assert process.stdout
    # Python does not buffer the pipe, so that select sees all that can be read.
    return process.stdout.readline() if select.select([process.stdout], [], [], PATIENCE_SECONDS)[0] else None


def _end_process(process: subprocess.Popen[bytes], line: bytes | None) -> str:
    """End a process that wrote `line` instead of an answer, and return its problem."""
    if line == b"":
        with contextlib.suppress(subprocess.TimeoutExpired):
            return f"the process ended with {process.wait(PATIENCE_SECONDS)}"
    process.kill()
    return f"the process said nothing for {PATIENCE_SECONDS:g} s" if line is None else f"the process said {line!r:.100}"


def sheet(tallies: dict[str, Tally]) -> Sheet:
    """Return the table of outcomes, one row a kind."""
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
    legend = [
        "values: read all the same; refused: in one line.",
        f"findings: anything else, such as a traceback, a hang of more than {LIMIT_SECONDS:g} s, "
        f"{MEMORY_BYTES // 2**30} GB of memory, a crash, a file outside the folder, code that ran.",
    ]
    return sheet_of("files mutated at random, read as the commands read them", rows, legend)


def replay(path: Path) -> str:
    """Read a finding again, in this process, and return the outcome.

    Raises:
        InputError: if the file is not named as findings are.
    """
    from bench.studies.fuzz_targets import KINDS

    kind = path.name.partition("-")[0].replace("_", " ")
    if kind not in KINDS:
        raise InputError(f"{path.name} does not begin with a kind: name it as findings are, such as audio-0-17")
    content = path.read_bytes()
    with tempfile.TemporaryDirectory(prefix="melbench-fuzzing-") as root:
        sandbox = Sandbox(Path(root))
        confine(sandbox)
        return ": ".join(judge(kind, content, sandbox))


def main(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name; return 1 if there are findings, else 0.

    Raises:
        InputError: for other arguments.
    """
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
    return 0


if __name__ == "__main__":
    finish(functools.partial(main, sys.argv[1:]))
