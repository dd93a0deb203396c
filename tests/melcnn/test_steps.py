"""A stack's arithmetic beside loops written by hand: initial weights, smoothed losses, decay, running means."""

import gc
import weakref

import pytest
import torch

from melcnn import MelCNN, extract, native
from melcnn.kernels import cuda
from melcnn.model import isolated_random_numbers
from melcnn.steps import Stack, averaging_rate, capture_for, learning_rate
from tests.helpers.configurations import plain

SETTINGS = {"n_mels": 16, "n_fft": 256, "hop_length": 400, "channels": 8, "groups": 2}


@pytest.fixture
def training(clips):
    """Features and labels of the training clips, and all arithmetic in float64.

    The bias before a BatchNorm has the gradient 0, and Adam would make whole steps of float32's noise in it.
    """
    x, labels = extract(clips, plain(**SETTINGS).front_end).split("train")
    torch.set_default_dtype(torch.float64)
    yield x.double(), labels
    torch.set_default_dtype(torch.float32)


def fresh(trial, seed):
    with isolated_random_numbers():
        torch.manual_seed(seed)
        return MelCNN.of(trial)


def test_each_seed_has_weights_of_its_own():
    trial = plain(**SETTINGS)
    network = Stack(trial, [0, 1, 7]).network
    weights = [network.replica(r).blocks[0][0].weight for r in range(3)]
    for weight, seed in zip(weights, (0, 1, 7), strict=True):
        assert torch.equal(weight, fresh(trial, seed).blocks[0][0].weight)
    assert not any(torch.equal(weights[a], weights[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def steps_by_hand(trial, training, seed, smoothing=0.0, decay=0.0):
    """Yield loss, number of clips and network after each step of one epoch, and return nothing.

    The loss of a clip of class y among K is -(1 - s) log p_y - s / K sum_k log p_k (Szegedy et al., arXiv:1512.00567).
    """
    network = fresh(trial, seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=trial.training.learning_rate)
    x, labels = training
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    for batch in order.split(trial.training.batch_size):
        log_p = network(x[batch]).log_softmax(1)
        own = log_p[torch.arange(len(batch)), labels[batch]]
        loss = (-(1 - smoothing) * own - smoothing / log_p.shape[1] * log_p.sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.dim() > 1:  # weights decay, biases, scales and shifts do not
                    parameter.mul_(1 - trial.training.learning_rate * decay)
        optimizer.step()
        yield float(loss.detach()), len(batch), network


@pytest.mark.parametrize("changes", [{}, {"label_smoothing": 0.3}, {"weight_decay": 5.0}, {"learning_rate": 3e-3}])
def test_an_epoch_is_the_hand_written_loop(training, changes):
    # Batches of 20, 20 and 8 clips: the epoch's loss is the mean over clips, not over batches.
    trial = plain(**SETTINGS, batch_size=20, **changes)
    steps = list(
        steps_by_hand(trial, training, 3, changes.get("label_smoothing", 0.0), changes.get("weight_decay", 0.0))
    )
    assert [clips for _, clips, _ in steps] == [20, 20, 8]
    stacked = Stack(trial, [3], kernels="torch")
    loss = float(stacked.epoch(*training)[0])
    assert loss == pytest.approx(sum(loss * clips for loss, clips, _ in steps) / 48, rel=1e-6)
    # The mean over batches would be another number, and so is the loss without the change.
    assert abs(loss - sum(loss for loss, *_ in steps) / 3) > 1e-4
    expected = steps[-1][2].state_dict()
    for name, tensor in stacked.network.replica(0).state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-7)


def test_the_running_mean_begins_as_a_plain_mean():
    settings = plain(ema_decay=0.99).training
    # max(1 - 0.99, 9 / (10 + t)): 0.9, 9 / 11, ... and at last 0.01, from 10 + t = 900 on.
    assert [averaging_rate(settings, t) for t in (0, 1, 80)] == pytest.approx([0.9, 9 / 11, 0.1])
    assert averaging_rate(settings, 891) == pytest.approx(0.01) == averaging_rate(settings, 10**6)


def test_the_averaged_network_is_the_running_mean_of_its_steps(training):
    trial = plain(**SETTINGS, batch_size=20, ema_decay=0.99)
    # m_0 is the initial network's; m_(t+1) = m_t + r_t (w_(t+1) - m_t) with r = 9/10, 9/11, 9/12 for three steps.
    mean = {name: tensor.clone() for name, tensor in fresh(trial, 3).state_dict().items() if tensor.dim()}
    for step, (_, _, network) in enumerate(steps_by_hand(trial, training, 3)):
        for name, tensor in network.state_dict().items():
            if tensor.dim():
                mean[name] += 9 / (10 + step) * (tensor - mean[name])
    stacked = Stack(trial, [3], kernels="torch")
    stacked.epoch(*training)
    with stacked.averaged() as network:
        averaged = network.replica(0).state_dict()
    for name, tensor in mean.items():
        torch.testing.assert_close(averaged[name], tensor, rtol=1e-6, atol=1e-7)
    assert not torch.equal(averaged["classifier.bias"], stacked.network.classifier.bias.detach())


def no_graph(step):
    step()  # A part of it has been trained when the capture fails.
    raise RuntimeError("operation not permitted when stream is capturing\nmore")


def test_training_goes_on_where_no_step_can_be_captured(training, caplog):
    trial = plain(**SETTINGS, batch_size=20, ema_decay=0.5)
    failed, stepped = Stack(trial, [3], capture=no_graph, kernels="torch"), Stack(trial, [3], kernels="torch")
    for _ in range(2):
        assert torch.equal(failed.epoch(*training), stepped.epoch(*training))
    assert caplog.messages == [
        "training goes on without CUDA graphs, which is slower: RuntimeError: operation not permitted when stream is "
        "capturing"
    ]


def test_a_step_that_cannot_be_captured_is_repeated_as_it_is(training, caplog):
    stacked = Stack(plain(**SETTINGS), [3], capture=no_graph, kernels="torch")
    before = stacked.weights.detach().clone()
    step = stacked.repeated_step(*training)
    assert len(caplog.messages) == 1 and stacked.capture is None
    step()
    assert not torch.equal(stacked.weights, before)


def test_memory_that_is_short_while_a_step_is_captured_ends_the_stack(training):
    def capture(step):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Stack(plain(**SETTINGS), [3], capture=capture, kernels="torch").epoch(*training)


def test_a_step_is_repeated_on_one_batch(training):
    # Adam's first steps by hand on the same order of the same 48 clips.
    trial = plain(**SETTINGS, batch_size=48)
    stacked = Stack(trial, [3], kernels="torch")
    step = stacked.repeated_step(*training)
    network = fresh(trial, 3)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    x, labels = training
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    for _ in range(3):
        step()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x[order]), labels[order]).backward()
        optimizer.step()
    torch.testing.assert_close(stacked.network.replica(0).state_dict(), network.state_dict(), rtol=1e-6, atol=1e-7)


def test_the_captured_steps_go_with_their_stack(training):
    class Graph:
        def replay(self):
            pass

    graphs = []

    def capture(step):
        step()
        graph = Graph()
        graphs.append(weakref.ref(graph))
        return graph.replay

    stacked = Stack(plain(**SETTINGS, batch_size=20), [3], capture=capture, kernels="torch")
    stacked.epoch(*training)
    assert len(graphs) == 2
    gc.disable()  # By counting references alone: a cycle would hold a graph's memory until some later time.
    try:
        del stacked
        assert [graph() for graph in graphs] == [None, None]
    finally:
        gc.enable()


def test_steps_are_captured_on_a_gpu_that_can(monkeypatch, caplog):
    monkeypatch.setattr(cuda, "can_capture", lambda: True)
    assert capture_for("cpu") is None and capture_for("cuda") is cuda.captured
    monkeypatch.setattr(cuda, "can_capture", lambda: False)
    assert capture_for("cuda") is None and "which is slower" in caplog.messages[0]
    assert capture_for("cpu") is None and len(caplog.messages) == 1


def test_rates_go_on_from_epoch_to_epoch(training):
    # 48 clips in batches of 20 are three steps an epoch: the second epoch's begin 1, 1 1/3 and 1 2/3 epochs on.
    trial = plain(**SETTINGS, batch_size=20, epochs=4, recipe="default")
    stacked = Stack(trial, [3], kernels="torch")
    x, labels = training
    for epoch in range(2):
        rates = stacked._draw(1, len(labels), *x.shape[1:]).rates
        for step in range(3):
            assert float(rates[step, 0]) == pytest.approx(learning_rate(trial.training, epoch + step / 3), rel=1e-6)
            assert float(rates[step, 1]) == pytest.approx(averaging_rate(trial.training, 3 * epoch + step), rel=1e-6)
        stacked.epoch(*training)


@pytest.mark.parametrize("wanted", [None, "melcnn"])
def test_on_a_cpu_the_kernels_are_decided_before_the_first_step(monkeypatch, wanted):
    monkeypatch.setattr(native, "library", lambda: None)
    stacked = Stack(plain(**SETTINGS), [0], kernels=wanted)
    assert stacked.network.kernels == stacked.kernels == "torch"


def test_each_batch_is_one_replay(training):
    replayed = []

    def capture(step):
        step()
        return lambda: (replayed.append(1), step())

    stacked = Stack(plain(**SETTINGS, batch_size=20), [3], capture=capture, kernels="torch")
    stacked.epoch(*training)
    assert len(replayed) == 3  # 20, 20 and 8 clips
    stacked.repeated_step(*training)()
    assert len(replayed) == 4


def test_renditions_are_drawn_clip_by_clip_and_one_draws_nothing():
    stacked = Stack(plain(**SETTINGS), [3])
    many = torch.cat([stacked._draw(3, 48, 16, 41).order for _ in range(20)], 1)
    # Each epoch has each clip once, of some rendition; twenty epochs of 48 clips have every rendition in a third or so.
    assert torch.equal((many % 48).sort(0).values, torch.arange(48)[:, None].expand(-1, 20))
    assert all(0.28 < float((many // 48 == rendition).float().mean()) < 0.39 for rendition in range(3))
    # Of one rendition the orders alone take random numbers.
    alone, generator = Stack(plain(**SETTINGS), [3]), torch.Generator().manual_seed(3)
    for _ in range(2):
        assert torch.equal(alone._draw(1, 48, 16, 41).order[:, 0], torch.randperm(48, generator=generator))
