"""What a report says is what the tables say: rows, points, curves and confusions, by hand and of reference records."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest

from bench import formats
from bench.analysis import summary
from bench.analysis.published import STUDY
from bench.report.findings import CURVES, OUT_OF_FOLD, TEST, VALIDATION, find
from bench.report.load import load_report
from melcnn import configure
from melcnn.data.clips import Fold
from tests.helpers.configurations import plain
from tests.helpers.records import ENVIRONMENT, chapter, diverged, failure_record, folds, heard, network, timing_record

RESULTS = Path(__file__).parents[2] / "results"
ONE, TWO, FOUR = (configure(recipe="plain", groups=groups) for groups in (1, 2, 4))


@pytest.fixture(scope="module")
def reference():
    (found,) = load_report([RESULTS / "recipes" / "records"]).chapters
    return find(found)


@pytest.fixture(scope="module")
def with_folds():
    (found,) = load_report([RESULTS / "recipes" / "records", RESULTS / "recommendation" / "records"]).chapters
    return find(found)


def of(points, **wanted):
    return [point for point in points if all(point[name] == value for name, value in wanted.items())]


# The reference records


def test_the_table_is_the_stored_one(reference):
    sheet = reference.sheets["configurations"]
    assert formats.to_csv(sheet) == (RESULTS / "recipes" / "groups.csv").read_text()
    assert formats.to_markdown(sheet) == (RESULTS / "recipes" / "groups.md").read_text()
    assert not reference.remarks and reference.basis == VALIDATION


def test_points_are_the_rows_of_the_table(reference):
    with (RESULTS / "recipes" / "groups.csv").open() as file:
        rows = list(csv.DictReader(file))
    for measure, column in ((VALIDATION, "val_accuracy"), (TEST, "test_accuracy")):
        mean = "val_accuracy_max" if measure == VALIDATION else column
        ours = [point for point in of(reference.accuracies, measure=measure) if point["configuration"]]
        for row, point in zip(rows, ours, strict=True):
            accuracy = float(row[mean])
            assert (point["groups"], point["macs"], point["n_mels"]) == (int(row["groups"]), int(row["macs"]), 80)
            assert point["accuracy"] == accuracy and point["configuration"] == f"groups={row['groups']}"
            # Over speakers the interval is wider than over seeds alone, and ends at 1.
            assert point["low"] < float(row[f"{column}_low95"] or accuracy) <= point["high"] <= 1
    assert [(p["params"], p["macs"], p["epoch_time_s"]) for p in reference.costs] == [
        (int(row["params"]), int(row["macs"]), float(row["epoch_time_s"])) for row in rows
    ]


def test_points_are_the_recommendations_rows(with_folds):
    with (RESULTS / "recommendation" / "candidates.csv").open() as file:
        rows = {(row["groups"], row["variant"]): row for row in csv.DictReader(file)}
    points = of(with_folds.accuracies, measure=OUT_OF_FOLD)
    assert len(points) == len(rows) == 9 and with_folds.basis == OUT_OF_FOLD
    for point in points:
        row = rows[tuple(part.split("=")[1] for part in point["configuration"].split())]
        assert [point[name] for name in ("accuracy", "low", "high")] == [
            float(row[name]) for name in ("accuracy", "accuracy_low95", "accuracy_high95")
        ]
        assert (point["macs"], str(point["on_front"])) == (int(row["macs"]), row["on_front"])
    assert with_folds.answer == "groups=4 variant=plain"  # the stored note: recommended: groups=4 variant=plain


def test_the_front_is_of_the_measure_that_decides(reference, with_folds):
    # Validation in the order of MACs, from 16 groups to one: 0.9904, 0.9957, 0.9984, 1.0000, 0.9973: groups=1 costs
    # more than groups=2 and hears less.
    fronts = [{p["groups"] for p in of(reference.accuracies, measure=m, on_front=True)} for m in (VALIDATION, TEST)]
    assert fronts == [{16, 8, 4, 2}, set()]
    assert {point["measure"] for point in with_folds.accuracies if point["on_front"]} == {OUT_OF_FOLD}


def test_the_study_stands_at_the_macs_of_the_same_networks(reference):
    stood = of(reference.accuracies, configuration=None)
    assert {point["groups"]: point["macs"] for point in stood} == {
        point["groups"]: point["macs"] for point in reference.costs
    }
    assert {p["groups"]: p["accuracy"] for p in of(stood, measure=VALIDATION)} == {
        groups: round(STUDY[80, groups].val_accuracy_max, 6) for groups in (1, 2, 4, 8, 16)
    }
    # Of the test split the study tells one network's: 821 of 824 clips.
    ((groups, accuracy),) = [(point["groups"], point["accuracy"]) for point in of(stood, measure=TEST)]
    assert (groups, accuracy) == (1, round(821 / 824, 6))
    assert not any(point["on_front"] or point["low"] is not None for point in stood)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_mels": 40, "groups": 2},
        {"channels": 64},
        {"variant": "separable"},
        {"hop_length": 320},
        {"words": ("go", "stop")},
    ],
)
def test_the_study_has_no_such_network(settings):
    # Of twice the hop length a network has half the MACs of the study's.
    assert not of(find(chapter([network(plain(**settings))])).accuracies, configuration=None)


def test_the_study_is_of_speech_commands_whatever_the_recipe():
    trials = [configure(groups=2, recipe=recipe) for recipe in ("plain", "default")]
    found = find(chapter([network(trial) for trial in trials]))
    assert len(of(found.accuracies, configuration=None)) == 1  # and not once for each recipe
    assert not of(find(chapter([network(TWO, dataset="synthetic")])).accuracies, configuration=None)


# By hand


def test_rows_are_in_the_order_of_settings_and_mark_who_is_told_from_the_best():
    records = [network(trial, seed) for seed in (1, 0) for trial in (FOUR, ONE, TWO)]
    found = find(chapter(records))
    assert found.configurations == ("groups=1", "groups=2", "groups=4")
    assert [record["groups"] for record in found.sheets["configurations"].records] == [1, 2, 4]
    ordered = sorted(records, key=lambda record: (record.trial.model.groups, record.seed))
    rows = summary.rows(ordered, decided=summary.recommended(ordered))
    assert found.sheets["configurations"].records == [row.model_dump() for row in rows]
    # All hear everything: of equals the cheapest.
    assert found.answer == found.shown_in_confusion == "groups=4"
    assert found.decided.chosen.candidate.name == "groups=4"


def test_epoch_times_are_of_the_run_that_timed_most():
    three = timing_record(ONE, TWO, FOUR, seconds=(3.0,), finished_at="2026-01-01")
    pair = timing_record(ONE, TWO, seconds=(2.0,), finished_at="2026-01-03")
    long = timing_record(ONE, TWO, seconds=(1.0, 1.0))
    networks = [network(ONE), network(TWO), network(FOUR)]

    def seconds(*timings):
        found = find(chapter(networks, timings=timings))
        return [point["epoch_time_s"] for point in found.costs]

    assert seconds(three, pair, long) == seconds(long, three) == [3.0, 3.0, 3.0]
    assert seconds(pair, long) == seconds(long, pair) == [1.0, 1.0, None]  # the one with more rounds
    # What the larger run lacks, a smaller one has: and the page says so.
    alone = timing_record(FOUR, seconds=(9.0,))
    assert seconds(long, alone) == [1.0, 1.0, 9.0]
    (remark,) = [r for r in find(chapter(networks, timings=(long, alone))).remarks if "epoch times" in r]
    assert remark.startswith("epoch times are of several timing runs")


def test_curves_by_hand():
    curves = {"validation_loss": [0.5, 0.3, 0.1], "validation_accuracy": [0.5, 0.75, 1.0]}
    first = network(ONE, 0, train_loss=[1.0, 0.5, 0.25], **curves)
    second = network(
        ONE, 1, train_loss=[2.0, math.nan], validation_loss=[0.1, math.inf], validation_accuracy=[1.0, 0.25]
    )
    points = find(chapter([first, second])).curves

    def drawn(curve):
        return [(p["epoch"], p["mean"], p["lowest"], p["highest"], p["networks"]) for p in of(points, curve=curve)]

    # The second stops after two epochs, of which the last one's losses are no numbers.
    assert drawn("train_loss") == [(1, 1.5, 1.0, 2.0, 2), (2, 0.5, 0.5, 0.5, 1), (3, 0.25, 0.25, 0.25, 1)]
    assert drawn("validation_loss") == [(1, 0.3, 0.1, 0.5, 2), (2, 0.3, 0.3, 0.3, 1), (3, 0.1, 0.1, 0.1, 1)]
    assert drawn("validation_accuracy") == [(1, 0.75, 0.5, 1.0, 2), (2, 0.5, 0.25, 0.75, 2), (3, 1.0, 1.0, 1.0, 1)]
    assert {point["configuration"] for point in points} == {"groups=1"} and {p["curve"] for p in points} == set(CURVES)


def test_an_epoch_without_a_number_is_left_out():
    points = find(chapter([network(ONE, train_loss=[1.0, math.nan, 3.0])])).curves
    assert [point["epoch"] for point in of(points, curve="train_loss")] == [1, 3]


def test_confusion_and_the_clips_most_often_wrong_by_hand():
    # Three words by turns: of 20 clips seven are a, seven b (places 1, 4, ...) and six c. Who is wrong hears the word
    # that follows: place 1 is b and heard as c; place 2 is c and heard as a.
    trial = plain(words=("a", "b", "c"))
    records = [network(trial, seed, wrong_in_test=wrong) for seed, wrong in enumerate([(1, 2), (1,), (1, 5)])]
    found = find(chapter(records))
    times = {(p["spoken"], p["predicted"]): (p["times"], p["share"]) for p in found.confusion}
    assert times["a", "a"] == (21, 1.0) and times["a", "b"] == times["a", "c"] == (0, 0.0)
    assert times["b", "b"] == (18, round(18 / 21, 6)) and times["b", "c"] == (3, round(3 / 21, 6))
    assert times["c", "a"] == (2, round(2 / 18, 6)) and times["c", "c"] == (16, round(16 / 18, 6))
    assert [list(line.values()) for line in found.wrong.records] == [
        ["test/1.wav", "test's 1", "b", "c", 3, 3],
        ["test/2.wav", "test's 2", "c", "a", 1, 3],
        ["test/5.wav", "test's 5", "c", "a", 1, 3],
    ]
    assert [cells[-1] for cells in found.wrong.cells] == ["3", "1", "1"]
    assert found.wrong.notes == ["3 networks each; 17 of 20 test clips are recognised by all of them."]


def test_a_clip_that_is_heard_as_several_words_is_said_to_be_the_most_frequent_one():
    trial = plain(words=("a", "b", "c"))
    guesses = ([0, 1, 0], [0, 0, 1], [0, 0, 1])  # of one clip of the word a
    clip = heard(1, of="test", n_words=3)
    records = [
        network(trial, seed, test=clip.model_copy(update={"logits": [list(map(float, guess))]}))
        for seed, guess in enumerate(guesses)
    ]
    (line,) = find(chapter(records)).wrong.records
    assert (line["predicted"], line["wrong"]) == ("c", 3)


def test_the_clips_most_often_wrong_are_as_many_as_a_person_listens_to():
    test = heard(60, wrong=range(50), of="test")
    found = find(chapter([network(ONE, test=test)]))
    assert len(found.wrong.records) == 20
    assert not find(chapter([network(ONE)])).wrong.records


def test_a_word_that_nobody_says_has_no_share():
    # Of 20 clips ten are a and ten b; all are heard as a.
    test = heard(20).model_copy(update={"logits": [[1.0, 0.0, 0.0]] * 20})
    found = find(chapter([network(plain(words=("a", "b", "c")), test=test)]))
    assert [point["share"] for point in of(found.confusion, spoken="c")] == [None] * 3
    assert [point["times"] for point in of(found.confusion, spoken="b")] == [10, 0, 0]


def test_what_tells_configurations_apart_beside_the_axes():
    trials = [plain(groups=groups, n_mels=mels, variant="separable") for groups in (1, 2) for mels in (40, 80)]
    found = find(chapter([network(trial) for trial in trials]))
    assert of(found.costs, groups=2, n_mels=40)[0]["configuration"] == "n_mels=40 groups=2"
    assert {point["beside_groups"] for point in found.costs} == {"n_mels=40", "n_mels=80"}
    assert {point["beside_n_mels"] for point in found.costs} == {"groups=1", "groups=2"}


# Records that are not whole


def test_one_configuration():
    found = find(chapter([network(ONE, seed) for seed in (0, 1)]))
    assert found.decided is None and found.answer == "" and found.shown_in_confusion == "groups=1"
    assert len(found.sheets["configurations"].records) == 1
    ours = [point for point in of(found.accuracies, measure=VALIDATION) if point["configuration"]]
    # Two seeds were right on all clips of 20 speakers: 0.025^(1 / 20) = 0.831567.
    assert [(point["on_front"], point["low"]) for point in ours] == [(True, 0.831567)]


def test_one_seed():
    found = find(chapter([network(ONE), network(TWO)]))
    assert all(point["low"] is point["high"] is None for point in found.accuracies)
    assert found.decided.chosen is None and found.answer == "groups=2"  # the cheaper of the best found
    assert any("a single seed" in remark for remark in found.remarks)


def test_folds_alone():
    found = find(chapter([], [record for trial in (ONE, TWO) for seed in (0, 1) for record in folds(trial, seed)]))
    assert found.basis == OUT_OF_FOLD and list(found.sheets) == [OUT_OF_FOLD] and found.answer == "groups=2"
    assert [point["accuracy"] for point in of(found.accuracies, measure=OUT_OF_FOLD)] == [1.0, 1.0]
    # The study's two networks of that many groups, of one of which the test accuracy is known, stand beside.
    assert len(of(found.accuracies, configuration=None)) == 3
    # A network of two groups costs half of one without.
    assert [(p["groups"], p["macs"], p["epoch_time_s"]) for p in found.costs] == [
        (1, 1_000_000, None),
        (2, 500_000, None),
    ]
    # Curves of ten networks each: two seeds in five folds.
    assert found.curves and all(point["networks"] == 10 for point in found.curves)
    (remark,) = found.remarks
    assert remark.startswith("no records of the data set's own splits")


def test_confusion_and_the_clips_most_often_wrong_of_folds_by_hand():
    # 40 clips in five folds of 8, half of them each word by turns; every clip is tested once a seed. The first seed
    # mishears the clips 0, 9 and 39, the second 0 and 9; so of 2 * 20 "yes", the even ones, two are heard as "no".
    records = [*folds(ONE, 0, wrong=(0, 9, 39)), *folds(ONE, 1, wrong=(0, 9))]
    found = find(chapter([], records))
    counts = {(point["spoken"], point["predicted"]): point["times"] for point in found.confusion}
    assert counts == {("yes", "yes"): 38, ("yes", "no"): 2, ("no", "yes"): 3, ("no", "no"): 37}
    told = {line["clip"]: (line["wrong"], line["networks"]) for line in found.wrong.records}
    assert list(told.values()) == [(2, 2), (2, 2), (1, 2)]
    # The first two are the first of the first fold, and the second of the second.
    assert list(told) == [records[0].test.names[0], records[1].test.names[1], records[4].test.names[7]]
    assert found.wrong.title.startswith("out-of-fold clips")
    assert found.wrong.notes[0].startswith("2 networks each; 37 of 40 out-of-fold clips are")
    # Of a seed that is not in all folds nothing is told.
    assert find(chapter([], [*records, *folds(ONE, 2, wrong=(1,))[:3]])).wrong == found.wrong


def test_out_of_fold_accuracies_by_hand():
    # Five folds of 8 clips; of two seeds one is wrong on 4 of the 40 clips, the other on 2: 1 - 6 / 80.
    records = [*folds(ONE, 0, wrong=(0, 8, 16, 39)), *folds(ONE, 1, wrong=(0, 9))]
    (point,) = of(find(chapter([], records)).accuracies, measure=OUT_OF_FOLD)
    assert point["accuracy"] == 1 - 6 / 80 and point["low"] < point["accuracy"] < point["high"]


def test_seeds_that_a_fold_lacks():
    whole = [record for seed in (0, 1) for record in folds(ONE, seed)]
    begun = [*folds(TWO, 0), *folds(TWO, 1)[:3]]  # the second seed lacks two folds
    found = find(chapter([network(trial) for trial in (ONE, TWO)], [*whole, *begun]))
    sheet = found.sheets[OUT_OF_FOLD]
    assert {record["groups"]: record["seeds"] for record in sheet.records} == {1: 2, 2: 1}
    assert found.basis == OUT_OF_FOLD and any("unfinished for groups=2" in remark for remark in found.remarks)


def own_and_folds():
    """Networks that all hear all clips, so that the cheapest is recommended; on the own splits, and by configuration in
    folds."""
    own = [network(trial, seed) for trial in (ONE, TWO, FOUR) for seed in (0, 1)]
    return own, [[record for seed in (0, 1) for record in folds(trial, seed)] for trial in (ONE, TWO, FOUR)]


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        (lambda one, two, four: [*one, *two], "1 of 3 configurations were not cross-validated"),
        (lambda one, two, four: one, "2 of 3 configurations were not cross-validated"),
        (lambda one, two, four: [*one, *two, *four[:4]], "the cross-validation is unfinished"),
    ],
)
def test_a_cross_validation_that_is_not_whole_is_shown_and_decides_nothing(chosen, why):
    own, crossed = own_and_folds()
    found = find(chapter(own, chosen(*crossed)))
    assert (found.basis, found.answer) == (VALIDATION, "groups=4") and found.remarks[0] == f"validation decides: {why}"
    assert "recommended" not in formats.to_markdown(found.sheets[OUT_OF_FOLD])
    assert of(found.accuracies, measure=OUT_OF_FOLD) and not of(found.accuracies, measure=OUT_OF_FOLD, on_front=True)


def test_what_failed_in_a_fold_is_not_waited_for():
    own, (one, two, four) = own_and_folds()

    def failed(*folds_and_seeds):
        return tuple(failure_record(s, FOUR, fold=Fold(n, 5)) for n, s in folds_and_seeds)

    every = failed(*((fold, seed) for fold in (2, 3, 4) for seed in (0, 1)))
    begun = [record for record in four if record.fold.index in (0, 1)]  # two folds of both seeds
    found = find(replace(chapter(own, [*one, *two, *begun]), failures=every))
    assert (found.basis, found.answer) == (OUT_OF_FOLD, "groups=2")
    # Of seed 1 the last folds are still to come: that seed 0 has failed does not matter.
    found = find(replace(chapter(own, [*one, *two, *begun]), failures=failed((2, 0), (3, 0), (4, 0))))
    assert (found.basis, found.answer) == (VALIDATION, "groups=4")


def test_an_unfinished_cross_validation_alone_is_shown_without_a_verdict():
    found = find(chapter([], [*folds(ONE, 0), *folds(ONE, 1), *folds(TWO, 0)[:4]]))
    (record,) = found.sheets[OUT_OF_FOLD].records
    assert found.decided is None and record["accuracy"] == 1.0 and record["recommended"] is False
    assert "recommended" not in formats.to_markdown(found.sheets[OUT_OF_FOLD])


def test_nothing_but_a_cross_validation_that_has_just_begun():
    found = find(chapter([], folds(ONE)[:1]))
    assert not found.sheets and not found.accuracies and found.decided is None
    assert any("unfinished for groups=1" in remark for remark in found.remarks)


def test_seeds_that_diverged_and_mixed_devices_are_said():
    elsewhere = ENVIRONMENT.model_copy(update={"device": "Some GPU"})
    records = [network(ONE), diverged(ONE, 1), network(TWO, environment=elsewhere), network(TWO, 1)]
    found = find(chapter(records))
    assert any(remark.startswith("losses that are no number (diverged): groups=1 seed 1") for remark in found.remarks)
    assert any(remark.startswith("trained on different devices: ") and "Some GPU" in remark for remark in found.remarks)
    assert " + Some GPU" in found.sheets["configurations"].title
    text = formats.to_csv(found.sheets["configurations"])
    assert len(list(csv.DictReader(io.StringIO(text)))) == 2


def test_validation_on_different_clips_decides_nothing():
    found = find(chapter([network(ONE), network(TWO, validation=heard(12, of="other"))]))
    assert found.decided is None and found.answer == "" and len(found.sheets["configurations"].records) == 2


def test_without_validation_clips_there_is_no_point_of_it():
    nothing = heard(0)
    found = find(chapter([network(trial, validation=nothing) for trial in (ONE, TWO)]))
    assert {point["measure"] for point in found.accuracies if point["configuration"]} == {TEST}
    assert found.decided is None and not any(point["on_front"] for point in found.accuracies)
