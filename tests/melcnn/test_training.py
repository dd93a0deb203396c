import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from melcnn import InputError, TrainingDiverged, extract, fit, inference, native, training
from melcnn.config import Training
from melcnn.steps import Stack, learning_rate
from melcnn.training import _Replica
from tests.helpers.configurations import plain

SETTINGS = {"n_mels": 16, "n_fft": 256, "hop_length": 400, "channels": 8, "groups": 2, "batch_size": 16}


@pytest.fixture(scope="module")
def features(clips):
    return extract(clips, plain(**SETTINGS).front_end)


def test_features_are_the_front_end_of_each_clip(clips, features):
    from melcnn import LogMelFilterBanks

    module = LogMelFilterBanks(n_mels=16, n_fft=256, hop_length=400)
    alone = module(torch.from_numpy(clips.waveforms[7]) / 32768)
    torch.testing.assert_close(features.x[7], alone)
    assert [len(features.split(s)[1]) for s in ("train", "validation", "test")] == [48, 16, 16]


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("recipe", [{}, {"recipe": "default", "weight_decay": 0.1, "ema_decay": 0.5}])
def test_replicas_together_train_as_each_alone_step_by_step(features, double_precision, recipe):
    # In float64, because Adam divides a gradient by its own size: the bias before a BatchNorm has the true
    # gradient 0, and float32 noise there would become steps of full length that mean nothing.
    trial = plain(**SETTINGS, **recipe)
    x, labels = features.x.double(), features.labels
    together = Stack(trial, [5, 6, 7], kernels="torch")
    alone = [Stack(trial, [seed], kernels="torch") for seed in (5, 6, 7)]
    for _ in range(2):  # 2 epochs of 5 steps
        losses = together.epoch(x, labels)
        for r, single in enumerate(alone):
            torch.testing.assert_close(single.epoch(x, labels)[0], losses[r])
    for r, single in enumerate(alone):
        ours = {k: v for k, v in together.network.replica(r).state_dict().items() if v.dim()}
        theirs = {k: v for k, v in single.network.state_dict().items() if v.dim()}
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_fit_together_equals_fit_alone_in_float32(features):
    trial = plain(**SETTINGS, epochs=4)
    together = fit(trial, features, [1, 2])
    for run in together:
        (alone,) = fit(trial, features, [run.seed])
        assert alone.kept_epoch == run.kept_epoch
        torch.testing.assert_close(alone.curves.train_loss, run.curves.train_loss, rtol=1e-3, atol=1e-4)


