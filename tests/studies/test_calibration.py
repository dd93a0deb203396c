"""The summary of the calibration; the stored results agree with their comparisons."""

from pathlib import Path

import pytest

from bench.formats import to_markdown
from bench.studies import calibration
from bench.studies.calibration import CalibrationRow
from bench.timing.verdicts import UNCLEAR, decide

RESULTS = Path(__file__).parents[2] / "results" / "timing"


def row(verdict="SAME", unit=0, slowdown=0.0, ratio_of_means=1.0, low=0.99, high=1.01, **more):
    return CalibrationRow(
        mode="interleaved",
        unit=unit,
        loaded=calibration.is_loaded(unit),
        work="w",
        slowdown=slowdown,
        ratio=1.0,
        low=low,
        high=high,
        verdict=verdict,
        ratio_of_means=ratio_of_means,
        **more,
    )


def test_the_summary_counts_what_is_wrong():
    rows = [row("SAME"), row("SLOWER"), row("UNCLEAR", unit=1), row("FASTER", unit=1, ratio_of_means=0.9)]
    rows += [row("SLOWER", slowdown=0.05, ratio_of_means=1.2), row("SAME", slowdown=0.05)]
    verdicts, means = calibration.summary(rows)
    by = {(record["slowdown"], record["machine"]): record for record in verdicts.records}
    both = by[0.0, "both"]
    assert (both["comparisons"], both["units"], both["wrong"], both["UNCLEAR"]) == (4, 2, 2, 1)
    assert by[0.0, "quiet"]["wrong"] == by[0.0, "a core loaded"]["wrong"] == 1
    assert by[0.05, "both"]["wrong"] == 1 and by[0.05, "both"]["SLOWER"] == 1
    contrast = {(record["slowdown"], record["machine"]): record for record in means.records}
    assert (contrast[0.0, "both"]["FASTER"], contrast[0.05, "both"]["SLOWER"]) == (1, 1)


def test_the_summary_counts_what_is_covered_and_on_which_side_it_misses():
    rows = [row(), row(low=1.001), row(unit=2, high=0.999), row(unit=2, high=0.998)]
    rows += [row("SLOWER", slowdown=0.05, low=1.04, high=1.06), row("SLOWER", slowdown=0.05, low=1.02, high=1.04)]
    (verdicts, _) = calibration.summary(rows)
    equal, slowed = (
        next(r for r in verdicts.records if r["slowdown"] == s and r["machine"] == "quiet") for s in (0.0, 0.05)
    )
    assert (equal["covered"], equal["truth_below"], equal["truth_above"]) == (1, 1, 2)
    assert (slowed["covered"], slowed["truth_below"], slowed["truth_above"]) == (1, 0, 1)


def test_other_rules_are_counted_where_their_figures_are_known():
    rows = [row(ratio_of_rounds=1.03), row(ratio_of_rounds=0.94), row("SLOWER", slowdown=0.05, ratio_of_rounds=1.04)]
    _, means, five, two = calibration.summary(rows)
    counts = [
        [(r["FASTER"], r["SAME"], r["SLOWER"]) for r in sheet.records if r["machine"] == "both"]
        for sheet in (means, five, two)
    ]
    assert counts == [[(0, 2, 0), (0, 1, 0)], [(1, 1, 0), (0, 1, 0)], [(1, 0, 1), (0, 0, 1)]]


def test_no_error_in_n_units_leaves_room_for_some():
    # No wrong verdict in 59 units: the one-sided 95% bound is 1 - 0.05^(1/59) = 4.95%.
    verdicts, _ = calibration.summary([row(unit=2 * unit) for unit in range(59)])
    assert verdicts.records[0]["wrong_upper95"] == pytest.approx(0.0495, abs=5e-4)


@pytest.mark.parametrize("mode", calibration.MODES)
def test_the_reference_results_are_made_of_their_comparisons(mode):
    rows = calibration.read(RESULTS / f"calibration-{mode}.csv")
    assert {one.mode for one in rows} == {mode}
    honest = [one for one in rows if not one.slowdown]
    quiet = [one for one in honest if not one.loaded]
    assert len(honest) >= 300
    if mode == "stored":
        assert 0.4 < len(quiet) / len(honest) < 0.6
    else:
        # Intervals that hold the truth in 95% of cases, and miss it on either side.
        held = [one.low <= 1 <= one.high for one in quiet]
        assert len(quiet) >= 300 and sum(held) >= 0.94 * len(held)
        assert 0.25 <= sum(one.low > 1 for one in quiet) / (len(held) - sum(held)) <= 0.75
    for one in rows:
        # The CSV's rounding can move an end of an interval across a border of the decision.
        near = min(abs(end - border) for end in (one.low, one.high) for border in (1.02, 1 / 1.02)) < 1e-4
        held_up = mode == "stored" and one.loaded and one.verdict == UNCLEAR  # whatever the interval says
        assert one.verdict == decide(one.low, one.high) or near or held_up
    text = "\n".join(to_markdown(sheet) for sheet in calibration.summary(rows))
    assert text == (RESULTS / f"calibration-{mode}.md").read_text()


def test_the_workloads_are_of_the_stored_tables():
    found = calibration.stored_workloads()
    assert len(found) == 12 and {work.trial.front_end.normalize for work in found} == {"none"}
    assert {work.trial.training.recipe for work in found} == {"plain"}
