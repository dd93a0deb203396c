"""The decision of `melbench recommend`: configurations under a budget, out-of-fold predictions, the Pareto front."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis import summary
from bench.counting.profile import NetworkCost, front_end_macs
from bench.formats import Sheet
from bench.records.folds import OutOfFold
from bench.stats.clustered import crossed_interval
from bench.stats.noninferiority import Candidate, CandidateResult, Recommendation, pareto, recommend
from melcnn.config import Trial, descriptions, settings_of
from melcnn.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """Upper limits on a configuration's costs; None sets no limit."""

    params: int | None = None
    macs: int | None = None
    weight_bytes: int | None = None
    latency_ms: float | None = None


def within(budget: Budget, costs: Mapping[Trial, NetworkCost]) -> list[Trial]:
    """Return the configurations that cost no more than `budget`; log how many are left out.

    Raises:
        InputError: none does; the message names the lowest costs.
    """
    limits = {name: most for name, most in vars(budget).items() if most is not None}
    kept = [trial for trial, cost in costs.items() if all(getattr(cost, n) <= most for n, most in limits.items())]
    if not kept:
        least = ", ".join(f"{name} {min(getattr(cost, name) for cost in costs.values()):,}" for name in limits)
        raise InputError(f"no configuration is within the budget: the least of these are {least}; allow more or widen")
    if len(kept) < len(costs):
        log.info("%d of %d configurations are over the budget and are left out", len(costs) - len(kept), len(costs))
    return kept


@dataclass(frozen=True)
class CandidateRow:
    """A candidate's row.

    Attributes:
        low, high: the 95% interval of its accuracy, for other speakers and other trainings like these; None for a
            single seed.
        on_front: no other candidate costs fewer MACs and is as accurate, or costs as many and is more accurate.
    """

    found: OutOfFold
    cost: NetworkCost
    result: CandidateResult
    low: float | None
    high: float | None
    on_front: bool


def choose(
    found: Sequence[OutOfFold], costs: Mapping[Trial, NetworkCost], margin: float
) -> tuple[Recommendation, list[CandidateRow]]:
    """Decide by out-of-fold predictions: the cheapest configuration, in MACs, within `margin` of the best accuracy."""
    named, speakers = descriptions(one.trial for one in found), found[0].speakers
    candidates = [Candidate(named[one.trial], costs[one.trial].macs, one.correct) for one in found]
    decided = recommend(candidates, speakers, margin)
    front = pareto([c.cost for c in candidates], [result.accuracy for result in decided.results])
    intervals = [crossed_interval(one.correct, speakers) or (None, None) for one in found]
    return decided, [
        CandidateRow(one, costs[one.trial], result, low, high, on_front)
        for one, result, (low, high), on_front in zip(found, decided.results, intervals, front, strict=True)
    ]


def sheet(decided: Recommendation, rows: Sequence[CandidateRow], dataset: str, decides: bool = True) -> Sheet:
    """Return the candidates, cheapest first, with the recommendation below; docs/columns.md describes the columns.

    Args:
        decides: whether the table recommends; if not, it only shows accuracies.
    """
    rows = sorted(rows, key=lambda row: (row.cost.macs, row.cost.params, -row.result.accuracy))
    settings = [settings_of(row.found.trial) for row in rows]
    varying, silent = summary.settings_shown(settings)
    first = rows[0].found
    timed = rows[0].cost.latency_ms is not None

    def record(row: CandidateRow, own: dict[str, Any]) -> dict[str, Any]:
        result = row.result
        return {
            "dataset": dataset,
            "words": ",".join(row.found.trial.data.words),
            **{"max_epochs" if name == "epochs" else name: value for name, value in own.items()},
            "seeds": len(row.found.correct),
            "train_clips": row.found.train_clips,
            "clips": decided.clips,
            "speakers": decided.speakers,
            **{"latency_time_ms" if name == "latency_ms" else name: value for name, value in vars(row.cost).items()},
            "accuracy": _rounded(result.accuracy),
            "accuracy_low95": _rounded(row.low),
            "accuracy_high95": _rounded(row.high),
            "difference": _rounded(result.difference),
            "difference_at_least": _rounded(result.at_least),
            "margin": decided.margin,
            "within_margin": result.accepted,
            "told_from_best": result.told_from_best,
            "on_front": row.on_front,
            "recommended": decides and result is decided.chosen,
            "device": " / ".join(row.found.devices),
            "pipeline_macs": pipeline(row),
        }

    def pipeline(row: CandidateRow) -> int:
        return row.cost.macs + front_end_macs(row.found.trial.front_end)

    def cells(row: CandidateRow, own: dict[str, Any]) -> list[str]:
        result = row.result
        interval = "" if row.low is None else f" ({row.low:.4f}–{row.high:.4f})"
        bounded = result is not decided.best and math.isfinite(result.at_least)
        recommended = decides and result is decided.chosen
        return [
            *(str(own[name]) for name in varying),
            f"{row.cost.params:,}",
            f"{row.cost.macs:,}",
            f"{pipeline(row):,}",
            *([f"{row.cost.latency_ms:.3g} ms"] if timed else []),
            f"{result.accuracy:.4f}{interval}" + " ≈" * (not result.told_from_best),
            f"{result.difference:+.4f}" + (f" (≥{result.at_least:+.4f})" if bounded else ""),
            "yes" if row.on_front else "",
            "recommended" if recommended else "within margin" if result.accepted else "",
        ]

    def shared(values: Iterable[object]) -> str:
        return " / ".join(dict.fromkeys(map(str, values)))

    seeds = shared(len(row.found.correct) for row in rows)
    train_clips = shared(round(row.found.train_clips) for row in rows)
    fixed = [f"{name}={settings[0][name]}" for name in silent]
    about = [
        f"recipe {shared(own['recipe'] for own in settings)}",
        f"{seeds} seed{'s' * (seeds != '1')}",
        *fixed,
        " / ".join(sorted({device for row in rows for device in row.found.devices})),
    ]
    return Sheet(
        title=(
            f"{dataset}: {','.join(first.trial.data.words)}, out-of-fold predictions of {decided.clips} clips by "
            f"networks trained on about {train_clips}, {', '.join(about)}"
        ),
        headings=[
            *varying,
            "params",
            "MACs",
            "MACs (with front-end)",
            *(["latency"] if timed else []),
            "accuracy (95%)",
            "difference to best (95%)",
            "Pareto front",
            "verdict",
        ],
        cells=[cells(row, own) for row, own in zip(rows, settings, strict=True)],
        records=[record(row, own) for row, own in zip(rows, settings, strict=True)],
        verdict=decided.describe("MACs") if decides else "",
        notes=[
            "accuracy: out of fold, with its 95% interval for other speakers and other trainings.",
            "≈ statistically tied with the best.",
            "Pareto front: no other costs fewer MACs and is as accurate.",
        ],
        spare=["MACs (with front-end)", "params", "difference to best (95%)", "Pareto front"],
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)
