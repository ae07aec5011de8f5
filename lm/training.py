"""Training a language model on a corpus: one process or many (Accelerate), stopped and resumed without a trace.

The batch of a step is a function of seed and step alone, whatever the number of processes, and so is the learning rate;
a checkpoint is therefore weights, optimiser and step. On a CPU, a run that was killed ends with the same numbers.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earmark.lm import ngram
from earmark.lm.evaluation import document_losses
from earmark.lm.model import TokenLM, token_losses
from earmark.lm.packing import Batch, Corpus, collate, training_batches
from earmark.lm.protocol import Protocol
from earmark.metrics import MetricError

CHECKPOINT, PLAN = "checkpoint.pt", "plan.json"
DIVERGED_BY = 1.0  # nats a token above an even guess: a start that is so much worse than knowing nothing has gone wrong


class DivergedError(MetricError):
    """Training went wrong; there is no score."""


@dataclass
class Curve:
    """Mean loss in nats a token after so many steps: over the training batches since the point before, and held out."""

    step: list[int] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)


@dataclass
class Trained:
    """The model, and how it came to be. resumed_at: the step of the checkpoint that it went on from, 0 for none."""

    model: TokenLM
    curve: Curve
    tokens: int
    resumed_at: int


def train(
    corpus: Corpus,
    documents: Sequence[int],
    validation: Sequence[int],
    protocol: Protocol,
    *,
    seed: int = 0,
    device: str = "cpu",
    folder: Path | None = None,
    beat: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train on some documents of a corpus and follow the loss on others. Raises DivergedError.

    folder: where the checkpoint is kept, and gone on from; None: nowhere.
    beat: called now and then with what is being done.
    """
    run = _Run(corpus, documents, protocol, seed, _accelerator(protocol, device))
    at = run.load(folder)
    resumed = at
    for packed in itertools.islice(run.batches(), at, protocol.steps):
        run.step(packed, at)
        at += 1
        beat(f"training a language model, step {at} of {protocol.steps}")
        if at % protocol.validate_every == 0 or at == protocol.steps:
            run.note(at, validation)
        if at % protocol.checkpoint_every == 0 or at == protocol.steps:
            run.save(folder, at)
    return Trained(run.bare, run.curve, run.tokens, resumed)


def write_plan(
    folder: Path, documents: Sequence[int], validation: Sequence[int], protocol: Protocol, seed: int
) -> None:
    """Say beside a corpus what is to be trained on it, for `python -m earmark.lm`."""
    plan = {"documents": [*documents], "validation": [*validation], "protocol": protocol.model_dump(), "seed": seed}
    (folder / PLAN).write_text(json.dumps(plan), encoding="utf-8")


def _accelerator(protocol: Protocol, device: str) -> Any:
    """Where and how it runs: one device, or all that `accelerate launch` gives it; compiled and in bf16 on CUDA."""
    from accelerate import Accelerator

    on_cuda = device.startswith("cuda")
    return Accelerator(
        cpu=not on_cuda,
        mixed_precision="bf16" if on_cuda and protocol.precision == "bf16" else "no",
        dynamo_backend="inductor" if on_cuda else "no",
    )


