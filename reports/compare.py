"""Two runs compared on the same clips: what got worse, by how much, and how sure that is.

A score is worse where the 95 % interval of the paired difference lies beyond a margin, and its p-value, corrected for
all scores that are compared (Holm 1979), is below 5 %: of fifty metrics two or three would cross the first line by
chance. The interval is a bootstrap's over groups of clips; p is Student's t over the same groups, as a bootstrap of few
groups is far too sure in its tails, and of no number of resamples small enough for hundreds of scores. Differences are
always oriented: positive is worse.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from earmark.reports.intervals import tail
from earmark.reports.scores import Score, read_clips, read_scores, with_unit

RELATIVE_MARGIN = 0.01  # of the old value, where no margin is given: so much worse is let pass
SPEED_MARGIN = 0.25  # the same for work in calibration kernels: that much a machine varies from one hour to the next
RESAMPLES = 9999  # of the bootstrap
COMPARED_SPEED = "kernels_per_"  # second, chunk
DELAYS = ("algorithmic_delay_ms", "stream_delay_ms")
ALPHA = 0.05
LEAST_GROUPS = 5  # of clips: of fewer, a bootstrap is sure of anything
WORST = 3  # clips that are named
Clips = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """A score and its baseline.

    difference, low, high    the mean paired difference and its 95 % interval; positive is worse; in the metric's unit.
    effect   the mean difference over the standard deviation of the clips' differences (Cohen's d of pairs).
    p        one-sided, that it is no worse than the margin; holm: corrected for all comparisons.
    worst    the clips that lost most: clip, old, new.
    newly_failed   clips that came back before and now fail, or came back exactly and now do not.
    skipped  why the two cannot be compared; all numbers are then NaN.
    """

    old: Score
    new: Score
    margin: float = math.nan
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    effect: float = math.nan
    p: float = math.nan
    holm: float = math.nan
    n: int = 0
    method: str = ""
    worst: Sequence[tuple[str, float, float]] = ()
    newly_failed: Sequence[str] = ()
    skipped: str | None = None

    @property
    def regressed(self) -> bool:
        """Whether the new score is worse, beyond margin and chance; or clips fail that did not."""
        return bool(self.newly_failed) or (self.low > self.margin and self.holm < ALPHA)

    @property
    def improved(self) -> bool:
        """Whether the new score is better beyond its margin (not corrected: it decides nothing)."""
        return self.high < -self.margin

    @property
    def verdict(self) -> str:
        """worse, not compared, better or as before."""
        if self.regressed:
            return "worse"
        return "not compared" if self.skipped else "better" if self.improved else "as before"


class Baseline:
    """The scores of an earlier run, from the folder that its `--reports` named.

    Raises ValueError where the folder has no scores, naming it and what to do.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "scores.jsonl").is_file():
            raise ValueError(f"{folder} has no scores.jsonl; name the folder that --reports of the earlier run named")
        self.folder = folder
        self.scores: dict[tuple, list[Score]] = {}
        for score in read_scores(folder / "scores.jsonl"):
            self.scores.setdefault(_what(score), []).append(score)
        self._clips = clips_by_score(read_clips(folder / "clips.parquet"))

    def compare(
        self, new: Sequence[Score], clips: Sequence[Mapping[str, Any]], margin: Callable[[Score], float | None]
    ) -> list[Comparison]:
        """Each new score that the baseline has too, compared; Holm's correction is over all of them.

        clips: rows of clips.parquet of the new run. margin: in the metric's unit, None for RELATIVE_MARGIN.
        """
        rows = clips_by_score(clips)
        found = []
        for score in new:
            if measured := self.scores.get(_what(score)):
                old = next((one for one in reversed(measured) if _differ(one, score) is None), measured[-1])
                before, after = self._clips.get(_made_so(old), {}), rows.get(_made_so(score), {})
                found.append(compare(old, score, before, after, margin(score)))
        return holm(found)

    def missing(self, new: Sequence[Score]) -> list[Score]:
        """What the baseline has of the suites and codecs of a run, and the run has not."""
        here, asked = {_what(score) for score in new}, {(score.codec, score.suite) for score in new}
        return [one[-1] for what, one in self.scores.items() if what not in here and what[:2] in asked]


def _what(score: Score) -> tuple:
    """What two runs can both have measured. Backend and data are looked at apart, so that a change of them is told."""
    return score.codec, score.suite, score.dataset, score.metric, score.protocol, score.seed


_MADE_SO = ("codec", "suite", "dataset", "metric", "protocol", "seed", "backend", "preset", "dataset_fingerprint")


def _made_so(score: Score) -> tuple:
    return tuple(getattr(score, name) for name in _MADE_SO)


def clips_by_score(rows: Sequence[Mapping[str, Any]]) -> dict[tuple, dict[str, Mapping[str, Any]]]:
    """Rows of clips.parquet by what was measured and how, then by clip."""
    found: dict[tuple, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in _MADE_SO), {})[row["clip"]] = row
    return found


