"""Accuracies of networks with several seeds on clips of several speakers: how far chance could have moved them.

Seeds and speakers are crossed, so neither clips nor seeds may be taken for independent repetitions. The pigeonhole
bootstrap (Owen, Annals of Applied Statistics 1, 2007) resamples both and counts the noise of a seed on a speaker
twice; here its variance is written down in closed form with that noise counted once, and there is nothing to draw.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from bench.stats.intervals import effective_interval


@dataclass(frozen=True)
class Crossed:
    """Statistics of a set of configurations' predictions; m configurations, k speakers, n clips.

    Attributes:
        right: `(m, k)` clips of each speaker that were right, means over seeds.
        clips: `(k,)` clips of each speaker.
        seeds: `(m,)`.
        noise: `(m,)` variance of one seed's accuracy if nothing but the noise of a seed on a speaker moved it: the sum
            over speakers of the variance over seeds of their clips right, over n^2; NaN for a single seed.
        inflation: the ratio of the variance of seeds' accuracies to that noise, mean over configurations weighted by
            their degrees of freedom; more than 1 where whole trainings turn out better or worse, never taken for less.
            It is pooled as overdispersion is (McCullagh and Nelder, Generalized Linear Models, 1989): two or three
            seeds of one configuration could not tell it.
        freedom: its degrees of freedom.
    """

    right: np.ndarray
    clips: np.ndarray
    seeds: np.ndarray
    noise: np.ndarray
    inflation: float
    freedom: int

    @property
    def accuracies(self) -> np.ndarray:
        return self.right.sum(1) / self.clips.sum()


def summarise(correct: Sequence[np.ndarray], speakers: Sequence[str]) -> Crossed:
    """Summarise predictions that are crossed over speakers and seeds.

    Args:
        correct: for each configuration `(seeds, clips)` of 0 and 1, with the same clips in all.
        speakers: `(clips,)`.

    Raises:
        ValueError: a matrix does not have that shape.
    """
    names, index = np.unique(np.asarray(speakers), return_inverse=True)
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(len(names)))
    clips = np.bincount(index).astype(float)
    right, noise, ratios, freedoms = [], [], [], []
    for matrix in correct:
        if matrix.ndim != 2 or not len(matrix) or matrix.shape[1] != len(index):
            raise ValueError(f"correct has shape {matrix.shape}, expected (seeds, {len(index)})")
        sums = np.add.reduceat(matrix[:, order].astype(float), starts, axis=1)
        right.append(sums.mean(0))
        own = float(sums.var(0, ddof=1).sum()) if len(sums) > 1 else math.nan
        noise.append(own / len(index) ** 2)
        if own > 0:
            ratios.append(float(sums.sum(1).var(ddof=1)) / own)
            freedoms.append(len(sums) - 1)
    inflation = max(1.0, float(np.average(ratios, weights=freedoms))) if ratios else 1.0
    seeds = np.array([float(len(matrix)) for matrix in correct])
    return Crossed(np.array(right), clips, seeds, np.array(noise), inflation, max(1, sum(freedoms)))


@dataclass(frozen=True)
class Differences:
    """Paired differences of accuracies, row minus column: every array is (m, m), and all but `difference` in clips.

    Attributes:
        variance: of the difference over speakers, (clips^2).
        ahead, behind: clips by which speakers are better, and worse, recognised by the row's configuration.
        training: the variance that whole trainings add by turning out better or worse.
        seeds: the part of all variance that is known from seeds only.
    """

    difference: np.ndarray
    variance: np.ndarray
    ahead: np.ndarray
    behind: np.ndarray
    training: np.ndarray
    seeds: np.ndarray
    clips: float
    speakers: int
    freedom: int

    def p(self, margin: np.ndarray | float) -> np.ndarray:
        """Return the one-sided p that the row's configuration is worse than the column's by `margin` (a fraction) or
        more.

        A score test, as Tango's for paired proportions (Statistics in Medicine 17, 1998): the variance is that under
        the margin, not the observed one, which is near zero where predictions hardly differ. Tango's restricted
        estimate, with Poisson counts b = behind / u and c = ahead / u: q = (b + c - 2 M + sqrt((b + c - 2 M)^2 + 8 c
        M)) / 4 ahead and q + M behind, M = margin / u. The unit u is the variance a discordant clip brings, as observed
        with one whole clip added; one clip also is the least variance (Agresti and Min, Biometrics 61, 2005, add as
        much). Student's t with the degrees of freedom of Satterthwaite (Biometrics Bulletin 2, 1946) for the parts over
        speakers and over seeds. 1 where either has a single seed.
        """
        unit = (self.variance + 1) / (self.ahead + self.behind + 1)
        shift = np.broadcast_to(margin, self.difference.shape) * self.clips / unit
        b, c = (np.where(shift >= 0, x, y) / unit for x, y in ((self.behind, self.ahead), (self.ahead, self.behind)))
        m = np.abs(shift)
        t = b + c - 2 * m
        discordant = (t + np.sqrt(t * t + 8 * c * m)) / 2 + m
        speakers = np.maximum(1, self.variance + np.maximum(0, discordant - b - c) * unit**2)
        total = speakers + self.training
        freedom = total**2 / (speakers**2 / (self.speakers - 1) + self.seeds**2 / self.freedom)
        found = stdtr(freedom, -(self.difference + margin) * self.clips / np.sqrt(total))
        return np.where(np.isnan(found), 1.0, found)

    def least(self, level: np.ndarray | float) -> np.ndarray:
        """Return the lower bounds at `level`: the margins with p = level; -inf where either has a single seed."""
        low, high = np.full_like(self.difference, -1.0), np.full_like(self.difference, 1.0)
        for _ in range(30):  # to 2e-9
            middle = (low + high) / 2
            above = self.p(middle) > level
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return np.where(np.isnan(self.training), -math.inf, -high)


def differences(found: Crossed, seeds: np.ndarray | None = None) -> Differences:
    """Return the differences with their variances.

    The noise of a seed on a speaker is in the variance over speakers already; only the excess of the seeds' variance
    is added.

    Args:
        seeds: `(m,)`, numbers of seeds to extrapolate to (inf too), instead of the actual ones.

    Raises:
        ValueError: there is a single speaker.
    """
    k, n = len(found.clips), found.clips.sum()
    if k < 2:
        raise ValueError("a single speaker says nothing of others")
    apart = found.right[:, None] - found.right[None]  # (m, m, k)
    difference = apart.sum(2) / n
    variance = k / (k - 1) * ((apart - difference[..., None] * found.clips) ** 2).sum(2)
    now = found.noise / found.seeds * n**2
    then = now if seeds is None else found.noise / seeds * n**2
    both = then[:, None] + then[None]
    if seeds is not None:
        variance = np.maximum(0, variance - now[:, None] - now[None] + both)
    return Differences(
        difference=difference,
        variance=variance,
        ahead=np.maximum(apart, 0).sum(2),
        behind=np.maximum(-apart, 0).sum(2),
        training=(found.inflation - 1) * both,
        seeds=found.inflation * both,
        clips=float(n),
        speakers=k,
        freedom=found.freedom,
    )


def paired_interval(
    a: np.ndarray, b: np.ndarray, speakers: Sequence[str], confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return accuracy of b minus accuracy of a on the same clips, with its interval: (difference, low, high).

    The interval covers other people and other trainings; with a single seed of either it is infinite.

    Args:
        a, b: `(seeds, clips)` of 0 and 1.
    """
    found = differences(summarise([a, b], speakers))
    least = found.least((1 - confidence) / 2)
    return float(found.difference[1, 0]), float(least[1, 0]), float(-least[0, 1])


def crossed_interval(
    correct: np.ndarray, speakers: Sequence[str], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Return the interval of one configuration's accuracy over people and trainings; None for a single seed.

    Korn and Graubard's, as `intervals.accuracy_interval`, with the variance over speakers and seeds, and at most as
    many effective clips as there are predictions.

    Args:
        correct: `(seeds, clips)` of 0 and 1.
    """
    found = summarise([correct], speakers)
    if len(correct) < 2:
        return None
    k, n = len(found.clips), int(found.clips.sum())
    if k < 2:
        return 0.0, 1.0
    p = float(found.accuracies[0])
    seen = k / (k - 1) * float(((found.right[0] - p * found.clips) ** 2).sum())
    # With few errors chance may have left out the clips that all seeds miss: one more, unless that is more than
    # independent clips would vary by.
    over_speakers = max(seen, min(seen + 1, n * p * (1 - p))) / n**2
    noise = float(found.noise[0] / found.seeds[0])
    variance = over_speakers + (found.inflation - 1) * noise
    parts = over_speakers**2 / (k - 1) + (found.inflation * noise) ** 2 / found.freedom
    freedom = variance**2 / parts if parts else k - 1
    return effective_interval(p, correct.size, k, variance, freedom, confidence)
