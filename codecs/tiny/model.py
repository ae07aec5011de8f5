"""The network of `tiny`: spectra -> ConvNeXt encoder -> residual vector quantiser -> ConvNeXt decoder -> sound.

16 kHz, one frame of K codes for every 320 samples (20 ms, 50 frames/s). Inside a frame the network also works at four
steps of 80 samples (200 steps/s), where pitch and onsets are.

What a sample waits for: a spectrum's window reaches 120 samples beyond its frame, the decoder looks one frame ahead,
and overlap-add ties the end of a frame to the next. Together `DELAY` = 880 samples, 55 ms; everything else is causal.

Shapes: wav float32 [B, L]; latents [B, T, D] (time before channels); codes int64 [B, T, K].
Sources: Liu et al., "A ConvNet for the 2020s" (the block); Siuzdak, "Vocos" (decoding by inverse Fourier transform);
Zeghidour et al., "SoundStream" (residual quantisation).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SAMPLE_RATE = 16000  # Hz
HOP = 320  # samples a frame
STEP = 80  # samples between spectra
WINDOW = 320  # samples of a spectrum
STEPS = HOP // STEP
BINS = WINDOW // 2 + 1
EDGE = (WINDOW - STEP) // 2  # how far a spectrum reaches to either side of its step, samples
LOOKAHEAD = EDGE  # samples beyond the end of frame t that its codes depend on
DELAY = 2 * HOP + 2 * EDGE  # samples of input beyond n that output sample n may depend on

BOOKS, ENTRIES, DIM = 8, 1024, 32
FINE, ENCODER, DECODER = 80, 192, 192  # channels: encoder at 200 steps/s, encoder and decoder at 50 frames/s
SYNTH = 96  # channels of the decoder at 200 steps/s


class Block(nn.Module):
    """ConvNeXt block, causal: depthwise convolution over 7 steps, normalisation, two-layer perceptron, residual."""

    KERNEL = 7

    def __init__(self, width: int, expand: int = 3) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.randn(self.KERNEL, width) * self.KERNEL**-0.5)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expand * width)
        self.down = nn.Linear(expand * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, C]; step t sees t-6 .. t."""
        past = functional.pad(x, (0, 0, self.KERNEL - 1, 0))
        mixed = sum(past[:, i : i + x.shape[1]] * tap for i, tap in enumerate(self.taps))
        return x + self.scale * self.down(functional.gelu(self.up(self.norm(mixed))))


