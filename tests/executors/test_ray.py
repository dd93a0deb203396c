"""Ray: a real cluster of several nodes on this machine, of which one is killed; what is told without one."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.executors.events import EpochDone
from bench.executors.jobs import TrainingJob
from bench.executors.retry import Lost
from bench.executors.threads import Threads
from bench.records import RecordFolder
from bench.sweep.run import sweep, train_missing
from melcnn import InputError
from melcnn.training import Epoch
from tests.executors.test_thread_pool import interrupt
from tests.helpers import stand_ins
from tests.helpers.configurations import plain
from tests.helpers.stand_ins import PATIENCE_SECONDS, on_events

pytestmark = pytest.mark.slow

SMALL = {"n_mels": 16, "channels": 16, "hop_length": 800, "n_fft": 256, "batch_size": 16}
TRIAL = plain(**SMALL)
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """However long a worker takes to come up, and what is told to arrive."""
    for name in ("PATIENCE_SECONDS", "REPORT_SECONDS"):
        monkeypatch.setattr(f"bench.executors.ray.{name}", PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def cluster():
    """Three nodes of two cores each, as Ray is told, and a connection to them."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def on(cluster, **more):
    from bench.executors.ray import Ray

    return Ray("cpu", cluster.address, **more)


@needs_ray
def test_forty_trials_of_which_a_node_is_killed_are_those_of_a_local_run(cluster, clips, tmp_path, two_threads, caplog):
    # Stacks of one seed each, so that 2 slots here and 6 there make no other stacks.
    trials = [plain(epochs=10, learning_rate=1e-4 * (1 + number), **SMALL) for number in range(40)]
    ours, _ = train_missing(trials, 1, clips, RecordFolder(tmp_path / "threads"), Threads("cpu"))
    victim, written = cluster.list_all_nodes()[-1], []
    folder = RecordFolder(tmp_path / "ray")
    keep = folder.write

    def write(record):
        written.append(record.file_name)
        if len(written) == 20:
            cluster.remove_node(victim, allow_graceful=False)
        keep(record)

    folder.write = write
    # However slow this machine is, the node has jobs in hand when it is killed.
    held = stand_ins.HeldOn(victim.node_id, tmp_path / "begun")
    with on(cluster, train=held) as executor:
        assert executor.capacity.slots == 6
        theirs, failed = train_missing(trials, 1, clips, folder, executor)
        # The cluster may hear of a node's end after those who worked there are heard of.
        deadline = time.monotonic() + PATIENCE_SECONDS
        while executor.capacity.slots != 4:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert not failed and len(written) == len(set(written)) == len(list(folder.path.glob("trial-*"))) == 40
    assert any("was lost" in note and "tried again" in note for note in caplog.messages)
    assert [record.identity for record in theirs] == [record.identity for record in ours]
    for one, other in zip(ours, theirs, strict=True):
        assert (one.test, one.validation, one.train_loss) == (other.test, other.validation, other.train_loss)
        assert one.environment == other.environment


@needs_ray
def test_a_sweep_is_timed_on_a_whole_node(cluster, clips, tmp_path):
    with on(cluster) as executor:
        cores = executor.run_alone(_cores_in_use)
        assert cores == (2, 2.0)
        result = sweep([plain(epochs=1, **SMALL)], 1, clips, RecordFolder(tmp_path), executor)
    assert result.timing.environment.threads == result.trials[0].environment.threads == 2
    assert len(list(tmp_path.glob("timing-*.json"))) == 1


def _cores_in_use():
    """Threads here, and the cores of this node that are taken."""
    import ray

    here = ray.get_runtime_context().get_assigned_resources()
    return torch.get_num_threads(), here["CPU"]


