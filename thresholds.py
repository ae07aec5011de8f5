"""Thresholds: what "good" means, read from YAML, and the judgement of a score by them.

The file is keyed codec / suite / dataset / metric; codec, suite and dataset may be patterns (`opus-*`, `*`). The most
specific entry judges: one with more names spelt out wins, and of two equals the later. `defaults:` judges the metrics
that no entry matches. `margins:` says how much worse than a baseline (`--baseline`) a metric may get. Every mistake in
the file is an error that names its line and the nearest valid name.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from earmark import yamls
from earmark.names import nearest
from earmark.reports.scores import MAX_FAILED, Score, with_unit

DEFAULT = Path(__file__).parent / "thresholds.yaml"
OUT_OF_DOMAIN = "out of domain: the metric was not validated for such audio"
MARGIN = 0.02  # what --write-thresholds leaves below a measured value, as a share of it (at least half its interval)


class ThresholdsError(ValueError):
    """A thresholds file that cannot be used; the message names file, line and the nearest valid name."""


class Bound(BaseModel):
    """What a mean must reach, and where that was said.

    min, max   in `unit`; an infinite one allows a mean that is.
    max_failed the share of failed clips that is let pass, 1 % where it is not given; a control may fail on all.
    from       where the value came from: a measurement, a paper, a decision.
    data       dataset fingerprint that it was measured on; scores on other data are not gated by it.
    protocol, preset, backend   where given, only scores made so are gated by it; a backend is a library's name
                                ('pesq'), with its version ('pesq-0.0.4') where that matters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    min: float | None = None
    max: float | None = None
    max_failed: float | None = Field(None, ge=0, le=1)
    unit: str
    origin: str = Field(alias="from")
    data: str | None = None
    protocol: str | None = None
    preset: str | None = None
    backend: str | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Bound:
        if self.min is None and self.max is None and self.max_failed is None:
            raise ValueError("expected min, max or max_failed")
        return self


@dataclass(frozen=True)
class Threshold:
    """A bound and whom it is for: patterns of codec, suite and dataset, a metric, and the line it stands on."""

    codec: str
    suite: str
    dataset: str
    metric: str
    bound: Bound
    where: str

    def matches(self, score: Score) -> bool:
        named = ((score.codec, self.codec), (score.suite, self.suite), (score.dataset, self.dataset))
        return score.metric == self.metric and all(fnmatch.fnmatchcase(name, pattern) for name, pattern in named)

    @property
    def specificity(self) -> tuple[int, int]:
        """How many of codec, suite and dataset are spelt out, then how many are spelt in part."""
        parts = (self.codec, self.suite, self.dataset)
        return sum(not _is_pattern(part) for part in parts), sum(part != "*" for part in parts)


@dataclass(frozen=True)
class Names:
    """The valid names, to check a file against."""

    codecs: Collection[str]
    suites: Collection[str]
    datasets: Collection[str]
    metrics: Collection[str]
    variants: Collection[str] = ()  # regular expressions of further names of metrics
    units: Mapping[str, str] = field(default_factory=dict)  # of the metrics that have a row


@dataclass(frozen=True)
class Verdict:
    """The judgement of a score: failed says why it must not pass, ungated why nothing judged it."""

    failed: str | None = None
    ungated: str | None = None


@dataclass(frozen=True)
class Thresholds:
    """Every threshold of a file, in its order; defaults apart."""

    entries: tuple[Threshold, ...]
    defaults: tuple[Threshold, ...]
    margins: Mapping[str, float] = field(default_factory=dict)

    def margin(self, score: Score) -> float | None:
        """How much worse than its baseline a score may be, in its unit; None where the file does not say."""
        return self.margins.get(score.metric)

    def judge(self, score: Score) -> Verdict:
        """Judge a score: NaN, and more than 1 % failed clips, fail with or without a threshold.

        Two do not: a score of audio that its metric was not validated for, which only a threshold can fail, and one of
        recordings that the metric has no answer for, whoever coded them.
        """
        named = f"{score.metric} of {score.codec} on {score.dataset}"
        if score.no_answer and score.n + score.failed == 0:
            return Verdict(ungated="the metric has no answer for any of the recordings")
        threshold = self.find(score)
        other = _other_conditions(threshold.bound, score) if threshold else None
        if broken := _broken(score, threshold.bound if threshold and not other else None):
            return (
                Verdict(ungated=OUT_OF_DOMAIN)
                if score.out_of_domain
                else Verdict(failed=f"codec failed: {named}{broken}")
            )
        if threshold is None:
            return Verdict(ungated=OUT_OF_DOMAIN if score.out_of_domain else "no threshold")
        if other:
            return Verdict(ungated=f"its threshold is for {other} ({threshold.where})")
        return Verdict(failed=_miss(named, score, threshold))

    def find(self, score: Score) -> Threshold | None:
        """The threshold that judges a score: the most specific, of equals the later; else a default."""
        for group in (self.entries, self.defaults):
            matching = [threshold for threshold in group if threshold.matches(score)]
            if matching:
                return max(enumerate(matching), key=lambda item: (item[1].specificity, item[0]))[1]
        return None


