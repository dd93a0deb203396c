"""The first screen of a page: what to take, how sure that is, and the command that goes on from there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis.summary import BY_CROSS_VALIDATION
from bench.report import shell_commands
from bench.report.caveats import speakers_known
from bench.report.charts import INTERVALS
from bench.report.findings import OUT_OF_FOLD, TEST, VALIDATION, Findings
from bench.stats.noninferiority import Recommendation


@dataclass(frozen=True)
class Tile:
    """A figure of the answer; `doubt` says why the value is not to be trusted."""

    name: str
    value: str
    detail: str = ""
    doubt: str = ""


@dataclass(frozen=True)
class Headline:
    """The answer of one data set.

    Attributes:
        verdict: what to take.
        sure: how sure that is, and by how much data.
        evidence: what it rests on.
        intervals: the meaning of the tiles' intervals.
        next_step, commands: what to do next.
    """

    verdict: str
    sure: str
    tiles: Sequence[Tile] = ()
    evidence: str = ""
    intervals: str = ""
    next_step: str = ""
    commands: Sequence[str] = ()


def headline(found: Findings) -> Headline:
    """Return the headline of one data set: the recommendation, or why there is none and what would make one."""
    decided, trial = found.decided, found.answer_trial
    if decided is None or trial is None:
        return Headline("No recommendation", f"{found.undecided[:1].upper()}{found.undecided[1:]}.")
    tiles = _tiles(found, decided)
    points = f"{100 * decided.margin:g} points"
    data = _data(found, decided)
    if decided.chosen:
        verdict = f"Recommended: {found.answer}"
        sure = f"{100 * decided.confidence:g}% sure: no other is more accurate by more than {points} ({data})."
        command = shell_commands.training(trial, found.chapter.dataset)
        next_step, commands = ("To train it:", [command]) if command else ("", [])
    else:
        verdict = f"No clear winner; best so far: {found.answer}"
        sure = f"Not sure: no configuration is shown to be within {points} of the best ({data})."
        next_step, commands = _to_decide(found, decided)
    return Headline(
        verdict=verdict,
        sure=sure,
        tiles=tiles,
        evidence=_evidence(found, decided),
        intervals=f"{INTERVALS}." if any("(95%)" in tile.detail for tile in tiles) else "",
        next_step=next_step,
        commands=commands,
    )


def verdict(found: Findings) -> str:
    """Return the verdict of a sweep in one line, as a terminal shows it; empty if nothing was decided."""
    if found.decided is None:
        return ""
    return found.decided.describe("MACs", BY_CROSS_VALIDATION if found.basis == VALIDATION else "")


def _data(found: Findings, decided: Recommendation) -> str:
    clips = f"{decided.clips:,} {found.basis} clips"
    if speakers_known(found.chapter.folds if found.basis == OUT_OF_FOLD else found.chapter.trials):
        clips += f" of {decided.speakers:,} speakers"
    else:
        clips += " (speakers are unknown)"
    seeds = sorted({len(result.candidate.correct) for result in decided.results})
    return f"{clips}, {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seed{'s' * (seeds != [1])}"


def _tiles(found: Findings, decided: Recommendation) -> list[Tile]:
    shown = decided.chosen or decided.best
    times = max(result.candidate.cost for result in decided.results) / shown.candidate.cost
    dearest = f"the dearest takes {times:.1f} times as many" if times > 1 else ""
    tiles = [Tile("MACs of one clip", f"{shown.candidate.cost:,.0f}", dearest)]
    for measure in dict.fromkeys((TEST, found.basis)):
        for point in found.accuracies:
            if (point["configuration"], point["measure"]) == (found.answer, measure):
                tiles.insert(0, Tile(f"{measure} accuracy", f"{point['accuracy']:.4f}", _interval(point)))
    costs = next((point for point in found.costs if point["configuration"] == found.answer), None)
    if costs:
        tiles.append(Tile("parameters", f"{costs['params']:,}"))
    if costs and costs["epoch_time_s"] is not None:
        doubt = "busy machine: too long" if costs["held_up"] else ""
        tiles.append(Tile("epoch time", f"{costs['epoch_time_s']:.3g} s", doubt=doubt))
    return tiles


def _interval(point: Mapping[str, Any]) -> str:
    return "" if point["low"] is None else f"{point['low']:.4f} to {point['high']:.4f} (95%)"


def _evidence(found: Findings, decided: Recommendation) -> str:
    lines = [f"{decided.reason(found.best)}."] if decided.chosen else []
    if found.basis == VALIDATION:
        lines.append("Decided by validation accuracy alone; 'melbench recommend' cross-validates, which tells more.")
    else:
        whom = "speaker" if speakers_known(found.chapter.folds) else "clip"
        lines.append(f"Decided by out-of-fold predictions: no network was trained on a {whom} that it is tested on.")
    return " ".join([*lines, "The test split decided nothing."])


def _to_decide(found: Findings, decided: Recommendation) -> tuple[str, list[str]]:
    """Return what would give a recommendation, and the commands for it."""
    if found.basis == VALIDATION:
        return "To decide by cross-validation:", shell_commands.deciding(found.chapter)
    if decided.more_seeds:
        more = f"{decided.more_seeds:,} more seed{'s' * (decided.more_seeds > 1)}"
        return f"To decide, train about {more} of each:", shell_commands.deciding(found.chapter, decided.more_seeds)
    return "More seeds alone do not help: test more speakers or accept a larger margin.", []
