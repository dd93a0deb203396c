import csv
import sys
from dataclasses import replace

import pytest
import torch

from bench.cli.terminal import finish
from bench.executors import jobs
from bench.records import RecordFolder
from bench.studies import gains
from tests.docs.test_columns import check
from tests.helpers.stand_ins import run_of


@pytest.fixture
def command(monkeypatch, capsys, corpus, tmp_path):
    """Runs one of the module's commands on the small corpus: (rows of its CSV file, Markdown), or what it says if it is
    to end with another exit code than 0."""

    def run(name, seeds, code=0):
        file = tmp_path / f"{name}.csv"
        arguments = [name, file, "--data", corpus, "--seeds", seeds, "--out", tmp_path / "records", "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["gains", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            finish(lambda: gains.app(standalone_mode=False))
        said = capsys.readouterr().err
        assert exit.value.code == code, said
        if code:
            return said
        return list(csv.DictReader(file.open())), file.with_suffix(".md").read_text()

    return run


def test_gains_on_the_test_split_are_paired_with_variant_and_recipe_plain(command, monkeypatch, tmp_path):
    monkeypatch.setattr(gains, "NETWORKS", [(20, 1), (20, 4)])
    given, real = [], gains.paired_interval
    monkeypatch.setattr(gains, "paired_interval", lambda a, b, speakers: given.append(speakers) or real(a, b, speakers))
    rows, text = command("test", 2)
    (record, *_) = RecordFolder(tmp_path / "records").trials().values()
    assert given and all(list(speakers) == list(record.test.speakers) for speakers in given)
    assert list(record.test.speakers) != list(record.test.names)
    check("python -m bench.studies.gains test", list(rows[0]))
    assert [(r["groups"], r["variant"], r["recipe"]) for r in rows] == [
        ("1", "plain", "plain"),
        ("4", "plain", "plain"),
        ("1", "plain", "default"),
        ("4", "plain", "default"),
        ("4", "shuffle", "default"),
    ]
    found = {}
    for record in RecordFolder(tmp_path / "records").trials().values():
        key = (str(record.trial.model.groups), record.trial.model.variant, record.trial.training.recipe)
        found.setdefault(key, []).append(record.test.accuracy)
    for row in rows:
        accuracy = sum(found[row["groups"], row["variant"], row["recipe"]]) / 2
        assert float(row["test_accuracy"]) == pytest.approx(accuracy, abs=1e-6)
        if row["recipe"] == "plain":
            assert row["gain"] == row["error_ratio"] == ""
        else:
            before = sum(found[row["groups"], "plain", "plain"]) / 2
            assert float(row["gain"]) == pytest.approx(accuracy - before, abs=2e-6)
            assert float(row["gain_low95"]) <= float(row["gain"]) <= float(row["gain_high95"])
            if row["error_ratio"]:
                assert float(row["error_ratio"]) == pytest.approx((1 - accuracy) / (1 - before), abs=1e-3)
    assert text.startswith("speech_commands: yes,no (48 training and 16 test clips), 2 seeds")


def test_ingredients_are_taken_out_one_at_a_time(command, monkeypatch):
    monkeypatch.setattr(gains, "ABLATED", [{"groups": 1, "n_mels": 20, "hop_length": 800, "epochs": 2}])
    rows, _ = command("ingredients", 2)
    check("python -m bench.studies.gains ingredients", list(rows[0]))
    assert [row["change"] for row in rows] == ["all", *gains.CHANGES]
    assert rows[0]["gain"] == "" and all(row["gain"] for row in rows[1:]) and {row["clips"] for row in rows} == {"64"}


@pytest.mark.parametrize("name", ["test", "ingredients"])
def test_what_failed_is_told_and_tried_again_by_the_same_command(command, monkeypatch, name):
    monkeypatch.setattr(gains, "NETWORKS", [(20, 1)])
    monkeypatch.setattr(gains, "ABLATED", [{"groups": 1, "n_mels": 20, "hop_length": 800}])
    monkeypatch.setattr(gains, "CHANGES", {})

    def fit(trial, x, seeds, on_epoch, kernels):
        if fails and 0 in seeds:
            raise ValueError("no luck")
        logits = [torch.zeros(len(x.split(split)[1]), 2) for split in ("validation", "test")]
        return [replace(run_of(seed), validation_logits=logits[0], test_logits=logits[1]) for seed in seeds]

    monkeypatch.setattr(jobs, "fit", fit)
    fails = True
    last = command(name, 2, code=1).splitlines()[-1]
    assert "trials failed, such as" in last and last.endswith(" seed 0: ValueError: no luck")
    fails = False
    assert command(name, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["a.csv", "--seeds", "0"], "--seeds 0 is out of range"), (["nowhere/a.csv"], "cannot be written")],
)
@pytest.mark.parametrize("name", ["test", "ingredients"])
def test_bad_input_is_one_line(monkeypatch, capsys, corpus, tmp_path, name, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gains", name, *arguments, "--data", str(corpus), "--device", "cpu"])
    with pytest.raises(SystemExit) as exit:
        finish(lambda: gains.app(standalone_mode=False))
    err = capsys.readouterr().err
    assert exit.value.code == 2 and message in err and err.count("\n") == 1


def test_each_change_changes_one_thing_and_names_it():
    from melcnn.config import configure, recipe_settings, settings_of

    whole = recipe_settings("default")
    for name, change in gains.CHANGES.items():
        changed = {k for k, v in settings_of(configure(recipe="default", **change)).items() if v != whole[k]}
        assert changed == set(change), name
