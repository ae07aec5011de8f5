"""Adam and its schedules for many runs at once: every run has its own rate, step and end.

Parameters are stacked, [R, ...]: run r is what `torch.optim.Adam` or `AdamW` would make of row r alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from earmark.probes.protocol import Recipe

Stacked = dict[str, Tensor]


class Adam:
    """Adam (Kingma and Ba 2015), or AdamW (Loshchilov and Hutter 2019) where the recipe says so."""

    def __init__(self, parameters: Stacked, recipe: Recipe) -> None:
        self.parameters, self.recipe = parameters, recipe
        self.first = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.second = {name: torch.zeros_like(value) for name, value in parameters.items()}
        runs = len(next(iter(parameters.values())))
        self.steps = torch.zeros(runs, device=next(iter(parameters.values())).device)

    def step(self, gradients: Mapping[str, Tensor], rates: Tensor, active: Tensor) -> None:
        """One step in place; rates [R]; runs that are not active [R] stay as they are."""
        self.steps += active
        clip = _clip(gradients, self.recipe.clip_norm)
        first, second = self.recipe.betas
        slow, fast = (1 - beta ** self.steps.clamp(min=1) for beta in (second, first))
        for name, value in self.parameters.items():
            on, rate = _as(active, value), _as(rates, value)
            gradient = gradients[name] * _as(clip, value)
            decay = self.recipe.weight_decay
            if self.recipe.optimiser == "adam":
                gradient = gradient + decay * value
            self.first[name].lerp_(gradient, (1 - first) * on)
            self.second[name].lerp_(gradient.square(), (1 - second) * on)
            denominator = (self.second[name] / _as(slow, value)).sqrt() + self.recipe.eps
            change = self.first[name] / _as(fast, value) / denominator
            if self.recipe.optimiser == "adamw":
                change = change + decay * value
            value.sub_(rate * on * change)


def _as(of_runs: Tensor, like: Tensor) -> Tensor:
    """[R] with as many dimensions as a parameter [R, ...]."""
    return of_runs.view(-1, *[1] * (like.ndim - 1))


def _clip(gradients: Mapping[str, Tensor], limit: float | None) -> Tensor:
    """Of each run [R] what its gradient is multiplied by, so that its norm is at most the limit."""
    squares = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients.values()])
    if limit is None:
        return torch.ones_like(squares[0])
    return (limit / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1)


def factors(recipe: Recipe, done: Sequence[int], totals: Sequence[int], epoch: int) -> list[float]:
    """Of each run, by how much its rate is multiplied after so many steps of so many."""
    if recipe.by == "epoch":
        return [_factor(recipe, epoch, recipe.epochs)] * len(done)
    return [_factor(recipe, at, recipe.period or total) for at, total in zip(done, totals, strict=True)]


def _factor(recipe: Recipe, at: int, total: int) -> float:
    warmup = recipe.warmup if recipe.warmup >= 1 else int(recipe.warmup * total)
    if at < warmup:
        return at / warmup
    if recipe.schedule == "constant":
        return 1.0
    share = min(1.0, (at - warmup) / max(1, total - warmup))
    fall = 1 - share if recipe.schedule == "linear" else (1 + math.cos(math.pi * share)) / 2
    if recipe.schedule == "cosine_cut":
        return max(recipe.final, fall)
    return recipe.final + (1 - recipe.final) * fall