@needs_ray
def test_a_worker_that_is_always_killed_costs_its_own_seed_alone(cluster, clips):
    took = {}
    with on(cluster, train=stand_ins.killed_by_seed_1) as executor:
        on_event = on_events(lambda job, outcome: took.update({job.seeds: outcome}))
        executor.run([TrainingJob(TRIAL, (seed,)) for seed in range(4)], 4, clips, on_event)
    assert took.keys() == {(0,), (1,), (2,), (3,)}
    (failure,) = took[(1,)].failures
    assert failure.kind == "lost" and failure.message == "its worker was lost (WorkerCrashedError), 4 times"
    assert all(f"its worker on {socket.gethostname()} was" in line for line in failure.log.splitlines())
    assert len(failure.log.splitlines()) == 4 and took[(1,)].environment is None
    assert not any(took[(seed,)].failures for seed in (0, 2, 3))


@needs_ray
def test_epochs_are_reported_and_an_interruption_leaves_no_task(cluster, clips, capsys):
    before, epochs = signal.getsignal(signal.SIGTERM), []

    def epoch_done(job, stack, epoch):
        assert stack == job.seeds
        if epoch.number > 1 and not epochs:
            epochs.append(epoch.number)
            assert _mailboxes(cluster)
            interrupt()

    with on(cluster, train=stand_ins.endless) as executor, pytest.raises(KeyboardInterrupt):
        assert signal.getsignal(signal.SIGTERM) is before
        ray = executor.ray
        on_event = on_events(pytest.fail, epoch=epoch_done)
        late = threading.Timer(PATIENCE_SECONDS, interrupt)
        late.start()
        try:
            executor.run([TrainingJob(TRIAL, (seed,)) for seed in range(20)], 20, clips, on_event)
        finally:
            late.cancel()
        pytest.fail("not reached")
    assert epochs
    with on(cluster):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while _mailboxes(cluster) or ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert not capsys.readouterr().out  # which carries the result alone


def _mailboxes(cluster):
    """The processes of the mailboxes, by the name that Ray gives them: children of its nodes."""
    nodes = [process.process.pid for node in cluster.list_all_nodes() for process in node.all_processes["raylet"]]
    threads = [thread for node in nodes for thread in Path(f"/proc/{node}/task").iterdir()]
    children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    return [child for child in children if b"ray::Mailbox" in Path(f"/proc/{child}/cmdline").read_bytes()]


@needs_ray
def test_the_mailbox_may_die(cluster, clips):
    took, killed = [], []

    def take(job, outcome):
        took.append((job.seeds, outcome.failures))
        if not killed:  # More jobs are to begin than are in hand.
            killed.extend(_mailboxes(cluster))
            for process in killed:
                os.kill(process, signal.SIGKILL)

    with on(cluster, train=stand_ins.learned) as executor:
        executor.run([TrainingJob(TRIAL, (seed,)) for seed in range(40)], 40, clips, on_events(take))
    assert len(killed) == 1 and sorted(took) == [((seed,), []) for seed in range(40)]


@needs_ray
def test_a_loss_says_where_it_was():
    from bench.executors.ray import _Pool

    epoch = Epoch(3, [0.5], [True])
    # Told before, and asked for anew when there is a loss; of the last job nothing is known, and the ninth is no more.
    told = iter([{7: ("here", ((1,), (3, [0.5], [True]))), 9: ("gone", ())}, {8: ("there", ())}, {}])
    pool = object.__new__(_Pool)
    pool.ray = SimpleNamespace(wait=lambda references, **_: (references, []), get=lambda _: next(told))
    pool.mailbox = SimpleNamespace(take=SimpleNamespace(remote=object))
    pool.executor = SimpleNamespace(slots=1, result=lambda _: Lost("lost", "was lost"))
    jobs = {number: TrainingJob(TRIAL, (number,)) for number in (7, 8, 10)}
    pool.going = {"seventh": (7, jobs[7]), "eighth": (8, jobs[8]), "tenth": (10, jobs[10])}
    pool.hosts, pool.asked = {}, None
    assert pool.wait(0) == [
        ("seventh", EpochDone(jobs[7], (1,), epoch)),
        ("seventh", Lost("lost", "was lost", "here")),
        ("eighth", Lost("lost", "was lost", "there")),
        ("tenth", Lost("lost", "was lost")),
    ]
    assert not pool.going and not pool.hosts


