"""Our Triton kernels beside float64, and what chooses between them and cuDNN's."""

import copy

import pytest
import torch
from torch.nn.functional import conv1d

from bench.baselines import convolutions, front_ends
from bench.measurement.peaks import measure as measure_peaks  # before tests are given stand-ins for it
from bench.system import environment
from bench.timing.clocks import CudaClock, busy_seconds
from melcnn import MelCNN, augmentation, configure
from melcnn.kernels import autotune, cuda, gpu_blocks, grouped_conv
from tests.helpers.triton import CONVOLUTIONS

# The study's layers, of 32 networks side by side and of one.
STUDY = [
    (clips, c_in // groups, 32 // groups, length, 3, 1, 1, 1, stack * groups)
    for groups, stack, clips in ((1, 32, 22), (4, 32, 64), (16, 1, 64))
    for c_in, length in ((80, 101), (32, 50), (32, 25))
]


def ours_and_exact(case):
    clips, c_in, c_out, length, taps, *settings = case
    groups = settings[-1]
    x, weight = torch.randn(clips, groups * c_in, length), torch.randn(groups * c_out, c_in, taps)
    tensors = [t.cuda() for t in (x, weight, torch.randn(groups * c_out))]
    exact = [t.double().requires_grad_() for t in tensors]
    y = conv1d(*exact, *settings)
    dy = torch.randn_like(y)
    x, weight, bias = tensors
    ours = [
        grouped_conv._compute(x, weight, bias, *settings),
        *grouped_conv._gradients(dy.float(), x, weight, *settings, [True] * 3),
    ]
    return zip(ours, [y, *torch.autograd.grad(y, exact, dy)], strict=True)


# A float32 sum of a thousand products is off by some 1e-7; TF32 rounds each factor to 2^-11, some 3e-4.
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("tf32", 2e-3)])
def test_triton_is_float64(precision, tolerance, record_property):
    torch.manual_seed(0)
    worst = 0.0
    with cuda.computing_in(precision):
        for case in CONVOLUTIONS + STUDY if precision == "fp32" else STUDY[:3]:
            for one, other in ours_and_exact(case):
                off = float(((one - other).norm() / other.norm()).detach())
                worst = max(worst, off)
                assert off < tolerance, case
    record_property("relative error at most", f"{worst:.2g}")


def test_triton_gives_the_same_twice():
    for case in STUDY[::4]:
        torch.manual_seed(1)
        first = [one for one, _ in ours_and_exact(case)]
        torch.manual_seed(1)
        assert all(torch.equal(one, again) for one, (again, _) in zip(first, ours_and_exact(case), strict=True))