class Spectra(nn.Module):
    """Short-time Fourier transform and its inverse; `window` is Hann, not in the weights file."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """Sound [B, T * HOP] -> complex spectra [B, T * STEPS, BINS]; step j covers 80 j - 120 .. 80 j + 200."""
        padded = functional.pad(wav, (EDGE, EDGE))
        return torch.fft.rfft(padded.unfold(-1, WINDOW, STEP) * self.window)

    def inverse(self, spectra: Tensor) -> Tensor:
        """Complex spectra [B, T * STEPS, BINS] -> sound [B, T * HOP]: windowed overlap-add."""
        parts = torch.fft.irfft(spectra, WINDOW) * self.window
        weight = self.window.square().expand_as(parts[:1])
        wav = _overlap_add(parts) / _overlap_add(weight).clamp(min=1e-3)
        return wav[:, EDGE:-EDGE]


def _overlap_add(parts: Tensor) -> Tensor:
    """[B, S, WINDOW] at every STEP samples -> [B, S * STEP + WINDOW - STEP]."""
    columns = WINDOW // STEP
    pieces = parts.unflatten(-1, (columns, STEP))  # [B, S, columns, STEP]
    moved = [functional.pad(pieces[:, :, i], (0, 0, i, columns - 1 - i)) for i in range(columns)]
    return torch.stack(moved).sum(0).flatten(1)


class Encoder(nn.Module):
    """Sound to latents."""

    def __init__(self) -> None:
        super().__init__()
        self.spectra = Spectra()
        self.enter = nn.Linear(3 * BINS, FINE)
        self.fine = nn.Sequential(Block(FINE), Block(FINE))
        self.stack = nn.Linear(STEPS * FINE, ENCODER)
        self.coarse = nn.Sequential(Block(ENCODER), Block(ENCODER))
        self.leave = nn.Sequential(nn.LayerNorm(ENCODER), nn.Linear(ENCODER, DIM))

    def forward(self, wav: Tensor) -> Tensor:
        """[B, T * HOP] -> [B, T, DIM]."""
        x = self.fine(self.enter(features(self.spectra(wav))))
        x = x.unflatten(1, (-1, STEPS)).flatten(2)
        return self.leave(self.coarse(self.stack(x)))


def features(spectra: Tensor) -> Tensor:
    """Complex spectra [B, S, BINS] -> [B, S, 3 * BINS]: both parts with magnitudes to the power .4, and the log."""
    power = spectra.real.square() + spectra.imag.square() + 1e-6
    scale = power**-0.3
    return torch.cat([spectra.real * scale, spectra.imag * scale, 0.2 * power.log()], -1)


class Quantiser(nn.Module):
    """Residual vector quantiser: each codebook says what those before it left over."""

    codebooks: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codebooks", torch.zeros(BOOKS, ENTRIES, DIM))

    def encode(self, latents: Tensor, books: int = BOOKS) -> Tensor:
        """Latents [B, T, DIM] -> codes int64 [B, T, books]. Fewer books give a prefix of the same codes."""
        rest, codes = latents, []
        for book in self.codebooks[:books]:
            codes.append(nearest(rest, book))
            rest = rest - book[codes[-1]]
        return torch.stack(codes, -1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, T, K <= BOOKS] -> latents [B, T, DIM], the sum of their entries."""
        return torch.stack([self.codebooks[k][code] for k, code in enumerate(codes.unbind(-1))]).sum(0)


def nearest(points: Tensor, book: Tensor) -> Tensor:
    """The entry of book [V, D] nearest to each of points [..., D]: int64 [...]. Ties go to the first."""
    return (0.5 * book.square().sum(-1) - points @ book.T).argmin(-1)


class Decoder(nn.Module):
    """Latents to sound."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(3 * DIM, DECODER)
        self.coarse = nn.Sequential(Block(DECODER), Block(DECODER), Block(DECODER))
        self.unstack = nn.Linear(DECODER, STEPS * SYNTH)
        self.fine = nn.Sequential(Block(SYNTH), Block(SYNTH), Block(SYNTH), Block(SYNTH))
        self.leave = nn.Sequential(nn.LayerNorm(SYNTH), nn.Linear(SYNTH, 3 * BINS))
        self.spectra = Spectra()

    def forward(self, latents: Tensor) -> Tensor:
        """[B, T, DIM] -> [B, T * HOP]; frame t sees the latents of t-1, t, t+1 and, through the blocks, its past."""
        around = functional.pad(latents, (0, 0, 1, 1))
        x = torch.cat([around[:, :-2], around[:, 1:-1], around[:, 2:]], -1)
        x = self.unstack(self.coarse(self.enter(x)))
        x = self.fine(x.unflatten(2, (STEPS, SYNTH)).flatten(1, 2))
        return self.spectra.inverse(spectrum(self.leave(x)))


def spectrum(x: Tensor) -> Tensor:
    """[B, S, 3 * BINS] -> complex [B, S, BINS]: log magnitude and direction, which may shrink where it is unsure."""
    size, real, imag = x.chunk(3, -1)
    scale = (size - 2).clamp(max=6).exp() * (real.square() + imag.square() + 0.1).rsqrt()
    return torch.complex(real * scale, imag * scale)


class Network(nn.Module):
    """The whole codec."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.quantiser, self.decoder = Encoder(), Quantiser(), Decoder()


def count(network: nn.Module) -> int:
    """All numbers in the weights file: parameters and codebooks."""
    return sum(tensor.numel() for tensor in network.state_dict().values())
