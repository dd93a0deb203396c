"""Curves for TensorBoard, as TensorBoard's own reader reads them."""

import builtins
import math
import re

import pytest

from bench.report.findings import CURVES
from bench.report.load import ReportInput
from melcnn import InputError
from tests.helpers.records import chapter, diverged, folds, network

pytest.importorskip("tensorboard")

from bench.report.tensorboard import write_curves
from tests.helpers.configurations import plain

READERS = "tensorboard.backend.event_processing.event_accumulator"


def written(folder, *chapters):
    return write_curves(ReportInput(chapters, {}), folder)


def runs(folder):
    """Each run by its place below the folder: epochs and values of each curve."""
    accumulator = pytest.importorskip(READERS).EventAccumulator
    found = {}
    for home in sorted({path.parent for path in folder.rglob("events.out.tfevents.*")}):
        # As many events of each curve as there are.
        reader = accumulator(str(home), size_guidance={"scalars": 0}).Reload()
        found[str(home.relative_to(folder))] = {
            curve: [(event.step, event.value) for event in reader.Scalars(curve)] for curve in reader.Tags()["scalars"]
        }
    return found


def curves_of(record):
    # TensorBoard keeps single precision, seven digits.
    values = {curve: list(enumerate(getattr(record, curve), 1)) for curve in CURVES}
    return {
        curve: [(epoch, pytest.approx(value, rel=1e-6)) for epoch, value in points if math.isfinite(value)]
        for curve, points in values.items()
        if points
    }


def test_the_curves_of_every_network_are_read_back(tmp_path):
    records = [network(plain(groups=groups), seed, epochs=3 + seed) for groups in (1, 4) for seed in (0, 1)]
    assert written(tmp_path, chapter(records)) == tmp_path
    assert runs(tmp_path) == {
        f"speech_commands yes no/groups={groups}/seed {seed} {record.identity}": curves_of(record)
        for record, (groups, seed) in zip(records, [(g, s) for g in (1, 4) for s in (0, 1)], strict=True)
    }


def test_every_fold_is_a_run(tmp_path):
    records = folds(plain())
    written(tmp_path, chapter([], records))
    # Folds have no validation: the loss of training is all their curves.
    found = runs(tmp_path)
    assert list(found.values()) == [curves_of(record) for record in records] and len(found) == 5
    assert {tuple(curves) for curves in found.values()} == {("train_loss",)}
    assert {home.split("/")[0] for home in found} == {
        f"speech_commands, fold {fold} of 5 yes no" for fold in range(1, 6)
    }


def test_what_is_no_number_is_no_point(tmp_path):
    written(tmp_path, chapter([diverged(plain())]))
    (curves,) = runs(tmp_path).values()
    assert curves["validation_loss"] == [(1, 1.0)] and len(curves["train_loss"]) == 3


def test_a_second_call_replaces_the_first(tmp_path):
    for epochs in (5, 3):
        written(tmp_path, chapter([network(epochs=epochs)]))
    (curves,) = runs(tmp_path).values()
    assert [epoch for epoch, _ in curves["train_loss"]] == [1, 2, 3]
    assert len(list(tmp_path.rglob("events.out.tfevents.*"))) == 1


def test_a_network_that_is_called_otherwise_among_others_is_replaced_too(tmp_path):
    one, other = network(plain()), network(plain(n_mels=40))
    written(tmp_path, chapter([one]))
    (alone,) = runs(tmp_path)
    written(tmp_path, chapter([one, other]))
    among = set(runs(tmp_path))
    assert len(among) == 2 and alone not in among and not (tmp_path / alone).exists()
    # What is not written again stays.
    written(tmp_path, chapter([other]))
    assert sorted(place.split()[-1] for place in runs(tmp_path)) == sorted([one.identity, other.identity])


def test_only_events_of_the_same_record_are_removed(tmp_path):
    record = network()
    of_others = [
        f"mine/groups=1/{name}"
        for name in (
            "seed 0",
            f"copy of seed 0 {record.identity}",
            f"seed 0 {record.identity} copy",
            "seed 0 0123456789ab",
        )
    ]
    for place in (*of_others, f"mine/groups=1/seed 0 {record.identity}"):
        (tmp_path / place).mkdir(parents=True)
        for name in ("events.out.tfevents.1", "notes.txt"):
            (tmp_path / place / name).touch()
    written(tmp_path, chapter([record]))
    assert {str(path.parent.relative_to(tmp_path)) for path in (tmp_path / "mine").rglob("events.*")} == {*of_others}
    assert len(list(tmp_path.rglob("notes.txt"))) == 5


@pytest.mark.parametrize(
    "words",
    [("..", "."), ("../..", "/etc"), ("C:\\up", "no"), ("a\nb\0c", "\u202eno"), ("é" * 250, "no"), ("...", "???")],
)
def test_names_of_anybody_stay_inside(tmp_path, words):
    home = tmp_path / "curves"
    written(home, chapter([network(plain(words=words))]))
    (place,) = runs(home)
    assert place.count("/") == 2 and place.isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ["curves"]


def test_names_that_become_one_stay_apart(tmp_path):
    # Signs that no path may have are all spaces.
    records = [network(plain(words=words)) for words in (("a:b", "no"), ("a?b", "no"))]
    written(tmp_path, *(chapter([record]) for record in records))
    homes = {f"speech_commands a b no/groups=1/seed 0 {record.identity}" for record in records}
    assert set(runs(tmp_path)) == homes and len(homes) == 2


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match=r"^[^\n]* cannot be written \([^\n]*\): choose another --tensorboard$"):
        written(tmp_path / "taken", chapter([network()]))


def test_without_tensorboard_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    ours = builtins.__import__

    def missing(name, *arguments, **keywords):
        if name == "torch.utils.tensorboard":
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return ours(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", missing)
    message = "--tensorboard needs TensorBoard: pip install 'melbench[tensorboard]'"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        written(tmp_path / "curves", chapter([network()]))
    assert not (tmp_path / "curves").exists()
