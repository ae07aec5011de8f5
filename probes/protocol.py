"""Protocols: what a benchmark prescribes for a kind of task, as YAML in `protocols/`; which one gave a score is named.

A protocol has a recipe for each kind of task that it defines; `sets` in a recipe says what differs for one dataset.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from earmark import yamls
from earmark.names import nearest

_HERE = Path(__file__).parent / "protocols"


class ProtocolError(ValueError):
    """A protocol that cannot be used; the message names the file or the nearest names."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Recipe(_Strict):
    """How one kind of task is learned.

    learner    which of the learners; `options` are its own settings.
    rates      learning rates; of several, the one that is best on the validation clips.
    schedule   how the rate goes from its value to `final` times it, `cosine_cut` on its way to 0; `warmup` in steps, or
               below 1 a share of all. `by` epoch: it changes between epochs only.
    epochs     at most `steps` steps, where given. `batch`: clips of a step.
    patience   epochs without anything better after which a run ends.
    positive   how much more what is there counts in binary cross entropy than what is not.
    select     the epoch that is kept: the best on validation by `metric` (of events: by loss) or `loss`; the `last`,
               without validation; the last, of the `rate` that is best on validation; or the best on the `test` clips
               (as one benchmark published it: optimistic, and flagged).
    standardise  features scaled to mean 0 and variance 1 by the statistics of the training clips.
    sets       what differs for a dataset, by the name of its card.
    """

    learner: str
    options: dict[str, Any] = {}
    optimiser: Literal["adam", "adamw"] = "adamw"
    rates: tuple[float, ...] = (1e-3,)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None
    schedule: Literal["constant", "cosine", "cosine_cut", "linear"] = "constant"
    by: Literal["step", "epoch"] = "step"
    warmup: float = 0
    final: float = 0.0
    period: int | None = None  # steps that the schedule is laid out for, where they are not those that are taken
    epochs: int = 1
    steps: int | None = None
    patience: int | None = None
    batch: int = 32
    positive: float = 1.0
    select: Literal["metric", "loss", "last", "rate", "test"] = "last"
    standardise: bool = False
    seeds: int = 1
    sets: dict[str, dict[str, Any]] = {}

    def for_set(self, name: str) -> Recipe:
        """The recipe as it is for a dataset."""
        changed = self.sets.get(name, {})
        options = self.options | changed.get("options", {})
        return Recipe.model_validate(self.model_dump() | changed | {"options": options, "sets": {}})


class Protocol(_Strict):
    """What a benchmark prescribes: `recipes` by the kind of task. `flag` is said beside every score of it."""

    name: str
    version: int
    title: str
    source: str
    flag: str | None = None
    recipes: dict[str, Recipe]


@functools.cache
def load(name: str) -> Protocol:
    """The protocol of that name. Raises ProtocolError with the nearest names, or with the file and what is wrong."""
    path = _HERE / f"{name}.yaml"
    if name not in names():
        raise ProtocolError(f"unknown protocol {name!r}{nearest(name, names())}")
    try:
        return Protocol.model_validate({"name": name} | yamls.read(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise ProtocolError(f"{path}: not a protocol: {error}") from error


def names() -> list[str]:
    return sorted(path.stem for path in _HERE.glob("*.yaml"))
