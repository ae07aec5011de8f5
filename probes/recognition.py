"""Recognition: what a probe, taught on some clips with their words, hears in others.

`recognise` trains the learner of a recipe on a fold and lets it hear the test clips. Learners, with their options:

    bilstm_ctc           width, layers, dropout, embedding (of codes); vocabulary
    conformer_ctc        torchaudio's: width, layers, heads, ffn, kernel, dropout, embedding; vocabulary
    wide_conformer_ctc   the package conformer's: width, layers, heads, kernel, dropout, embedding; vocabulary
    lm                   a frozen causal language model and a trained adapter; see `lm_recogniser`

Further options: `check`, after how many steps a probe is validated; `folds`, how many of them are tested; `minimum_hz`
and `interpolate`, how frames that are slower are stretched before they come here (`sequences.at_least`), `maximum_hz`,
how latents that are much faster are put side by side (`at_most`). Latents come as float [T, D], codes as int [T, K].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from earmark.metrics.content import character_errors
from earmark.probes.folds import Fold
from earmark.probes.protocol import Recipe
from earmark.probes.vocabulary import Characters, Subwords, Vocabulary

if TYPE_CHECKING:
    import torch

Frames = Sequence[np.ndarray]  # of every clip; may read each from disk when it is asked for
Beat = Callable[[str], None]
BATCH = 8  # clips heard at once
# Options that say nothing of the modules.
NOT_BUILT = ("vocabulary", "check", "folds", "minimum_hz", "maximum_hz", "interpolate")


@dataclass(frozen=True)
class Speech:
    """Clips with their words: frames of each, its normalised text, and of codes the sizes of their codebooks."""

    frames: Frames
    texts: Sequence[str]
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Heard:
    """Position of a test clip -> what was heard in it; positions of training clips that no probe could be taught on,
    with why; what else a reader should know; and the vocabulary, where it is not the one that was asked for.
    """

    texts: dict[int, str]
    left_out: dict[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    vocabulary: str = ""


class Learner(Protocol):
    """What `recognise` trains: a module, its loss and what it hears. notes: what a reader should know."""

    notes: tuple[str, ...]

    @property
    def model(self) -> torch.nn.Module: ...

    def why_not(self, clip: int) -> str | None:
        """Why this clip cannot be learned from; None where it can."""

    def loss(self, clips: Sequence[int]) -> torch.Tensor:
        """The mean over these clips."""

    def hear(self, clips: Sequence[int]) -> list[str]:
        """The text of each."""


def recognise(
    recipe: Recipe, speech: Speech, fold: Fold, seed: int = 0, device: str = "cpu", beat: Beat = lambda _: None
) -> Heard:
    """Teach the recipe's learner on fold.train, choose by fold.valid, and hear fold.test.

    Of several learning rates the one with the lowest error on the validation clips is taken. No text of a test clip is
    looked at. Raises ValueError where there is no clip to learn from.
    """
    if recipe.select == "last" and len(recipe.rates) == 1:
        fold = fold.poorer()  # nothing is chosen
    best: tuple[float, Learner | None] = (math.inf, None)
    left_out: dict[int, str] = {}
    for rate in recipe.rates:
        learner = _learner(recipe, speech, fold, seed, device)
        left_out = {int(clip): why for clip in fold.train if (why := learner.why_not(int(clip)))}
        error = _taught(learner, recipe, speech, fold, left_out, rate, seed, beat)
        if best[1] is None or error < best[0]:
            best = (error, learner)
    assert best[1] is not None
    heard = dict(zip(fold.test.tolist(), _hear(best[1], fold.test, beat), strict=True))
    return Heard(heard, left_out, best[1].notes, "characters" if best[1].notes else "")


def _taught(
    learner: Learner, recipe: Recipe, speech: Speech, fold: Fold, left_out: dict[int, str], rate: float, seed: int,
    beat: Beat,
) -> float:  # fmt: skip
    """Train; the error on the validation clips."""
    from earmark.probes.fitting import fit

    kept = [int(clip) for clip in fold.train if clip not in left_out]
    if not kept:
        why = next(iter(left_out.values()), "there is none")
        raise ValueError(f"no clip to learn from, of {len(fold.train)}: {why}")

    def error() -> float:
        if recipe.select == "loss":
            return _mean_loss(learner, [int(clip) for clip in fold.valid if not learner.why_not(int(clip))])
        return error_rate([speech.texts[clip] for clip in fold.valid], _hear(learner, fold.valid, beat))

    fit(learner.model, lambda at: learner.loss([kept[i] for i in at]), len(kept), recipe, rate, seed, error, beat)
    return error() if len(recipe.rates) > 1 else 0.0


def _mean_loss(learner: Learner, clips: Sequence[int]) -> float:
    import torch

    with torch.inference_mode():
        losses = [float(learner.loss([clip])) for clip in clips]
    return float(np.mean(losses)) if losses else math.inf


def _hear(learner: Learner, clips: Sequence[int] | np.ndarray, beat: Beat) -> list[str]:
    """BATCH clips at a time; the texts in the order of the clips."""
    heard: list[str] = []
    for at in range(0, len(clips), BATCH):
        beat(f"hearing clip {at + 1} of {len(clips)}")
        heard += learner.hear([int(clip) for clip in clips[at : at + BATCH]])
    return heard


def error_rate(
    spoken: Sequence[str], heard: Sequence[str], errors: Callable[..., tuple[int, int]] = character_errors
) -> float:
    """Errors over characters (or words) of all clips together; texts are normalised already."""
    found = [errors(*pair, normalised=str) for pair in zip(spoken, heard, strict=True) if pair[0]]
    return sum(wrong for wrong, _ in found) / max(1, sum(count for _, count in found))


def always(texts: Sequence[str], errors: Callable[..., tuple[int, int]] = character_errors, most: int = 200) -> str:
    """The one text that errs least if it is given for every one of these: what a probe that hears nothing can do.

    It is one of them, since the shortest errs no more than silence; of more than `most`, as many at even distances are
    tried.
    """
    texts = [texts[at] for at in np.unique(np.linspace(0, len(texts) - 1, min(most, len(texts))).astype(int))]
    return min(sorted(set(texts)), key=lambda text: error_rate(texts, [text] * len(texts), errors))


def _learner(recipe: Recipe, speech: Speech, fold: Fold, seed: int, device: str) -> Learner:
    if recipe.learner == "lm":
        from earmark.probes.lm_recogniser import LmLearner

        return LmLearner(recipe, speech, fold, seed, device)
    return CtcLearner(recipe, speech, fold, seed, device)


class CtcLearner:
    """A probe trained by CTC, on latents or codes."""

    def __init__(self, recipe: Recipe, speech: Speech, fold: Fold, seed: int, device: str) -> None:
        from earmark.probes.ctc import CtcProbe
        from earmark.probes.fitting import seeded

        self.speech, self.device = speech, device
        self.vocabulary, self.notes = _vocabulary(recipe, [speech.texts[clip] for clip in fold.train])
        options = {name: value for name, value in recipe.options.items() if name not in NOT_BUILT}
        with seeded(seed):
            way_in = _way_in(recipe, speech, fold, options)
            body = _body(recipe.learner, options)
            self.model = CtcProbe(way_in, body, len(self.vocabulary), self.vocabulary.blank).to(device)

    def why_not(self, clip: int) -> str | None:
        from earmark.probes.ctc import frames_needed

        try:
            target = self.vocabulary.encode(self.speech.texts[clip])
        except ValueError as error:
            return str(error)
        needed, frames = frames_needed(target), len(self.speech.frames[clip])
        if not target:
            return "its text is empty"
        return f"its {len(target)} symbols need {needed} frames, and it has {frames}" if needed > frames else None

    def loss(self, clips: Sequence[int]) -> torch.Tensor:
        targets = [self.vocabulary.encode(self.speech.texts[clip]) for clip in clips]
        return self.model.loss(*self._batch(clips), targets)

    def hear(self, clips: Sequence[int]) -> list[str]:
        self.model.eval()
        return [self.vocabulary.decode(symbols) for symbols in self.model.transcribe(*self._batch(clips))]

    def _batch(self, clips: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        from earmark.probes.sequences import padded

        x, lengths = padded([self.speech.frames[clip] for clip in clips])
        return x.to(self.device), lengths.to(self.device)


def _vocabulary(recipe: Recipe, texts: Sequence[str]) -> tuple[Vocabulary, tuple[str, ...]]:
    if recipe.options.get("vocabulary", "characters") == "characters":
        return Characters(texts), ()
    command = Subwords.missing()
    if command is None:
        return Subwords.published(), ()
    return Characters(texts), (f"characters in place of Speech2Text's subwords, which are not here: {command}",)


def _way_in(recipe: Recipe, speech: Speech, fold: Fold, options: dict[str, Any]) -> torch.nn.Module:
    """Embeddings of codes, or a linear map of latents, scaled by the training clips where the recipe says so."""
    from earmark.probes.encoders import CodesIn, LatentsIn

    width, dropout = options["width"], options.pop("way_in_dropout", 0.0)
    embedding = options.pop("embedding", width)
    if speech.sizes:
        return CodesIn(speech.sizes, embedding, width, dropout)
    dim = speech.frames[int(fold.train[0])].shape[1]
    return LatentsIn(dim, width, dropout, *(scale(speech.frames, fold.train) if recipe.standardise else ()))


def scale(frames: Frames, clips: Sequence[int] | np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation [D] over all frames of these clips; a dimension that never changes is left alone."""
    import torch

    total, squares, count = 0.0, 0.0, 0
    for clip in clips:
        part = np.asarray(frames[int(clip)], dtype=np.float64)
        total, squares, count = total + part.sum(0), squares + np.square(part).sum(0), count + len(part)
    mean = np.asarray(total / count)
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    deviation[deviation < 1e-6 * (1 + np.abs(mean))] = 1.0
    return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()


def _body(learner: str, options: dict[str, Any]) -> torch.nn.Module:
    from earmark.probes import encoders

    width = options.pop("width")
    if learner == "bilstm_ctc":
        return encoders.BiLstm(width, width, **options)
    kinds: dict[str, Callable[..., torch.nn.Module]] = {
        "conformer_ctc": encoders.Conformer,
        "wide_conformer_ctc": encoders.WideConformer,
    }
    if learner not in kinds:
        raise ValueError(f"no learner of speech is called {learner!r}; there are bilstm_ctc, {', '.join(kinds)} and lm")
    return kinds[learner](width, **options)
