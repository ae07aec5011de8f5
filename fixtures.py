"""The fixtures that suites ask for: what is measured, on what, and where the numbers go."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import pytest

from earmark import summary
from earmark.codecs.registry import Entry, Status
from earmark.data import cards
from earmark.data.cards import Dataset
from earmark.metrics import registry as metric_registry
from earmark.planning import LISTENING, MEASURED, judge_of, listed, run_of
from earmark.reports.allure.results import CODEC_FAILED, INFRASTRUCTURE_FAULT
from earmark.reports.scores import Score
from earmark.thresholds import Thresholds

if TYPE_CHECKING:
    from earmark.scoring import Measured
    from earmark.scoring.examples import Example
    from earmark.store.store import Store

_DEFINITIONS = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def codec(request: pytest.FixtureRequest) -> Entry:
    """What the codec is. No model is loaded by asking for it."""
    return run_of(request.config).entry(request.param)


@pytest.fixture
def listed_codec(request: pytest.FixtureRequest) -> tuple[Entry, Status, bool]:
    """Any codec of the run, ready or not: its entry, its status, and whether `--require` names it."""
    run = run_of(request.config)
    entry = run.entry(request.param)
    required = any(name in (entry.name, entry.family) for name in listed(request.config.option.require))
    return entry, run.plan.statuses[entry.name], required


@pytest.fixture
def listed_need(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    """What some metrics need: its name, and the command that gets it (None where it is here)."""
    return request.param, run_of(request.config).plan.optional[request.param]


@pytest.fixture(scope="session")
def encoder(request: pytest.FixtureRequest) -> Entry:
    """An encoder by whose embeddings distributions are compared."""
    plan = run_of(request.config).plan
    return next(entry for entry in plan.encoders if entry.name == request.param)


@pytest.fixture(scope="session")
def dataset(request: pytest.FixtureRequest) -> Dataset:
    """The clips that this run uses."""
    return run_of(request.config).dataset(request.param)


@pytest.fixture
def training_set(request: pytest.FixtureRequest, dataset: Dataset) -> Dataset:
    """The clips of the dataset for what is trained on them: more than others get in the quick preset."""
    return run_of(request.config).training_set(dataset)


@pytest.fixture(scope="session")
def few(request: pytest.FixtureRequest, dataset: Dataset) -> Dataset:
    """The clips for what takes long, such as a sweep: fewer in the quick preset."""
    return cards.at_most(dataset, run_of(request.config).plan.heavy_limit)


@pytest.fixture(scope="session")
def store(request: pytest.FixtureRequest) -> Store:
    """What the codecs made of the datasets; made once, then read."""
    return run_of(request.config).store


@pytest.fixture
def scores(request: pytest.FixtureRequest, store: Store, record_property: Callable) -> Callable[..., Score]:
    """`scores(metric, codec, dataset)`: measure, record the score everywhere, and return it.

    What a suite's own procedure found is handed over: `scores(metric, codec, dataset, found=..., variant=...)`.
    """
    from earmark.scoring import measure

    run, suite = run_of(request.config), request.node.module.__name__.rpartition(".")[2].removeprefix("test_")

    def score(name: str, codec: Entry, dataset: Dataset, **of: Any) -> Score:
        metric, preset = metric_registry.find(name), run.plan.preset
        used = dataset if "found" in of else run.dataset_for(metric, dataset)
        measured = measure(metric, codec, used, store, suite=suite, preset=preset, device=run.device_name, **of)
        _record(request.node, measured, summary.define(metric), record_property)
        return measured.score

    return score


def _record(item: pytest.Item, measured: Measured, definition: str, record_property: Callable) -> None:
    """Into JUnit (plain properties), Allure (a parameter that is not part of the test's identity) and the report."""
    import allure

    score = measured.score
    for name in ("value", "unit", "ci_low", "ci_high", "n", "failed"):
        record_property(f"{score.metric}_{name}", getattr(score, name))
    allure.dynamic.parameter(score.metric, _Unquoted(summary.describe(score)), excluded=True)
    definitions = item.stash.setdefault(_DEFINITIONS, [inspect.getdoc(item.function) or ""])  # type: ignore[attr-defined]
    definitions.append(f"* **{score.metric}**: {definition}")
    allure.dynamic.description("\n\n".join(definitions))
    item.stash.setdefault(MEASURED, []).append(
        {"score": json.loads(score.to_json()), "clips": measured.clip_rows(), "errors": measured.errors}
    )


class _Unquoted:
    """Text as an Allure parameter; a plain string is shown with its quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


@pytest.fixture
def listening(request: pytest.FixtureRequest) -> Callable[[Example, Entry, Dataset], None]:
    """`listening(example, codec, dataset)`: keep its sounds beside the scores, for the leaderboard."""
    from earmark.reports.listening import keep_sound
    from earmark.scoring.examples import RANKED_BY

    run = run_of(request.config)

    def keep(example: Example, codec: Entry, dataset: Dataset) -> None:
        heard: dict[str, Any] = {"codec": codec.name, "dataset": dataset.name, "run": run.plan.run}
        heard |= {"place": example.place, "clip": example.clip, "metric": RANKED_BY, "value": example.value}
        kept = {name: keep_sound(run.out, getattr(example, name)) for name in ("recording", "estimate")}
        request.node.stash.setdefault(LISTENING, []).append(heard | kept)

    return keep


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`gate(score, ...)`: fail the test where a score misses its threshold; say so where nothing judges it."""
    judge = judge_of(request.config)

    def check(*scores: Score) -> None:
        missed = [found for score in scores if (found := _verdict(judge, score, request.node.stash[MEASURED]))]
        if missed:
            pytest.fail("\n".join(missed), pytrace=False)

    return check


def _verdict(judge: Thresholds, score: Score, measured: list[dict[str, Any]]) -> str | None:
    """Why a score must not pass, with the first clips that failed; None where it may."""
    verdict = judge.judge(score)
    record = next(entry for entry in measured if entry["score"]["metric"] == score.metric)
    record["ungated"] = verdict.ungated
    if not verdict.failed:
        return None
    worst = "".join(f"\n  {clip}: {why}" for clip, why in sorted(record["errors"].items())[:5])
    return _blamed(verdict.failed, record["errors"].values()) + worst


def _blamed(failed: str, errors: Collection[str]) -> str:
    """Of too many clips that failed, whose fault it is: not the codec's where the machine's was behind each."""
    if errors and all(error.startswith(INFRASTRUCTURE_FAULT) for error in errors):
        return failed.replace(CODEC_FAILED, INFRASTRUCTURE_FAULT, 1) if failed.startswith(CODEC_FAILED) else failed
    return failed
