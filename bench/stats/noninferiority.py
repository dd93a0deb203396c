"""The cheapest configuration that is not worse than the best by more than a margin, and how sure that is.

Arrays and numbers in, a decision out: no files, no records.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from bench.stats.clustered import Crossed, Differences, differences, summarise
from bench.stats.intervals import holm

MARGIN = 0.005
CONFIDENCE = 0.95
# Of the joint distribution of all differences: enough for a level of 0.05 to be known to 0.002.
DRAWS = 10_000
# More seeds of each configuration than this nobody trains.
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Candidate:
    """A configuration to choose from.

    Attributes:
        cost: what "cheapest" refers to, for example MACs.
        correct: `(seeds, clips)` of 0 and 1, the same clips in all candidates, each predicted by a network that was
            not trained on its speaker.
    """

    name: str
    cost: float
    correct: np.ndarray


@dataclass(frozen=True)
class CandidateResult:
    """The result of a candidate; accuracies are fractions, means over seeds.

    Attributes:
        difference: to the candidate with the best accuracy.
        at_least: its lower bound, simultaneous over candidates; -inf where either has a single seed.
        accepted: shown to be not worse than the best by more than the margin.
        told_from_best: shown to be worse than the best at all.
    """

    candidate: Candidate
    accuracy: float
    difference: float
    at_least: float
    accepted: bool
    told_from_best: bool


@dataclass(frozen=True)
class Recommendation:
    """The result of `recommend`.

    Attributes:
        chosen: None if the data cannot tell.
        best: by accuracy as found.
        more_seeds: how many more of each candidate should let at least the best one be accepted, if none is; None if no
            number would, or one is accepted.
    """

    chosen: CandidateResult | None
    best: CandidateResult
    results: tuple[CandidateResult, ...]
    margin: float
    confidence: float
    clips: int
    speakers: int
    more_seeds: int | None

    def describe(self, unit: str = "", next_step: str = "") -> str:
        """Return the verdict in one line: the answer first, then its evidence, then what to do if there is no winner.

        Args:
            unit: of the cost.
            next_step: what to do where there is no clear winner; unless given, more seeds, more speakers or a larger
                margin.
        """
        counts = sorted({len(result.candidate.correct) for result in self.results})
        seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else _many(counts[0], "seed")
        data = f"{self.clips} clips of {_many(self.speakers, 'speaker')}, {seeds}"
        points = f"{100 * self.margin:g} point{'s' * (self.margin != 0.01)}"
        if self.chosen is None:
            if counts[0] == 1:
                remedy = "train at least 1 more seed of each: one seed does not show how much trainings differ"
            elif self.more_seeds:
                remedy = f"train about {_many(self.more_seeds, 'more seed')} of each"
            else:
                remedy = "test more speakers or accept a larger margin; more seeds alone do not help"
            return (
                f"No clear winner: no candidate is shown to be within {points} of the best ({data}). "
                f"Next: {next_step or remedy}."
            )
        cost = f"{self.chosen.candidate.cost:,.10g}"
        name = f"Recommended: {self.chosen.candidate.name} ({' '.join(part for part in (cost, unit) if part)})."
        return f"{name} {self.reason(self.best.candidate.name)} ({data})."

    def reason(self, best: str) -> str:
        """Return why the chosen candidate is the one to take: a sentence without its full stop.

        Args:
            best: the name of the candidate with the best accuracy.
        """
        chosen, points = self.chosen, f"{100 * self.margin:g} point{'s' * (self.margin != 0.01)}"
        assert chosen is not None, "there is no clear winner"
        if len(self.results) == 1:
            return "It is the only candidate"
        cheapest = all(chosen.candidate.cost <= result.candidate.cost for result in self.results)
        if chosen is self.best and cheapest:
            return "It has the best accuracy and the lowest cost"
        if chosen is self.best:
            return f"It has the best accuracy, and no cheaper one is shown to be within {points} of the best"
        return (
            f"It is within {points} of the best, {best}: difference {100 * chosen.difference:+.2f} points, at least "
            f"{100 * chosen.at_least:+.2f} with {100 * self.confidence:g}% confidence"
        )


def recommend(
    candidates: Sequence[Candidate],
    speakers: Sequence[str],
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
) -> Recommendation:
    """The cheapest candidate that is shown to be within `margin` of the best; of equally cheap ones the more accurate.

    Whichever candidate is truly the best, call it j: all i are tested against j jointly (Dunnett's step-down, Dunnett
    and Tamhane, Statistics in Medicine 10, 1991), so that with probability `confidence` none is accepted that is worse
    by more than the margin. As j is unknown, i must pass with every j (intersection-union, Berger, Technometrics 24,
    1982). So the chosen one is within the margin with that probability, over people and trainings like these, however
    many candidates there are. It does not hold where one candidate's trainings alone differ by more than the margin:
    few seeds do not show its rare bad ones (bench.studies.simulation). Raises ValueError for no candidate, a single
    speaker, or matrices that do not fit.
    """
    if not candidates:
        raise ValueError("no candidates, nothing to recommend")
    found = summarise([candidate.correct for candidate in candidates], speakers)
    apart, level = differences(found), 1 - confidence
    by_chance = _by_chance(found)
    accepted = _accepted(apart, by_chance, margin, level)
    best = max(range(len(candidates)), key=lambda i: (found.accuracies[i], -candidates[i].cost))
    # What is accepted is within the margin, even where the bound, which is for all at once, falls short of that.
    at_least = apart.least(_joint_level(by_chance(best), level))[:, best]
    at_least = np.where(accepted, np.maximum(at_least, -margin), at_least)
    at_least[best] = 0.0
    told_from_best = _told_from_best(apart, level)
    results = tuple(
        CandidateResult(candidate, float(a), float(d), float(low), bool(ok), bool(worse))
        for candidate, a, d, low, ok, worse in zip(
            candidates, found.accuracies, apart.difference[:, best], at_least, accepted, told_from_best, strict=True
        )
    )
    return Recommendation(
        chosen=min(
            (result for result in results if result.accepted),
            key=lambda result: (result.candidate.cost, -result.accuracy),
            default=None,
        ),
        best=results[best],
        results=results,
        margin=margin,
        confidence=confidence,
        clips=int(found.clips.sum()),
        speakers=len(found.clips),
        more_seeds=None if accepted.any() else _more_seeds(found, by_chance, margin, level),
    )


def pareto(costs: Sequence[float], accuracies: Sequence[float]) -> list[bool]:
    """Return for each candidate whether it is on the Pareto front: no other is as cheap and as accurate, and cheaper or
    more accurate. Equal candidates are on it together.
    """
    cost, accuracy = np.asarray(costs, float), np.asarray(accuracies, float)
    as_good = (cost[:, None] <= cost) & (accuracy[:, None] >= accuracy)
    better = as_good & ((cost[:, None] < cost) | (accuracy[:, None] > accuracy))
    return [not any(column) for column in better.T]


def _many(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"


def _accepted(apart: Differences, by_chance: Callable[[int], np.ndarray], margin: float, level: float) -> np.ndarray:
    p = apart.p(margin)
    accepted = np.ones(len(p), bool)
    for j in range(len(p)):
        if not accepted.any():
            break
        draws = by_chance(j)
        left = np.arange(len(p)) != j
        passed = ~left
        while left.any():
            new = left & (p[:, j] <= _joint_level(draws[:, left], level))
            if not new.any():
                break
            passed |= new
            left &= ~new
        accepted &= passed
    return accepted


def _by_chance(found: Crossed) -> Callable[[int], np.ndarray]:
    """Return for each candidate j the differences `(draws, m)` of all others to it by chance alone, in standard errors.

    Normal with the covariance over speakers, and the trainings' own. The same draws each time.
    """
    residuals = found.right - found.accuracies[:, None] * found.clips
    training = np.nan_to_num((found.inflation - 1) * found.noise / found.seeds) * found.clips.sum() ** 2
    covariance = residuals @ residuals.T + np.diag(training)
    values, vectors = np.linalg.eigh(covariance)
    normal = np.random.default_rng(0).standard_normal((DRAWS, len(values)))
    moved = (normal * np.sqrt(np.maximum(values, 0))) @ vectors.T
    own = np.diag(covariance)
    # Of two that were right on the same clips the difference is zero; anything will do for its error.
    errors = np.sqrt(np.maximum(own + own[:, None] - 2 * covariance, 1e-9))
    return lambda j: (moved - moved[:, [j]]) / errors[j]


def _joint_level(draws: np.ndarray, level: float) -> float:
    """Return the level of each single test at which at least one of all passes by chance with probability `level`."""
    return float(ndtr(-np.quantile(draws.max(1), 1 - level)))


def _told_from_best(apart: Differences, level: float) -> np.ndarray:
    # Worse than any other: of m - 1 others the clearest (Bonferroni), and of m candidates all that pass (Holm).
    m = len(apart.difference)
    p = np.where(np.eye(m, dtype=bool), 1.0, apart.p(0.0).T)  # that row is as good as column
    return np.array(holm(np.minimum(1, max(1, m - 1) * p.min(1)))) <= level


def _more_seeds(found: Crossed, by_chance: Callable[[int], np.ndarray], margin: float, level: float) -> int | None:
    def enough(more: float) -> bool:
        return bool(_accepted(differences(found, found.seeds + more), by_chance, margin, level).any())

    if np.isnan(found.noise).any():
        # How much seeds differ is unknown where there is one: the second one tells.
        return 1
    if not enough(math.inf):
        return None
    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
