"""A good codec, and one with each bug that a check of the contract is there to find: `BUGS[check]` is the class.

Each bug is planted so that the other checks have no reason to fail. Most are bugs that published codecs had or have.
"""

from __future__ import annotations

import os

import numpy as np
import torch

from earmark import Encoded, Info

HOP = 40
LEVELS = 33  # of each of two quantisers
DECLARED = {"sample_rate": 16000, "frame_rate": 400, "nested": True, "domains": ("speech",)}
BUGS: dict[str, type] = {}


def info(name: str = "good-codec", **changes) -> Info:
    latents = ("unquantized", "layer:1", "quantized")
    return Info(**({"name": name, "codebook_sizes": (LEVELS, LEVELS), "latent_kinds": latents} | DECLARED | changes))


class Good:
    """The mean of every 40 samples, coded by a coarse and a fine quantiser of 33 levels. Causal, and keeps its word."""

    info = info()
    lookahead_ms = 1000 * HOP / 16000
    hop = HOP

    def __init__(self, info, device):
        self.info, self.device = info, device
        self.network = torch.nn.Linear(1, 1).to(device).eval()

    def means(self, wav, lengths):
        """The mean [B, T] of each frame, and the frames [B]; what lies beyond a clip is not looked at."""
        inside = torch.arange(wav.shape[2], device=wav.device) < lengths[:, None]
        padded = torch.nn.functional.pad(torch.where(inside, wav[:, 0], 0), (0, -wav.shape[2] % self.hop))
        return padded.unflatten(1, (-1, self.hop)).mean(dim=2), (lengths + self.hop - 1) // self.hop

    def encode(self, wav, lengths, seed):
        means, frames = self.means(wav, lengths)
        codes = self.quantise(means)
        beyond = torch.arange(codes.shape[2], device=wav.device) >= frames[:, None, None]
        return Encoded(codes.masked_fill(beyond, -1), frames)

    def quantise(self, means):
        top, rest, codes = LEVELS // 2, means, []
        for stage in range(self.info.num_codebooks):
            step = (1 / top) ** (stage + 1)
            codes.append((rest / step).round().clamp(-top, top))
            rest = rest - codes[-1] * step
        return torch.stack(codes, dim=1).long() + top

    def decode(self, encoded, seed):
        top = LEVELS // 2
        steps = [(1 / top) ** (stage + 1) for stage in range(encoded.codes.shape[1])]
        levels = torch.where(encoded.codes < 0, 0, encoded.codes - top)
        means = sum(levels[:, stage] * step for stage, step in enumerate(steps))
        return means.float().repeat_interleave(self.hop, dim=1)[:, None]

    def latents(self, wav, lengths, kind, seed):
        means, frames = self.means(wav, lengths)
        return torch.stack([means, 2 * means], dim=1), frames

    def stream(self, chunks, seed):
        """Codes all that it has heard anew at every chunk, so that a bug in `encode` is the same one here."""
        heard, done = torch.zeros(1, 1, 0, device=self.device), 0
        for chunk in chunks:
            heard = torch.cat([heard, chunk], dim=2)
            whole = heard.shape[2] // self.hop
            yield self._beyond(done, heard[:, :, : whole * self.hop], seed)
            done = whole
        yield self._beyond(done, heard, seed)

    def _beyond(self, done, wav, seed):
        encoded = self.encode(wav, torch.tensor([wav.shape[2]], device=wav.device), seed)
        return encoded.codes[:, :, done:], self.decode(encoded, seed)[:, :, done * self.hop :]


def caught_by(check: str, **changes):
    """Class decorator: this bug is for that check."""

    def plant(cls: type) -> type:
        cls.info = info(f"bug-{check.replace('_', '-')}", **changes)
        BUGS[check] = cls
        return cls

    return plant


@caught_by("capabilities")
class RowForgetsLatents(Good):
    """Its row leaves `embed` out; see `entry_of` in the test."""


@caught_by("shapes")
class TransposedLayer(Good):
    def latents(self, wav, lengths, kind, seed):
        found, frames = super().latents(wav, lengths, kind, seed)
        return (found.transpose(1, 2) if kind == "layer:1" else found), frames


@caught_by("length")
class DropsTheTail(Good):
    """Gives back whole frames only, of clips so short that nobody tried them."""

    def decode(self, encoded, seed):
        sound = super().decode(encoded, seed)
        return sound[:, :, :-HOP] if encoded.codes.shape[2] == 2 else sound


