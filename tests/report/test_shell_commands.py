"""The commands on a page, parsed again, make exactly the records that are there; and what is said of these."""

import inspect
import itertools
import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cli.app import sweep
from bench.cli.decide import recommend
from bench.grid import parse_axes, plan
from bench.report import shell_commands
from bench.report.load import load_report
from melcnn import configure
from melcnn.config import DEFAULT_RECIPE, Data, FrontEnd, Training, Trial
from melcnn.errors import InputError
from tests.helpers.records import chapter, folds, network

RESULTS = Path(__file__).parents[2] / "results"


def made_by(command):
    """The configuration and seed of each network that the command trains, as `melbench` parses it."""
    program, _, *arguments = shlex.split(command)
    assert program == "melbench"
    axes = list(itertools.takewhile(lambda argument: not argument.startswith("--"), arguments))
    options = dict(zip(arguments[len(axes) :: 2], arguments[len(axes) + 1 :: 2], strict=True))
    assert set(options) <= {"--data", "--words", "--seeds", "--kernels"}
    grid = parse_axes(axes)
    recipe = {} if "recipe" in grid else {"recipe": "default"}  # as the option has it
    trials = plan(grid, words=options.get("--words", "yes,no").split(","), **recipe)
    return [(trial, seed) for trial in trials for seed in range(int(options["--seeds"]))]


def lines_of(*chapters):
    """The commands, without the comments."""
    return [line for line in shell_commands.again(chapters) if not line.startswith("#")]


def ours(trial, seed=0, **changes):
    """A network that was trained by melbench's kernels, where these were the faster: what a sweep does."""
    return network(trial, seed, **{"kernels": "melcnn", **changes})


def check(trials, seeds=1):
    """The commands for `trials` train each of them, with each seed, and nothing else; no command is there twice."""
    lines = lines_of(chapter([ours(trial, seed) for trial in trials for seed in range(seeds)]))
    made = [each for line in lines for each in made_by(line)]
    assert set(made) == set(itertools.product(trials, range(seeds)))
    assert len(set(lines)) == len(lines)
    return lines


def test_of_the_reference_records():
    (found,) = load_report([RESULTS / "recipes" / "records", RESULTS / "recommendation" / "records"]).chapters
    # 1515 clips are the 1328 and the 187: folds are of all but the test split (results/README.md).
    assert shell_commands.again([found]) == [
        shell_commands.SOURCE,
        "# speech_commands: yes, no; 1,328 training, 187 validation and 824 test clips",
        "melbench sweep groups=1,2,4,8,16 --seeds 10",
        "# speech_commands: yes, no; cross-validation of 1,515 clips",
        # Of one group shuffle is the plain network, which a sweep leaves out: nine configurations in one grid.
        "melbench recommend groups=1,2,4,8,16 variant=plain,shuffle --seeds 5",
    ]


VALUES = {
    "n_mels": [16, 20, 40, 80],
    "n_fft": [400, 512],
    "hop_length": [160, 320],
    "normalize": ["none", "clip", "mel"],
    "groups": [1, 2, 4],
    "channels": [8, 32],
    "variant": ["plain", "interleaved", "shuffle", "separable"],
    "recipe": ["plain", "default"],
    "batch_size": [32, 64],
    "epochs": [5, 30, 120],
    "learning_rate": [0.001, 0.01, 3e-05],
    "patience": [10, 15],
    "keep": ["best", "last"],
    "ema_decay": [0.0, 0.999],
    "noise": [True, False],
}
axes = st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=3, unique=True)


def values_of(names):
    return st.fixed_dictionaries(
        {name: st.lists(st.sampled_from(VALUES[name]), min_size=1, unique=True) for name in names}
    )


@settings(max_examples=40, deadline=None)
@given(axes.flatmap(values_of), st.integers(1, 3))
def test_any_grid(grid, seeds):
    recipe = {} if "recipe" in grid else {"recipe": "default"}
    try:
        trials = plan(grid, **recipe)
    except InputError:
        return  # none of it can exist
    lines = check(trials, seeds)
    # One command made them, and with its recipe one makes them again.
    if len({trial.training.recipe for trial in trials}) == 1:
        assert len(lines) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(values_of(["n_mels", "groups", "variant", "recipe", "epochs"]), min_size=1, max_size=4))
def test_anything_that_grids_left_together(grids):
    trials = []
    for grid in grids:
        chosen = {name: values[:2] for name, values in grid.items()}
        trials += plan(chosen)
    check(list(dict.fromkeys(trials)))


