"""A run: what it measures (`Plan`, the same for every process), and the state of one process of it (`Run`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from earmark import paths
from earmark.codecs import registry
from earmark.codecs.registry import Entry, Status
from earmark.data import cards
from earmark.data.cards import Card, Dataset
from earmark.data.manifest import ManifestError
from earmark.metrics import registry as metrics
from earmark.thresholds import ThresholdsError

if TYPE_CHECKING:
    from earmark.metrics import Metric
    from earmark.store.store import Store


class Preset(NamedTuple):
    """The most clips that a dataset gives (None: all): in general, to metrics of seconds a clip, and to what is trained
    on them, which learns nothing from a few.
    """

    clips: int | None
    heavy_clips: int | None
    trained_clips: int | None


PRESETS = {"quick": Preset(16, 4, 200), "paper": Preset(None, None, None)}
USAGE_ERRORS = (
    registry.CodecNotFoundError, registry.CatalogueError, cards.DataError, ManifestError,
    ThresholdsError,
)  # fmt: skip


class Plan(BaseModel):
    """What a run measures: resolved once by the controller, the same for every worker."""

    codecs: list[Entry]
    statuses: dict[str, Status]
    cards: list[Card]
    limit: int | None
    heavy_limit: int | None
    trained_limit: int | None = None
    preset: str
    run: str
    encoders: list[Entry] = []
    optional: dict[str, str | None] = {}  # what some metrics need: the command that gets it, None where it is here

    def ready(self, need: str | tuple[str, ...] | None) -> list[Entry]:
        """The codecs that can run here and that have the capability, or all of those, which a suite needs."""
        ready = [entry for entry in self.codecs if self.statuses[entry.name].ready]
        needs = {need} if isinstance(need, str) else set(need or ())
        return [entry for entry in ready if needs <= set(entry.info.capabilities)]

    def using(self, use: str | None, task: str | None) -> list[Card]:
        """The datasets for a suite; with a task, those that have labels for it."""
        found = [card for card in self.cards if use in card.uses]
        return [card for card in found if task is None or task in {of.kind for of in card.tasks}]

    def backends(self, kind: str) -> list[str]:
        """The models of a kind that are here."""
        return [model.name for model in metrics.backends(kind) if self.optional[model.name] is None]


@dataclass
class Run:
    """The state of one pytest process; `results` is filled in the controller only."""

    plan: Plan
    out: Path
    device: str
    engine: Callable | None = None
    notify: Callable[[str, int, str], None] | None = None
    is_worker: bool = False  # of pytest-xdist, which puts another in its place when it ends
    results: list[dict[str, Any]] = field(default_factory=list)
    shards: dict[str, int] = field(default_factory=dict)  # of each dataset, once asked for

    @cached_property
    def store(self) -> Store:
        from earmark.store.store import Store

        root = paths.home() / "store"
        return Store(root, self.device, self.plan.run, self.engine, self.notify, expendable=self.is_worker)

    @cached_property
    def device_name(self) -> str:
        if not self.device.startswith("cuda"):
            return self.device
        import torch

        return f"cuda ({torch.cuda.get_device_name(self.device)})"

    def entry(self, name: str) -> Entry:
        return next(entry for entry in self.plan.codecs if entry.name == name)

    def weight(self, test: str) -> int:
        """The shards that a test goes through, by its id; one for a test without a dataset."""
        names = f"-{test.partition('[')[2].rstrip(']')}-"
        used = [card.name for card in self.plan.cards if f"-{card.name}-" in names]
        return self._shards(max(used, key=len)) if used else 1

    def _shards(self, dataset: str) -> int:
        if dataset not in self.shards:
            try:
                self.shards[dataset] = len({clip.shard for clip in self.dataset(dataset).clips})
            except USAGE_ERRORS:  # said by each test that needs it
                self.shards[dataset] = 1
        return self.shards[dataset]

    def dataset(self, name: str) -> Dataset:
        return cards.load(next(card for card in self.plan.cards if card.name == name), self.plan.limit)

    def training_set(self, dataset: Dataset) -> Dataset:
        """The clips of a dataset for what is trained on them."""
        return cards.load(dataset.card, self.plan.trained_limit)

    def dataset_for(self, metric: Metric, dataset: Dataset) -> Dataset:
        """The clips that a metric is measured on: fewer for a heavy one, for a transcript's those with words."""
        if metric.kind == "transcript":
            dataset = cards.having(dataset, "transcript")
        return cards.at_most(dataset, self.plan.heavy_limit) if metric.heavy else dataset