@caught_by("any_length")
class StopsAtTwentySeconds(Good):
    """A table of 8000 positions."""

    def decode(self, encoded, seed):
        return super().decode(encoded, seed)[:, :, : 8000 * HOP]


@caught_by("frame_rate")
class OddHop(Good):
    """41 samples a frame, and says 40."""

    hop = HOP + 1
    lookahead_ms = 10.0


@caught_by("codes")
class SkipsTokens(Good):
    """Every hundredth token of the last codebook is missing."""

    def encode(self, wav, lengths, seed):
        encoded = super().encode(wav, lengths, seed)
        encoded.codes[:, -1, 50::100] = -1
        return encoded


@caught_by("bitrate_is_declared")
class SideInformation(Good):
    """Sends a level with every frame, and does not say so in its codebooks."""

    def encode(self, wav, lengths, seed):
        encoded = super().encode(wav, lengths, seed)
        encoded.side_bits = encoded.frames * 8.0
        return encoded


@caught_by("fewer_codebooks")
class FirstOfFewIsAnother(Good):
    def quantise(self, means):
        codes = super().quantise(means)
        return codes if self.info.num_codebooks > 1 else (codes + 1).clamp(max=LEVELS - 1)


@caught_by("range")
class TooLoud(Good):
    def decode(self, encoded, seed):
        return (30 * super().decode(encoded, seed)).clamp(-3, 3)


class Refuses(Good):
    """Raises on some clips."""

    def encode(self, wav, lengths, seed):
        if wav.shape[2] == 8000 and self.dislikes(wav):
            raise ValueError("I do not like this clip")
        return super().encode(wav, lengths, seed)


@caught_by("silence")
class LogOfNothing(Refuses):
    def dislikes(self, wav):
        return not bool(wav.any())


@caught_by("dc")
class DividesByDeviation(Refuses):
    def dislikes(self, wav):
        return bool((wav.std() == 0) & (wav.amax() > 0))


@caught_by("full_scale")
class FullScaleOverflows(Refuses):
    def dislikes(self, wav):
        return float(wav.abs().amax()) == 1.0


@caught_by("clipping")
class WantsNoMoreThanOne(Refuses):
    def dislikes(self, wav):
        return bool(wav.abs().amax() > 1)


@caught_by("faint")
class DividesByPower(Refuses):
    def dislikes(self, wav):
        return 0 < float(wav.square().mean()) < 1e-9


@caught_by("not_finite")
class CodesNaN(Good):
    """Gives a NaN a code like any other, as a search for the nearest entry does; the test takes the guard away."""

    def means(self, wav, lengths):
        means, frames = super().means(wav, lengths)
        return means.nan_to_num(nan=0.3, posinf=0.3), frames


@caught_by("determinism")
class Dithered(Good):
    def decode(self, encoded, seed):
        return super().decode(encoded, seed) + float(np.random.default_rng().uniform(0, 5e-5))


@caught_by("batch_equals_single")
class NormalisesTheBatch(Good):
    """Every clip by the loudness of the longest."""

    def decode(self, encoded, seed):
        sound = super().decode(encoded, seed)
        return sound * (1 + 0.01 * (len(sound) - 1))


@caught_by("padding")
class LooksIntoThePadding(Good):
    def encode(self, wav, lengths, seed):
        return super().encode(wav * (0.5 / wav.abs().amax(dim=2, keepdim=True).clamp(min=0.5)), lengths, seed)


@caught_by("streaming")
class NormalisesTheClip(Good):
    """Declares the look-ahead of a frame, and looks at the whole clip."""

    stream = None

    def means(self, wav, lengths):
        means, frames = super().means(wav, lengths)
        return means - means.sum(dim=1, keepdim=True) / frames[:, None] * 0.5, frames


@caught_by("stream_equals_whole")
class ForgetsBetweenChunks(Good):
    """Codes each frame less half of the one before, and starts anew at every chunk."""

    def means(self, wav, lengths):
        means, frames = super().means(wav, lengths)
        return means - 0.5 * torch.nn.functional.pad(means[:, :-1], (1, 0)), frames

    def stream(self, chunks, seed):
        for chunk in chunks:
            yield self._beyond(0, chunk, seed)


@caught_by("half_precision")
class OverflowsInHalf(Good):
    """Its inner values lie beyond what float16 holds."""

    def decode(self, encoded, seed):
        sound = super().decode(encoded, seed)
        large = torch.full((1, 1), 1e6, device=sound.device)
        return torch.nn.functional.linear(sound.transpose(1, 2), large).transpose(1, 2) / 1e6