def test_configurations_with_more_seeds_have_a_command_of_their_own():
    one, two, four = (configure(groups=groups, recipe="default") for groups in (1, 2, 4))
    records = [ours(one, 0), ours(one, 1), ours(two, 0), ours(four, 0), ours(four, 1)]
    assert lines_of(chapter(records)) == ["melbench sweep groups=1,4 --seeds 2", "melbench sweep groups=2 --seeds 1"]


def test_torchs_kernels_are_asked_for_where_they_alone_trained():
    one, two, four = (configure(groups=groups, recipe="default") for groups in (1, 2, 4))
    # Of the third each seed by others: no option makes that again, and none is given.
    records = [ours(one, kernels="torch"), ours(two), ours(four, 0, kernels="torch"), ours(four, 1)]
    assert lines_of(chapter(records, [fold for fold in folds(two, kernels="torch")])) == [
        "melbench sweep groups=4 --seeds 2",
        "melbench sweep groups=1 --kernels torch --seeds 1",
        "melbench sweep groups=2 --seeds 1",
        "melbench recommend groups=2 --kernels torch --seeds 1",
    ]


def test_a_command_stands_once_under_all_that_it_makes():
    trial = configure(recipe="default")
    larger = ours(trial, train_clips=30)
    assert shell_commands.again([chapter([ours(trial)]), chapter([larger])]) == [
        shell_commands.SOURCE,
        "# speech_commands: yes, no; 20 training, 20 validation and 20 test clips",
        "# speech_commands: yes, no; 30 training, 20 validation and 20 test clips",
        "melbench sweep groups=1 --seeds 1",
    ]


def test_what_all_commands_are_of_is_said_once():
    one, two = (configure(groups=groups, recipe="default") for groups in (1, 2))
    synthetic = {"dataset": "synthetic"}
    records = [ours(one, 0, **synthetic), ours(one, 1, **synthetic), ours(two, 0, **synthetic)]
    # Nobody need say where clips are from that melbench makes.
    assert shell_commands.again([chapter(records)]) == [
        "# synthetic: yes, no; 20 training, 20 validation and 20 test clips",
        "melbench sweep groups=1 --data synthetic --seeds 2",
        "melbench sweep groups=2 --data synthetic --seeds 1",
    ]


def test_the_data_set_and_the_words_are_named():
    trial = configure(words=("on", "off the record"), recipe="default")

    def command(dataset):
        (line,) = lines_of(chapter([ours(trial, dataset=dataset)]))
        return shlex.split(line)

    words = ["--words", "on,off the record", "--seeds", "1"]
    assert command("speech_commands") == ["melbench", "sweep", "groups=1", *words]
    assert command("synthetic") == ["melbench", "sweep", "groups=1", "--data", "synthetic", *words]
    # Somebody's own folder has a name that records do not tell.
    assert command("recordings") == ["melbench", "sweep", "groups=1", "--data", "my_recordings", *words]


def test_what_no_option_names_is_left_out():
    # A scale of mels, and patience without end where the recipe has one, are for Python alone.
    plain = configure(recipe="default")
    slaney = plain.model_copy(update={"front_end": FrontEnd(normalize="mel", mel_scale="slaney")})
    patient = Trial(training=Training(patience=None))
    assert lines_of(chapter([ours(trial) for trial in (plain, slaney, patient)])) == [
        "melbench sweep groups=1 --seeds 1"
    ]
    assert shell_commands.again([chapter([ours(slaney)])]) == []


def test_a_cross_validation_alone():
    trials = [configure(groups=groups, recipe="default") for groups in (2, 4)]
    records = [record for trial in trials for seed in (0, 1) for record in folds(trial, seed, kernels="melcnn")]
    # Five folds of 8 clips, the same ones whatever the trial and the seed.
    assert shell_commands.again([chapter([], records)]) == [
        shell_commands.SOURCE,
        "# speech_commands: yes, no; cross-validation of 40 clips",
        "melbench recommend groups=2,4 --seeds 2",
    ]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/home/ann/secret/runs"], "runs"),
        (["/home/ann/a/records", "/home/ann/b/records", "/tmp/times.json"], "a/records b/records times.json"),
        (["/records", "/a/records"], "/records a/records"),
        (["runs", "runs/"], "runs runs"),
        (["."], Path.cwd().name),
        (["/home/ann/my runs"], "'my runs'"),
    ],
)
def test_the_page_names_files_and_not_where_they_lie(paths, names):
    command = shell_commands.of_report([Path(path) for path in paths], Path("/home/ann/pages/report.html"))
    assert command == f"melbench report {names} -o report.html"


@pytest.mark.parametrize("command", [sweep, recommend])
def test_what_commands_leave_unsaid_is_the_default(command):
    options = inspect.signature(command).parameters
    assert options["recipe"].default == DEFAULT_RECIPE
    assert tuple(options["words"].default.split(",")) == Data().words