@pytest.mark.parametrize(("variant", "clips", "replicas"), [("plain", 64, 3), ("shuffle", 200, 1), ("separable", 2, 1)])
def test_blocks_are_torchs_in_float64(variant, clips, replicas, record_property):
    torch.manual_seed(0)
    network = MelCNN(groups=4, replicas=replicas, variant=variant).cuda()
    exact = copy.deepcopy(network.blocks).double()
    x = torch.randn(clips, replicas * 80, 101, device="cuda")
    assert gpu_blocks.supports(network, x)
    same = x.double().requires_grad_()
    y, expected = gpu_blocks.run(network, x.requires_grad_()), exact(same)
    dy = torch.randn_like(expected)
    found = torch.autograd.grad(y, [x, *network.blocks.parameters()], dy.float())
    wanted = torch.autograd.grad(expected, [same, *exact.parameters()], dy)
    pairs = [(y, expected), *zip(found, wanted, strict=True)]
    pairs += zip(network.blocks.buffers(), exact.buffers(), strict=True)
    off = [float(((one - other).norm() / other.norm()).detach()) for one, other in pairs if other.is_floating_point()]
    record_property("relative error at most", f"{max(off):.2g}")
    # A maximum or a rectified value near a tie may fall on the other side.
    assert max(off) < 2e-3 and sorted(off)[len(off) // 2] < 1e-4


def test_clips_are_picked_and_viewed_as_by_torch():
    generator = torch.Generator().manual_seed(0)
    features, index = torch.randn(300, 80, 101, device="cuda"), torch.randint(300, (64, 5)).cuda()
    drawn = [augmentation.draw(configure(recipe="default").training, 64, 80, 101, generator) for _ in range(5)]
    views = torch.stack(drawn, 1).cuda()
    from melcnn.kernels import triton_block

    assert torch.equal(triton_block.picked(features, index, None), features[index].flatten(1, 2))
    expected = augmentation.apply(features[index], views).flatten(1, 2)
    assert torch.equal(triton_block.picked(features, index, views), expected)


def test_what_is_no_number_stays_none():
    network = MelCNN(groups=4).cuda()
    with torch.no_grad():
        network.blocks[0][0].weight[0, 0, 0] = float("nan")
    x = torch.randn(8, 80, 101, device="cuda")
    assert gpu_blocks.supports(network, x) and network(x).isnan().all()


def test_arguments_that_do_not_fit_are_torchs():
    network, x = MelCNN(replicas=2).cuda(), torch.randn(9, 80, 101, device="cuda")
    index = torch.zeros(4, 2, dtype=torch.int64, device="cuda")
    assert gpu_blocks.supports(network, x, index)
    for wrong in (index.cpu(), index.int(), index[:, :1], index[:0], index[0]):
        assert not gpu_blocks.supports(network, x, wrong)
    assert not gpu_blocks.supports(network, x.requires_grad_(), index)
    assert not gpu_blocks.supports(network.eval(), x.detach(), index)


def test_what_no_grid_holds_is_torchs():
    x, weight = torch.randn(1, 70_000, 8, device="cuda"), torch.randn(70_000, 1, 3, device="cuda")
    settings = 1, 1, 1, 70_000
    assert not grouped_conv.supports(x, weight, None, *settings)
    torch.testing.assert_close(
        grouped_conv.grouped_conv1d(x, weight, None, 1, 1, 1, 70_000), conv1d(x, weight, None, 1, 1, 1, 70_000)
    )


def test_a_spin_is_as_long_by_host_events_and_profiler(record_property):
    def spin():
        cuda.spin(0.01)

    spin()
    reading, busy = CudaClock().read(spin, 3), busy_seconds(spin, "cuda")
    record_property(
        "host, events, profiler ms", f"{reading.host * 1e3:.3f}, {reading.device * 1e3:.3f}, {busy * 1e3:.3f}"
    )
    assert reading.device == pytest.approx(0.01, rel=0.1)
    assert reading.host == pytest.approx(reading.device, rel=0.1) and busy == pytest.approx(reading.device, rel=0.1)


def test_what_is_short_is_not_what_python_takes(record_property):
    # A call that the device needs far less time for than Python.
    x = torch.zeros(16, device="cuda")

    def calls():
        for _ in range(20):
            x.add_(1)

    eager, captured = cuda.seconds(calls, ahead=0.0), cuda.seconds(cuda.captured(calls))
    record_property("20 small kernels: eager, captured us", f"{eager * 1e6:.1f}, {captured * 1e6:.1f}")
    assert captured < eager / 2


def test_the_shorter_of_two_spins_is_chosen():
    found = autotune.measure({"long": lambda: cuda.spin(2e-4), "short": lambda: cuda.spin(1e-4)}, "cuda")
    assert found["chosen"] == "short" and not found["disturbed"]
    assert found["seconds"] == pytest.approx({"long": 2e-4, "short": 1e-4}, rel=0.15)


def test_the_tables_of_a_device(clips):
    env, trial = environment.collect("cuda"), configure(recipe="plain")
    top, one = measure_peaks("cuda", CudaClock()), torch.zeros(1, device="cuda")
    # Replayed, a launch is much shorter than called from Python.
    assert 0 < top.launch_seconds < cuda.seconds(lambda: one.add_(1), ahead=0.0) / 2
    (shape, *_) = convolutions.of_trials([trial])
    forward, training = convolutions.measure([shape], "cuda")
    assert forward.precision == "fp32" and 0 < forward.torch_time_s < training.torch_time_s
    rows = front_ends.measure(trial.front_end, clips, "cuda", env.device, (16,))
    assert {row.way for row in rows} == {"torchaudio", "melbench"} and max(row.max_error for row in rows) < 0.01
