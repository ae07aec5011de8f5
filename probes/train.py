"""Many runs of one learner (folds, seeds, learning rates) trained as one: parameters stacked, a step one batched call.

What a run becomes does not depend on the runs beside it: it has its own clips, order, rate, schedule and end. Learners
are plain `torch.nn.Module`s; `torch.func` batches them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from earmark.probes.fitting import seeded
from earmark.probes.optimise import Adam, Stacked, factors
from earmark.probes.protocol import Recipe

AT_ONCE = 4096  # examples of a run that are looked at together where nothing is learned


@dataclass(frozen=True)
class Examples:
    """What is learned from. x [N, ...]; y [N] int64 or [N, ..., C]; weight [N] or [N, T]: 0 is padding."""

    x: Tensor
    y: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Run:
    """One training: indices of its examples, its rate and seed.

    centre, scale [D]: its features are standardised so; shift, spread [C]: its targets are (of a regression).
    """

    train: Tensor
    valid: Tensor
    rate: float
    seed: int
    centre: Tensor | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    spread: Tensor | None = None


@dataclass
class Trained:
    """The parameters [R, ...] that were kept of each run, how good they were on its validation examples, and when."""

    parameters: Stacked
    quality: Tensor
    epochs: Tensor


class Trainer:
    """Trains runs together. `build()` makes the learner, kind says by which loss (see `losses`)."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        kind: str,
        examples: Examples,
        recipe: Recipe,
        runs: Sequence[Run],
        beat: Callable[[str], Any] = str,  # told what is done
    ) -> None:
        self.kind, self.examples, self.recipe, self.runs, self.beat = kind, examples, recipe, runs, beat
        self.device = examples.x.device
        models = [_seeded(build, run.seed).to(self.device) for run in runs]
        self.model = models[0]
        stacked, _ = stack_module_state(models)
        self.parameters: Stacked = {name: value.detach() for name, value in stacked.items()}
        self.rates = torch.tensor([run.rate for run in runs], device=self.device)
        self.orders = [torch.Generator().manual_seed(run.seed) for run in runs]

    def fit(self) -> Trained:
        """Train all runs to their end. Dropout, where there is any, is drawn by the seed of the first."""
        with seeded(self.runs[0].seed):
            return self._fit()

    def _fit(self) -> Trained:
        recipe = self.recipe
        optimiser, kept = Adam(self.parameters, recipe), self._kept()
        totals = [self._total(run) for run in self.runs]
        done = [0] * len(self.runs)
        for epoch in range(recipe.epochs):
            self.beat(f"training {len(self.runs)} probes, epoch {epoch + 1} of {recipe.epochs}")
            going = self._going(kept, epoch)
            for rows in self._batches():
                active = [
                    go and len(row) > 0 and at < end for go, row, at, end in zip(going, rows, done, totals, strict=True)
                ]
                if any(active):
                    rates = self.rates * torch.tensor(factors(recipe, done, totals, epoch), device=self.device)
                    optimiser.step(self._gradients(rows), rates, torch.tensor(active, device=self.device).float())
                    done = [at + on for at, on in zip(done, active, strict=True)]
            if not any(going):
                break
            self._keep(kept, epoch, going)
        return kept

    def predict(self, parameters: Stacked, rows: Sequence[Tensor]) -> list[Tensor]:
        """What each run says of its examples: a list of [n, ..., C]."""
        self.model.eval()
        index, _ = _filled(rows)
        forward = vmap(lambda of, x: functional_call(self.model, of, (x,)))
        with torch.no_grad():
            parts = [forward(parameters, self._features(part)) for part in index.to(self.device).split(AT_ONCE, 1)]
        made = torch.cat(parts, 1)
        return [made[run, : len(row)] for run, row in enumerate(rows)]

    def _total(self, run: Run) -> int:
        steps = -(-len(run.train) // self.recipe.batch) * self.recipe.epochs
        return min(steps, self.recipe.steps or steps)

    def _going(self, kept: Trained, epoch: int) -> list[bool]:
        """Which runs have not waited too long for something better."""
        patience = self.recipe.patience
        return [patience is None or epoch <= last + patience for last in kept.epochs.tolist()]

    def _batches(self) -> Iterator[list[Tensor]]:
        """Of each run the examples of its next step, its own shuffled order cut into batches; none at its end."""
        size = self.recipe.batch
        orders = [
            run.train[torch.randperm(len(run.train), generator=order)]
            for run, order in zip(self.runs, self.orders, strict=True)
        ]
        for at in range(0, max(len(order) for order in orders), size):
            yield [order[at : at + size] for order in orders]

    def _gradients(self, rows: Sequence[Tensor]) -> Stacked:
        self.model.train()
        index, there = (part.to(self.device) for part in _filled(rows))
        weight = self.examples.weight[index] * there.view(*there.shape, *[1] * (self.examples.weight.ndim - 1))

        def loss(of: Stacked, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
            found = losses(self.kind, functional_call(self.model, of, (x,)), y, self.recipe.positive)
            return (found * weight).sum() / weight.sum().clamp(min=1e-9)

        given = (self.parameters, self._features(index), self._targets(index), weight)
        return vmap(grad(loss), randomness="different")(*given)

    def _targets(self, index: Tensor) -> Tensor:
        """y [R, B, ...] of indices [R, B], each run's by its own statistics."""
        y = self.examples.y[index]
        if self.runs[0].shift is None:
            return y
        shift, spread = (torch.stack(of)[:, None] for of in zip(*((r.shift, r.spread) for r in self.runs), strict=True))
        return (y - shift) / spread

    def _features(self, index: Tensor) -> Tensor:
        """x [R, B, ...] of indices [R, B], each run's by its own statistics."""
        x = self.examples.x[index]
        if self.runs[0].centre is None:
            return x
        shape = (len(self.runs), *[1] * (x.ndim - 2), -1)
        for name, apply in (("centre", x.sub_), ("scale", x.div_)):  # in place: of frames there are many
            apply(torch.stack([getattr(run, name) for run in self.runs]).view(shape))
        return x

    def _kept(self) -> Trained:
        count = len(self.runs)
        worst = torch.full((count,), -torch.inf, device=self.device)
        return Trained({}, worst, torch.zeros(count, dtype=torch.long, device=self.device))

    def _keep(self, kept: Trained, epoch: int, going: Sequence[bool]) -> None:
        """Take over the parameters of the runs that are better than before (or, where the last counts, of all)."""
        last = self.recipe.select in ("last", "rate")
        if last and epoch + 1 < self.recipe.epochs:
            return
        quality = self._quality()
        better = torch.tensor(going, device=self.device) & ((quality > kept.quality) | last)
        for name, value in self.parameters.items():
            old = kept.parameters.get(name)
            on = better.view(-1, *[1] * (value.ndim - 1))
            kept.parameters[name] = value.clone() if old is None else torch.where(on, value, old)
        kept.quality = torch.where(better, quality, kept.quality)
        kept.epochs = torch.where(better, epoch, kept.epochs)

    def _quality(self) -> Tensor:
        """How good each run is on its validation examples [R]: higher is better; nothing where it has none."""
        rows = [run.valid for run in self.runs]
        if not all(len(row) for row in rows):
            return torch.zeros(len(rows), device=self.device)
        by_metric = self.recipe.select != "loss"
        found = []
        targets = self._targets(_filled(rows)[0].to(self.device))
        for run, said in enumerate(self.predict(self.parameters, rows)):
            weight = self.examples.weight[rows[run].to(self.device)]
            found.append(_quality(self.kind, by_metric, said, targets[run, : len(said)], weight, self.recipe.positive))
        return torch.stack(found)


def losses(kind: str, said: Tensor, y: Tensor, positive: float = 1.0) -> Tensor:
    """Of each example: cross entropy, or over its outputs the mean of binary cross entropy or of the squared error.

    positive: the weight of what is there, in binary cross entropy (torch's `pos_weight`).
    """
    if kind == "classification":
        return cross_entropy(said, y, reduction="none")
    if kind == "regression":
        return (said - y).square().mean(-1)
    of_there = None if positive == 1 else torch.tensor(positive, device=said.device)
    return binary_cross_entropy_with_logits(said, y, reduction="none", pos_weight=of_there).mean(-1)


def _quality(kind: str, by_metric: bool, said: Tensor, y: Tensor, weight: Tensor, positive: float) -> Tensor:
    if by_metric and kind == "classification":
        return (said.argmax(-1) == y).float().mean()
    if by_metric and kind == "multi_label":
        return _mean_ap(said, y)
    return -(losses(kind, said, y, positive) * weight).sum() / weight.sum()


def _mean_ap(said: Tensor, y: Tensor) -> Tensor:
    """Average precision [N, C], the mean over the labels that are there (ties in the order of the examples)."""
    sorted_y = y.gather(0, said.argsort(dim=0, descending=True, stable=True))
    precision = sorted_y.cumsum(0) / torch.arange(1, len(y) + 1, device=y.device)[:, None]
    there = y.sum(0) > 0
    return ((precision * sorted_y).sum(0)[there] / y.sum(0)[there]).mean() if there.any() else y.new_zeros(())


def _seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The learner, its first weights drawn by the seed; the process's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def _filled(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of different lengths as [R, n], filled with 0, and which of it is there."""
    index = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return index, torch.arange(index.shape[1])[None] < lengths[:, None]
