"""Two towers: sound and text into one space, in which what belongs together lies together.

A clip is the mean of its frames [D]. A caption is its tokens, each through the same layers, and their mean; the tokens
come from a frozen text encoder, or are words with trained embeddings where none is wanted.
Source: X-ARES, 2025, and its code (xares/models/retrival.py): LayerNorm, two layers of 1024, a learned temperature from
.07, symmetric contrastive loss. Its paper has a frozen BERT, its code trained embeddings; its loss is on embeddings of
any length and its retrieval by cosine: here both are by cosine. Two captions of a clip are no negatives of each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earmark.hub import cache_of, pretrained
from earmark.metrics.content import plain
from earmark.metrics.retrieval import ranks
from earmark.probes.fitting import fit, seeded
from earmark.probes.folds import Fold
from earmark.probes.protocol import Recipe
from earmark.probes.recognition import Beat
from earmark.probes.sequences import inside, masked_mean, padded

UNKNOWN = 0  # the number of a word that no training caption has
AT_ONCE = 64  # captions that a text encoder reads together


class TwoTowers(nn.Module):
    """Clips [B, D] and captions, [N, L, H] of a frozen encoder or words int [N, L], as unit vectors [., out]."""

    def __init__(self, dim: int, text_dim: int, words: int = 0, hidden: int = 1024, temperature: float = 0.07) -> None:
        super().__init__()
        self.words = nn.Embedding(words, text_dim) if words else None
        self.sound = nn.Sequential(nn.LayerNorm(dim), *_two_layers(dim, hidden))
        self.text = nn.Sequential(*_two_layers(text_dim, hidden))
        self.scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def of_sounds(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(self.sound(x), dim=-1)

    def of_texts(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        if self.words is not None:
            tokens = self.words(tokens.clamp(min=0)) * inside(lengths, tokens.shape[1])[..., None]
        return nn.functional.normalize(masked_mean(self.text(tokens), lengths), dim=-1)

    def loss(self, sounds: Tensor, texts: Tensor, belong: Tensor) -> Tensor:
        """sounds [N, E], texts [M, E]; belong bool [N, M]. The mean of both directions' cross entropies."""
        logits = self.scale.exp() * sounds @ texts.T
        return (_cross_entropy(logits, belong) + _cross_entropy(logits.T, belong.T)) / 2


def _two_layers(dim: int, hidden: int) -> tuple[nn.Module, ...]:
    return nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden)


def _cross_entropy(logits: Tensor, belong: Tensor) -> Tensor:
    """What belongs to a query is equally right; the mean over queries."""
    target = belong / belong.sum(1, keepdim=True)
    return -(target * logits.log_softmax(1)).sum(1).mean()


# -- captions ---------------------------------------------------------------------------------------------------------


class Words:
    """Captions as the numbers of their words; those that no training caption has are UNKNOWN."""

    text_dim = 256

    def __init__(self, captions: Sequence[str]) -> None:
        known = sorted({word for caption in captions for word in plain(caption).split()})
        self.number = {word: at + 1 for at, word in enumerate(known)}

    def __len__(self) -> int:
        return len(self.number) + 1

    def read(self, captions: Sequence[str]) -> list[np.ndarray]:
        numbers = ([self.number.get(word, UNKNOWN) for word in plain(caption).split()] for caption in captions)
        return [np.array(of or [UNKNOWN], dtype=np.int64) for of in numbers]


class FrozenText:
    """Captions as what a text encoder of `transformers` makes of their tokens, float32 [L, H]; nothing is trained."""

    def __init__(self, encoder: Any, tokenizer: Any) -> None:
        self.encoder, self.tokenizer = encoder.requires_grad_(False).eval(), tokenizer
        self.text_dim = int(encoder.config.hidden_size)

    def __len__(self) -> int:
        return 0  # words with trained embeddings

    @torch.inference_mode()
    def read(self, captions: Sequence[str]) -> list[np.ndarray]:
        made: list[np.ndarray] = []
        for at in range(0, len(captions), AT_ONCE):
            part = self.tokenizer(list(captions[at : at + AT_ONCE]), padding=True, truncation=True, return_tensors="pt")
            states = self.encoder(input_ids=part.input_ids, attention_mask=part.attention_mask).last_hidden_state
            made += [row[kept.bool()].numpy() for row, kept in zip(states, part.attention_mask, strict=True)]
        return made

    @classmethod
    def published(cls, repo: str) -> FrozenText:
        """From the hub's cache. Raises FileNotFoundError, with the command that gets it, where it is not there."""
        from transformers import AutoTokenizer

        encoder = pretrained("AutoModel", repo, None)
        return cls(encoder, AutoTokenizer.from_pretrained(repo, cache_dir=cache_of(repo, None), local_files_only=True))


# -- training and finding ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Captioned:
    """Clips, each the mean of its frames [D], with one caption or several."""

    means: Sequence[np.ndarray]
    captions: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Ranks:
    """Of test clips: the rank of a caption of theirs among all test captions, and of each of their captions the rank of
    the clip among all test clips; how many captions and clips there are, and how many belong to each.
    """

    to_text: dict[int, int]
    to_sound: dict[int, list[int]]
    texts: int
    sounds: int
    own_texts: dict[int, int]
    own_sounds: dict[int, list[int]]


