"""Figures draw each of their points, with its numbers; compile; and hold what is written in them, whatever it is."""

import csv
import io
import itertools
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import vl_convert
from PIL import Image

from bench.measurement import workloads
from bench.report import charts, time_breakdown, time_charts
from bench.report.charts import INTERVALS
from bench.report.export import image
from bench.report.findings import OUT_OF_FOLD, TEST, VALIDATION, find
from bench.report.load import load_report
from bench.report.style import MOST_IN_LEGEND, PAGE, PAPER, PHONE
from tests.helpers.configurations import plain
from tests.helpers.records import chapter, folds, measurement, network, timing_record

RESULTS = Path(__file__).parents[2] / "results"
# A page's figure at its narrowest, with colours that are no variables.
NARROW = replace(PAPER, width=PHONE, font_size=PAGE.font_size, height=PAGE.height)
# The study has five validation accuracies and one test accuracy of its grouped networks.
STUDY_VALIDATION, STUDY_TEST = 5, 1
VARIANTS = ("plain", "separable", "shuffle")


def figures(trials=(), folds=(), timings=(), style=PAPER):
    return {one.name: one for one in charts.figures(find(chapter(trials, folds, timings)), style)}


@pytest.fixture(scope="module")
def reference():
    (found,) = load_report([RESULTS / "recipes" / "records", RESULTS / "recommendation" / "records"]).chapters
    return find(found)


@pytest.fixture(scope="module")
def many():
    """40 configurations, of two seeds and five epochs."""
    settings = itertools.product((1, 2, 4, 8, 16), (16, 32, 64, 80), ("plain", "separable"))
    trials = [plain(groups=groups, n_mels=mels, variant=variant) for groups, mels, variant in settings]
    return find(chapter([network(trial, seed, epochs=5) for trial in trials for seed in (0, 1)]))


def svg(figure):
    return image(figure.spec, ".svg").decode()


def drawn(figure):
    """How many marks of each kind a reader of the screen is told of."""
    return Counter(re.findall(r'aria-roledescription="([\w ]+)"', svg(figure)))


def places(figure, kind, of=0):
    """How far to the right, or of=1: down, each mark of a kind stands."""
    marks = re.search(rf'<g class="mark-{kind} role-mark[^>]*?(?:/>|>(.*?)</g>)', svg(figure))[1] or ""
    return [float(place[of]) for place in re.findall(r"translate\(([\d.]+),([\d.]+)\)", marks)]


def inline(figure):
    """The data in a specification, as CSV rows."""
    (text,) = figure.spec["datasets"].values()
    return list(csv.DictReader(io.StringIO(text)))


def cut_off(figure):
    """Whether anything reaches the edge of the picture, of which five points are left free."""
    picture = Image.open(io.BytesIO(vl_convert.vegalite_to_png(figure.spec, ppi=72))).convert("L")
    width, height = picture.size
    edges = [(0, 0, 2, height), (width - 2, 0, width, height), (0, 0, width, 2), (0, height - 2, width, height)]
    return any(picture.crop(edge).getextrema() != (255, 255) for edge in edges)


def assert_whole(made):
    for figure in made.values():
        assert "NaN" not in svg(figure) and not cut_off(figure) and drawn(figure).total() > 0, figure.name


def test_every_figure_of_the_reference_records_has_its_points(reference):
    made = {figure.name: figure for figure in charts.figures(reference, PAPER)}
    # Nine configurations are cross-validated, five are trained with the data set's own splits for 120 epochs.
    assert {name: len(figure.points) for name, figure in made.items()} == {
        "accuracy-macs": 9 + STUDY_VALIDATION,
        "accuracy-macs-test": 5 + STUDY_TEST,
        "groups-accuracy": 9 + 5 + STUDY_VALIDATION + STUDY_TEST,
        **dict.fromkeys(("groups-params", "groups-macs"), 9),
        "groups-epoch-time": 5,
        **dict.fromkeys(("train-loss", "validation-loss", "validation-accuracy"), 5 * 120),
        "confusion": 2 * 2,
    }
    for name, figure in made.items():
        marks = drawn(figure)
        if "epoch" in figure.points[0]:
            assert marks["line mark"] == 5, name
        else:
            assert marks["rect mark" if name == "confusion" else "point"] == len(figure.points), name


def test_the_data_in_a_figure_are_its_points(reference):
    for figure in charts.figures(reference, PAGE):
        for row, point in zip(inline(figure), figure.points, strict=True):
            assert {name: "" if value is None else str(value) for name, value in point.items()} == row