def _broken(score: Score, bound: Bound | None) -> str | None:
    """Why a score is none, or of too few clips, for the bound or where there is none; None where it can be judged."""
    allowed = bound.max_failed if bound and bound.max_failed is not None else MAX_FAILED
    if score.failed > allowed * score.clips:
        return f": {score.failed} of {score.clips} clips failed"
    infinite = bound is not None and math.inf in (bound.max, -(bound.min if bound.min is not None else 0))
    all_failed = score.n == 0 and score.failed  # and that is allowed
    if score.value is None and not (score.at_bound or infinite or all_failed):
        return " has no finite mean"
    return None


def _is_pattern(name: str) -> bool:
    return any(char in name for char in "*?[")


def _other_conditions(bound: Bound, score: Score) -> str | None:
    """What a bound was set for and the score was not made with; None where they agree."""
    if bound.data is not None and bound.data != score.dataset_fingerprint:
        return f"the data {bound.data}, this run used {score.dataset_fingerprint}: another --limit, --preset or copy"
    for name in ("protocol", "preset", "backend"):
        wanted, got = getattr(bound, name), getattr(score, name)
        library = got.rpartition("-")[0] if name == "backend" else None
        if wanted is not None and wanted not in (got, library):
            return f"{name} {wanted!r}, this run used {got!r}"
    if bound.unit != score.unit:
        return f"the unit {bound.unit!r}, the metric's is {score.unit!r}"
    return None


def _miss(named: str, score: Score, threshold: Threshold) -> str | None:
    """The message of a missed threshold, None where it is met. A score that is infinite is at either end."""
    if score.n == 0:
        return None  # all failed, which the bound allows
    end = math.inf if score.higher_is_better == score.at_bound else -math.inf
    value = score.value if score.value is not None else end
    low, high = threshold.bound.min, threshold.bound.max
    if (low is None or value >= low) and (high is None or value <= high):
        return None
    wanted = f"at least {low:g}" if low is not None and value < low else f"at most {high:g}"
    interval = "" if score.ci_low is None else f" [{score.ci_low:.4g}, {score.ci_high:.4g}]"
    came = with_unit(f"{value:.4g}{interval}", score.unit)
    return (
        f"threshold missed: {named} is {came} (n {score.n}), expected {wanted} "
        f"({threshold.where}, from {threshold.bound.origin})"
    )


def load(path: Path, names: Names | None = None) -> Thresholds:
    """Read a thresholds file; with `names`, every codec, suite, dataset and metric in it must be one of them."""
    try:
        text = path.read_text(encoding="utf-8")
        tree, content = yamls.tree(text), yamls.read(text)
    except OSError as error:
        raise ThresholdsError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise ThresholdsError(f"{path}: not YAML: {error}") from error
    reader = _Reader(path, tree, names)
    reader.refuse_repeated_keys(tree)
    content = reader.mapping(content or {}, ())
    reader.known_key(content, (), ("defaults", "margins", "thresholds"))
    return Thresholds(
        tuple(reader.thresholds(content.get("thresholds") or {})),
        tuple(reader.defaults(content.get("defaults") or {})),
        reader.margins(content.get("margins") or {}),
    )