def retrieve(
    recipe: Recipe, captioned: Captioned, fold: Fold, seed: int = 0, device: str = "cpu", beat: Beat = lambda _: None
) -> Ranks:
    """Train two towers on fold.train, choose by fold.valid, and rank the clips and captions of fold.test.

    No caption of a test clip is looked at before. Of several learning rates the one with the lowest validation error
    is taken.
    """
    best: tuple[float, _Pairs] | None = None
    for rate in recipe.rates:
        pairs = _Pairs(recipe, captioned, fold, seed, device)
        error = pairs.taught(recipe, rate, seed, beat)
        if best is None or error < best[0]:
            best = (error, pairs)
    assert best is not None
    return best[1].ranks(fold.test)


class _Pairs:
    """The towers of a fold, and its captions as they take them."""

    def __init__(self, recipe: Recipe, captioned: Captioned, fold: Fold, seed: int, device: str) -> None:
        self.captioned, self.fold, self.device = captioned, fold, device
        self.pairs = [(int(clip), caption) for clip in fold.train for caption in captioned.captions[int(clip)]]
        if not self.pairs:
            raise ValueError(f"no caption to learn from in {len(fold.train)} clips")
        repo, hidden = recipe.options.get("text_encoder"), recipe.options.get("hidden", 1024)
        self.texts = FrozenText.published(repo) if repo else Words([caption for _, caption in self.pairs])
        self.known: dict[str, np.ndarray] = {}
        self.words = {caption: plain(caption) or caption for of in captioned.captions for caption in of}
        with seeded(seed):
            dim = len(captioned.means[int(fold.train[0])])
            self.model = TwoTowers(dim, self.texts.text_dim, len(self.texts), hidden).to(device)
        self.centre, self.spread = self._scale(recipe.standardise)

    def taught(self, recipe: Recipe, rate: float, seed: int, beat: Beat) -> float:
        """Train; the error on the validation clips: how many queries' answers are not at the top, or the loss."""
        fit(self.model, self._loss, len(self.pairs), recipe, rate, seed, lambda: self._error(recipe.select), beat)
        return self._error(recipe.select) if len(recipe.rates) > 1 else 0.0

    def _loss(self, at: Sequence[int]) -> Tensor:
        return self._loss_of([self.pairs[i] for i in at])

    def _loss_of(self, pairs: Sequence[tuple[int, str]]) -> Tensor:
        clips, captions = zip(*pairs, strict=True)
        belong = torch.from_numpy(self._belong(clips, captions)).to(self.device)
        return self.model.loss(self._sounds(clips), self._texts(captions), belong)

    def _error(self, by: str) -> float:
        if by == "loss":
            pairs = [(int(clip), caption) for clip in self.fold.valid for caption in self.captioned.captions[int(clip)]]
            with torch.inference_mode():
                return float(self._loss_of(pairs))
        found = self.ranks(self.fold.valid)
        tops = [rank == 1 for rank in found.to_text.values()], [r == 1 for of in found.to_sound.values() for r in of]
        return 1 - float(np.mean([np.mean(top) for top in tops]))

    @torch.inference_mode()
    def ranks(self, clips: np.ndarray) -> Ranks:
        self.model.eval()
        rows = [int(clip) for clip in clips]
        owners = [(clip, caption) for clip in rows for caption in self.captioned.captions[clip]]
        captions = [caption for _, caption in owners]
        similarity = (self._sounds(rows) @ self._texts(captions).T).cpu().numpy()
        belong = self._belong(rows, captions)
        to_sound: dict[int, list[int]] = {clip: [] for clip in rows}
        own_sounds: dict[int, list[int]] = {clip: [] for clip in rows}
        for (clip, _), rank, own in zip(owners, ranks(similarity.T, belong.T), belong.sum(0), strict=True):
            to_sound[clip].append(int(rank))
            own_sounds[clip].append(int(own))
        to_text = dict(zip(rows, ranks(similarity, belong).tolist(), strict=True))
        own_texts = dict(zip(rows, belong.sum(1).tolist(), strict=True))
        return Ranks(to_text, to_sound, len(captions), len(rows), own_texts, own_sounds)

    def _belong(self, clips: Sequence[int], captions: Sequence[str]) -> np.ndarray:
        """Which captions are a clip's own: bool [N, M]. In capitals or with a full stop it is the same."""
        own = [{self.words[caption] for caption in self.captioned.captions[clip]} for clip in clips]
        return np.array([[self.words[caption] in of for caption in captions] for of in own])

    def _sounds(self, clips: Sequence[int]) -> Tensor:
        x = torch.from_numpy(np.stack([self.captioned.means[clip] for clip in clips])).float()
        return self.model.of_sounds(((x - self.centre) / self.spread).to(self.device))

    def _texts(self, captions: Sequence[str]) -> Tensor:
        """Each caption is read once: a frozen encoder takes longer for those of validation than a whole epoch."""
        new = [caption for caption in dict.fromkeys(captions) if caption not in self.known]
        self.known |= dict(zip(new, self.texts.read(new), strict=True))
        batch, lengths = padded([self.known[caption] for caption in captions])
        return self.model.of_texts(batch.to(self.device), lengths.to(self.device))

    def _scale(self, standardise: bool) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [D] of the training clips; 0 and 1 where they stay as they are."""
        x = torch.from_numpy(np.stack([self.captioned.means[int(clip)] for clip in self.fold.train])).float()
        if not standardise:
            return torch.zeros_like(x[0]), torch.ones_like(x[0])
        deviation = x.std(0, correction=0)
        return x.mean(0), torch.where(deviation < 1e-6, torch.ones_like(deviation), deviation)