@caught_by("devices_agree")
class AnotherKernel(Good):
    """Rounds otherwise on another device."""

    def quantise(self, means):
        codes = super().quantise(means)
        return codes if self.device == "cpu" else (codes + 1).clamp(max=LEVELS - 1)


@caught_by("eval_mode")
class StillTraining(Good):
    def __init__(self, info, device):
        super().__init__(info, device)
        self.parts = {"decoder": torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout())}


@caught_by("gradients")
class CarriesGradients(Good):
    def decode(self, encoded, seed):
        sound = super().decode(encoded, seed)
        with torch.inference_mode(False), torch.enable_grad():
            return sound + torch.nn.Parameter(torch.zeros(1))


@caught_by("input_is_left_alone")
class MasksInPlace(Good):
    def encode(self, wav, lengths, seed):
        wav[torch.arange(wav.shape[2])[None, None].expand(wav.shape) >= lengths[:, None, None]] = 0
        return super().encode(wav, lengths, seed)


@caught_by("global_state")
class SeedsEverything(Good):
    def encode(self, wav, lengths, seed):
        torch.manual_seed(seed)
        return super().encode(wav, lengths, seed)


@caught_by("memory")
class KeepsEveryClip(Good):
    def __init__(self, info, device):
        super().__init__(info, device)
        self.kept = []

    def latents(self, wav, lengths, kind, seed):
        self.kept.append(wav)
        return super().latents(wav, lengths, kind, seed)


@caught_by("fresh_process")
class DependsOnTheProcess(Good):
    """Seeded by what is another in every process, as hashes are: two bits of its id in each of 12 frames."""

    def quantise(self, means):
        codes = super().quantise(means)
        own = torch.tensor([os.getpid() >> 2 * bit & 3 for bit in range(12)])
        return (codes + own[torch.arange(codes.shape[2]) % 12]).clamp(max=LEVELS - 1)


class SetsThreads(Good):
    """Changes the process when it is built."""

    info = info("bug-sets-threads")

    def __init__(self, info, device):
        super().__init__(info, device)
        torch.set_default_dtype(torch.float64)
        self.network.float()


class KeepsArrays(Good):
    """What it keeps is numpy's."""

    info = info("bug-keeps-arrays")

    def __init__(self, info, device):
        super().__init__(info, device)
        self.kept = []

    def encode(self, wav, lengths, seed):
        self.kept.append(np.repeat(wav.cpu().numpy(), 10))
        return super().encode(wav, lengths, seed)


class NotReallyNested(Good):
    """Declared nested, and cannot be built with fewer codebooks."""

    info = info("bug-not-nested")

    def __init__(self, info, device):
        if info.num_codebooks != 2:
            raise ValueError("two codebooks or none")
        super().__init__(info, device)


class RemembersTheStreamBefore(Good):
    """Keeps what it carries in itself, and does not clear it when a new stream begins."""

    info = info("bug-remembers-the-stream-before")
    last = 0.0

    def stream(self, chunks, seed):
        for codes, sound in super().stream(chunks, seed):
            yield codes, 0.5 * sound + 0.5 * self.last
            self.last = 0.1


class WaitsForTheEnd(Good):
    """Takes all chunks before it gives anything for the first."""

    info = info("bug-waits-for-the-end")

    def stream(self, chunks, seed):
        return super().stream([*chunks], seed)


class KeepsTheTail(Good):
    """Never says what it held back: looks a chunk ahead, and forgets that there is an end."""

    info = info("bug-keeps-the-tail")

    def stream(self, chunks, seed):
        held = None, None
        for codes_and_sound in super().stream(chunks, seed):
            yield held
            held = codes_and_sound


class StreamsCodesAlone(Good):
    info = info("bug-streams-codes-alone")

    def stream(self, chunks, seed):
        return ((codes, None) for codes, _ in super().stream(chunks, seed))


class GoodEncoder:
    """Latents and nothing else."""

    info = Info(name="good-encoder", sample_rate=16000, frame_rate=400, latent_kinds=("layer:0", "layer:1"))

    def __init__(self, info, device):
        self.codec = Good(info, device)

    def latents(self, wav, lengths, kind, seed):
        return self.codec.latents(wav, lengths, kind, seed)


class LeakyEncoder(GoodEncoder):
    """Normalises by all that is in the row, padding included."""

    info = Info(name="leaky-encoder", sample_rate=16000, frame_rate=400, latent_kinds=("layer:0",))

    def latents(self, wav, lengths, kind, seed):
        return super().latents(wav / (wav.std() + 1e-3), lengths, kind, seed)