def test_accuracies_stand_with_their_measures(reference):
    made = {figure.name: figure for figure in charts.figures(reference, PAPER)}

    def measures(name):
        return {(point["configuration"] is not None, point["measure"]) for point in made[name].points}

    # The study has no out-of-fold predictions: its validation accuracies stand beside ours.
    assert measures("accuracy-macs") == {(True, OUT_OF_FOLD), (False, VALIDATION)}
    assert measures("accuracy-macs-test") == {(True, TEST), (False, TEST)}
    assert values("shape", made["accuracy-macs"]) == {"plain", "shuffle", "the study (validation)"}
    assert values("shape", made["accuracy-macs-test"]) == {"plain", "the study"}
    assert values("shape", made["groups-accuracy"]) > {"the study (validation)", "the study (test)"}
    assert titles(made["accuracy-macs"]) == titles(made["groups-accuracy"]) == {"accuracy"}
    assert titles(made["accuracy-macs-test"]) == {"test accuracy"}
    by_validation = figures([network(plain(groups=groups)) for groups in (1, 2)])
    assert {p["measure"] for p in by_validation["accuracy-macs"].points} == {VALIDATION}
    assert by_validation["accuracy-macs"].title == "Validation accuracy against cost (MACs)"
    assert made["accuracy-macs"].title == "Out-of-fold accuracy against cost (MACs)"


def values(name, figure):
    return {point[name] for point in figure.points}


def titles(figure):
    """Of the axis of accuracy, in all layers that have it."""
    return {layer["encoding"]["y"]["title"] for layer in figure.spec["layer"]}


def test_an_axis_names_the_measure_where_there_is_one():
    # Of synthetic words the study has none.
    crossed = [record for groups in (1, 2) for record in folds(plain(groups=groups), dataset="synthetic")]
    for figure in figures(folds=crossed).values():
        if "accuracy" in figure.name:
            assert titles(figure) == {"out-of-fold accuracy"} and values("colour", figure) == {"1", "2"}


STUDYS, SINGLE, BARS = "The study's points are single runs", "All are single runs", "Bars"
FRONT, DECIDES = "The dotted line is the Pareto front", "The test split decides nothing"


def clauses(*seeds, dataset="speech_commands", wrong=(0,)):
    """Which of them the captions of accuracy have, against MACs, of test and against groups; of two configurations with
    these numbers of seeds, the dearer of which hears all."""
    trials = [plain(groups=groups) for groups in (2, 1)]
    records = [
        network(trial, seed, wrong=wrong * (trial is trials[0]), dataset=dataset)
        for trial, number in zip(trials, seeds, strict=True)
        for seed in range(number)
    ]
    captions = [figures(records)[name].caption for name in ("accuracy-macs", "accuracy-macs-test", "groups-accuracy")]
    return [{clause for clause in (STUDYS, SINGLE, BARS, FRONT, DECIDES) if clause in caption} for caption in captions]


def test_captions_say_what_is_in_the_figure():
    assert clauses(3, 3) == [{STUDYS, BARS, FRONT}, {STUDYS, BARS, DECIDES}, {STUDYS, BARS}]
    # Of synthetic words the study has none.
    assert clauses(3, 3, dataset="synthetic") == [{BARS, FRONT}, {BARS, DECIDES}, {BARS}]
    # Of one seed there is no interval, whoever's it is; of one best that costs least, no front.
    assert clauses(1, 1, wrong=()) == [{SINGLE}, {SINGLE, DECIDES}, {SINGLE}]
    mixed = figures([network(plain(groups=1)), *(network(plain(groups=2), seed) for seed in (0, 1))])
    assert "Points without bars are single runs." in mixed["accuracy-macs"].caption


def test_bars_are_explained_once(reference):
    caption = {figure.name: figure.caption for figure in charts.figures(reference, PAPER)}["groups-accuracy"]
    assert f"Bars are {INTERVALS}. " in caption and caption.count("Bars") == 1
    trials = [plain(groups=groups) for groups in (1, 2)]
    alike = figures([network(trial, seed) for trial in trials for seed in (0, 1)])["groups-accuracy"].caption
    assert f"Bars are {INTERVALS}. " in alike and alike.count("Bars") == 1


