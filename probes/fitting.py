"""How a probe on sequences is trained: optimiser, schedule, batches, and which step is kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Training(BaseModel):
    """The hyper-parameters of a training run. Either `steps` or `epochs` says how long.

    schedule  constant, or cosine to `final` times the learning rate over all steps; `cosine_steps` where the published
              cosine is shorter than the training: the rate stays at its end then. `warm_up` steps rise to it linearly.
    clip      the largest norm of a gradient; None: any.
    checks    how often in a run the probe is validated; the best one is kept. 0: the last one is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    batch: int = Field(gt=0)
    steps: int | None = None
    epochs: int | None = None
    warm_up: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    cosine_steps: int | None = None
    final: float = 0.0
    clip: float | None = None
    checks: int = 0

    def total(self, clips: int) -> int:
        """Steps of a run over so many clips."""
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("a training needs either steps or epochs, and not both")
        return self.steps or (self.epochs or 0) * math.ceil(clips / self.batch)

    def rate_at(self, step: int, total: int) -> float:
        """The learning rate at a step, as a share of `learning_rate`."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        if self.schedule == "constant":
            return 1.0
        end = max(self.cosine_steps or total, self.warm_up + 1)
        part = min(1.0, (step - self.warm_up) / (end - self.warm_up))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * part))


def fit(
    model: nn.Module,
    loss: Callable[[Sequence[int]], Tensor],
    clips: int,
    training: Training,
    seed: int,
    validate: Callable[[], float] | None = None,
    beat: Callable[[str], None] = lambda doing: None,
) -> list[float]:
    """Train a model in place; returns the loss of every step.

    loss: of a batch, given as positions among the `clips` that there are. validate: an error, the lower the better;
    the weights of its best check are what the model has in the end. beat: told how far it is.
    Raises ValueError where a loss is not finite. The same seed trains the same model on the CPU.
    """
    import torch

    if not clips:
        raise ValueError("there is no clip to train on")
    total, best, losses = training.total(clips), _Best(model), list[float]()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = _optimizer(weights, training)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: training.rate_at(step, total))
    every = max(1, total // training.checks) if training.checks and validate else total + 1
    batches = _batches(clips, training.batch, seed)
    with seeded(seed):
        for step in range(1, total + 1):
            model.train()
            losses.append(_step(model, loss(next(batches)), optimizer, weights, training.clip))
            schedule.step()
            if step % 10 == 0:
                beat(f"training a probe: step {step} of {total}, loss {losses[-1]:.3f}")
            if validate and step % every == 0:
                model.eval()
                best.offer(validate())
    best.restore()
    model.eval()
    return losses


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Chance by the seed, on all devices; as it was afterwards."""
    import torch

    with torch.random.fork_rng(enabled=True):
        torch.manual_seed(seed)
        yield


def _step(
    model: nn.Module,
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    weights: list[nn.Parameter],
    clip: float | None,
) -> float:
    import torch

    if not torch.isfinite(loss):
        raise ValueError(f"the loss of {type(model).__name__} is {float(loss)}; a smaller learning rate may help")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(weights, clip)
    optimizer.step()
    return float(loss)


def _optimizer(weights: list[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    import torch

    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer]
    return kind(
        weights,
        lr=training.learning_rate,
        betas=training.betas,
        eps=training.eps,
        weight_decay=training.weight_decay,
    )


def _batches(clips: int, size: int, seed: int) -> Iterator[list[int]]:
    """Positions, each once an epoch in an order drawn anew."""
    import torch

    chance = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(clips, generator=chance).tolist()
        yield from (order[at : at + size] for at in range(0, clips, size))


class _Best:
    """The weights at the lowest error so far; those that are not trained are not copied."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.error, self.state = model, math.inf, dict[str, Tensor]()

    def offer(self, error: float) -> None:
        if error < self.error:
            frozen = {name for name, weight in self.model.named_parameters() if not weight.requires_grad}
            state = {name: value for name, value in self.model.state_dict().items() if name not in frozen}
            self.error, self.state = error, copy.deepcopy(state)

    def restore(self) -> None:
        if self.state:
            self.model.load_state_dict(self.state, strict=False)
