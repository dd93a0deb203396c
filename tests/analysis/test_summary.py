import csv
import io
import json

import pytest
from rich.console import Console

from bench import formats
from bench.analysis import summary
from bench.records import Predictions
from bench.system.environment import collect
from melcnn import configure
from tests.helpers.configurations import plain
from tests.records.test_folder import timing_record, trial_record

COLUMNS = (
    "dataset,words,n_mels,groups,channels,variant,recipe,batch_size,seeds,train_clips,test_clips,params,macs,"
    "macs_all_layers,val_accuracy_max,val_accuracy_ci95,test_accuracy,test_accuracy_ci95,epochs,epoch_time_s,"
    "kernels,device"
)


@pytest.fixture
def rows():
    one, two = plain(), plain(groups=2)
    records = [
        trial_record(0, trial=one, kept_epoch=2),
        trial_record(1, trial=one, kept_epoch=5, logits=[[0.9, 0.1], [0.7, 0.3]]),
        trial_record(2, trial=one, kept_epoch=5),
        trial_record(0, trial=two),
    ]
    return summary.rows(records, timing_record(one, two))


def test_rows_by_hand(rows):
    first, second = rows
    assert (first.groups, first.seeds, second.groups, second.seeds) == (1, 3, 2, 1)
    # accuracies 1, 0.5, 1: mean 5 / 6, s = sqrt(1 / 12), half-width t(0.975; 2) s / sqrt(3) = 4.302653 / 6
    assert first.test_accuracy == pytest.approx(5 / 6, abs=1e-6)
    assert first.test_accuracy_ci95 == pytest.approx(4.302653 / 6, rel=1e-5)
    # 5 / 6 - 4.302653 / 6, and no interval goes beyond 1.
    assert first.test_accuracy_low95 == pytest.approx(0.697347 / 6, abs=1e-6) and first.test_accuracy_high95 == 1.0
    assert first.epochs == 4 and first.epoch_time_s == 2.0
    assert second.test_accuracy_ci95 is None and second.test_accuracy_low95 is None


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (0.75, None, "0.7500"),
        (0.75, 0.25, "0.7500 ±0.2500"),
        (0.9973, 0.0036, "0.9973 (≥0.9937)"),
        (0.01, 0.02, "0.0100 (≤0.0300)"),
        (0.25, 0.25, "0.2500 ±0.2500"),  # It ends at 0 by itself.
        (0.5, 0.75, "0.5000 (≤1.0000)"),
    ],
)
def test_an_interval_ends_at_0_and_1(mean, half, text):
    assert summary.accuracy(mean, half) == text


def test_a_time_of_a_busy_machine_is_marked():
    one, two = plain(), plain(groups=2)
    record = timing_record(one, two)
    busy = record.model_copy(update={"timed": [t.model_copy(update={"held_up": t.trial == two}) for t in record.timed]})
    rows = summary.rows([trial_record(trial=one), trial_record(trial=two)], busy)
    assert [row.epoch_time_held_up for row in rows] == [False, True]
    sheet = summary.sheet(rows)
    assert [cells[-1] for cells in sheet.cells] == ["2.000 s", "2.000 s !"]
    assert [note for note in sheet.notes if note.startswith("! ")]
    assert not [note for note in summary.sheet(rows[:1]).notes if note.startswith("! ")]


def test_val_accuracy_says_which_epoch_it_is_of():
    best, last = configure(recipe="plain"), configure(recipe="default")

    def heading(*trials):
        sheet = summary.sheet(summary.rows([trial_record(trial=trial) for trial in trials]))
        return next(name for name in sheet.headings if name.startswith("val accuracy"))

    assert (heading(best), heading(last)) == ("val accuracy (best epoch)", "val accuracy (last epoch)")
    assert heading(best, last) == "val accuracy (kept epoch)"


def test_what_is_constant_is_in_the_title():
    records = [trial_record(trial=plain(groups=groups), kept_epoch=4) for groups in (1, 2)]
    sheet = summary.sheet(summary.rows(records))
    assert ", 4 epochs, " in sheet.title and "epochs" not in sheet.headings


def test_csv_columns_are_the_contract_and_only_ever_added(rows):
    text = formats.to_csv(summary.sheet(rows))
    assert text.startswith(COLUMNS)
    first, second = csv.DictReader(io.StringIO(text))
    assert first["words"] == "yes,no" and first["epoch_time_s"] == "2.0" and second["val_accuracy_ci95"] == ""