def test_captions_of_curves_tell_of_their_seeds():
    def caption(*epochs):
        records = [network(plain(), seed, epochs=number) for seed, number in enumerate(epochs)]
        return figures(records)["train-loss"].caption

    assert caption(3) == "Each line is a single run."
    assert "means over seeds" in caption(3, 3) and "stopped early" not in caption(3, 3)
    assert "stopped early" in caption(3, 4)
    assert "means over seeds and folds" in figures(folds=folds(plain()))["train-loss"].caption


def test_a_reader_of_the_screen_hears_title_and_caption(reference):
    for style in (PAGE, PAPER):
        for figure in charts.figures(reference, style):
            assert figure.caption and figure.spec["description"] == f"{figure.title}. {figure.caption}"


def test_points_of_equal_macs_stand_side_by_side_around_them():
    records = [network(plain(variant=v), s, wrong=(0,), dataset="synthetic") for v in VARIANTS for s in (0, 1)]
    figure = figures(records)["accuracy-macs"]
    assert "side by side" in figure.caption
    marks = places(figure, "symbol")
    # Three of the same MACs, each as far from the next as letters are high, are within 2.5 of these: 8 * 2.5 / 3.
    assert np.diff(marks) == pytest.approx([8 * 2.5 / 3] * 2, abs=0.001)
    assert "side by side" not in figures(records[:2])["accuracy-macs"].caption
    assert places(figure, "rule") == pytest.approx(marks)
    assert "mark-text role-mark" not in svg(figure)  # a name above the three would be of several
    apart = figures([network(plain(groups=g), dataset="synthetic") for g in (1, 2)])["accuracy-macs"]
    assert places(apart, "text") == places(apart, "symbol") and "Numbers above the points" in apart.caption


@pytest.mark.parametrize("equal", [0, 1])
def test_the_front_goes_through_its_marks_and_through_no_other(equal):
    # So many clips of 20 are misheard; of the dearer networks the second is on the front, alone or with its equal.
    misheard = {(4, "plain"): 3, (4, "shuffle"): 5, (2, "plain"): 3, (2, "separable"): 1, (2, "shuffle"): 2 - equal}
    trials = {plain(groups=groups, variant=variant): wrong for (groups, variant), wrong in misheard.items()}
    records = [network(trial, s, range(n), dataset="synthetic") for trial, n in trials.items() for s in (0, 1)]
    figure = figures(records)["accuracy-macs"]
    marks = np.transpose([places(figure, "symbol"), places(figure, "symbol", of=1)]).round(1)
    on_front = np.array([point["on_front"] for point in figure.points])
    (path,) = re.findall(r'<path d="M([^"]+)"[^>]*stroke-dasharray', svg(figure))
    corners = np.array([corner.split(",") for corner in path.split("L")], float).round(1)
    through = (marks[:, None] == corners).all(2).any(1)
    assert on_front.sum() == 2 + equal and (through == on_front).all()
    # Of the cheaper two the one on the front stands at their MACs, the other to its right; bars as their marks.
    beside = [point["beside_px"] for point in figure.points if point["groups"] == 4]
    assert beside == pytest.approx([0, 8 * 2.5 / 3], abs=0.001)
    assert places(figure, "rule") == places(figure, "symbol")


@pytest.mark.parametrize("style", [PAGE, PAPER], ids=["page", "paper"])
def test_specifications_compile(reference, many, style):
    for found in (reference, many):
        made = charts.figures(found, style)
        assert len({figure.name for figure in made}) == len(made) >= 10
        for figure in made:
            vega = vl_convert.vegalite_to_vega(figure.spec)
            # By which a page hides configurations.
            assert "hidden" in {signal["name"] for signal in vega["signals"]}
            assert not any("url" in source for source in vega["data"])


def test_there_is_no_figure_without_points():
    crossed = figures(folds=[record for groups in (1, 2) for record in folds(plain(groups=groups))])
    # Of a cross-validation alone there are no accuracies of the test split and no times, and no fold validates.
    assert " ".join(crossed) == "accuracy-macs groups-accuracy groups-params groups-macs train-loss confusion"
    assert time_charts.times([], PAPER) == []
    # Of one configuration nothing is drawn over an axis, and of no timing no times.
    curves = ["train-loss", "validation-loss", "validation-accuracy"]
    two = [network(plain(groups=groups)) for groups in (1, 2)]
    assert list(figures(two[:1])) == ["accuracy-macs", "accuracy-macs-test", *curves, "confusion"]
    assert "groups-epoch-time" not in figures(two)
    # Nor of one timed network out of two.
    assert "groups-epoch-time" not in figures(two, timings=[timing_record(two[0].trial)])
    timed = figures(two, timings=[timing_record(*(one.trial for one in two))])["groups-epoch-time"]
    assert [point["groups"] for point in timed.points] == [1, 2]
    over_mels = [name for name in figures([network(plain(n_mels=mels)) for mels in (40, 80)]) if "mels" in name]
    assert over_mels == ["n-mels-accuracy", "n-mels-params", "n-mels-macs"]


