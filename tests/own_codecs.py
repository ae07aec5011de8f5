"""Codecs as a user would write them, good and bad, for the tests to run as `earmark.tests.own_codecs:Name`."""

from typing import ClassVar

import torch

from earmark import Encoded, Info


class Halver:
    """A good little codec: K = 1, 256 levels, one token a sample pair. It counts how often it is called."""

    info = Info(name="halver", sample_rate=16000, frame_rate=8000, codebook_sizes=(256,), domains=("speech",))
    encoded = 0

    def __init__(self, info, device):
        self.gain = torch.full((1,), 127.0, device=device)

    def encode(self, wav, lengths, seed):
        Halver.encoded += len(wav)
        frames = (lengths + 1) // 2
        codes = ((wav[:, :, ::2].clamp(-1, 1) * self.gain).round() + 128).long().clamp(0, 255)
        beyond = torch.arange(codes.shape[2], device=wav.device)[None, None] >= frames[:, None, None]
        return Encoded(codes.masked_fill(beyond, -1), frames)

    def decode(self, encoded, seed):
        return ((encoded.codes.clamp(min=0) - 128) / self.gain).repeat_interleave(2, dim=2)


class HalverAt44(Halver):
    """The same at 44.1 kHz."""

    info = Info(name="halver-at-44", sample_rate=44100, frame_rate=22050, codebook_sizes=(256,), domains=("speech",))


class Live(Halver):
    """It streams, a chunk late: a chunk is 80 tokens, 10 ms."""

    info = Halver.info.model_copy(update={"name": "live"})

    def stream(self, chunks, seed):
        late = None, None
        for chunk in chunks:
            yield late
            encoded = self.encode(chunk, torch.tensor([chunk.shape[2]]), seed)
            late = encoded.codes, self.decode(encoded, seed)
        yield late


class Embedder:
    """An encoder without a decoder: two kinds of latents, one beyond what float16 holds."""

    info = Info(name="embedder", sample_rate=16000, frame_rate=100, latent_kinds=("unquantized", "layer:1"))

    def __init__(self, info, device): ...

    def latents(self, wav, lengths, kind, seed):
        frames = (lengths + 159) // 160
        scale = 1.0 if kind == "unquantized" else 1e6
        return torch.full((len(wav), 4, int(frames.max())), scale), frames


class Same:
    """Gives back what it gets; the base of the bad ones."""

    info = Info(name="same", sample_rate=16000)

    def __init__(self, info, device): ...

    def reconstruct(self, wav, lengths, seed):
        return wav.clone(), None


class Half(Same):
    """Gives back what it gets at half the level."""

    info = Info(name="half", sample_rate=16000)

    def reconstruct(self, wav, lengths, seed):
        return wav / 2, None


class Late(Same):
    """Gives back what it gets one sample later, at a rate of which two samples are no whole one at 16 kHz."""

    info = Info(name="late", sample_rate=24000)

    def reconstruct(self, wav, lengths, seed):
        return torch.nn.functional.pad(wav, (1, 0))[:, :, :-1], None


class Silent(Same):
    """Gives back nothing to hear."""

    info = Info(name="silent", sample_rate=16000)

    def reconstruct(self, wav, lengths, seed):
        return wav * 0, None


class WrongShape(Same):
    info = Info(name="wrong-shape", sample_rate=16000)

    def reconstruct(self, wav, lengths, seed):
        return wav[0], None


class RaisesOnOne(Same):
    """Raises on the clip that starts with a full-scale sample."""

    info = Info(name="raises-on-one", sample_rate=16000)

    def reconstruct(self, wav, lengths, seed):
        if bool((wav[:, 0, 0] > 0.9).any()):
            raise ValueError("I do not like this clip")
        return wav.clone(), None


