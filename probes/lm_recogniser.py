"""Recognition by a frozen causal language model: an adapter, all that is trained, turns latents into its words' places.

The model reads the adapted frames, a separator, and writes the text and its end. Unlike the published code, no padding
lies between a clip's frames and its text, so that a batch changes nothing; the separator is not learned; and the epoch
is chosen by the loss on validation clips, not by guesses that were shown the true words before.
Source: X-ARES, 2025, and its code (xares/models/asr.py): Qwen2.5-0.5B, separator <|vision_end|>, greedy.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from earmark.hub import cache_of, pretrained
from earmark.probes.fitting import seeded
from earmark.probes.folds import Fold
from earmark.probes.protocol import Recipe
from earmark.probes.sequences import padded

if TYPE_CHECKING:
    from earmark.probes.recognition import Speech

QWEN = "Qwen/Qwen2.5-0.5B"
SEPARATOR = "<|vision_end|>"
NOT_SAID = -100  # a place whose token is not learned


class GatedAdapter(nn.Module):
    """Latents [..., D] to a language model's embeddings: silu(a x) * b x, then a linear map."""

    def __init__(self, dim: int, inner: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.value, self.out = nn.Linear(dim, inner), nn.Linear(dim, inner), nn.Linear(inner, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(nn.functional.silu(self.gate(x)) * self.value(x))


class LmRecogniser(nn.Module):
    """A causal language model of `transformers`, frozen, its tokenizer, and the adapter from D dimensions.

    limit: tokens that are written at most. penalty: by how much less likely a token becomes that was written before.
    """

    def __init__(
        self, lm: Any, tokenizer: Any, dim: int, separator: str = SEPARATOR, limit: int = 200, penalty: float = 1.1
    ) -> None:
        super().__init__()
        self.lm, self.tokenizer = lm.requires_grad_(False).eval(), tokenizer
        self.limit, self.penalty = limit, penalty
        self.separator = int(tokenizer.convert_tokens_to_ids(separator))
        self.adapter = GatedAdapter(dim, lm.config.intermediate_size, lm.config.hidden_size)

    def train(self, mode: bool = True) -> LmRecogniser:
        """The language model stays as it is used: without dropout."""
        super().train(mode)
        self.lm.eval()
        return self

    def tokens(self, text: str) -> list[int]:
        """What is to be written: the text's tokens and the end."""
        return [*self.tokenizer(text, add_special_tokens=False).input_ids, self.tokenizer.eos_token_id]

    def loss(self, x: Tensor, lengths: Tensor, texts: Sequence[str]) -> Tensor:
        """The mean over tokens of the negative log likelihood; x [B, T, D], lengths [B]."""
        said = [torch.tensor(self.tokens(text), device=x.device) for text in texts]
        starts = self._starts(x, lengths)
        rows = [torch.cat([start, self._embedded(tokens)]) for start, tokens in zip(starts, said, strict=True)]
        labels = [
            torch.cat([tokens.new_full((len(start),), NOT_SAID), tokens])
            for start, tokens in zip(starts, said, strict=True)
        ]
        embeds, mask = _side_by_side(rows)
        padded_labels = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=NOT_SAID)
        return self.lm(inputs_embeds=embeds, attention_mask=mask, labels=padded_labels, use_cache=False).loss

    @torch.no_grad()
    def transcribe(self, x: Tensor, lengths: Tensor) -> list[str]:
        """The likeliest next token, again and again, until the end."""
        from transformers import GenerationConfig

        embeds, mask = _side_by_side([row.flip(0) for row in self._starts(x, lengths)])
        greedy = GenerationConfig(
            do_sample=False,
            max_new_tokens=self.limit,
            repetition_penalty=self.penalty,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.eos_token_id,
        )
        # the padding first, so that every row goes on from its separator
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Passing `repetition_penalty` with `inputs_embeds`")  # as is meant
            written = self.lm.generate(
                inputs_embeds=embeds.flip(1), attention_mask=mask.flip(1), generation_config=greedy
            )
        return [text.strip() for text in self.tokenizer.batch_decode(written, skip_special_tokens=True)]

    def _starts(self, x: Tensor, lengths: Tensor) -> list[Tensor]:
        """Each clip's adapted frames and the separator, [T + 1, hidden]."""
        separator = self._embedded(torch.tensor([self.separator], device=x.device))
        adapted = self.adapter(x)
        return [torch.cat([row[:length], separator]) for row, length in zip(adapted, lengths.tolist(), strict=True)]

    def _embedded(self, tokens: Tensor) -> Tensor:
        return self.lm.get_input_embeddings()(tokens)


def _side_by_side(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows [T, H] as [B, T, H], and which places are theirs: int64 [B, T]."""
    mask = nn.utils.rnn.pad_sequence([row.new_ones(len(row), dtype=torch.int64) for row in rows], batch_first=True)
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True), mask


class LmLearner:
    """`LmRecogniser` as `recognition` trains it. Options: repo, separator, limit, penalty."""

    notes: tuple[str, ...] = ()

    def __init__(self, recipe: Recipe, speech: Speech, fold: Fold, seed: int, device: str) -> None:
        if speech.sizes:
            raise ValueError("the adapter of a language model takes latents, not codes")
        options = {name: recipe.options[name] for name in ("separator", "limit", "penalty") if name in recipe.options}
        lm, tokenizer = language_model(recipe.options.get("repo", QWEN))
        self.speech, self.device = speech, device
        with seeded(seed):
            dim = speech.frames[int(fold.train[0])].shape[1]
            self.model = LmRecogniser(lm, tokenizer, dim, **options).to(device)

    def why_not(self, clip: int) -> str | None:
        places = len(self.speech.frames[clip]) + 1 + len(self.model.tokens(self.speech.texts[clip]))
        most = self.model.lm.config.max_position_embeddings
        return f"its frames and text need {places} places, and the language model has {most}" if places > most else None

    def loss(self, clips: Sequence[int]) -> Tensor:
        x, lengths = padded([self.speech.frames[clip] for clip in clips])
        return self.model.loss(x.to(self.device), lengths.to(self.device), [self.speech.texts[clip] for clip in clips])

    def hear(self, clips: Sequence[int]) -> list[str]:
        x, lengths = padded([self.speech.frames[clip] for clip in clips])
        return self.model.transcribe(x.to(self.device), lengths.to(self.device))


@functools.cache
def language_model(repo: str) -> tuple[Any, Any]:
    """A causal language model and its tokenizer, from the hub's cache; built once a process.

    Raises FileNotFoundError, with the command that gets it, where it is not on this machine.
    """
    from transformers import AutoTokenizer

    lm = pretrained("AutoModelForCausalLM", repo, None)
    return lm, AutoTokenizer.from_pretrained(repo, cache_dir=cache_of(repo, None), local_files_only=True)
