"""The language model: Qwen2 over steps of K tokens, as AudioCodecBench trains it.

Shapes: B rows of S steps of K codebooks, D wide; codebook k has V_k entries. A slot without a token (-1) is read as the
entry V_k of its table, and so is everything before a document begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2Model

from earmark.lm.protocol import Size


class TokenLM(nn.Module):
    """K embedding tables, concatenated and projected -> Qwen2 -> K heads, all untied.

    It predicts all tokens of a step from the state at the step before. Source: AudioCodecBench, "Perplexity".
    """

    def __init__(self, codebook_sizes: Sequence[int], size: Size) -> None:
        super().__init__()
        width = size.hidden_size
        self.codebook_sizes = tuple(codebook_sizes)
        self.embeddings = nn.ModuleList(nn.Embedding(entries + 1, width) for entries in codebook_sizes)
        self.project = nn.Linear(width * len(self.codebook_sizes), width, bias=False)
        self.backbone = _qwen2(size)
        heads = [nn.Linear(width, entries) for entries in codebook_sizes]
        self.heads = nn.ModuleList(heads)
        for part in (*self.embeddings, self.project, *self.heads):
            nn.init.normal_(part.weight, std=self.backbone.config.initializer_range)
        for head in heads:
            nn.init.zeros_(head.bias)

    def start_at(self, probabilities: Sequence[np.ndarray]) -> None:
        """Predict these before training: of each codebook the probabilities [V_k]."""
        with torch.no_grad():
            for head, of in zip(self.heads, probabilities, strict=True):
                head.bias.copy_(torch.from_numpy(np.log(of)))  # type: ignore[operator]

    def forward(self, inputs: Tensor, document: Tensor, position: Tensor) -> list[Tensor]:
        """Logits of the tokens at each step, [B, S, V_k] of each codebook.

        inputs int64 [B, K, S]: the tokens of the step before each, -1 for none. document int64 [B, S]: which steps may
        see each other (-1: padding, seen by none); position int64 [B, S]: the place in the document, from 0.
        """
        tables = zip(self.embeddings, self.codebook_sizes, inputs.unbind(1), strict=True)
        embedded = [table(torch.where(tokens < 0, entries, tokens)) for table, entries, tokens in tables]
        states = self.backbone(
            inputs_embeds=self.project(torch.cat(embedded, -1)),
            attention_mask=sees(document),
            position_ids=position,
            use_cache=False,
        ).last_hidden_state
        return [head(states) for head in self.heads]


def sees(document: Tensor) -> Tensor:
    """Which step attends to which, bool [B, 1, S, S]: those before it in its document, and itself."""
    steps = document.shape[1]
    causal = torch.ones(steps, steps, dtype=torch.bool, device=document.device).tril()
    return (causal & (document[:, :, None] == document[:, None, :]))[:, None]


def token_losses(logits: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Negative log-likelihood of each token in nats, float32 [B, K, S]; 0 in slots without one. targets as inputs."""
    nats = [
        nn.functional.cross_entropy(of.flatten(0, 1).float(), target.flatten(), ignore_index=-1, reduction="none")
        for of, target in zip(logits, targets.unbind(1), strict=True)
    ]
    return torch.stack(nats, dim=1).unflatten(0, (targets.shape[0], targets.shape[2])).transpose(1, 2)


def parameters(model: nn.Module) -> int:
    """How many numbers training moves."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def flops_per_step(model: TokenLM, context: int) -> float:
    """Floating-point operations that training spends on one step of the model, forward and backward.

    6 for each weight of a matrix, and 12 L D S for attention over S steps; embedding tables are looked up, not
    multiplied. Source: Chowdhery et al., PaLM, 2022, appendix B.
    """
    config = model.backbone.config
    weights = parameters(model) - parameters(model.embeddings)
    return 6 * weights + 12 * config.num_hidden_layers * config.hidden_size * context


def _qwen2(size: Size) -> Qwen2Model:
    """Qwen2 without its own embedding table, which would be a text model's."""
    config: Any = Qwen2Config(**size.model_dump(), vocab_size=1, use_cache=False, use_sliding_window=False)
    config._attn_implementation = "sdpa"
    backbone = Qwen2Model(config)
    del backbone.embed_tokens
    return backbone
