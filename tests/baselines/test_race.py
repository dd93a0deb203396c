"""melbench against the baselines: the same recordings, the same work, honest ratios."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from bench.baselines import BASELINES, loop, race
from bench.baselines.loop import Learned, Settings
from bench.grid import parse_axes, plan
from bench.measurement import reference
from bench.timing.clocks import HostClock
from melcnn import extract, load_clips
from tests.helpers.machines import FakeMachine

TINY = ["n_mels=16", "channels=8", "hop_length=800", "n_fft=256", "batch_size=16", "groups=1,2"]


@pytest.fixture(scope="module")
def trials():
    return plan(parse_axes(TINY), epochs=2, recipe="plain")


def test_recordings_are_written_as_they_were(clips, tmp_path):
    files = race.write_recordings(clips, tmp_path / "data")
    again = load_clips(tmp_path / "data")
    assert again.fingerprint == clips.fingerprint
    paths, labels = files["test"]
    assert [path.split("/")[-2] for path in paths] == [clips.words[label] for label in labels]
    assert {split: len(paths) for split, (paths, _) in files.items()} == {"train": 48, "validation": 16, "test": 16}


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_learn(name, clips, tmp_path, trials):
    files = race.write_recordings(clips, tmp_path / "data")
    settings = dataclasses.replace(race.settings(trials[0], "cpu"), epochs=8)
    learned = BASELINES[name](files, settings, 0)
    assert learned.validation_accuracy > 0.7 and learned.test_accuracy > 0.6
    assert learned == BASELINES[name](files, settings, 0)


def test_the_loop_is_the_one_of_tutorials(monkeypatch, request):
    # A crippled competitor would lose every race: its weights are those of a fresh loop, written out. In float64,
    # because Adam would make whole steps of float32's noise in the bias before a BatchNorm, which has the gradient 0.
    request.addfinalizer(partial(torch.set_default_dtype, torch.get_default_dtype()))
    torch.set_default_dtype(torch.float64)
    rng = torch.Generator().manual_seed(1)
    x, labels = torch.randn(60, 4, 12, generator=rng), torch.randint(2, (60,), generator=rng)
    batches = {"train": [(x[i : i + 10], labels[i : i + 10]) for i in range(0, 40, 10)]}
    batches |= {"validation": [(x[40:50], labels[40:50])], "test": [(x[50:], labels[50:])]}
    settings = Settings(16_000, 256, 800, 4, 2, 8, 2, learning_rate=0.01, batch_size=10, epochs=4, device="cpu")
    made, network_of = [], reference.network
    monkeypatch.setattr(reference, "network", lambda *shape: made.append(network_of(*shape)) or made[-1])
    learned = loop.fit(settings, 3, {split: partial(iter, own) for split, own in batches.items()})

    torch.manual_seed(3)
    network = network_of(4, 2, 8, 2)
    states, accuracies = [], []
    moments = [torch.zeros_like(p) for p in network.parameters()], [torch.zeros_like(p) for p in network.parameters()]
    for step, (batch, own) in enumerate(batches["train"] * 4, 1):
        network.train()
        loss = torch.nn.functional.cross_entropy(network(batch), own)
        for p, gradient, m, v in zip(
            network.parameters(), torch.autograd.grad(loss, list(network.parameters())), *moments, strict=True
        ):
            # Adam (arXiv:1412.6980), Algorithm 1.
            m.mul_(0.9).add_(0.1 * gradient)
            v.mul_(0.999).add_(0.001 * gradient**2)
            p.data -= 0.01 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        if step % 4 == 0:
            network.eval()
            accuracies.append(float((network(x[40:50]).argmax(1) == labels[40:50]).double().mean()))
            states.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
    best = accuracies.index(max(accuracies))
    assert learned.validation_accuracy == pytest.approx(accuracies[best])
    for name, tensor in made[0].state_dict().items():
        torch.testing.assert_close(tensor, states[best][name], rtol=1e-6, atol=1e-9)


def test_baselines_see_melbenchs_features(clips, tmp_path, trials):
    from bench.baselines import loader, memory

    files, settings = race.write_recordings(clips, tmp_path / "data"), race.settings(trials[0], "cpu")
    x = extract(clips, trials[0].front_end).split("validation")[0]
    in_memory, labels = memory._features(*map(tuple, files["validation"]), 16_000, 256, 800, 16, "cpu")
    one_by_one = loader.Recordings(*files["validation"], settings)
    np.testing.assert_allclose(in_memory, x, atol=1e-3)
    np.testing.assert_allclose(one_by_one[3][0], x[3], atol=1e-3)
    assert labels.tolist() == [label for _, label in one_by_one]


def test_a_round_of_melbench_is_all_seeds_and_one_of_a_baseline_is_one(clips, trials, monkeypatch):
    machine, calls = FakeMachine(), []

    def baseline(seconds):
        def train(files, settings, seed):
            calls.append((settings.groups, settings.epochs, seed))
            machine.time += seconds
            return Learned(0.5, 0.5)

        return train

    real = race.sweep

    def sweep(trials, seeds, *arguments, **options):
        assert all(trial.training.patience == trial.training.epochs for trial in trials)
        machine.time += 4.0
        return real(trials, seeds, *arguments, **options)

    monkeypatch.setattr(race, "BASELINES", {"slow": baseline(10.0), "fast": baseline(1.0)})
    monkeypatch.setattr(race, "sweep", sweep)
    clock = HostClock(now=machine.now, waited=lambda: 0.0)
    found = race.race(trials, 3, clips, "cpu", clock=clock)
    # Two configurations, three seeds, twice (slow and fast), two epochs each.
    assert sorted(calls) == sorted((g, 2, s) for g in (1, 2) for s in range(3) for _ in range(2))
    slow, fast, ours = race.rows(found, trials, 3, clips, "a CPU")
    assert (slow.way, fast.way, ours.way) == ("slow", "fast", "melbench")
    # A round of slow is 2 x 10 s and three rounds are all; melbench's 4 s are all.
    assert (slow.time_s, fast.time_s, ours.time_s) == (60.0, 6.0, 4.0)
    assert (slow.time_ratio, fast.time_ratio, ours.time_ratio) == pytest.approx((15.0, 1.5, 1.0))
    assert slow.time_a_training_s == 10.0 and slow.val_accuracy_max == 0.5


def test_the_command(melbench, corpus, tmp_path):
    code, out, _ = melbench(
        "time",
        *TINY,
        "--against",
        "baseline",
        "--data",
        corpus,
        "--seeds",
        1,
        "--epochs",
        1,
        "--csv",
        tmp_path / "r.csv",
    )
    ways = [line.partition(",")[0] for line in (tmp_path / "r.csv").read_text().splitlines()[1:]]
    assert (
        code == 0
        and len(ways) == len(set(ways)) == 3
        and "melbench" in ways
        and "val accuracy" in " ".join(out.split())
    )
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("groups --against yesterday", "use --against baseline"),
        ("groups --against baseline -o m.json", "-o goes not with --against"),
        ("groups --seeds 3", "--seeds goes only with --against"),
        ("groups --against baseline --what step", "baseline times whole trainings, or --what front-end"),
        ("mels --against baseline --what front-end", "takes one front-end"),
        ("groups --against baseline --seeds 0", "--seeds 0 is out of range"),
        ("batch_size=16,64 --against baseline", "one batch size"),
    ],
)
def test_what_cannot_be_raced(melbench, corpus, arguments, complaint):
    data = ["--data", corpus] if "--against baseline" in arguments else []
    code, _, err = melbench("time", *arguments.split(), *data)
    assert code == 2 and complaint in err