def test_the_device_names_what_trained_and_what_timed():
    elsewhere = collect("cpu").model_copy(update={"device": "Some GPU"})
    (row,) = summary.rows([trial_record(environment=elsewhere)], timing_record(plain()))
    assert row.device == " + ".join(sorted(["Some GPU", collect("cpu").device]))


def test_a_row_that_was_not_timed_names_no_timing_machine():
    elsewhere = collect("cpu").model_copy(update={"device": "Some GPU"})
    records = [trial_record(trial=plain(groups=groups), environment=elsewhere) for groups in (1, 2)]
    timed, untimed = summary.rows(records, timing_record(plain(groups=1)))
    assert timed.device != "Some GPU" and untimed.device == "Some GPU" and untimed.epoch_time_s is None


def test_settings_that_are_not_the_defaults_are_named():
    sheet = summary.sheet(summary.rows([trial_record(trial=plain(n_fft=512, batch_size=32, epochs=2))]))
    assert (
        ", n_fft=512, batch_size=32, max_epochs=2, " in sheet.title
        and sheet.headings[0] == "groups"
        and not sheet.notes
    )
    assert "1 seed," in sheet.title


def test_most_epochs_as_an_axis_tell_rows_apart():
    short, long = plain(epochs=5), plain(epochs=50)
    sheet = summary.sheet(summary.rows([trial_record(trial=short), trial_record(trial=long)]))
    assert sheet.headings[0] == "max_epochs" and [cells[0] for cells in sheet.cells] == ["5", "50"]
    assert [record["max_epochs"] for record in sheet.records] == [5, 50]


def test_a_trial_that_was_not_timed_has_no_time():
    (row,) = summary.rows([trial_record()], timing_record(plain(groups=2)))
    assert row.epoch_time_s is None
    assert formats.to_markdown(summary.sheet([row])).count("|  |") == 1


def test_json_holds_the_rows(rows):
    assert [summary.SummaryRow(**row) for row in json.loads(formats.to_json(summary.sheet(rows)))] == rows


def test_markdown(rows):
    lines = formats.to_markdown(summary.sheet(rows)).splitlines()
    assert lines[0].startswith("speech_commands: yes,no (20 training and 2 test clips), recipe plain, 3 / 1 seeds, ")
    assert lines[2:6] == [
        "| groups | params | MACs | MACs (all layers) | MACs (with front-end) | val accuracy (best epoch) "
        "| test accuracy | epochs | epoch time |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        # The front-end has 2,060,595 (tests/counting/test_brute_force.py).
        "| 1 | 1 | 2 | 3 | 2,060,597 | 0.8333 (≥0.1162) | 0.8333 (≥0.1162) | 4.0 | 2.000 s |",
        "| 2 | 1 | 2 | 3 | 2,060,597 | 1.0000 | 1.0000 | 1.0 | 2.000 s |",
    ]


def test_latex(rows):
    lines = formats.to_latex(summary.sheet(rows)).splitlines()
    assert lines[0] == r"\begin{table}" and lines[-1] == r"\end{table}"
    assert lines[2].startswith(r"\caption{speech\_commands: yes,no (20 training and 2 test clips)")
    assert lines[4] == r"\begin{tabular}{rrrrrrrrr}"
    assert lines[8] == r"1 & 1 & 2 & 3 & 2,060,597 & 0.8333 ($\geq$0.1162) & 0.8333 ($\geq$0.1162) & 4.0 & 2.000 s \\"


@pytest.mark.parametrize("width, second_convention", [(80, False), (160, True)])
def test_the_table_fits_the_terminal(rows, width, second_convention):
    out = io.StringIO()
    Console(file=out, width=width).print(formats.to_table(summary.sheet(rows), width))
    assert "0.8333 (≥0.1162)" in out.getvalue() and "2.000 s" in out.getvalue()
    assert ("Not shown at this width: MACs (all layers), MACs (with front-end)" in out.getvalue()) != second_convention
    assert ("2,060,597" in out.getvalue()) == second_convention
    assert max(map(len, out.getvalue().splitlines())) <= width