class _Run:
    """A training run: what changes from step to step."""

    def __init__(
        self, corpus: Corpus, documents: Sequence[int], protocol: Protocol, seed: int, accelerator: Any
    ) -> None:
        self.corpus, self.documents, self.protocol, self.seed = corpus, documents, protocol, seed
        self.accelerator, self.device = accelerator, accelerator.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.bare = TokenLM(corpus.codebook_sizes, protocol.size)
        if protocol.start == "unigram":
            self.bare.start_at(ngram.unigrams(corpus, documents))
        self.bare.train()
        optimizer = torch.optim.AdamW(
            self.bare.parameters(),
            lr=protocol.learning_rate,
            betas=protocol.betas,
            eps=protocol.eps,
            weight_decay=protocol.weight_decay,
        )
        self.model, self.optimizer = accelerator.prepare(self.bare, optimizer)
        self.width = protocol.context if self.device.type == "cuda" else None  # one shape, so compiled once
        self.curve, self.tokens, self._since = Curve(), 0, [0.0, 0.0]

    def batches(self) -> Any:
        pieces = self.corpus.pieces(self.documents, self.protocol.context)
        return training_batches(pieces, self.protocol.context, self.protocol.batch, self.seed)

    def step(self, packed: list, at: int) -> None:
        """One optimiser's step: the mean over all tokens of the batch, whichever process has them."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.protocol.rate_at(at)
        tokens = sum(self.corpus.tokens(row) for row in packed)
        processes = self.accelerator.num_processes
        mine = packed[self.accelerator.process_index :: processes]  # none at an epoch's end: a row without tokens
        batch = tensors(collate(self.corpus, mine or [[]], self.width), self.device)
        with self.accelerator.autocast():
            logits = self.model(batch.inputs, batch.document, batch.position)
        targets: Any = batch.targets
        loss = token_losses(logits, targets).sum()
        self.optimizer.zero_grad()
        self.accelerator.backward(loss * processes / tokens)  # gradients are averaged over processes
        if self.protocol.clip_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.protocol.clip_norm)
        self.optimizer.step()
        self._account(float(self.accelerator.reduce(loss.detach())), tokens, at)

    def _account(self, nats: float, tokens: int, at: int) -> None:
        if not math.isfinite(nats):
            raise DivergedError(f"the language model diverged: its loss is {nats} at step {at + 1}; no score is given")
        self.tokens += tokens
        self._since[0] += nats
        self._since[1] += tokens

    def note(self, at: int, validation: Sequence[int]) -> None:
        """A point of the training curve; and the end of a run that is worse than a guess."""
        training = self._since[0] / self._since[1]
        even = max(math.log(size) for size in self.corpus.codebook_sizes)
        if at > self.protocol.warmup_steps and training > even + DIVERGED_BY:
            raise DivergedError(
                f"the language model diverged: {training:.2f} nats a token up to step {at}, where an even guess takes "
                f"at most {even:.2f}; no score is given"
            )
        # not self.model: its copies wait for each other at every call, and here they are not called equally often
        nats, tokens = document_losses(self.bare, self.corpus, validation, self.protocol, self.accelerator)
        self.curve.step.append(at)
        self.curve.training.append(training)
        self.curve.validation.append(float(nats.sum() / tokens.sum()))
        self._since = [0.0, 0.0]

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def save(self, folder: Path | None, at: int) -> None:
        """Publish a checkpoint at once: a process that is killed leaves the one before, or this."""
        self.accelerator.wait_for_everyone()
        if folder is None or not self.accelerator.is_main_process:
            return
        state = {"of": self._identity(), "step": at, "tokens": self.tokens, "since": self._since}
        state |= {"curve": vars(self.curve), "model": self.bare.state_dict(), "optimizer": self.optimizer.state_dict()}
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{CHECKPOINT}.partial"
        torch.save(state, partial)
        partial.replace(folder / CHECKPOINT)

    def load(self, folder: Path | None) -> int:
        """Go on from a checkpoint, where there is one; the steps that it has."""
        if folder is None or not (folder / CHECKPOINT).is_file():
            return 0
        state = torch.load(folder / CHECKPOINT, map_location=self.device, weights_only=True)
        if state["of"] != self._identity():
            raise MetricError(f"{folder / CHECKPOINT} is of another protocol, corpus or seed; remove it to start anew")
        self.bare.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.curve, self.tokens, self._since = Curve(**state["curve"]), state["tokens"], state["since"]
        return state["step"]

    def _identity(self) -> dict[str, Any]:
        names = [self.corpus.names[d] for d in self.documents]
        return {"protocol": self.protocol.model_dump_json(), "seed": self.seed, "documents": names}


def tensors(batch: Batch, device: torch.device | str) -> Batch:
    """A batch as int64 tensors on a device."""
    return Batch(*(torch.from_numpy(array).to(device) for array in batch))  # type: ignore[arg-type]


def loss_of(model: torch.nn.Module, batch: Batch) -> Tensor:
    """The mean loss of a batch of tensors, in nats a token."""
    targets: Any = batch.targets
    nats = token_losses(model(batch.inputs, batch.document, batch.position), targets)
    return nats.sum() / (targets >= 0).sum()
