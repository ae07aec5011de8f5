"""Encoders that need no weights: what spectra alone can tell, below which no learned encoder should fall.

    LogMel         the front end of VGGish: 64 log-mel bands.
    Mfcc           20 cepstral coefficients of it.
    RandomLatents  noise that says nothing of the clip: whatever is read out of it, is read by chance.

Shapes as in `earmark.codecs.contract`; the latents, of the one kind 'unquantized', are float32 [B, D, T] with a frame
for each started hop: T = ceil(L / hop), so one sample makes one frame. Frame t stands for the samples from t hop to
(t + 1) hop and sees, in a window of 25 ms, as much on either side; beyond the clip lies silence. Each clip is computed
alone, over its own samples: neither batch nor padding can change it.
"""

from __future__ import annotations

import abc
import hashlib
import math

import torch
from torch import Tensor

from earmark.codecs.contract import Info


class _Frames(abc.ABC):
    """An encoder that is a function of one clip: subclasses have `of_clip`."""

    def __init__(self, info: Info, device: str) -> None:
        if info.sample_rate is None or info.frame_rate is None:
            raise ValueError(f"{info.name}: needs a sample_rate and a frame_rate")
        self.info, self.device, self.rate = info, device, info.sample_rate
        self.hop = round(info.sample_rate / info.frame_rate)

    def latents(self, wav: Tensor, lengths: Tensor, kind: str, seed: int) -> tuple[Tensor, Tensor]:
        """Latents [B, D, T] of wav [B, 1, L], zero beyond each clip, and the true frames [B]."""
        if kind not in self.info.latent_kinds:
            raise ValueError(f"{self.info.name} has latents {self.info.latent_kinds}, not {kind!r}")
        clips = [self.of_clip(clip[0, :length], seed) for clip, length in zip(wav, lengths.tolist(), strict=True)]
        padded = torch.nn.utils.rnn.pad_sequence([clip.T for clip in clips], batch_first=True)
        return padded.transpose(1, 2), torch.tensor([clip.shape[1] for clip in clips], device=wav.device)

    def frames(self, clip: Tensor) -> int:
        """How many hops are started by a clip [L]."""
        return -(-len(clip) // self.hop)

    @abc.abstractmethod
    def of_clip(self, clip: Tensor, seed: int) -> Tensor:
        """Latents [D, T] of one clip [L]."""


class LogMel(_Frames):
    """ln(mel + 0.01) of the magnitude spectrum: 64 bands from 125 to 7500 Hz, windows of 25 ms, 10 ms apart.

    The 0.01 lies 80 dB below a full-scale sine, above the noise of 16 bits: digital silence and a quiet room are alike.
    Source: Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017, and the code beside
    it (`mel_features.py`): HTK's mel scale, periodic Hann window, FFT of 512. Its triangles are straight in mel; these
    are torchaudio's and librosa's, straight in Hz.
    """

    BANDS, LOW_HZ, HIGH_HZ = 64, 125.0, 7500.0
    WINDOW_S, OFFSET = 0.025, 0.01

    def __init__(self, info: Info, device: str) -> None:
        from torchaudio.functional import melscale_fbanks

        super().__init__(info, device)
        size = round(self.WINDOW_S * self.rate)
        self.window = torch.hann_window(size, device=device)
        self.fft = 2 ** math.ceil(math.log2(size))
        filters = melscale_fbanks(self.fft // 2 + 1, self.LOW_HZ, self.HIGH_HZ, self.BANDS, self.rate)  # [bins, bands]
        self.filters = filters.T.contiguous().to(device)

    def of_clip(self, clip: Tensor, seed: int) -> Tensor:
        """Log-mel bands [64, T] of one clip [L]."""
        del seed
        spectrum = torch.fft.rfft(self._windows(clip) * self.window, self.fft).abs()
        return torch.log(self.filters @ spectrum.T + self.OFFSET)

    def _windows(self, clip: Tensor) -> Tensor:
        """[T, window]: each centred on the middle of its hop."""
        count, size = self.frames(clip), len(self.window)
        early = (size - self.hop) // 2
        padded = torch.nn.functional.pad(clip, (early, (count - 1) * self.hop + size - early - len(clip)))
        return padded.unfold(0, size, self.hop)


class Mfcc(LogMel):
    """The first 20 coefficients of the orthonormal DCT-II over the log-mel bands, the energy-like first included.

    Source: Davis and Mermelstein, "Comparison of parametric representations", IEEE TASSP 1980.
    """

    COEFFICIENTS = 20

    def __init__(self, info: Info, device: str) -> None:
        from torchaudio.functional import create_dct

        super().__init__(info, device)
        self.dct = create_dct(self.COEFFICIENTS, self.BANDS, norm="ortho").T.to(device)  # [20, 64]

    def of_clip(self, clip: Tensor, seed: int) -> Tensor:
        """MFCC [20, T] of one clip [L]."""
        return self.dct @ super().of_clip(clip, seed)


class RandomLatents(_Frames):
    """Unit Gaussian noise [128, T], by a generator seeded with the seed and what is in the clip."""

    DIMENSIONS = 128

    def of_clip(self, clip: Tensor, seed: int) -> Tensor:
        """Noise [128, T]: the same for the same clip, whatever it is batched with."""
        digest = hashlib.sha256(str(seed).encode() + clip.cpu().numpy().tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        return torch.randn(self.DIMENSIONS, self.frames(clip), generator=generator).to(clip.device)
