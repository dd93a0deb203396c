"""Sweeps are found again from settings, and a configuration looks the same in all figures."""

import pytest

from bench.grid import parse_axes, plan
from bench.report import charts
from bench.report.configurations import about, sweeps
from bench.report.findings import find
from bench.report.style import PAPER
from melcnn import configure
from tests.helpers.configurations import plain
from tests.helpers.records import chapter, folds, network


def grid(*axes):
    return plan(parse_axes(axes), recipe="default")


GROUPS, MELS = grid("groups"), grid("mels")
VARIANTS, CHANNELS = grid("groups=4", "variant=plain,shuffle,separable"), grid("groups=4", "channels=16,32,64")


def found(*made):
    """The sweeps by name, each with its number of configurations."""
    trials = list(dict.fromkeys(trial for trials in made for trial in trials))
    return {sweep.name: len(sweep.trials) for sweep in sweeps(trials)}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([GROUPS], {"groups": 5}),
        # Each with the configuration that it shares with another: groups=1 of 80 mels, groups=4 of 32 channels.
        ([GROUPS, MELS], {"groups": 5, "n_mels": 3}),
        (
            [GROUPS, MELS, VARIANTS, CHANNELS],
            {"groups": 5, "n_mels": 3, "variant (groups=4)": 3, "channels (groups=4)": 3},
        ),
        # A grid is one sweep: of one group shuffle is the plain network, and 20 mels have at most 4 groups.
        ([grid("groups", "variant=plain,shuffle")], {"groups, variant": 9}),
        ([grid("groups=1,2", "variant=plain,interleaved,shuffle")], {"groups, variant": 4}),
        ([grid("groups", "mels")], {"n_mels, groups": 12}),
        ([grid("groups", "variant=plain,shuffle"), MELS], {"groups, variant": 9, "n_mels": 3}),
        # Two of two configurations stand together; so does what is in none.
        ([GROUPS, grid("n_mels=40,80"), grid("epochs=5,120")], {"groups": 5, "one setting at a time": 3}),
        ([[plain(n_mels=40, channels=16), *(plain(groups=groups) for groups in (2, 4))]], None),
        ([GROUPS[:1]], {"": 1}),
    ],
)
def test_sweeps_are_found_again(made, expected):
    if expected is None:
        expected = {"groups": 2, "other configurations": 1}
    assert found(*made) == expected


def test_every_configuration_is_in_a_sweep():
    trials = [*GROUPS, *MELS[:2], configure(channels=16, n_mels=40, variant="separable", recipe="default")]
    assert {trial for sweep in sweeps(trials) for trial in sweep.trials} == set(trials)


def looks(figure, channel):
    """The colour or shape of each value in a figure, and in its legend."""
    scales = [layer["encoding"][channel]["scale"] for layer in figure.spec["layer"] if channel in layer["encoding"]]
    assert all(scale == scales[0] for scale in scales)
    return dict(zip(scales[0]["domain"], scales[0]["range"], strict=True)) if scales else {}


@pytest.mark.parametrize("trials", [GROUPS, grid("groups", "variant=plain,shuffle")], ids=["one axis", "two"])
def test_a_configuration_looks_the_same_in_all_figures(trials):
    # The first ones are in the cross-validation alone: in curves and of the test split they are missing.
    records = [network(trial, seed, epochs=3) for trial in trials[2:] for seed in (0, 1)]
    crossed = [fold for trial in trials for seed in (0, 1) for fold in folds(trial, seed)]
    figures = charts.figures(find(chapter(records, crossed)), PAPER)
    for channel in ("color", "shape"):
        everywhere = [own for figure in figures if (own := looks(figure, channel))]
        assert len(everywhere) >= 4
        for value, look in everywhere[0].items():
            assert all(own.get(value, look) == look for own in everywhere), value
    points = [point for figure in figures for point in figure.points if point.get("configuration")]
    assert len({(p["configuration"], p["colour"], p["shape"]) for p in points}) == len(trials)


def test_no_two_configurations_of_a_grid_look_alike():
    trials = grid("groups", "variant=plain,shuffle", "n_mels=40,80", "channels=16,32")
    points, titles = about(trials, sweeps(trials))
    # 2 x 2 x 2 shapes are more than there are: colours and shapes go by the name.
    assert titles.colour == titles.shape == "" and len({p["colour"] for p in points.values()}) == len(trials)
    pair = grid("groups", "variant=plain,shuffle")
    points, titles = about(pair, sweeps(pair))
    assert (titles.colour, titles.shape) == ("groups", "variant")
    assert len({(p["colour"], p["shape"]) for p in points.values()}) == len(pair)
