"""How two scores of the same codecs go together: Pearson's r and Spearman's rho, with n and intervals.

AudioCodecBench's Table 7 asks it of perplexity: what makes tokens easy for a language model? Its r are oriented: a
metric that is better higher is negated first, so a positive r always says "what is good in one is good in the other".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LEAST = 4  # codecs, and families for an interval: Fisher's needs n > 3


@dataclass(frozen=True)
class Correlation:
    """r (Pearson) with its 95 % interval (NaN: none), rho (Spearman), over n codecs of so many families."""

    r: float
    low: float
    high: float
    rho: float
    n: int
    families: int

    def __str__(self) -> str:
        of = f"n {self.n} codecs" + (f" of {self.families} families" if self.families < self.n else "")
        said = f" [{self.low:.2f}, {self.high:.2f}]" if math.isfinite(self.low) else ""
        why = "" if said else f" (an interval is over families, and needs {LEAST})"
        return f"r {self.r:.2f}{said}, rho {self.rho:.2f}, {of}{why}"


def correlation(
    x: Mapping[str, float], y: Mapping[str, float], negate_y: bool = False, families: Mapping[str, str] | None = None
) -> Correlation | None:
    """Correlate two scores over the codecs that have both; None for fewer than four, or where one does not vary.

    x, y: codec -> score. negate_y: y is better higher, x better lower. families: codec -> its family; one without is
    its own. The interval is by Fisher's transformation of r, which takes what it counts for a sample of all there are:
    with eight it is wide. It counts families: other bitrates of one codec are no further witnesses (eight of one and
    three others would look like eleven). There is none for fewer than four families.
    Source: scipy.stats.pearsonr, spearmanr; Fisher, "On the probable error of a coefficient of correlation", 1921.

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
    r, rho = float(stats.pearsonr(first, second).statistic), stats.spearmanr(first, second).statistic
    counted = len({(families or {}).get(name, name) for name in both})
    return Correlation(r, *_interval(r, counted), round(float(rho), 12), len(both), counted)


def _interval(r: float, n: int) -> tuple[float, float]:
    """Fisher's 95 % interval of a correlation of n pairs; NaN for fewer than four.

    >>> [round(end, 3) for end in _interval(0.8, 8)]
    [0.219, 0.962]
    """
    from scipy import stats

    if n < LEAST:
        return math.nan, math.nan
    with np.errstate(divide="ignore"):
        z, half = np.arctanh(np.clip(r, -1, 1)), stats.norm.ppf(0.975) / math.sqrt(n - 3)
    return float(np.tanh(z - half)), float(np.tanh(z + half))