def test_time_to_a_validation_accuracy_by_hand():
    curves = {"train_loss": [0.5] * 3, "validation_loss": [0.4] * 3, "elapsed_seconds": [1.5, 3.0, 4.5]}
    early = trial_record(0, validation_accuracy=[0.9, 0.97, 0.98], **curves)
    late = trial_record(1, validation_accuracy=[0.5, 0.9, 0.99], **curves)
    never = trial_record(2, validation_accuracy=[0.5, 0.6, 0.7], **curves)
    (row,) = summary.rows([early, late, never], target=0.97)
    # 3.0 s and 4.5 s; the third does not get there.
    assert (row.target, row.reached_target, row.time_to_target_s) == (0.97, 2, 3.75)
    sheet = summary.sheet([row])
    assert sheet.headings[-1] == "time to 0.97" and sheet.cells[0][-1] == "3.75 s (2 of 3)"
    (all_reach,) = summary.rows([early, late], target=0.97)
    assert summary.sheet([all_reach]).cells[0][-1] == "3.75 s"
    (none,) = summary.rows([never], target=0.97)
    assert (none.reached_target, none.time_to_target_s) == (0, None)
    assert summary.sheet([none]).cells[0][-1] == "never (0 of 1)"


def test_records_that_tell_no_times_reach_no_target():
    (row,) = summary.rows([trial_record()], target=0.5)
    assert (row.target, row.reached_target, row.time_to_target_s) == (0.5, None, None)
    assert summary.sheet([row]).cells[0][-1] == ""
    (unasked,) = summary.rows([trial_record(elapsed_seconds=[1.5])])
    assert (unasked.target, unasked.reached_target, unasked.time_to_target_s) == (None, None, None)
    assert "time to" not in " ".join(summary.sheet([unasked]).headings)


def test_among_very_many_nothing_is_recommended_and_that_is_said(monkeypatch):
    records = [trial_record(trial=plain(learning_rate=1e-4 * (1 + number))) for number in range(3)]
    said = {"names": ["a.wav", "b.wav"], "speakers": ["a", "b"], "labels": [1, 0], "logits": [[0, 1], [1, 0]]}
    records = [record.model_copy(update={"validation": Predictions(**said)}) for record in records]
    decided = summary.recommended(records)
    assert decided and not [n for n in summary.sheet(summary.rows(records), decided).notes if "No recommend" in n]
    monkeypatch.setattr(summary, "MOST_CANDIDATES", 3)
    assert summary.recommended(records) and "sweep fewer" not in " ".join(summary.sheet(summary.rows(records)).notes)
    monkeypatch.setattr(summary, "MOST_CANDIDATES", 2)
    assert summary.recommended(records) is None
    assert (
        "No recommendation for more than 2 configurations: sweep fewer." in summary.sheet(summary.rows(records)).notes
    )


def test_nothing_is_recommended_of_clips_that_differ_or_are_one_speakers():
    one, two = trial_record(trial=plain()), trial_record(trial=plain(groups=2))
    assert summary.recommended([one, two]) is not None
    assert summary.recommended([one]) is None
    alone = one.validation.model_copy(update={"speakers": ["1", "1"]})
    assert summary.recommended([each.model_copy(update={"validation": alone}) for each in (one, two)]) is None
    others = two.validation.model_copy(update={"names": ["a/1", "b/3"]})
    assert summary.recommended([one, two.model_copy(update={"validation": others})]) is None


def test_marks_are_explained_where_they_stand_and_nowhere_else(rows):
    single = rows[1:]  # one seed, which has no interval
    assert not [note for note in summary.sheet(single).notes if note.startswith(("±", "≈"))]
    assert [note for note in summary.sheet(rows).notes if note.startswith("± 95%")]
    tied, told = (rows[0].model_copy(update={"told_from_best": value}) for value in (False, True))
    assert [note for note in summary.sheet([tied]).notes if note.startswith("≈ statistically tied")]
    assert not [note for note in summary.sheet([told]).notes if note.startswith("≈")]


def test_what_is_recommended_is_in_rows_and_verdict():
    # One of two words wrong in each of ten seeds, and none: two speakers are too few to tell.
    records = [trial_record(seed, trial=plain()) for seed in range(3)]
    records += [trial_record(seed, trial=plain(groups=2), logits=[[0.1, 0.9], [0.3, 0.7]]) for seed in range(3)]
    decided = summary.recommended(records)
    rows = summary.rows(records, decided=decided)
    assert [row.told_from_best for row in rows] == [result.told_from_best for result in decided.results]
    assert [row.told_from_best for row in summary.rows(records)] == [None, None]
    assert summary.sheet(rows, decided).verdict == decided.describe("MACs", summary.BY_CROSS_VALIDATION) != ""
    assert summary.sheet(rows).verdict == ""