@pytest.mark.parametrize("seeds", [1, 3])
def test_where_all_is_heard_everything_is_drawn(seeds):
    trials = [plain(groups=groups) for groups in (1, 2)]
    curve = {"validation_accuracy": [1.0] * 3, "train_loss": [0.0] * 3, "validation_loss": [0.0] * 3}
    made = figures([network(trial, seed, **curve) for trial in trials for seed in range(seeds)])
    assert_whole(made)
    assert drawn(made["accuracy-macs"])["point"] == 2 + 2  # the study's beside ours


def test_one_configuration_is_drawn():
    assert_whole(figures([network(plain(variant="separable"), seed) for seed in (0, 1)]))
    # Even a single epoch can be seen.
    assert drawn(figures([network(epochs=1)])["train-loss"])["point"] == 1


@pytest.mark.parametrize("style", [PAPER, NARROW], ids=["paper", "phone"])
def test_what_is_written_fits(reference, many, style):
    for found, names in ((reference, ()), (many, ("accuracy-macs", "groups-accuracy", "groups-params", "train-loss"))):
        for figure in charts.figures(found, style):
            if figure.name in names or not names:
                assert not cut_off(figure), figure.name


@pytest.mark.parametrize("style", [PAPER, NARROW], ids=["paper", "phone"])
@pytest.mark.parametrize("length", [10, 15, 18, 20, 30, 60, 200])
def test_a_legend_of_names_of_any_length_fits(style, length):
    names = [f"{'n_mels=16 groups=4 variant=separable ' * 6}"[: length - 2] + f" {end}" for end in "ab"]
    found = find(chapter([network(plain(groups=groups)) for groups in (1, 2)]))
    renamed = dict(zip(found.configurations, names, strict=True))
    points = tuple(p | {"configuration": renamed[p["configuration"]]} for p in found.curves)
    made = {figure.name: figure for figure in charts.figures(replace(found, curves=points), style)}
    assert not cut_off(made["train-loss"])


def test_forty_configurations_leave_room_for_the_figure(many):
    made = {figure.name: figure for figure in charts.figures(many, PAPER)}
    assert drawn(made["train-loss"])["line mark"] == 40
    assert drawn(made["accuracy-macs"])["point"] == 40 + STUDY_VALIDATION
    # The legend says how many of them it names.
    legend = re.search(r'aria-roledescription="legend"(.*)', svg(made["train-loss"]))[1]
    assert f">({MOST_IN_LEGEND} of 40)</text>" in legend and legend.count(">n_mels=") == MOST_IN_LEGEND
    # The legend stands under the figure, whose height remains.
    height = float(re.search(r'<svg[^>]*height="([\d.]+)"', svg(made["train-loss"]))[1])
    assert height > PAPER.height + MOST_IN_LEGEND * PAPER.font_size


def test_losses_that_fall_far_have_a_logarithmic_axis():
    def scale(losses):
        spec = figures([network(plain(), train_loss=losses)])["train-loss"].spec
        return spec["layer"][0]["encoding"]["y"]["scale"].get("type")

    # By more than a factor of five; of a loss of zero no logarithm is drawn.
    assert scale([1.0, 0.19]) == "log" and scale([1.0, 0.21]) is None and scale([1.0, 0.0]) is None


def test_confusions_of_many_words_and_of_long_ones_can_be_read():
    def confusion(words, style=PAPER):
        return figures([network(plain(words=words))], style=style)["confusion"]

    def numbers(figure):
        return re.findall(r">([\d.]+)</text>", svg(figure))

    # Two digits after the point where there is room, none of ten words, no numbers at all of 35.
    assert sorted(numbers(confusion(("yes", "no")))) == ["0.00", "0.00", "100.00", "100.00"]
    assert set(numbers(confusion(tuple("abcdefghij")))) == {"0", "100"}
    assert numbers(confusion(tuple(f"word {number}" for number in range(35)))) == []
    for words in (("a very long word or phrase that somebody says", "no"), [f"a long word, {n}" for n in range(35)]):
        assert not any(cut_off(confusion(tuple(words), style)) for style in (PAPER, NARROW))