@needs_ray
def test_the_choice_of_kernels_reaches_the_workers(cluster, clips, tmp_path):
    trial = plain(epochs=1, **SMALL)
    with on(cluster) as executor:
        result = sweep([trial], 1, clips, RecordFolder(tmp_path), executor, kernels="torch")
    assert result.trials[0].kernels == result.timing.kernels == "torch"


@needs_ray
def test_a_node_with_other_numbers_is_refused(cluster, clips, monkeypatch):
    refused = pytest.raises(InputError, match=r"has a melbench of other results \(version \d+, here 99\)")
    with on(cluster, train=stand_ins.learned) as executor:
        # As if the nodes that answered first were right, and another was not.
        monkeypatch.setattr("bench.executors.ray.RESULTS_VERSION", 99)
        with refused:
            executor.run([TrainingJob(TRIAL, (0,))], 1, clips, on_events(pytest.fail))
    with refused, on(cluster):
        pytest.fail("not reached")


@needs_ray
def test_a_gpu_that_no_node_has(cluster):
    from bench.executors.ray import Ray

    with pytest.raises(InputError, match="--device cuda: the Ray cluster has no GPU"), Ray("cuda", cluster.address):
        pytest.fail("not reached")


@needs_ray
def test_a_command_on_a_cluster(cluster, melbench, corpus, tmp_path):
    arguments = ["sweep", "groups=1,2", *(f"{name}={value}" for name, value in SMALL.items()), "--data", corpus]
    arguments += ["--epochs", 1, "--seeds", 2, "--executor", "ray", "--ray-address", cluster.address]
    code, out, err = melbench(*arguments, "--out", tmp_path, "--format", "csv")
    assert code == 0 and len(out.splitlines()) == 3, err
    assert len(RecordFolder(tmp_path).trials()) == 4


@needs_ray
@pytest.mark.parametrize(
    "address, message",
    [
        ("127.0.0.1:1", "nothing answers there"),
        ("nowhere.invalid:6379", "nothing answers there"),
        (f"{'a' * 64}.org:6379", "nothing answers there"),  # A label of a name has 63 characters at the most.
        ("127.0.0.1:65536", "nothing answers there"),
        ("127.0.0.1", "is no address: give auto, or host:port"),
        (":6379", "is no address: give auto, or host:port"),
        ("auto", "auto: this machine is part of no Ray cluster; 'ray start --head'"),
    ],
)
def test_clusters_that_are_not_there(melbench, corpus, tmp_path, address, message, monkeypatch):
    import ray

    def init(**options):  # as Ray says it where none runs; here one does
        raise ConnectionError("Could not find any running Ray instance. Please specify the one to connect to")

    monkeypatch.setattr(ray, "init", init)
    arguments = ["--data", corpus, "--out", tmp_path, "--executor", "ray", "--ray-address", address]
    code, out, err = melbench("sweep", "groups", *arguments)
    assert code == 2 and not out and message in err and len(err.splitlines()) == 1


def test_whoever_waits_for_the_cluster_says_so_and_for_what(monkeypatch, caplog):
    from bench.executors import ray

    monkeypatch.setattr(ray, "PATIENCE_SECONDS", 60)
    busy = iter([[], [], ["task"]])
    executor = object.__new__(ray.Ray)
    executor.ray = SimpleNamespace(
        wait=lambda tasks, timeout: (next(busy), None), get=lambda task: f"of {task}", exceptions=None
    )
    assert executor._waited("task", "whole node") == "of task"
    assert caplog.messages == [
        f"waiting for a free whole node of the Ray cluster ({seconds} s so far)" for seconds in (60, 120)
    ]


def test_without_ray_one_line_says_what_to_install(melbench, corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, err = melbench("sweep", "groups", "--data", corpus, "--out", tmp_path, "--executor", "ray")
    assert (code, out) == (2, "")
    assert err == "melbench: --executor ray needs Ray, which is not installed: pip install 'melbench[ray]'\n"


@needs_ray
def test_ray_is_not_imported_unasked():
    imports = "bench.cli.app, bench.sweep.run, bench.sweep.crossval, bench.executors.processes"
    code = f"import sys, {imports}; print('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
