"""Axes and settings: what commands take for one configuration or a grid, and the way back to a command."""

import shlex

import pytest
import typer

from bench.cli import options
from bench.grid import axes_of, parse_axes, plan, single, train_command
from melcnn import configure
from melcnn.errors import InputError
from tests.helpers.configurations import plain


def test_axes_and_options_name_one_configuration():
    expected = configure(("yes", "no"), groups=4, variant="shuffle", recipe="default", label_smoothing=0)
    assert single(["groups=4", "variant=shuffle", "label_smoothing=0"], recipe="default") == expected
    assert (
        single(["variant=shuffle", "label_smoothing=0"], recipe="default", options={"groups": 4, "n_mels": None})
        == expected
    )


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (["groups=1,4"], "groups has several values: this command takes one configuration, such as groups=4"),
        (["groups"], "groups has several values"),
        (["group=4"], "there is no setting 'group', did you mean groups?: the settings are n_mels, "),
        (["n-mels=40"], "there is no setting 'n-mels', did you mean n_mels?: "),
        (["mel"], "there is no axis 'mel', did you mean mels?: use groups, mels, or name=value"),
        (["qqq=4"], "there is no setting 'qqq': the settings are "),
    ],
)
def test_what_names_no_single_configuration(axes, message):
    with pytest.raises(InputError) as error:
        single(axes)
    assert str(error.value).startswith(message)


def test_a_setting_given_twice():
    with pytest.raises(InputError, match="groups is both an axis and an option: give it once"):
        single(["groups=4"], options={"groups": 4})


@pytest.mark.parametrize(
    ("settings", "axes"),
    [
        ({}, ["groups=1"]),
        ({"groups": 4, "variant": "shuffle"}, ["groups=4", "variant=shuffle"]),
        ({"recipe": "plain", "n_mels": 40}, ["n_mels=40", "groups=1", "recipe=plain"]),
        (
            {"noise": False, "label_smoothing": 0.0, "epochs": 5},
            ["groups=1", "epochs=5", "label_smoothing=0.0", "noise=false"],
        ),
    ],
)
def test_axes_of_a_configuration_and_back(settings, axes):
    trial = plain(**{"recipe": "default"} | settings)
    assert sorted(axes_of([trial])) == sorted(axes)
    assert plan(parse_axes(axes_of([trial])), recipe="default") == [trial]


def test_what_no_axes_can_name_has_no_command():
    # The sample rate is no setting.
    trial = configure(recipe="default")
    other = trial.model_copy(update={"front_end": trial.front_end.model_copy(update={"sample_rate": 8000})})
    assert axes_of([other]) is None and train_command(other) == ""


def test_the_axes_of_a_grid():
    trials = plan(parse_axes(["groups=1,4", "variant=plain,shuffle"]), recipe="default")
    assert axes_of(trials) == ["groups=1,4", "variant=plain,shuffle"]
    assert axes_of(trials[:2]) is not None and axes_of([trials[0], trials[-1]]) is None


def test_the_command_that_trains_it():
    trial = configure(("go", "two words"), groups=4, recipe="default")
    command = train_command(trial, ["--data", "my data"])
    assert shlex.split(command) == [
        *("melbench", "train", "groups=4", "--words", "go,two words", "--data", "my data", "-o", "network.safetensors")
    ]


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("10000", 10_000), ("10,000", 10_000), ("10_000", 10_000), ("10k", 10_000), ("1.5M", 1_500_000)],
)
def test_a_count(text, number):
    assert options.count(text) == number


@pytest.mark.parametrize("text", ["", "0", "-5", "1.5", "10q", "k", "1e4", "0.0001k"])
def test_what_is_no_count(text):
    with pytest.raises(typer.BadParameter, match="is not a count: write a whole number such as 10000, 10k or 1.5M"):
        options.count(text)
