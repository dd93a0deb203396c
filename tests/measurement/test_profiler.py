import pytest
import torch
from torch import nn
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

from bench.measurement import builders, profiler, worker, workloads
from bench.measurement.reference import inference
from bench.timing.clocks import HostClock
from melcnn import native
from tests.helpers.configurations import plain
from tests.helpers.machines import FakeMachine


def event(name, start, end, *children, kernels=(), device=DeviceType.CPU, annotation=False):
    """What the profiler tells of an operator from `start` to `end` (microseconds), of those that it calls and of the
    kernels (name, microseconds) that it starts; or of a kernel, on CUDA."""
    made = FunctionEvent(1, name, 1, start, end, device_type=device, is_user_annotation=annotation)
    for child in children:
        made.append_cpu_child(child)
        child.set_cpu_parent(made)
    for kernel, duration in kernels:
        made.append_kernel(kernel, 0, duration)
    return made


def flat(*roots):
    """As the profiler lists events: all of them, whoever calls them."""
    return [one for root in roots for one in (root, *flat(*root.cpu_children))]


def profile_of(monkeypatch, events):
    """Makes torch's profiler tell `events`."""

    class Fake:
        def __init__(self, **settings):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        def events(self):
            return events

    monkeypatch.setattr(torch.profiler, "profile", Fake)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("convolution", "aten::conv1d aten::mkldnn_convolution aten::convolution_backward aten::_conv_depthwise2d"),
        ("convolution", "ConvolutionBackward0 melcnn::conv_forward_float _forward _input_gradient _weight_gradient"),
        ("fused block", "melcnn::trunk_infer melcnn::trunk_forward melcnn::trunk_backward"),
        ("normalisation", "aten::native_batch_norm NativeBatchNormBackward0 aten::native_layer_norm"),
        ("pooling", "aten::max_pool1d aten::adaptive_avg_pool1d MaxPool2DWithIndicesBackward0"),
        ("linear/matmul", "aten::linear aten::addmm aten::mm aten::bmm aten::baddbmm aten::matmul AddmmBackward0"),
        ("activation", "aten::relu aten::threshold_backward aten::_softmax aten::elu aten::gelu ReluBackward0"),
        ("optimiser", "Optimizer.step#Adam.step Optimizer.zero_grad#SGD.zero_grad"),
        # A norm of gradients normalises nothing, a sum of elements is no ELU, and a conversion is no convolution.
        (None, "aten::linalg_vector_norm aten::norm aten::add aten::copy_ aten::cumsum aten::resolve_conj"),
        (None, "aten::_convert_indices_from_csr_to_coo AccumulateGrad volta_sgemm_128x64 _elementwise _forward_pass"),
    ],
)
def test_names_tell_the_kind(kind, names):
    assert {profiler.kind_of(name) for name in names.split()} == {kind}


def test_what_an_operator_calls_is_its_own():
    call = event(
        profiler.CALL,
        *(0, 100),
        # 40 in all: itself 10, what it calls 30, of which no name tells of a convolution but one of a product.
        event("aten::conv1d", 10, 50, event("aten::empty", 11, 21), event("aten::mm", 22, 42)),
        # 4 of a name that does not tell, around 6 that does.
        event("aten::flatten_and_more", 50, 60, event("aten::relu", 52, 58)),
        event("Optimizer.step#Adam.step", 60, 75, event("aten::linear", 62, 70)),
    )
    # Between them 10 before the first, none after the second and third, 25 at the end.
    expected = {"convolution": 40, "activation": 6, "rest": 4, "optimiser": 15, "Python and launching": 35}
    assert profiler.on_cpu(call) == pytest.approx({kind: time * 1e-6 for kind, time in expected.items()})


def test_of_the_calls_each_kind_is_the_median(monkeypatch):
    # Convolution takes 30, 30 and once, held up, 900; Python 10, held up in another call 700, and 10.
    calls = [
        event(profiler.CALL, 0, 40, event("aten::conv1d", 5, 35)),
        event(profiler.CALL, 100, 830, event("aten::conv1d", 105, 135)),
        event(profiler.CALL, 900, 1810, event("aten::conv1d", 905, 1805)),
    ]
    profile_of(monkeypatch, [event("aten::ones", 0, 9), *flat(*calls)])  # The first is of no call.
    found = profiler.of_call(lambda: None, FakeMachine().clock, "cpu", seconds=9.0)
    assert found == pytest.approx({"convolution": 0.75, "Python and launching": 0.25})
    assert list(found) == ["convolution", "Python and launching"]  # the largest first


