"""A recipe on the features and targets of a dataset: what is said of every clip while it is held out.

All folds, seeds and learning rates of a recipe are trained together; of the rates, a fold takes the one that is best on
its validation clips, on average over the seeds. Nothing but `Fold.test` is predicted, and no label of it is looked at
(but by `select: test`, as one benchmark published).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earmark.probes import events
from earmark.probes.conv import Conv
from earmark.probes.folds import Fold
from earmark.probes.knn import votes
from earmark.probes.linear import Linear
from earmark.probes.mlp import Mlp
from earmark.probes.protocol import Recipe
from earmark.probes.segments import padded, segments
from earmark.probes.targets import Targets
from earmark.probes.train import Examples, Run, Trained, Trainer

HEADS: dict[str, type[Linear] | type[Mlp]] = {"linear": Linear, "mlp": Mlp}
OF_FRAMES = ("conv", "frames")  # learners that are given frames; the others are given means
Beat = Callable[[str], Any]  # told what is being done


@dataclass(frozen=True)
class Predictions:
    """said: float32 [S, N, C] by seed and clip, NaN where a clip was in no test; of events a list by seed of lists by
    clip. facts: what was chosen (learning rates, epochs).
    """

    said: np.ndarray
    events: list[list[list[events.Event]]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Task:
    """What a learner is trained on: examples, the clip of each, how many a clip has (in the mean), and the learner."""

    examples: Examples
    owners: Tensor
    of_a_clip: int
    build: Callable[[], nn.Module]


def learn(
    recipe: Recipe,
    targets: Targets,
    features: Sequence[np.ndarray],
    folds: Sequence[Fold],
    frame_rate: float | None = None,
    device: str = "cpu",
    beat: Beat = str,
) -> Predictions:
    """What a recipe says of the test clips of all folds.

    features: of each clip its mean [D], or for learners of frames [D, T] at `frame_rate`; targets and folds: of them.
    """
    folds = [_as_chosen(fold, recipe) for fold in folds]
    if recipe.learner == "knn":
        return Predictions(_neighbours(recipe, targets, np.stack(features), folds))
    task = _task(recipe, targets, features, frame_rate, device)
    recipe = recipe.model_copy(update={"batch": recipe.batch * task.of_a_clip})
    runs = [
        _run(task, recipe, targets.kind, fold, rate, seed)
        for fold in folds
        for rate in recipe.rates
        for seed in range(recipe.seeds)
    ]
    trainer = Trainer(task.build, targets.kind, task.examples, recipe, runs, beat)
    trained = trainer.fit()
    best, facts = _best(trained, recipe, len(folds))
    tests = [_examples_of(task, folds[run // (len(recipe.rates) * recipe.seeds)].test) for run in best]
    chosen = {name: value[best] for name, value in trained.parameters.items()}
    trainer.runs = [runs[run] for run in best]
    outputs = [_unscaled(said.cpu(), runs[run]) for said, run in zip(trainer.predict(chosen, tests), best, strict=True)]
    if not all(bool(torch.isfinite(said).all()) for said in outputs):
        raise ValueError(f"a probe ({recipe.learner}) diverged: what it says is no number; no score is given")
    if targets.kind == "events":
        return _events(recipe, targets, features, folds, outputs, frame_rate, facts)
    said = np.full((recipe.seeds, len(features), len(targets.names)), np.nan, np.float32)
    for at, (rows, made) in enumerate(zip(tests, outputs, strict=True)):
        seed, owners = at % recipe.seeds, task.owners[rows].numpy()
        for clip in np.unique(owners):
            said[seed, clip] = made[torch.from_numpy(owners == clip)].mean(0)
    return Predictions(said, facts=facts)


def _as_chosen(fold: Fold, recipe: Recipe) -> Fold:
    """Where nothing is chosen on validation clips they are learned from; as one benchmark has it, the tested choose."""
    if recipe.select == "test":
        return replace(fold.poorer(), valid=fold.test)
    if len(recipe.rates) > 1 and recipe.select == "last":
        raise ValueError("several learning rates need validation clips: select metric or loss, not last")
    return fold.poorer() if recipe.select == "last" else fold


def _neighbours(recipe: Recipe, targets: Targets, means: np.ndarray, folds: Sequence[Fold]) -> np.ndarray:
    said = np.full((1, len(means), len(targets.names)), np.nan, np.float32)
    x, y = torch.from_numpy(means), torch.from_numpy(targets.values)
    for fold in folds:
        train = torch.from_numpy(fold.train)
        said[0, fold.test] = votes(x[train], y[train], x[fold.test], len(targets.names), **recipe.options).numpy()
    return said


def _task(recipe: Recipe, targets: Targets, features: Sequence, frame_rate: float | None, device: str) -> _Task:
    """The arrays and the learner of a recipe."""
    outputs, dimensions = len(targets.names), features[0].shape[0]
    owners = np.arange(len(features))
    if recipe.learner in OF_FRAMES and frame_rate is None:
        raise ValueError(f"the learner {recipe.learner} is of frames and needs their rate")
    rate = frame_rate or 0.0  # of means there is none
    if recipe.learner == "frames":
        x, weight = padded(features)
        y = np.stack([events.frame_targets(of, targets.names, x.shape[1], rate) for of in targets.events])
        head = HEADS[recipe.options.get("head", "mlp")]
        build: Callable[[], nn.Module] = lambda: head(dimensions, outputs)  # noqa: E731
    elif recipe.learner == "conv":
        options = dict(recipe.options)
        frames = round(options.pop("seconds") * rate)
        x, owners = segments(features, frames)
        y, weight = targets.values[owners], np.ones(len(x), np.float32)
        build = lambda: Conv(dimensions, outputs, frames, **options)  # noqa: E731
    else:
        x, y, weight = np.stack(features), targets.values, np.ones(len(features), np.float32)
        build = lambda: HEADS[recipe.learner](dimensions, outputs)  # noqa: E731
    arrays = (torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in (x, y, weight))
    return _Task(Examples(*arrays), torch.from_numpy(owners), round(len(owners) / len(features)), build)


def _examples_of(task: _Task, clips: np.ndarray) -> Tensor:
    return torch.from_numpy(np.flatnonzero(np.isin(task.owners.numpy(), clips)))


def _run(task: _Task, recipe: Recipe, kind: str, fold: Fold, rate: float, seed: int) -> Run:
    train, valid = _examples_of(task, fold.train), _examples_of(task, fold.valid)
    run = Run(train, valid, rate, seed)
    if recipe.standardise:
        centre, scale = _statistics(task.examples.x[train], task.examples.weight[train])
        run = replace(run, centre=centre, scale=scale)
    if kind == "regression":
        shift, spread = _statistics(task.examples.y[train], task.examples.weight[train])
        run = replace(run, shift=shift, spread=spread)
    return run


def _statistics(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all but the last dimension, of what is no padding; 1 where nothing varies."""
    there = x[weight > 0] if x.ndim == weight.ndim + 1 else x.flatten(0, -2)
    scale = there.std(0, correction=0)
    return there.mean(0), torch.where(scale > 1e-6, scale, torch.ones_like(scale))