def test_times_are_drawn_part_by_part():
    of = [*workloads.of_trial(plain(), ["latency"]), *workloads.of_trial(plain(groups=4), ["latency"])]
    of += workloads.of_trial(plain(), ["front-end"])
    seconds = [2.0, 1.0, 0.5, 0.5]
    split = [{"convolution": 0.75, "pooling": 0.25}] * 2
    (figure,) = time_charts.times(time_breakdown.points(measurement(of, seconds, split)), PAPER)
    assert (figure.name, figure.title) == ("batch-1", "One clip at a time")
    # A bar of two networks for each of front-end, convolution and other operators; one begins where the other ends.
    assert drawn(figure)["bar"] == len(figure.points) == 6 and not cut_off(figure)
    ends = [(round(float(row["from_ms"])), round(float(row["to_ms"]))) for row in inline(figure)]
    assert ends == [(0, 500), (500, 2000), (2000, 2500), (0, 500), (500, 1250), (1250, 1500)]


def test_parts_keep_their_colours_and_the_caption_tells_of_those_that_occur():
    def bars(share):
        measured = measurement(workloads.of_trial(plain(), ["latency"]), [1.0], [share])
        (figure,) = time_charts.times(time_breakdown.points(measured), PAPER)
        scale = figure.spec["layer"][0]["encoding"]["color"]["scale"]
        return dict(zip(scale["domain"], scale["range"], strict=True)), figure.caption

    parts = {"convolution": 0.2, "fused block": 0.2, "linear/matmul": 0.2, "Python and launching": 0.4}
    every, caption = bars(parts)
    assert list(every.values()) == list(PAPER.series[1:5])  # the first is the front-end's
    assert "fused block is" in caption and "profiler" in caption and "what binds the network" in caption
    python, caption = bars({"convolution": 0.5, "Python and launching": 0.5})
    assert python == {name: every[name] for name in ("convolution", "Python (between operators)")}
    assert "fused block" not in caption
    whole, caption = bars({})
    assert whole == {"network, not split": PAPER.series[5]} and "profiler" not in caption


def test_what_binds_the_network_stands_once_beside_its_bar():
    of = [*workloads.of_trial(plain(), ["latency"]), *workloads.of_trial(plain(), ["front-end"])[:1]]
    split = [{"convolution": 0.5, "Python and launching": 0.5}]
    (figure,) = time_charts.times(time_breakdown.points(measurement(of, [2.0, 1.0], split)), PAPER)
    bars = re.findall(r'aria-roledescription="bar" d="M([\d.]+),[\d.]+h([\d.]+)', svg(figure))
    (text,) = re.findall(r"translate\(([\d.]+),[^>]*>arithmetic</text>", svg(figure))
    # Four points behind the last of three bars.
    assert len(bars) == 3 and float(text) == pytest.approx(max(float(x) + float(w) for x, w in bars) + 4, abs=0.01)


@pytest.mark.parametrize("seeds", [1, 2])
def test_folds_alone_and_many_words_are_drawn(seeds):
    words = tuple(f"word {number}" for number in range(35))
    trials = [plain(groups=groups, words=words) for groups in (1, 2)]
    crossed = [record for trial in trials for seed in range(seeds) for record in folds(trial, seed, clips=70)]
    for made in (figures(folds=crossed), figures(folds=crossed[: 5 * seeds]), figures([network(trials[0])], crossed)):
        assert_whole(made)


def test_nothing_stands_where_an_interval_is_missing():
    made = figures([network(plain(groups=g), s, dataset="synthetic") for g, s in ((1, 0), (1, 1), (2, 0))])
    assert [len(places(made["accuracy-macs"], kind)) for kind in ("symbol", "rule")] == [2, 1]


def test_zero_has_no_unit():
    figure = figures([network(plain(groups=groups)) for groups in (1, 2)])["groups-params"]
    labels = re.findall(r">([\d.]+[kM]?)</text>", svg(figure))
    assert "0" in labels and "5k" in labels and "0k" not in labels


def test_a_figure_for_each_batch_size():
    of = workloads.of_trial(plain(), ["latency", "throughput"])
    made = time_charts.times(time_breakdown.points(measurement(of, [1.0] * len(of))), PAGE)
    assert [figure.title for figure in made] == ["One clip at a time", "In batches of 64"]
    for figure in made:
        vl_convert.vegalite_to_vega(figure.spec)