def test_an_epoch_is_the_hand_written_loop(features):
    trial = plain(**SETTINGS)
    stacked, by_hand = Stack(trial, [3]), Stack(trial, [3]).network
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-3)
    x, labels = features.split("train")
    order, total = torch.randperm(48, generator=torch.Generator().manual_seed(3)), 0.0
    for batch in order.split(16):
        loss = cross_entropy(by_hand(x[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(batch)
    torch.testing.assert_close(stacked.epoch(x, labels)[0], torch.tensor(total / 48))


@pytest.mark.parametrize("recipe", [{}, {"recipe": "default", "weight_decay": 0.1, "ema_decay": 0.5}])
def test_an_epoch_that_is_replayed_is_the_epoch(features, recipe):
    # Capturing trains beforehand, which must leave no trace. On the CPU "capturing" is remembering.
    trial, captured = plain(**SETTINGS, **recipe), []

    def capture(step):
        step()
        captured.append(step)
        return step

    replayed, stepped = Stack(trial, [5, 6], capture=capture), Stack(trial, [5, 6])
    x, labels = features.split("train")
    for _ in range(3):
        assert torch.equal(replayed.epoch(x, labels), stepped.epoch(x, labels))
    assert len(captured) == 1  # 48 clips are three batches of 16.
    # Other clips are captured anew, in batches of 16 and of 8, and what was learned stays.
    assert torch.equal(replayed.epoch(x[:40], labels[:40]), stepped.epoch(x[:40], labels[:40]))
    assert len(captured) == 3
    with replayed.averaged() as ours, stepped.averaged() as theirs:
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor), name


def test_our_kernels_train_as_torchs(features):
    if not native.library():
        pytest.skip("there is no C compiler")
    trial = plain(**SETTINGS, epochs=3)
    runs = [fit(trial, features, [0, 1], kernels=kernels) for kernels in ("melcnn", "torch")]
    for ours, theirs in zip(*runs, strict=True):
        assert (ours.kernels, theirs.kernels) == ("melcnn", "torch")
        torch.testing.assert_close(ours.curves.train_loss, theirs.curves.train_loss, rtol=1e-3, atol=1e-4)


def test_the_kept_epoch_is_the_networks_and_test_is_seen_once(features, monkeypatch):
    seen = []
    original = inference.logits
    monkeypatch.setattr(
        training.inference, "logits", lambda network, x: (seen.append(x.data_ptr()), original(network, x))[1]
    )
    runs = fit(plain(**SETTINGS, epochs=6), features, [0, 1])
    assert seen.count(features.split("test")[0].data_ptr()) == 1
    for run in runs:
        curves = run.curves
        ranks = list(zip(curves.validation_accuracy, [-loss for loss in curves.validation_loss], strict=True))
        assert run.kept_epoch == ranks.index(max(ranks)) + 1
        x, labels = features.split("validation")
        again = original(run.network, x)[0]
        torch.testing.assert_close(again, run.validation_logits, rtol=1e-4, atol=1e-5)
        assert run.validation_accuracy == max(curves.validation_accuracy)
        assert math.isclose(float(cross_entropy(again, labels)), -max(ranks)[1], rel_tol=1e-4)


def test_a_replica_stops_by_its_own_loss_and_keeps_the_best_accuracy():
    replica = _Replica()
    #          loss, accuracy: the tie at 0.9 goes to the lower loss, the lowest loss is epoch 3
    history = [(0.9, 0.5), (0.6, 0.9), (0.4, 0.9), (0.5, 0.8), (0.7, 0.9)]
    training = Training(patience=2)
    better = [replica.record(i + 1, training, 1.0, loss, acc) for i, (loss, acc) in enumerate(history)]
    assert better == [True, True, True, False, False]
    assert replica.kept_epoch == 3 and replica.stopped


def test_the_last_epoch_is_kept_also_by_patience():
    for patience, epochs, kept in ((None, 5, 5), (2, 5, 4), (1, 2, 2)):
        training = Training(patience=patience, keep="last", epochs=epochs)
        replica = _Replica()
        for i, loss in enumerate([0.9, 0.4, 0.5, 0.6, 0.7][:epochs]):
            if not replica.stopped:
                replica.record(i + 1, training, 1.0, loss, 0.9)
        assert replica.kept_epoch == kept
    # Without validation there is no loss to be patient with.
    replica = _Replica()
    assert [replica.record(i, Training(keep="last", epochs=20), 1.0) for i in range(1, 21)] == [False] * 19 + [True]


def test_epochs_with_patience(features):
    trial = plain(**SETTINGS, epochs=200)
    heard = []
    runs = fit(trial, features, [0, 1, 2], heard.append)
    lengths = [len(run.curves.validation_loss) for run in runs]
    assert heard[-1].number == max(lengths) < 200
    assert heard[-1].training == [False] * 3
    for run, length in zip(runs, lengths, strict=True):
        # Stopped exactly `patience` epochs after its lowest loss.
        assert (
            run.curves.validation_loss.index(min(run.curves.validation_loss)) + 1 + plain().training.patience == length
        )
    assert len(set(lengths)) > 1, "replicas stop at different epochs"


def test_seeds_differ_and_repeat(features):
    trial = plain(**SETTINGS, epochs=2)
    first, again = fit(trial, features, [0, 1]), fit(trial, features, [0, 1])
    assert torch.equal(first[0].test_logits, again[0].test_logits)
    assert not torch.equal(first[0].test_logits, first[1].test_logits)


def test_random_state_of_the_caller_is_untouched(features):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    fit(plain(**SETTINGS, epochs=1), features, [0])
    assert torch.equal(torch.rand(3), expected)


def test_a_last_batch_of_one_clip_is_left_out(features):
    trial = plain(**{**SETTINGS, "batch_size": 47})
    x, labels = features.split("train")
    left_out = Stack(trial, [0]).epoch(x, labels)
    # The mean is over the 47 clips that were trained on: the first batch's loss alone.
    untrained, order = Stack(trial, [0]).network, torch.randperm(48, generator=torch.Generator().manual_seed(0))[:47]
    torch.testing.assert_close(left_out[0], cross_entropy(untrained(x[order]), labels[order]).detach())


def test_a_last_batch_of_two_is_trained_on(features):
    trial = plain(**{**SETTINGS, "batch_size": 46})
    stacked = Stack(trial, [0])
    stacked.epoch(*features.split("train"))
    assert stacked.network.blocks[0][2].num_batches_tracked == 2


def test_divergence_is_named(features):
    broken = type(features)(features.front_end, features.clips, features.x * math.nan, features.labels)
    with pytest.raises(TrainingDiverged, match="seed 0, 1"):
        fit(plain(**SETTINGS, epochs=2), broken, [0, 1])


def test_accuracy_by_hand():
    logits = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [3.0, 2.0]]])
    # predictions 0, 1, 0 against 0, 1, 1: two of three
    assert inference.accuracy(logits, torch.tensor([0, 1, 1])).tolist() == [2 / 3]


