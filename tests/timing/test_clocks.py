import pytest
import torch

from bench.system import monitor
from bench.timing import clocks
from bench.timing.clocks import CudaClock, HostClock, busy_seconds, covered
from melcnn import scheduling
from melcnn.kernels import cuda
from tests.helpers.machines import FakeMachine


def test_a_sample_of_several_calls_is_their_mean():
    fake = FakeMachine()
    work = fake.work("a", 0.5)

    def call():
        work()
        fake.waiting += 0.125

    reading = fake.clock.read(call, 4)
    assert (reading.host, reading.waited, reading.device) == (0.5, 0.125, None)


def test_overhead_is_that_of_an_empty_call():
    assert FakeMachine(reading=0.25).clock.overhead() == 0.25


def test_host_and_device_are_timed_apart(monkeypatch):
    fake = FakeMachine()

    def synchronize():
        fake.time += 0.25  # what the host waits for on top of the calls

    spun = []

    def seconds(call, ahead):
        spun.append(ahead)
        before = fake.time
        call()
        return fake.time - before

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(cuda, "seconds", seconds)
    reading = CudaClock(fake.now, lambda: 0.0).read(fake.work("a", 1.0), 2)
    assert reading.device == pytest.approx(1.0)
    assert reading.host == pytest.approx((2 * 1.0 + 0.25) / 2)
    # The device spins for as long as the host took, at most for a while.
    CudaClock(fake.now, lambda: 0.0).read(fake.work("b", -0.249))
    assert spun == [clocks.MOST_AHEAD, pytest.approx(0.001 + cuda.SPIN_SECONDS)]


def test_the_device_decides_the_clock(monkeypatch):
    assert type(clocks.clock_for("cpu")) is HostClock
    assert type(clocks.clock_for("cuda")) is CudaClock
    assert busy_seconds(lambda: None, "cpu") is None


@pytest.mark.parametrize(
    ("intervals", "length"),
    [
        ([], 0),
        ([(0, 2), (3, 4)], 3),  # apart
        ([(3, 4), (0, 2)], 3),  # in any order
        ([(0, 5), (1, 2)], 5),  # one inside the other: two streams
        ([(0, 2), (1, 3), (2, 4)], 4),  # overlapping in a chain
    ],
)
def test_kernels_that_overlap_count_once(intervals, length):
    assert covered(intervals) == length


def test_waiting_for_a_core_is_read_from_the_system(tmp_path, monkeypatch):
    # schedstat: nanoseconds on a core, nanoseconds waiting for one, times it got one
    for thread, waited in (("1", 2_000_000), ("2", 500_000)):
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(f"123 {waited} 7\n")
    monkeypatch.setattr(scheduling, "THREADS", str(tmp_path))
    assert scheduling.run_queue_wait() == pytest.approx(0.0025)
    monkeypatch.setattr(scheduling, "THREADS", str(tmp_path / "nowhere"))
    assert scheduling.run_queue_wait() == 0.0


def test_conditions_of_a_system_that_tells_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "CPU_INFO", tmp_path / "nowhere")
    found = monitor.conditions("cpu")
    assert found.cpu_mhz is None and found.threads == torch.get_num_threads() and found.throttle == []
    (tmp_path / "cpuinfo").write_text("cpu MHz\t\t: 2600.5\ncpu MHz : 1300.0\n")
    monkeypatch.setattr(monitor, "CPU_INFO", tmp_path / "cpuinfo")
    assert monitor.conditions("cpu").cpu_mhz == 2600.5  # the others may idle


def test_a_gpu_that_does_not_tell_is_not_called_unthrottled(monkeypatch):
    monkeypatch.setattr(monitor, "_nvml", lambda ask: None)
    assert monitor.conditions("cuda").throttle is None
    monkeypatch.setattr(monitor, "_nvml", lambda ask: [] if ask is monitor._throttle_reasons else 1)
    assert monitor.conditions("cuda").throttle == []


def test_peak_memory_is_above_what_was_in_use():
    memory = monitor.PeakMemory("cpu")
    if memory.bytes() is None:
        pytest.skip("this system does not tell")
    block = torch.ones(64 << 20, dtype=torch.uint8)
    del block
    assert 60e6 < memory.bytes() < 120e6