def compare(old: Score, new: Score, before: Clips, after: Clips, margin: float | None = None) -> Comparison:
    """Compare two scores of one measurement; before, after: their rows of clips.parquet, by clip."""
    if why := _differ(old, new):
        return Comparison(old, new, skipped=why)
    plain = Comparison(old, new, newly_failed=_newly_failed(before, after))
    if old.at_bound or new.at_bound:
        return _of_bounds(plain)
    if old.value is None:
        return replace(plain, skipped="the baseline has no finite mean")
    if new.value is None:  # there was a mean, and is none
        return replace(plain, margin=0.0, difference=math.inf, low=math.inf, high=math.inf, p=0.0, method="no mean now")
    if margin is None:
        margin = (SPEED_MARGIN if new.metric.startswith(COMPARED_SPEED) else RELATIVE_MARGIN) * abs(old.value)
    plain, sign = replace(plain, margin=margin), -1.0 if new.higher_is_better else 1.0
    both = [clip for clip in after if clip in before and _finite(after[clip]) and _finite(before[clip])]
    if both and _is_mean_of(old, before) and _is_mean_of(new, after):
        return _paired(plain, both, before, after, sign)
    return _of_intervals(plain, sign)


def _is_mean_of(score: Score, clips: Clips) -> bool:
    """Whether a score is the plain mean of its clips' values: not a rate over all words, nor a geometric mean."""
    values = [row["value"] for row in clips.values() if _finite(row)]
    return score.value is not None and math.isclose(float(np.mean(values)), score.value, rel_tol=1e-6, abs_tol=1e-9)


def _differ(old: Score, new: Score) -> str | None:
    """Why two scores are not of one measurement."""
    if old.dataset_fingerprint != new.dataset_fingerprint:
        return "the data differ: compare runs over the same clips (--data, --limit, --preset)"
    for name in ("backend", "preset", "device"):
        if getattr(old, name) != getattr(new, name):
            return f"the {name} changed from {getattr(old, name)} to {getattr(new, name)}"
    if new.suite == "speed" and not new.metric.startswith((COMPARED_SPEED, *DELAYS)):
        return "seconds and memory are the machine's too, and size is a choice: kernels and delays are compared"
    return None


def _of_bounds(plain: Comparison) -> Comparison:
    """Where one was perfect (nothing was lost): to lose anything is worse, whatever the margin."""
    lost = math.inf * (plain.old.at_bound - plain.new.at_bound) if plain.old.at_bound != plain.new.at_bound else 0.0
    p = 0.0 if lost > 0 else 1.0
    return replace(
        plain, margin=0.0, difference=lost, low=lost, high=lost, effect=lost, p=p, n=plain.new.n, method="exact or not"
    )


def _finite(row: Mapping[str, Any]) -> bool:
    return row["value"] is not None and math.isfinite(row["value"])


def _newly_failed(before: Clips, after: Clips) -> list[str]:
    """Clips that fail now and did not; and those that came back exactly and now do not."""
    both = [(clip, before[clip], row) for clip, row in after.items() if clip in before]
    failed = [clip for clip, old, new in both if new["error"] and not old["error"]]
    return failed + [clip for clip, old, new in both if old["at_bound"] and not new["at_bound"] and not new["error"]]


def _paired(plain: Comparison, clips: Sequence[str], before: Clips, after: Clips, sign: float) -> Comparison:
    """By clips: the bootstrap over groups (speakers, recordings) of the paired differences."""
    worse = np.array([sign * (after[clip]["value"] - before[clip]["value"]) for clip in clips])
    names, index = np.unique([after[clip]["group"] for clip in clips], return_inverse=True)
    spread = float(worse.std(ddof=1)) if len(worse) > 1 else 0.0
    order = np.argsort(-worse, kind="stable")[:WORST]
    found = replace(
        plain,
        difference=float(worse.mean()),
        effect=float(worse.mean()) / spread
        if spread
        else math.copysign(math.inf, worse.mean())
        if worse.any()
        else 0.0,
        n=len(clips),
        worst=[(clips[i], before[clips[i]]["value"], after[clips[i]]["value"]) for i in order if worse[i] > 0],
    )
    if not worse.any():
        return replace(found, low=0.0, high=0.0, p=1.0, method="every clip scores the same")
    if len(names) < LEAST_GROUPS:
        return replace(found, skipped=f"{len(names)} groups of clips are too few to judge by; at least {LEAST_GROUPS}")
    beyond = tail(len(names))
    low, high = np.quantile(_bootstrap_means(worse, index, len(names)), [beyond, 1 - beyond])
    p = _by_student(worse, index, len(names), plain.margin)
    method = f"paired bootstrap over {len(names)} groups of clips, p by Student's t"
    return replace(found, low=float(low), high=float(high), p=p, method=method)


def _by_student(values: np.ndarray, index: np.ndarray, groups: int, margin: float) -> float:
    """One-sided p that the mean is no more than the margin, over groups of clips: the ratio of the groups' sums and
    sizes, linearised (Cochran, Sampling Techniques, 1977, 6.5), by Student's t of groups - 1 degrees.
    """
    from scipy import stats

    sums, sizes = np.bincount(index, weights=values), np.bincount(index)
    mean = sums.sum() / sizes.sum()
    left = (sums - mean * sizes) / sizes.mean()
    error = math.sqrt(float(left @ left) / (groups * (groups - 1)))
    if error <= 1e-12 * np.abs(values).max():  # every group alike, in whatever unit
        return 0.0 if mean > margin else 1.0
    return float(stats.t.sf((mean - margin) / error, groups - 1))