def test_bad_requests(features):
    with pytest.raises(InputError, match="front-end"):
        fit(plain(), features, [0])
    with pytest.raises(InputError, match="words"):
        fit(plain(("yes", "go"), **SETTINGS), features, [0])
    with pytest.raises(InputError, match="seeds"):
        fit(plain(**SETTINGS), features, [0, 0])


def test_the_cosine_rises_in_a_line_and_falls_to_nothing():
    training = Training(schedule="cosine", learning_rate=0.01, epochs=100)
    # Up to 5% of 100 epochs in a line, then half a cosine: at the middle of what is left half the rate.
    found = [learning_rate(training, epochs) for epochs in (2.4, 5, 52.5, 100)]
    assert found == pytest.approx([0.005, 0.01, 0.005, 0.0])
    assert learning_rate(Training(), 17) == 1e-3


def test_decay_pulls_at_weights_alone(features):
    x, labels = features.split("train")
    free, pulled = (Stack(plain(**SETTINGS, weight_decay=decay), [0]) for decay in (0.0, 10.0))
    for name, tensor in pulled.network.named_parameters():
        torch.testing.assert_close(tensor, dict(free.network.named_parameters())[name])
    before = {name: tensor.clone() for name, tensor in pulled.network.named_parameters()}
    for stacked in (free, pulled):
        stacked.epoch(x[:16], labels[:16])  # one step
    for name, tensor in pulled.network.named_parameters():
        # Of the rate 1e-3 times 10, before the step that both take.
        expected = dict(free.network.named_parameters())[name] - (0.01 * before[name] if tensor.dim() > 1 else 0)
        torch.testing.assert_close(tensor, expected)


def test_the_chosen_replicas_are_kept_and_no_others():
    state = {"weight": torch.arange(12.0).view(6, 2), "running": torch.arange(3.0), "count": torch.tensor(7)}
    kept = {name: torch.full_like(tensor, -1) for name, tensor in state.items()}
    training._keep(kept, state, [False, False, False])
    assert all((tensor == -1).all() for tensor in kept.values())
    training._keep(kept, state, [False, True, False])
    # Three replicas, of which each has two rows: the second one's are rows 2 and 3.
    assert kept["weight"].tolist() == [[-1, -1], [-1, -1], [4, 5], [6, 7], [-1, -1], [-1, -1]]
    assert kept["running"].tolist() == [-1, 1, -1] and kept["count"] == 7
