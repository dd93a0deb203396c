"""melbench against the baselines: the same recordings, the same work, honest ratios."""

import dataclasses

import numpy as np
import pytest

from bench.baselines import BASELINES, race
from bench.baselines.loop import Learned
from bench.grid import parse_axes, plan
from bench.timing.clocks import HostClock
from melcnn import extract, load_clips
from tests.helpers.machines import FakeMachine

TINY = ["n_mels=16", "channels=8", "hop_length=800", "n_fft=256", "batch_size=16", "groups=1,2"]


@pytest.fixture(scope="module")
def trials():
    return plan(parse_axes(TINY), epochs=2)


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
    assert code == 0 and "features in memory" in out and "x melbench" in out
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
