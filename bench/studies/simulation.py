"""Count wrong recommendations: predictions are simulated with known accuracies, many times.

    python -m bench.studies.simulation results/statistics/simulation.csv --tries 1000 > results/statistics/simulation.md

Networks are simulated on the logit scale: the probability that a network predicts a clip right is the logistic function
of the sum of its configuration's level, the clip's difficulty, and the effects of everything crossed with these.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from scipy.optimize import brentq
from scipy.special import expit, stdtrit

from bench.cli.terminal import finish
from bench.formats import Sheet, sheet_of, show, to_csv
from bench.stats.clustered import crossed_interval, paired_interval
from bench.stats.intervals import accuracy_interval
from bench.stats.noninferiority import MARGIN, Candidate, recommend
from melcnn.files import check_writable, write_whole

TRIES = 500


@dataclass(frozen=True)
class Effects:
    """Standard deviations of the effects on the logit scale.

    The defaults give, at accuracies of 0.98 and 0.95, about as many clips wrong ever and always, and as much variance
    between seeds and between configurations, as five seeds each of five configurations have shown on 824 clips of 200
    speakers (results/speech_commands_subset); seeds differ as much or more.

    Attributes:
        clip: the clips' difficulty, as a factor of a t distribution with 4 degrees of freedom.
    """

    clip: float = 1.6
    speaker: float = 0.8
    clip_of_configuration: float = 1.0
    speaker_of_configuration: float = 0.7
    seed: float = 0.2
    speaker_of_seed: float = 0.9


# Errors concentrate in clips that are hard for all networks.
HARD_CLIPS = Effects(
    clip=3.0, speaker=1.2, clip_of_configuration=0.6, speaker_of_configuration=0.3, speaker_of_seed=0.4
)
UNSTEADY = 0.4
# More than the procedure withstands: a lucky training gains more than the margin, and unlucky ones are rare.
LOTTERY = 0.8
# The shares of speakers with 1, 2, ... 10 clips: 3.8 clips on average.
CLIPS = (0.25, 0.19, 0.14, 0.11, 0.08, 0.06, 0.05, 0.04, 0.04, 0.04)


@dataclass(frozen=True)
class Scenario:
    """One situation to simulate.

    Attributes:
        accuracies: true accuracies, the most expensive candidate's first.
        seeds: number of seeds of each candidate.
        last_seed: the last candidate's own standard deviation of seeds; None: that of `effects`.
    """

    name: str
    accuracies: Sequence[float]
    seeds: Sequence[int]
    speakers: int = 400
    effects: Effects = field(default_factory=Effects)
    last_seed: float | None = None


def scenarios() -> list[Scenario]:
    """Return the hardest situations.

    Cheap candidates are 0.01 points beyond the margin, so that it is wrong to recommend them, or all are equal, so that
    any will do and none stands out.
    """
    beyond = MARGIN + 0.0001
    found = []
    for seeds in (2, 3, 5, 10):
        found.append(Scenario("one beyond the margin", [0.99, 0.99, 0.99, 0.99, 0.99 - beyond], [seeds] * 5))
        found.append(Scenario("four beyond", [0.99, *[0.99 - beyond] * 4], [seeds] * 5))
        found.append(Scenario("two, one beyond", [0.99, 0.99 - beyond], [seeds] * 2))
        found.append(Scenario("all equal", [0.99] * 5, [seeds] * 5))
        found.append(Scenario("graded", [0.996, 0.995, 0.994, 0.990, 0.985], [seeds] * 5))
        found.append(Scenario("0.998, four beyond", [0.998, *[0.998 - beyond] * 4], [seeds] * 5))
    three, five = [3] * 5, [5] * 5
    unsteady = Effects(seed=UNSTEADY)
    return [
        *found,
        Scenario("at the margin", [0.99, *[0.99 - MARGIN] * 4], five),
        Scenario("0.6 points worse", [0.99, 0.984], [5] * 2),
        Scenario("unequal seeds, four beyond", [0.99, *[0.99 - beyond] * 4], [10, 2, 3, 2, 5]),
        Scenario("60 speakers, two, one beyond", [0.99, 0.99 - beyond], [5] * 2, speakers=60),
        Scenario("60 speakers, all equal", [0.998] * 5, five, speakers=60),
        Scenario("0.95, two, one beyond", [0.955, 0.955 - beyond], [5] * 2),
        Scenario("0.998, all equal", [0.998] * 5, three),
        Scenario("hard clips, 0.998, four beyond", [0.998, *[0.998 - beyond] * 4], three, effects=HARD_CLIPS),
        Scenario("hard clips, 0.98, four beyond", [0.98, *[0.98 - beyond] * 4], three, effects=HARD_CLIPS),
        Scenario("unsteady seeds, two, one beyond", [0.99, 0.99 - beyond], [3] * 2, effects=unsteady),
        Scenario("unsteady seeds, four beyond", [0.99, *[0.99 - beyond] * 4], three, effects=unsteady),
        Scenario("last unsteady, two, one beyond", [0.99, 0.99 - beyond], [3] * 2, last_seed=UNSTEADY),
        Scenario("last unsteady, one beyond", [0.99, 0.99, 0.99, 0.99, 0.99 - beyond], five, last_seed=UNSTEADY),
        Scenario("20, 19 beyond", [0.99, *[0.99 - beyond] * 19], [5] * 20),
        Scenario("20 graded", list(np.linspace(0.996, 0.977, 20)), [5] * 20),
        Scenario("last a lottery, two, one beyond", [0.99, 0.99 - beyond], [3] * 2, last_seed=LOTTERY),
    ]


@functools.cache
def level(accuracy: float, effects: Effects) -> float:
    """Return the configuration's level at which its accuracy, over clips, speakers and seeds, is `accuracy` to 1e-5.

    The accuracy is computed by quadrature: over the midpoints of 4000 equal parts of the t distribution and, as the
    other effects together are one normal one, by Gauss-Hermite quadrature.
    """
    difficulty = effects.clip * stdtrit(4, (np.arange(4000) + 0.5) / 4000)
    others = math.hypot(
        effects.speaker,
        effects.clip_of_configuration,
        effects.speaker_of_configuration,
        effects.seed,
        effects.speaker_of_seed,
    )
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    sums = difficulty[:, None] + others * nodes

    def excess(value: float) -> float:
        return float(expit(value + sums).mean(0) @ weights / weights.sum()) - accuracy

    return float(brentq(excess, -20, 60))


def draw(scenario: Scenario, levels: Sequence[float], rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """Draw predictions.

    Returns:
        whether each prediction is right, bool `(seeds, clips)` for each configuration, and the speakers, int `(clips,)`
    """
    own = [scenario.effects] * len(levels)
    if scenario.last_seed is not None:
        own[-1] = replace(scenario.effects, seed=scenario.last_seed)
    k = scenario.speakers
    speakers = np.repeat(np.arange(k), rng.choice(len(CLIPS), k, p=CLIPS) + 1)
    n = len(speakers)
    shared = scenario.effects.clip * rng.standard_t(4, n) + scenario.effects.speaker * rng.standard_normal(k)[speakers]
    found = []
    for start, seeds, effects in zip(levels, scenario.seeds, own, strict=True):
        of_clip = effects.clip_of_configuration * rng.standard_normal(n)
        of_speaker = effects.speaker_of_configuration * rng.standard_normal(k)
        of_seed = effects.seed * rng.standard_normal((seeds, 1))
        of_both = effects.speaker_of_seed * rng.standard_normal((seeds, k))
        logits = start + shared + of_clip + of_seed + (of_speaker + of_both)[:, speakers]
        found.append(rng.random((seeds, n)) < expit(logits))
    return found, speakers


def simulate(scenario: Scenario, tries: int, seed: int = 0) -> dict[str, Any]:
    """Simulate a scenario and return its row of the table.

    Args:
        seed: seed of the random generator.
    """
    accuracies = np.array(scenario.accuracies)
    last = scenario.effects if scenario.last_seed is None else replace(scenario.effects, seed=scenario.last_seed)
    levels = [level(a, scenario.effects) for a in accuracies[:-1]] + [level(accuracies[-1], last)]
    acceptable = accuracies >= accuracies.max() - MARGIN - 1e-9
    cheapest = int(np.flatnonzero(acceptable)[-1])
    truth = accuracies[-1] - accuracies[0]
    rng = np.random.default_rng(seed)
    wrong, separated, silent, right, covered, first_covered = (np.zeros(tries, bool) for _ in range(6))
    for i in range(tries):
        correct, index = draw(scenario, levels, rng)
        speakers = [f"{speaker:04}" for speaker in index]
        candidates = [Candidate(str(j), -j, matrix) for j, matrix in enumerate(correct)]
        found = recommend(candidates, speakers)
        chosen = None if found.chosen is None else int(found.chosen.candidate.name)
        silent[i] = chosen is None
        wrong[i] = chosen is not None and not acceptable[chosen]
        right[i] = chosen == cheapest
        best = accuracies == accuracies.max()
        separated[i] = any(one.told_from_best and best[j] for j, one in enumerate(found.results))
        _, low, high = paired_interval(correct[0], correct[-1], speakers)
        covered[i] = low <= truth <= high
        alone = crossed_interval(correct[0], speakers)
        first_covered[i] = alone is not None and alone[0] <= accuracies[0] <= alone[1]
    low, high = accuracy_interval(wrong.tolist(), [str(i) for i in range(tries)])
    seeds = sorted(set(scenario.seeds))
    return {
        "scenario": scenario.name,
        "candidates": len(accuracies),
        "seeds": str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]}-{seeds[-1]}",
        "speakers": scenario.speakers,
        "tries": tries,
        "wrong": float(wrong.mean()),
        "wrong_low": round(low, 4),
        "wrong_high": round(high, 4),
        "cannot_tell": float(silent.mean()),
        "cheapest_acceptable": float(right.mean()),
        "best_told_worse": float(separated.mean()),
        "difference_covered": float(covered.mean()),
        "accuracy_covered": float(first_covered.mean()),
    }


def sheet(rows: Sequence[dict[str, Any]]) -> Sheet:
    """Return the table of all scenarios."""
    return sheet_of(
        f"recommendations with a margin of {100 * MARGIN:g} points, simulated",
        rows,
        [
            "Shares of tries.",
            "wrong: the recommended candidate is worse than the best by more than the margin; low, high: 95% interval.",
            "best told worse: a best candidate was called worse than the best.",
            "covered: the 95% interval holds the difference of the last and the first candidate, or the first one's "
            "accuracy.",
        ],
    )


def main(
    out: Annotated[Path, typer.Argument(help="The CSV file, one line a scenario.")],
    tries: Annotated[int, typer.Option(help="Tries of each scenario.")] = TRIES,
) -> None:
    """Simulate recommendations."""
    console = Console(stderr=True)
    check_writable(out)
    rows = []
    for number, scenario in enumerate(scenarios()):
        rows.append(simulate(scenario, tries, number))
        console.print(f"{scenario.name}, {rows[-1]['seeds']} seeds: wrong {rows[-1]['wrong']:.1%}")
    found = sheet(rows)
    write_whole(out, lambda file: file.write(to_csv(found).encode()))
    show([found], "markdown")


if __name__ == "__main__":
    finish(lambda: typer.run(main))
