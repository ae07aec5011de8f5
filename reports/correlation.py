"""How two scores of the same codecs go together: Pearson's r and Spearman's rho, with n and intervals.

AudioCodecBench's Table 7 asks it of perplexity: what makes tokens easy for a language model? Its r are oriented: a
metric that is better higher is negated first, so a positive r always says "what is good in one is good in the other".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LEAST = 4  # codecs: Fisher's interval needs n > 3


@dataclass(frozen=True)
class Correlation:
    """r (Pearson) with its 95 % interval, rho (Spearman), over n codecs."""

    r: float
    low: float
    high: float
    rho: float
    n: int


def correlation(x: Mapping[str, float], y: Mapping[str, float], negate_y: bool = False) -> Correlation | None:
    """Correlate two scores over the codecs that have both; None for fewer than four, or where one does not vary.

    x, y: codec -> score. negate_y: y is better higher, x better lower. The interval is by Fisher's transformation of r,
    which takes the codecs for a sample of all codecs there are: with eight of them it is wide.
    Source: scipy.stats.pearsonr, spearmanr.

    >>> found = correlation({"a": 1, "b": 2, "c": 3, "d": 4}, {"a": 1, "b": 3, "c": 2, "d": 4})
    >>> round(found.r, 2), found.rho, found.n
    (0.8, 0.8, 4)
    """
    from scipy import stats

    both = [name for name in x if name in y and math.isfinite(x[name]) and math.isfinite(y[name])]
    first, second = (np.array([side[name] for name in both], dtype=np.float64) for side in (x, y))
    if len(both) < LEAST or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    second = -second if negate_y else second
    found = stats.pearsonr(first, second)
    interval = found.confidence_interval()
    rho = stats.spearmanr(first, second).statistic
    return Correlation(
        float(found.statistic), float(interval.low), float(interval.high), round(float(rho), 12), len(both)
    )