def _best(trained: Trained, recipe: Recipe, folds: int) -> tuple[list[int], dict[str, Any]]:
    """The runs that count, by fold and seed: those of the rate that is best on the validation clips; and the choice."""
    shape = (folds, len(recipe.rates), recipe.seeds)
    by_rate = trained.quality.view(shape).mean(2).argmax(1).tolist()
    index = torch.arange(len(trained.quality)).view(shape)
    best = [int(index[fold, rate, seed]) for fold, rate in enumerate(by_rate) for seed in range(recipe.seeds)]
    epochs = trained.epochs.cpu()[best].view(folds, -1) + 1
    return best, {"rates": [recipe.rates[rate] for rate in by_rate], "epochs": epochs.tolist()}


def _unscaled(said: Tensor, run: Run) -> Tensor:
    return said if run.shift is None else said * run.spread.cpu() + run.shift.cpu()  # type: ignore[union-attr]


def _events(
    recipe: Recipe, targets: Targets, features: Sequence, folds: Sequence, outputs: list, rate: Any, facts: dict
) -> Predictions:
    """The events of every tested clip, by seed."""
    found: list[list[list[events.Event]]] = [[[] for _ in features] for _ in range(recipe.seeds)]
    for at, made in enumerate(outputs):
        for clip, logits in zip(folds[at // recipe.seeds].test, made, strict=True):
            true = logits[: features[clip].shape[1]].numpy()
            found[at % recipe.seeds][clip] = events.found_events(true, targets.names, rate)
    return Predictions(np.zeros((recipe.seeds, 0, 0), np.float32), found, facts)
