"""Where stacks are trained: what is lost is tried again, what ends is taken once, and nothing is left behind."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench.executors import processes, ray_worker
from bench.executors.events import EpochDone, Finished, Planned, Started
from bench.executors.jobs import TrainingJob
from bench.executors.processes import Processes
from bench.executors.threads import Threads
from bench.records import RESULTS_VERSION, RecordFolder
from bench.sweep.run import train_missing
from bench.system import environment
from melcnn import InputError
from melcnn.errors import Failed
from melcnn.kernels import cuda
from tests.executors.test_thread_pool import interrupt
from tests.helpers import stand_ins
from tests.helpers.configurations import plain
from tests.helpers.pages import ROOT
from tests.helpers.stand_ins import PATIENCE_SECONDS, on_events

SMALL = {"n_mels": 16, "channels": 16, "hop_length": 800, "n_fft": 256, "batch_size": 16}
TRIAL = plain(**SMALL)


# Real processes, which take seconds to start.


@pytest.fixture(scope="module")
def workers():
    """Two processes; what they do, a test decides before they start."""
    with Processes("cpu", 2) as executor:
        yield executor


@pytest.fixture
def alive():
    """The processes that this one has started and that run; of a test that leaves one, a failure."""
    before = children()
    yield lambda: children() - before
    assert not children() - before


def children():
    """Those of this process, but for the one that `multiprocessing` keeps for itself until the end."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            command = (path.parent / "cmdline").read_bytes()
        except (OSError, ValueError):  # It has just ended.
            continue
        if parent == os.getpid() and b"resource_tracker" not in command and command:
            found.add(int(path.parent.name))
    return found