class Short(Same):
    info = Info(name="short", sample_rate=16000)

    def reconstruct(self, wav, lengths, seed):
        return wav[:, :, : wav.shape[2] // 2], None


class OneAtATime(Same):
    """Takes no batches."""

    info = Info(name="one-at-a-time", sample_rate=16000)

    def reconstruct(self, wav, lengths, seed):
        if len(wav) > 1:
            raise ValueError("one clip at a time, please")
        return wav.clone(), None


class JustWav(Same):
    info = Info(name="just-wav", sample_rate=16000)

    def reconstruct(self, wav, lengths, seed):
        return wav


class JustCodes(Halver):
    info = Info(name="just-codes", sample_rate=16000, frame_rate=8000, codebook_sizes=(256,))

    def encode(self, wav, lengths, seed):
        return super().encode(wav, lengths, seed).codes


class Unloadable(Same):
    info = Info(name="unloadable", sample_rate=16000)

    def __init__(self, info, device):
        raise OSError("weights.safetensors: no such file")


class NotANumber(Same):
    info = Info(name="not-a-number", sample_rate=16000)

    def reconstruct(self, wav, lengths, seed):
        return wav * float("nan"), None


class BadCodes(Halver):
    info = Info(name="bad-codes", sample_rate=16000, frame_rate=8000, codebook_sizes=(4,))


class Restless(Same):
    """Not deterministic, without saying so."""

    info = Info(name="restless", sample_rate=16000)

    def reconstruct(self, wav, lengths, seed):
        return wav + 0.01 * torch.randn_like(wav), None


class Leaky(Same):
    """Lets the padding and the batch into the clip: it scales by the whole batch's mean."""

    info = Info(name="leaky", sample_rate=16000)

    def reconstruct(self, wav, lengths, seed):
        return wav * (1 + wav.abs().mean()), None


class LeakyEmbedder(Embedder):
    """Its second layer hears what the batch is padded with, as attention without a mask does; its first does not."""

    info = Info(name="leaky-embedder", sample_rate=16000, frame_rate=100, latent_kinds=("layer:0", "layer:1"))

    def latents(self, wav, lengths, kind, seed):
        made, frames = super().latents(wav, lengths, "unquantized", seed)
        return (made, frames) if kind == "layer:0" else (made * wav.shape[2], frames)


class Ring(Same):
    """Refers to itself, as a codec does that hangs one of its methods into its network."""

    info = Info(name="ring", sample_rate=16000)

    def __init__(self, info, device):
        self.again = self.reconstruct


class AllowsTf32(Same):
    """What a package does as it is imported, to be fast."""

    info = Info(name="allows-tf32", sample_rate=16000)

    def __init__(self, info, device):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True


class BreaksCuda(Same):
    """Stands for a kernel that reads beyond its tensor: CUDA then fails every call of this process with its error."""

    info = Info(name="breaks-cuda", sample_rate=16000)

    def reconstruct(self, wav, lengths, seed):
        raise RuntimeError("CUDA error: device-side assert triggered")


class Frames:
    """A codec that cannot look beyond a frame of 160 samples: each frame's level is its token, K = 2 alike."""

    info = Info(name="frames", sample_rate=16000, frame_rate=100, codebook_sizes=(256, 256), domains=("speech",))
    encoded = 0

    def __init__(self, info, device): ...

    def fingerprint(self):
        return "frames"

    def encode(self, wav, lengths, seed):
        Frames.encoded += len(wav)
        frames = lengths // 160
        levels = wav[:, 0, : int(frames.max()) * 160].unflatten(1, (-1, 160)).abs().mean(2)
        codes = (levels.clamp(max=1) * 255).round().long()[:, None]
        beyond = torch.arange(codes.shape[2])[None, None] >= frames[:, None, None]
        return Encoded(codes.masked_fill(beyond, -1).repeat(1, 2, 1), frames)

    def decode(self, encoded, seed):
        """The mean of both codebooks, less a twentieth: sound that fades from round to round."""
        return (encoded.codes.clamp(min=0).float().mean(1, keepdim=True) / 255 * 0.95).repeat_interleave(160, dim=2)


class Settles(Frames):
    """The level of each half of a frame is a token: the first comes back as it was, the second at half the level.

    So codebook 0 is at rest from the first round on, codebook 1 is silent before the tenth, and no frame sees another.
    """

    info = Info(name="settles", sample_rate=16000, frame_rate=100, codebook_sizes=(64, 64), domains=("speech", "music"))

    def fingerprint(self):
        return "settles"

    def encode(self, wav, lengths, seed):
        frames = lengths // 160
        levels = wav[:, 0, : int(frames.max()) * 160].unflatten(1, (-1, 2, 80)).abs().mean(3).mT
        codes = (levels * 256).round().clamp(max=63).long()
        beyond = torch.arange(codes.shape[2])[None, None] >= frames[:, None, None]
        return Encoded(codes.masked_fill(beyond, -1), frames)

    def decode(self, encoded, seed):
        levels = encoded.codes.clamp(min=0) / 256 * torch.tensor([[[1.0], [0.5]]])
        return levels.mT.flatten(1)[:, None].repeat_interleave(80, dim=2)


class Remembers:
    """Gives back the clean sound that it was told, whatever it gets: the perfect denoiser."""

    info = Info(name="remembers", sample_rate=16000)
    clean: ClassVar[dict] = {}  # by length

    def __init__(self, info, device): ...

    def fingerprint(self):
        return "remembers"

    def reconstruct(self, wav, lengths, seed):
        return torch.stack([self.clean[wav.shape[2]]]), None


class HalfEmpty:
    """Of three codebooks the second is never used; it fails on clips of one length, and has no frame of another."""

    info = Info(name="half-empty", sample_rate=16000, frame_rate=50, codebook_sizes=(4, 8, 16))
    fails_at = empty_at = -1

    def __init__(self, info, device):
        self.info = info

    def fingerprint(self):
        return "1"

    def encode(self, wav, lengths, seed):
        frames = (lengths + 319) // 320
        if int(lengths[0]) == HalfEmpty.fails_at:
            raise ValueError("no")
        if int(lengths[0]) == HalfEmpty.empty_at:
            frames = frames * 0
        codes = torch.full((1, 3, int(frames[0])), -1)
        codes[:, 0] = torch.arange(int(frames[0])) % 4
        codes[:, 2, ::2] = 5  # a stride of two
        return Encoded(codes, frames)