def _bootstrap_means(values: np.ndarray, index: np.ndarray, groups: int) -> np.ndarray:
    """Means over RESAMPLES draws of whole groups with replacement, as an interval of a score is made (intervals.py)."""
    sums, sizes = np.bincount(index, weights=values), np.bincount(index)
    times = _times_drawn(groups)
    return (times @ sums) / (times @ sizes)


@functools.lru_cache(maxsize=1)
def _times_drawn(groups: int) -> np.ndarray:
    """How often each group is in each draw, float64 [RESAMPLES, groups]: alike for every score of so many groups."""
    return np.random.default_rng(0).multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES).astype(np.float64)


def _of_intervals(plain: Comparison, sign: float) -> Comparison:
    """Of scores without values of clips (a distance of distributions, a trained model): from their own intervals.

    As if the two runs were independent, which is careful: on the same clips they are not.
    """
    from scipy import stats

    old, new = plain.old, plain.new
    assert old.value is not None
    assert new.value is not None
    difference = sign * (new.value - old.value)
    bounds = (old.ci_low, old.ci_high, new.ci_low, new.ci_high)
    if difference == 0:
        return replace(plain, difference=0.0, low=0.0, high=0.0, effect=0.0, p=1.0, n=new.n, method="the same value")
    if any(bound is None for bound in bounds):
        return replace(
            plain, difference=difference, n=new.n, skipped="neither values of clips nor intervals to judge by"
        )
    error = math.hypot(bounds[1] - bounds[0], bounds[3] - bounds[2]) / (2 * stats.norm.ppf(0.975))  # type: ignore[operator]
    half = stats.norm.ppf(0.975) * error
    z = (difference - plain.margin) / error if error else math.copysign(math.inf, difference - plain.margin)
    return replace(
        plain, difference=difference, low=difference - half, high=difference + half, n=new.n,
        effect=difference / error if error else math.copysign(math.inf, difference),
        p=float(stats.norm.sf(z)), method="from the two intervals",
    )  # fmt: skip


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same, with p corrected for how many they are (Holm, Scandinavian Journal of Statistics 1979)."""
    judged = sorted((c.p, i) for i, c in enumerate(comparisons) if c.skipped is None and not math.isnan(c.p))
    corrected, highest = {}, 0.0
    for rank, (p, place) in enumerate(judged):
        highest = max(highest, min(1.0, p * (len(judged) - rank)))
        corrected[place] = highest
    return [replace(c, holm=corrected[i]) if i in corrected else c for i, c in enumerate(comparisons)]


def describe(found: Comparison) -> str:
    """A comparison for a reader who must decide: old, new, difference, how sure, and the clips that lost most."""
    old, new = found.old, found.new
    direction = "higher is better" if new.higher_is_better else "lower is better"
    if found.skipped and not found.newly_failed:
        return f"{new.metric} of {new.codec} on {new.dataset}: not compared: {found.skipped}"
    worse_by = with_unit(f"{found.difference:.4g}", new.unit)
    lines = [
        f"{new.metric} of {new.codec} on {new.dataset} ({direction}): {_number(old)} before, {_number(new)} now",
        f"  worse by {worse_by} [{found.low:.4g}, {found.high:.4g}], margin {found.margin:.4g}; "
        f"n {found.n}, effect {found.effect:.2g}, p {found.p:.2g}, corrected {found.holm:.2g} ({found.method})",
    ]
    lines += [f"  {clip}: {before:.4g} before, {after:.4g} now" for clip, before, after in found.worst]
    lines += [f"  {clip}: fails now, or is no longer exact, and was well before" for clip in found.newly_failed[:WORST]]
    return "\n".join(lines)


def _number(score: Score) -> str:
    return "nothing lost" if score.at_bound else "none" if score.value is None else f"{score.value:.4g}"


def as_markdown(comparisons: Sequence[Comparison]) -> str:
    """All comparisons as a table, what got worse first."""
    lines = [
        "| codec | dataset | metric | before | now | worse by [95 %] | margin | p, corrected | verdict |",
        "|---|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for found in sorted(comparisons, key=lambda c: (not c.regressed, not c.improved)):
        new = found.new
        interval = "" if math.isnan(found.low) else f"{found.difference:.3g} [{found.low:.3g}, {found.high:.3g}]"
        numbers = ("" if math.isnan(number) else f"{number:.2g}" for number in (found.margin, found.holm))
        cells = [
            new.codec,
            new.dataset,
            new.metric,
            _number(found.old),
            _number(new),
            interval,
            *numbers,
            _said(found),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _said(found: Comparison) -> str:
    """The verdict as the table has it: what got worse in bold, and why something was not compared."""
    reason = {"worse": "**worse**", "not compared": f"not compared: {found.skipped}"}
    return reason.get(found.verdict, found.verdict)