def test_processes_give_what_threads_give(workers, clips, tmp_path):
    trials, heard = [plain(groups=groups, epochs=2, **SMALL) for groups in (1, 2)], []
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)  # the number of stacks at once, on which the plan of stacks depends
        ours, _ = train_missing(trials, 4, clips, RecordFolder(tmp_path / "threads"), Threads("cpu"))
        theirs, _ = train_missing(trials, 4, clips, RecordFolder(tmp_path / "processes"), workers, heard.append)
    finally:
        torch.set_num_threads(before)
    assert [record.identity for record in ours] == [record.identity for record in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert (one.test, one.train_loss, one.stack) == (other.test, other.train_loss, other.stack)
        assert one.environment == other.environment and one.kernels == other.kernels
    # Each stack is told of from its beginning to its end, epoch by epoch.
    of_jobs = [event for event in heard if not isinstance(event, Planned)]
    assert len({event.job.seeds for event in of_jobs}) > 1
    for job in {event.job for event in of_jobs}:
        told = [event for event in of_jobs if event.job == job]
        assert [type(event) for event in told] == [Started, EpochDone, EpochDone, Finished]
        assert [(event.seeds, event.epoch.number) for event in told[1:3]] == [(job.seeds, 1), (job.seeds, 2)]


@pytest.mark.parametrize("work, again", [(stand_ins.killed_once, True), (stand_ins.killed_by_seed_1, False)])
def test_a_process_that_is_killed_costs_its_own_stack_alone(clips, tmp_path, alive, caplog, work, again):
    trial = plain((str(tmp_path / "killed"), "no"), **SMALL)
    took = {}
    with Processes("cpu", 2, work) as executor:
        jobs = [TrainingJob(trial, (seed,)) for seed in range(4)]
        executor.run(jobs, 2, clips, on_events(lambda job, outcome: took.update({job.seeds: outcome})))
    noted = caplog.messages
    assert took.keys() == {(0,), (1,), (2,), (3,)}
    failures = [failure for outcome in took.values() for failure in outcome.failures]
    killed = "was killed (SIGKILL, with which the system ends what takes too much memory)"
    assert [f.message for f in failures] == ([] if again else [f"its worker {killed}, 2 times"])
    assert noted[0].endswith(f" seed 1: its worker {killed}; it is tried again") and len(noted) == 2 - again
    assert all(len(outcome.stacks) == 1 for seeds, outcome in took.items() if seeds != (1,))


def test_an_interruption_leaves_no_process(clips, alive):
    seen = []

    def epoch(job, stack, epoch):
        if not seen:
            interrupt()
        seen.append((job.seeds, len(alive())))

    with Processes("cpu", 2, stand_ins.endless) as executor, pytest.raises(KeyboardInterrupt):
        executor.run([TrainingJob(TRIAL, (seed,)) for seed in range(3)], 2, clips, on_events(pytest.fail, epoch=epoch))
    assert seen and seen[0][1] == 2


def test_a_process_computes_in_the_precision_of_this_one(clips, alive):
    said = []
    with cuda.computing_in("tf32"), Processes("cpu", 1, stand_ins.precise) as executor:
        executor.run([TrainingJob(TRIAL, (0,))], 1, clips, on_events(lambda job, outcome: said.append(outcome)))
    assert [failure.message for outcome in said for failure in outcome.failures] == ["tf32"]


def test_a_task_computes_in_the_precision_of_the_driver():
    with cuda.computing_in("fp32"):
        assert ray_worker.on_worker(RESULTS_VERSION, "tf32", cuda.precision) == "tf32"


def test_an_input_error_of_a_process_is_raised_here(clips, alive):
    with Processes("cpu", 1, stand_ins.refused) as executor, pytest.raises(InputError, match="nothing can be trained"):
        executor.run([TrainingJob(TRIAL, (0,))], 1, clips, on_events(pytest.fail))


def test_processes_that_do_not_come_up_are_no_failures_of_trainings(clips, alive, monkeypatch):
    monkeypatch.setattr(processes, "_serve", os._exit)  # with its first argument, which is no number: exit code 1
    with Processes("cpu", 1) as executor, pytest.raises(Failed, match=r"could not be started .*exit code 1.*--jobs"):
        executor.run([TrainingJob(TRIAL, (0,))], 1, clips, on_events(pytest.fail))


def test_a_signal_of_ours_is_nobody_elses(alive):
    with Processes("cpu", 1) as executor:
        executor.start(0)
        assert executor.end(0) is None and not executor.workers
        assert executor.end(0) is None
    assert processes._exit_reason(None) == "fell silent"


def test_a_process_that_ends_before_it_has_come_up_is_started_again(clips, alive, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(processes, "_serve", stand_ins.come_up_the_second_time)
    monkeypatch.setenv(stand_ins.MARK, str(tmp_path / "started"))
    took = []
    with Processes("cpu", 1, stand_ins.learned) as executor:
        on_event = on_events(lambda job, outcome: took.append((job.seeds, outcome.failures)))
        executor.run([TrainingJob(TRIAL, (0,))], 1, clips, on_event)
    noted = caplog.messages
    assert took == [((0,), [])]
    assert len(noted) == 1 and noted[0].endswith(" seed 0: its worker ended with exit code 1; it is tried again")


def test_processes_that_do_not_come_up_beside_one_that_did_are_told(clips, alive, monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "_serve", stand_ins.come_up_the_first_time)
    monkeypatch.setenv(stand_ins.MARK, str(tmp_path / "started"))
    with Processes("cpu", 2, stand_ins.endless) as executor, pytest.raises(Failed, match="could not be started"):
        executor.run([TrainingJob(TRIAL, (0,)), TrainingJob(TRIAL, (1,))], 2, clips, on_events(pytest.fail))


SWEEP = """
import os, pickle, signal, sys
from bench.executors.jobs import TrainingJob
from bench.executors.processes import Processes
from tests.executors.test_processes import TRIAL
from tests.helpers import stand_ins
from tests.helpers.stand_ins import on_events

clips, heard = pickle.load(open(sys.argv[1], "rb")), set()
signalled = []

def epoch(job, stack, epoch):
    heard.add(job)
    if len(heard) == 2 and not signalled:
        print(*(worker.process.pid for worker in executor.workers.values()), flush=True)
        signalled.append(True)
        {signal}

try:
    with Processes("cpu", 2, stand_ins.endless) as executor:
        executor.run([TrainingJob(TRIAL, (0,)), TrainingJob(TRIAL, (1,))], 2, clips, on_events(print, epoch=epoch))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "signalled, code",
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        # As a terminal does it, to all processes.
        ("os.killpg(0, signal.SIGINT)", 130),
    ],
)
def test_the_processes_of_a_sweep_that_is_killed_or_interrupted_end_in_silence(clips, tmp_path, signalled, code):
    (tmp_path / "clips").write_bytes(pickle.dumps(clips))
    command = [sys.executable, "-c", SWEEP.replace("{signal}", signalled), tmp_path / "clips"]
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, start_new_session=True, timeout=PATIENCE_SECONDS
    )
    assert run.returncode == code and not run.stderr
    pids = [int(pid) for pid in run.stdout.splitlines()[0].split()]
    assert len(pids) == 2
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Processes("cuda", 2).devices == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    assert Processes("cuda", 2).devices == ["5", "3"]
    with pytest.raises(InputError, match="--jobs 3: torch sees 2 CUDA devices.*--jobs 2 or fewer"):
        Processes("cuda", 3)


def test_capacity_of_threads_and_of_processes(monkeypatch):
    monkeypatch.setattr("bench.system.monitor.free_bytes", lambda device: 1000)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert (Threads("cpu").capacity.slots, Threads("cpu").capacity.free_bytes) == (4, 250)
    assert (Threads("cuda").capacity.slots, Threads("cuda").capacity.free_bytes) == (1, 1000)
    assert (Processes("cpu", 2).capacity.slots, Processes("cpu", 2).capacity.free_bytes) == (2, 500)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert (Processes("cuda", 8).capacity.slots, Processes("cuda", 8).capacity.free_bytes) == (8, 1000)


BAD = {
    "executor": (["--executor", "cloud"], "there is no executor 'cloud': use local or ray"),
    "jobs of ray": (["--executor", "ray", "--jobs", 2], "--jobs counts processes of --executor local"),
    "address without ray": (["--ray-address", "auto"], "--ray-address goes with --executor ray"),
    "no jobs": (["--jobs", 0], "--jobs"),
}


@pytest.mark.parametrize("arguments, message", BAD.values(), ids=BAD)
@pytest.mark.parametrize("command", ["sweep groups", "recommend groups", "reproduce"])
def test_options_that_do_not_go_together(melbench, corpus, tmp_path, command, arguments, message):
    code, out, err = melbench(*command.split(), "--data", corpus, "--out", tmp_path, *arguments)
    assert code == 2 and not out and message in " ".join(err.split()) and "Traceback" not in err


def test_a_command_trains_in_processes(melbench, corpus, tmp_path, alive):
    arguments = ["sweep", "groups=1,2", *(f"{name}={value}" for name, value in SMALL.items()), "--data", corpus]
    arguments += ["--epochs", 1, "--seeds", 2, "--jobs", 2, "--out", tmp_path, "--format", "csv"]
    code, out, err = melbench(*arguments)
    assert code == 0 and len(out.splitlines()) == 3 and "2 at a time" in err
    records = RecordFolder(tmp_path).trials().values()
    assert len(records) == 4 and all(record.environment == environment.collect("cpu") for record in records)
