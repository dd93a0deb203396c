"""The summary of the calibration; the stored results agree with their comparisons."""

from pathlib import Path

import pytest

from bench.formats import to_markdown
from bench.studies import calibration
from bench.studies.calibration import CalibrationRow
from bench.timing.verdicts import UNCLEAR, decide

RESULTS = Path(__file__).parents[2] / "results" / "timing"


def row(verdict="SAME", unit=0, slowdown=0.0, ratio_of_means=1.0):
    return CalibrationRow(
        mode="interleaved",
        unit=unit,
        loaded=calibration.is_loaded(unit),
        work="w",
        slowdown=slowdown,
        ratio=1.0,
        low=0.99,
        high=1.01,
        verdict=verdict,
        ratio_of_means=ratio_of_means,
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


def test_no_error_in_n_units_leaves_room_for_some():
    # No wrong verdict in 59 units: the one-sided 95% bound is 1 - 0.05^(1/59) = 4.95%.
    verdicts, _ = calibration.summary([row(unit=2 * unit) for unit in range(59)])
    assert verdicts.records[0]["wrong_upper95"] == pytest.approx(0.0495, abs=5e-4)


@pytest.mark.parametrize("mode", calibration.MODES)
def test_the_reference_results_are_made_of_their_comparisons(mode):
    rows = calibration.read(RESULTS / f"calibration-{mode}.csv")
    assert {one.mode for one in rows} == {mode}
    honest = [one for one in rows if not one.slowdown]
    assert len(honest) >= 300
    assert 0.4 < sum(one.loaded for one in honest) / len(honest) < 0.6
    for one in rows:
        # The CSV's rounding can move an end of an interval across a border of the decision.
        near = min(abs(end - border) for end in (one.low, one.high) for border in (1.02, 1 / 1.02)) < 1e-4
        held_up = mode == "stored" and one.loaded and one.verdict == UNCLEAR  # whatever the interval says
        assert one.verdict == decide(one.low, one.high) or near or held_up
    text = "\n".join(to_markdown(sheet) for sheet in calibration.summary(rows))
    assert text == (RESULTS / f"calibration-{mode}.md").read_text()
