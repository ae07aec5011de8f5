"""Protocols: how a language model is built, trained and judged, read from `protocols/*.yaml`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from earmark import yamls

_HERE = Path(__file__).parent / "protocols"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Size(_Strict):
    """The shape of the network, in the names of Qwen2Config."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    rope_parameters: dict[str, Any]
    max_position_embeddings: int = 32768


class Protocol(_Strict):
    """How a language model is trained.

    context        steps of a row; a longer document is cut, and its parts are told what came just before.
    start          what the untrained model predicts: each token alike, or each as often as training has it.
    batch          rows of an optimiser's step, over all processes together.
    held_out       share of the groups (speakers, recordings) that validate; at least two groups do.
    validate_every optimiser's steps between two points of the training curve.
    precision      of the products; weights and sums are float32. bf16 on a GPU only: a CPU takes float32.
    """

    name: str
    size: Size
    context: int = Field(gt=1)
    batch: int = Field(gt=0)
    steps: int = Field(gt=0)
    start: Literal["even", "unigram"]
    learning_rate: float = Field(gt=0)
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    warmup_steps: int
    schedule: Literal["constant", "linear"]
    clip_norm: float | None
    held_out: float = Field(gt=0, lt=1)
    validate_every: int = Field(gt=0)
    checkpoint_every: int = Field(gt=0)
    precision: Literal["float32", "bf16"]

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, from 0: warm-up from 1 / warmup_steps of it, then constant or down to 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (self.steps - step) / max(1, self.steps - self.warmup_steps)


@functools.cache
def find(name: str) -> Protocol:
    """A protocol by name; an unknown one is a ValueError that lists those there are."""
    path = _HERE / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in _HERE.glob("*.yaml")))
        raise ValueError(f"no language-model protocol is called {name!r}; there are: {known}")
    return Protocol(name=name, **yamls.read(path.read_text(encoding="utf-8")))
