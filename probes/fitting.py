"""How a probe on sequences is trained: optimiser, schedule, batches, and which step is kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from earmark.probes.protocol import Recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def steps_of(recipe: Recipe, clips: int) -> int:
    """The steps of a training over so many clips: its epochs, or its steps where those are fewer."""
    epochs = recipe.epochs * math.ceil(clips / recipe.batch)
    return min(epochs, recipe.steps) if recipe.steps else epochs


def fit(
    model: nn.Module,
    loss: Callable[[Sequence[int]], Tensor],
    clips: int,
    recipe: Recipe,
    rate: float,
    seed: int,
    validate: Callable[[], float] | None = None,
    beat: Callable[[str], None] = lambda _: None,
) -> list[float]:
    """Train a model in place; returns the loss of every step.

    loss: of a batch, given as positions among the `clips` that there are. rate: the learning rate. validate: an error,
    the lower the better, asked for every epoch (every `options: {check: steps}`), unless the last step is what is kept
    (`select: last`); the weights of its best check are what the model has in the end. beat: told how far it is.
    Raises ValueError where a loss is not finite. The same seed trains the same model on the CPU.
    """
    import torch

    from earmark.probes.optimise import factors

    if not clips:
        raise ValueError("there is no clip to train on")
    total, epoch_steps, losses = steps_of(recipe, clips), math.ceil(clips / recipe.batch), list[float]()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = _optimizer(weights, recipe, rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: factors(recipe, [step], [total], step // epoch_steps)[0]
    )
    best = _Best(model, validate if recipe.select != "last" else None)
    every, batches = recipe.options.get("check", epoch_steps), _batches(clips, recipe.batch, seed)
    with seeded(seed):
        for step in range(1, total + 1):
            model.train()
            losses.append(_step(model, loss(next(batches)), optimizer, weights, recipe.clip_norm))
            schedule.step()
            if step % 10 == 0:
                beat(f"training a probe: step {step} of {total}, loss {losses[-1]:.3f}")
            if step % every == 0 or step == total:
                best.check()
    best.restore()
    model.eval()
    return losses


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Chance by the seed, on the CPU and the device in use; as it was afterwards."""
    import torch

    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
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
        raise ValueError(
            f"the loss of {type(model).__name__} is {float(loss.detach())}; a smaller learning rate may help"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(weights, clip)
    optimizer.step()
    return float(loss.detach())


def _optimizer(weights: list[nn.Parameter], recipe: Recipe, rate: float) -> torch.optim.Optimizer:
    import torch

    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimiser]
    return kind(weights, lr=rate, betas=recipe.betas, eps=recipe.eps, weight_decay=recipe.weight_decay)


def _batches(clips: int, size: int, seed: int) -> Iterator[list[int]]:
    """Positions, each once an epoch in an order drawn anew."""
    import torch

    chance = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(clips, generator=chance).tolist()
        yield from (order[at : at + size] for at in range(0, clips, size))


class _Best:
    """The weights at the lowest validation error so far; those that are not trained are not copied."""

    def __init__(self, model: nn.Module, validate: Callable[[], float] | None) -> None:
        self.model, self.validate, self.error = model, validate, math.inf
        self.state: dict[str, Tensor] = {}

    def check(self) -> None:
        if self.validate is None:
            return
        self.model.eval()
        error = self.validate()
        if error < self.error or not self.state:
            named = self.model.named_parameters(remove_duplicate=False)  # tied weights have two names
            frozen = {name for name, weight in named if not weight.requires_grad}
            state = {name: value for name, value in self.model.state_dict().items() if name not in frozen}
            self.error, self.state = error, copy.deepcopy(state)

    def restore(self) -> None:
        if self.state:
            self.model.load_state_dict(self.state, strict=False)