class _Reader:
    """Walks the file's content with its YAML tree beside it, so that every error has a line."""

    def __init__(self, path: Path, tree: yaml.Node | None, names: Names | None) -> None:
        self.path, self.tree, self.names = path, tree, names

    def thresholds(self, content: Any) -> Iterable[Threshold]:
        top = ("thresholds",)
        for codec, suites in self.mapping(content, top).items():
            self.known_name("codec", codec, (*top, codec))
            for suite, datasets in self.mapping(suites, (*top, codec)).items():
                self.known_name("suite", suite, (*top, codec, suite))
                for dataset, metrics in self.mapping(datasets, (*top, codec, suite)).items():
                    at = (*top, codec, suite, dataset)
                    self.known_name("dataset", dataset, at)
                    yield from self.bounds(metrics, at, codec, suite, dataset)

    def defaults(self, content: Any) -> Iterable[Threshold]:
        return self.bounds(content, ("defaults",), "*", "*", "*")

    def margins(self, content: Any) -> dict[str, float]:
        for metric, value in self.mapping(content, ("margins",)).items():
            self.known_name("metric", metric, ("margins", metric))
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                self.fail(("margins", metric), f"expected a number in the metric's unit, at least 0, found {value!r}")
        return content

    def bounds(self, metrics: Any, at: tuple, codec: str, suite: str, dataset: str) -> Iterable[Threshold]:
        for metric, raw in self.mapping(metrics, at).items():
            here = (*at, metric)
            self.known_name("metric", metric, here)
            bound = self.bound(raw, here)
            self.known_unit(str(metric), bound.unit, here)
            yield Threshold(codec, suite, dataset, metric, bound, self.where(here))

    def bound(self, raw: Any, at: tuple) -> Bound:
        raw = self.mapping(raw, at)
        self.known_key(raw, at, [field.alias or name for name, field in Bound.model_fields.items()])
        try:
            return Bound.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            self.fail((*at, *first["loc"]), f"{key or 'the bound'}: {first['msg']}")

    def mapping(self, value: Any, at: tuple) -> dict:
        if not isinstance(value, dict):
            self.fail(at, f"expected a mapping, found {value!r}")
        return value

    def known_key(self, raw: dict, at: tuple, keys: Collection[str]) -> None:
        for key in raw:
            if key not in keys:
                self.fail((*at, key), f"unknown key {key!r}{nearest(str(key), keys)}")

    def known_name(self, kind: str, name: Any, at: tuple) -> None:
        """A name must be known and a pattern must match something; a typo would gate nothing, silently."""
        if self.names is None:
            return
        known = getattr(self.names, f"{kind}s")
        if kind == "metric" and any(re.fullmatch(variant, str(name)) for variant in self.names.variants):
            return
        if not fnmatch.filter(known, str(name)):
            self.fail(at, f"unknown {kind} {name!r}{nearest(str(name), known)}")

    def known_unit(self, metric: str, unit: str, at: tuple) -> None:
        """A bound in another unit would judge nothing: no score is in it."""
        units = self.names.units if self.names else {}
        expected = dict.fromkeys(units[name] for name in fnmatch.filter(units, metric))
        if expected and unit not in expected:
            self.fail((*at, "unit"), f"{metric} is in {' or '.join(map(repr, expected))}, not in {unit!r}")

    def refuse_repeated_keys(self, node: yaml.Node | None) -> None:
        """YAML keeps the last of two equal keys; the first would be lost without a word."""
        if not isinstance(node, yaml.MappingNode):
            return
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                raise ThresholdsError(f"{self.path}:{key.start_mark.line + 1}: the key {key.value!r} is there twice")
            seen.add(key.value)
            self.refuse_repeated_keys(value)

    def fail(self, at: tuple, message: str) -> NoReturn:
        raise ThresholdsError(f"{self.where(at)}: {message}")

    def where(self, at: tuple) -> str:
        """`file:line` of the key that a path of keys leads to."""
        node, line = self.tree, 1
        for key in at:
            found = [(k, v) for k, v in getattr(node, "value", []) if k.value == str(key)]
            if not found:
                break
            line, node = found[-1][0].start_mark.line + 1, found[-1][1]
        return f"{self.path}:{line}"


def as_yaml(scores: Iterable[Score], origin: str) -> str:
    """A thresholds file that these scores pass, with a margin: 2 % of the value or half of its interval."""
    tree: dict = {}
    for score in scores:
        if score.value is None or score.fails:
            continue  # an infinite score has no margin, and a failed one must not become the rule
        at = tree.setdefault(score.codec, {}).setdefault(score.suite, {}).setdefault(score.dataset, {})
        at[score.metric] = _bound_below(score, origin)
    return yaml.safe_dump({"thresholds": tree}, sort_keys=False, width=200, allow_unicode=True, default_flow_style=None)


def _bound_below(score: Score, origin: str) -> dict[str, Any]:
    assert score.value is not None
    half = (score.ci_high - score.ci_low) / 2 if score.ci_low is not None and score.ci_high is not None else 0.0
    margin = max(MARGIN * abs(score.value), half)
    side, value = ("min", score.value - margin) if score.higher_is_better else ("max", score.value + margin)
    bound = {side: float(f"{value:.4g}"), "unit": score.unit, "from": origin, "data": score.dataset_fingerprint}
    conditions = {"protocol": score.protocol, "backend": score.backend.rpartition("-")[0]}
    return bound | {name: text for name, text in conditions.items() if text}
