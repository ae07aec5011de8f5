"""`tiny`, chunk by chunk: the network of `model`, with what it carries from one chunk to the next.

The codes of frame t are known 120 samples after its end; its sound waits for those of frame t + 1 and, in its last 120
samples, t + 2. That is 55 ms (`model.DELAY`), and what is missing to whole chunks: 67.5.

Shapes as in `codec`, for one clip: latents [1, DIM, T]; inside, as in `model`, time comes before channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from earmark.codecs.carried import Past
from earmark.codecs.tiny.model import (
    DIM,
    EDGE,
    HOP,
    STEP,
    STEPS,
    SYNTH,
    WINDOW,
    Block,
    Decoder,
    Encoder,
    _overlap_add,
    features,
    spectrum,
)  # fmt: skip


class Encoding:
    """A stream through the encoder: what it makes of samples, as soon as it can."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.past = encoder, Past(dim=1)
        self.wav = next(encoder.parameters()).new_zeros(1, EDGE)  # not yet in a whole frame, and what the next one sees

    def __call__(self, wav: Tensor) -> Tensor:
        """Samples [1, L] -> the latents [1, DIM, T] of the frames that are whole now; T may be 0."""
        self.wav = torch.cat([self.wav, wav], 1)
        frames = max(0, self.wav.shape[1] - 2 * EDGE) // HOP
        seen, self.wav = self.wav[:, : frames * HOP + 2 * EDGE], self.wav[:, frames * HOP :]
        if not frames:
            return wav.new_zeros(1, DIM, 0)
        spectra = torch.fft.rfft(seen.unfold(-1, WINDOW, STEP) * self.encoder.spectra.window)
        x = _causal(self.encoder.fine, self.encoder.enter(features(spectra)), self.past)
        x = _causal(self.encoder.coarse, self.encoder.stack(x.unflatten(1, (-1, STEPS)).flatten(2)), self.past)
        return self.encoder.leave(x).transpose(1, 2)

    def end(self) -> Tensor:
        """The latents of the last frame: beyond the clip is silence."""
        return self(self.wav.new_zeros(1, EDGE))


class Decoding:
    """A stream through the decoder: the sound that no later latent changes."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.past = decoder, Past(dim=1)
        blank = next(decoder.parameters()).new_zeros
        self.latents = blank(1, 1, DIM)  # of the frame before those to come, then of it and of the last
        self.tail = blank(2, 2 * EDGE)  # windows that have begun: their sum, and that of their weights
        self.early = EDGE  # samples before the clip, still to be left out

    def __call__(self, latents: Tensor) -> Tensor:
        """Latents [1, DIM, T] -> the sound [1, 1, L] that is settled now; L may be 0."""
        around = torch.cat([self.latents, latents.transpose(1, 2)], 1)
        self.latents = around[:, -2:]
        if around.shape[1] < 3:
            return latents.new_zeros(1, 1, 0)
        x = self.decoder.enter(torch.cat([around[:, :-2], around[:, 1:-1], around[:, 2:]], -1))
        x = self.decoder.unstack(_causal(self.decoder.coarse, x, self.past))
        x = _causal(self.decoder.fine, x.unflatten(2, (STEPS, SYNTH)).flatten(1, 2), self.past)
        return self._sound(spectrum(self.decoder.leave(x)))

    def end(self) -> Tensor:
        """The sound of the last frame: beyond the clip are no latents."""
        last = self(self.latents.new_zeros(1, DIM, 1))
        return torch.cat([last, _levelled(self.tail[:, :EDGE])], 2)

    def _sound(self, spectra: Tensor) -> Tensor:
        """Complex spectra [1, S, BINS] -> sound [1, 1, S * STEP], less what lies before the clip: `Spectra.inverse`."""
        window = self.decoder.spectra.window
        parts = torch.fft.irfft(spectra, WINDOW) * window
        sums = _overlap_add(torch.cat([parts, window.square().expand_as(parts)]))
        sums[:, : 2 * EDGE] += self.tail
        settled, self.tail = sums[:, : -2 * EDGE], sums[:, -2 * EDGE :]
        early, self.early = self.early, 0
        return _levelled(settled[:, early:])


def _levelled(sums: Tensor) -> Tensor:
    """Windows' sum and that of their weights [2, L] -> sound [1, 1, L]."""
    return (sums[:1] / sums[1:].clamp(min=1e-3))[None]


def _causal(blocks: nn.Sequential, x: Tensor, past: Past) -> Tensor:
    """[1, T, C] -> [1, T, C] through blocks that see their own past."""
    steps = Block.KERNEL - 1
    for block in blocks:
        x = block(past(block, x, steps))[:, steps:]
    return x
