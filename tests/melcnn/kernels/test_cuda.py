"""What is set, captured and timed on CUDA, with stand-ins for the device; on a device: `tests/cuda`."""

import contextlib

import pytest
import torch

from melcnn.errors import InputError
from melcnn.kernels import cuda


@pytest.fixture
def torchs_own():
    """Torch's own precisions, before and after."""
    cuda.set_precision("mixed")
    yield
    cuda.set_precision("mixed")


@pytest.mark.parametrize(("name", "convolutions", "products"), [("fp32", 0, 0), ("tf32", 1, 1), ("mixed", 1, 0)])
def test_a_precision_is_of_convolutions_and_products(torchs_own, name, convolutions, products):
    assert cuda.precision() == "mixed"  # torch's own default: TF32 for cuDNN alone
    with cuda.computing_in(name):
        assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (convolutions, products)
        assert cuda.precision() == name
    assert cuda.precision() == "mixed"
    with pytest.raises(InputError, match="there is no precision 'bf16': use fp32 or tf32"):
        cuda.set_precision("bf16")


class Device:
    """A stand-in for torch.cuda that notes what happens in its order.

    Attributes:
        clock: the device's, in milliseconds.
    """

    def __init__(self, monkeypatch, refuses_to_end=False):
        self.happened, self.clock, self.stream = [], 0.0, "of the caller"
        device = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = device.clock

            def synchronize(self):
                device.happened.append("waited")

            def elapsed_time(self, other):
                return other.at - self.at

        class Stream:
            def wait_stream(self, other):
                pass

        class Graph:
            def replay(self):
                device.happened.append("replayed")

        @contextlib.contextmanager
        def on_stream(stream):
            before, device.stream = device.stream, stream
            yield
            device.stream = before

        @contextlib.contextmanager
        def graph(made, pool, stream):
            device.stream = stream
            device.happened.append("capturing")
            try:
                yield
            finally:  # As torch 2.11 does it: where the capture cannot be ended the stream stays.
                if refuses_to_end:
                    raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
            device.stream = "of the caller"

        def sleep(cycles):
            device.clock += cycles / 2e6  # at 2 GHz

        self.beside = Stream()
        caller = Stream()
        monkeypatch.setattr(cuda, "_broken", False)
        monkeypatch.setattr(cuda, "_stream", lambda device: self.beside)
        cuda._cycles_a_second.cache_clear()
        for name, value in {
            "Event": Event,
            "CUDAGraph": Graph,
            "graph": graph,
            "stream": on_stream,
            "set_stream": lambda stream: setattr(self, "stream", "of the caller" if stream is caller else stream),
            "current_stream": lambda: caller,
            "current_device": lambda: 0,
            "graph_pool_handle": lambda: (0, 1),
            "is_current_stream_capturing": lambda: False,
            "_sleep": sleep,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def work(self):
        self.happened.append(("worked on", self.stream))


def test_work_runs_once_beside_and_is_then_captured_and_replayed(monkeypatch):
    device = Device(monkeypatch)
    replay = cuda.captured(device.work)
    # On one stream for all captures: libraries keep a workspace for each.
    assert device.happened == [("worked on", device.beside), "capturing", ("worked on", device.beside)]
    assert device.stream == "of the caller" and cuda.can_capture()
    replay()
    assert device.happened[-1] == "replayed"
    warm = []
    cuda.captured(device.work, lambda: warm.append(1))
    assert warm == [1] and device.happened[-2:] == ["capturing", ("worked on", device.beside)]


@pytest.mark.parametrize("refuses_to_end", [True, False])
def test_a_capture_that_fails_leaves_the_stream_and_says_its_own_error(monkeypatch, refuses_to_end):
    device = Device(monkeypatch, refuses_to_end)

    def work():
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        cuda.captured(work, lambda: None)
    assert device.stream == "of the caller" and not cuda.can_capture()


def test_a_warm_up_that_fails_breaks_nothing(monkeypatch):
    device = Device(monkeypatch)

    def work():
        raise ValueError("no kernel")

    with pytest.raises(ValueError, match="no kernel"):
        cuda.captured(work)
    assert "capturing" not in device.happened and cuda.can_capture()


def test_a_call_is_timed_between_events_behind_a_spin(monkeypatch):
    device = Device(monkeypatch)

    def call():
        device.happened.append(("began at", device.clock))
        device.clock += 3.0

    # Twice 10 million cycles at 2 GHz tell the rate, and then the device spins for 7 ms.
    assert cuda.seconds(call, 0.007) == pytest.approx(0.003)
    assert device.happened == ["waited", ("began at", pytest.approx(5.0 + 5.0 + 7.0)), "waited"]