def of_a_gpu(calls):
    """Events of one call whose kernels run for 10 (a convolution), 4 (the optimiser), 3 (ours) and 2 (a copy)."""
    ours, copy = ("_forward", 3), ("Memcpy DtoD", 2)
    roots = [
        event("aten::conv1d", 0, 50, event("aten::cudnn_convolution", 1, 49, kernels=[("sgemm", 6), ("sgemm", 4)])),
        event("Optimizer.step#Adam.step", 50, 90, event("aten::_fused_adam_", 55, 60, kernels=[("adam", 4)])),
        event("aten::copy_", 90, 95, kernels=[copy]),
    ]
    kernels = [("sgemm", 6), ("sgemm", 4), ("adam", 4), ours, copy]
    on_device = [event(name, 0, duration, device=DeviceType.CUDA) for name, duration in kernels]
    # Its extent on the device spans kernels and is none.
    around = event(profiler.CALL, 0, 500, device=DeviceType.CUDA, annotation=True)
    return [around, *flat(*roots), *on_device] * calls


def test_on_a_gpu_kernels_have_the_kind_of_the_operator_that_starts_them():
    expected = {"convolution": 10 + 3, "optimiser": 4, "rest": 2}
    assert profiler.on_device(of_a_gpu(1)) == pytest.approx({kind: time * 1e-6 for kind, time in expected.items()})


def test_on_a_gpu_python_is_what_the_device_waits_for(monkeypatch):
    # Of the 38 microseconds that a call takes kernels run for 19.
    profile_of(monkeypatch, of_a_gpu(profiler.CALLS))
    found = profiler.of_call(lambda: None, FakeMachine().clock, "cuda", seconds=38e-6)
    assert found == pytest.approx(
        {"convolution": 13 / 38, "optimiser": 4 / 38, "rest": 2 / 38, "Python and launching": 19 / 38}
    )
    # Where kernels seem to take longer than the call, nothing waits; without kernels nothing is known.
    assert "Python and launching" not in profiler.of_call(lambda: None, FakeMachine().clock, "cuda", seconds=1e-6)
    profile_of(monkeypatch, [])
    assert profiler.of_call(lambda: None, FakeMachine().clock, "cuda", seconds=38e-6) == {}


@pytest.mark.parametrize(
    ("seconds", "calls"),
    [
        (profiler.SECONDS / 1000, profiler.CALLS),
        (profiler.SECONDS * 0.4, 3),  # The third begins before the time is over, at 0.8 of it.
        (profiler.SECONDS * 5, 1),
    ],
)
def test_long_calls_are_few(monkeypatch, seconds, calls):
    profile_of(monkeypatch, [])
    machine = FakeMachine()
    profiler.of_call(machine.work("a", seconds), machine.clock, "cpu", seconds)
    assert len(machine.calls) == profiler.WARM_UP + calls


def test_a_network_of_convolutions_spends_its_time_in_them():
    # 8 clips x 128 x 128 x 9 x 500: 0.6 billion multiply-accumulates, beside 0.5 million maxima.
    network = nn.Sequential(nn.Conv1d(128, 128, 9), nn.ReLU())
    found = profiler.of_call(inference(network, torch.randn(8, 128, 508)), HostClock(), "cpu", seconds=1.0)
    assert sum(found.values()) == pytest.approx(1)
    assert found["convolution"] > 0.5 and "activation" in found and "fused block" not in found


@pytest.mark.skipif(native.library() is None, reason="there are no kernels of ours here")
def test_our_kernels_are_heard_of(monkeypatch):
    call = native.call
    (latency,) = workloads.of_trial(plain(groups=4), ["latency"])
    built = builders.build(latency, "cpu")
    built.module.kernels = "melcnn"
    found = profiler.of_call(built.call, HostClock(), "cpu", seconds=1.0)
    assert found["fused block"] > 0 and "convolution" not in found and "pooling" not in found
    assert native.call is call  # as before


@pytest.mark.parametrize(("what", "clips", "part"), [("epoch", workloads.EPOCH_CLIPS, 16 / 6358), ("step", 16, 1)])
def test_an_epoch_goes_where_its_steps_go(monkeypatch, what, clips, part):
    asked = []
    monkeypatch.setattr(builders, "build", lambda work, device, in_steps: asked.append((work, in_steps)) or built)
    monkeypatch.setattr(profiler, "of_call", lambda call, clock, device, seconds: {call: seconds})
    built = builders.Built("a step", nn.Identity(), [])
    (work,) = workloads.of_trial(plain(batch_size=16), [what])
    found = worker._shares(work, builders.Built("the whole", nn.Identity(), []), 3.0, "cuda", HostClock())
    assert found == {"a step": pytest.approx(3.0 * part)}
    assert [(work.clips, work.batch_size, in_steps) for work, in_steps in asked] == [(16, 16, True)]
    assert work.clips == clips
