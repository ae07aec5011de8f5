"""BYOL-A and BYOL-S: convolutions over a log-mel spectrum, trained to see two augmentations of a sound alike.

ByolA  Niizumi et al., "BYOL for audio: exploring pre-trained general-purpose audio representations", TASLP 2023 (the
       second version), as in github.com/nttcslab/byol-a at 3e65c928, v2/byol_a2/models.py:58-94, v2/README.md:70-108.
ByolS  Elbanna et al., "BYOL-S: learning self-supervised speech representations by bootstrapping", HEAR 2022, as in
       github.com/GasserElbanna/serab-byols at 115fd812, byol_a/models/audio_ntt.py:4-41, serab_byols/config.yaml,
       serab_byols/utils.py:11-25 and :134-137.

Both publish one embedding a clip, maximum plus mean over time of the frames given here.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import torch
from torch import Tensor, nn

from earmark.codecs.contract import Info
from earmark.codecs.mel import MelEncoder, logarithm, normal


class Network(nn.Module):
    """Stages that halve frequency and time, then two layers over all bands and channels of a time.

    stack  whether what enters those two layers is put before what they give.

    Raises RuntimeError where a tensor lacks, is too many or has another shape.
    """

    def __init__(self, tensors: dict[str, Tensor], stack: bool) -> None:
        super().__init__()
        self.stack, stages = stack, [name for name in tensors if re.fullmatch(r"features\.\d+\.running_mean", name)]
        channels = [1, *(len(tensors[name]) for name in stages)]
        self.features = nn.Sequential(*(
            part for before, after in itertools.pairwise(channels)
            for part in (nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))
        ))  # fmt: skip
        wide, middle, last = tensors["fc.0.weight"].shape[1], len(tensors["fc.0.bias"]), len(tensors["fc.3.bias"])
        self.fc = nn.Sequential(nn.Linear(wide, middle), nn.ReLU(), nn.Dropout(0.3), nn.Linear(middle, last), nn.ReLU())
        self.load_state_dict(tensors)

    def forward(self, spectrum: Tensor) -> Tensor:
        """Frames [T', D] of a spectrum [F, T]."""
        seen = self.features(spectrum[None, None]).permute(0, 3, 2, 1).flatten(2)[0]  # [T', bands x channels]
        return torch.cat([seen, self.fc(seen)], dim=1) if self.stack else self.fc(seen)


class _Byol(MelEncoder):
    """Frames are floor((floor(L / 160) + 1) / n), n = 2 to the number of stages. There are no layers."""

    STACK: bool

    def network(self, found: Any) -> Network:
        own = {match[2]: each for name, each in found.get("state_dict", found).items()
               if (match := re.search(r"(^|\.)((features|fc)\..+)", name))}  # fmt: skip
        return Network(own, self.STACK)

    def depth(self) -> int:
        return -1

    def frame_rate(self) -> float:
        halvings = sum(isinstance(part, nn.MaxPool2d) for part in self.model.features)
        return self.RATE / (self.HOP * 2**halvings)

    def layers(self, piece: Tensor) -> list[Tensor]:
        return [self.model(self.heard(piece))]


class ByolA(_Byol):
    """25 frames a second; D = 3072: the convolutions' 1024, then the 2048 of the layers after them.

    stats  mean and standard deviation of the log-mel spectra of the data, which normalise them. Upstream finds them for
           each data set anew; a clip alone has none, so they are the row's.
    """

    FILE, STACK, LEAST = "AudioNTT2022-BYOLA-64x96d2048.pth", True, 513

    def __init__(self, info: Info, device: str, *, stats: tuple[float, float], **options: Any) -> None:
        self.stats = stats
        super().__init__(info, device, **options)

    def mel(self) -> nn.Module:
        from torchaudio.transforms import MelSpectrogram

        return MelSpectrogram(
            self.RATE, n_fft=1024, win_length=1024, hop_length=self.HOP, f_min=60, f_max=7800, n_mels=64,
            norm="slaney", mel_scale="slaney",
        )  # fmt: skip

    def scaled(self, mel: Tensor) -> Tensor:
        return (logarithm(mel) - self.stats[0]) / self.stats[1]


class ByolS(_Byol):
    """12.5 frames a second, D = 2048. The log-mel spectrum is brought to zero mean and unit variance over the clip.

    Upstream's timestamp embeddings are not these: they are the embeddings of whole seconds, 50 ms apart, of spectra
    normalised by a mean and a deviation that are divided by their number (serab_byols/utils.py:38-41).
    """

    FILE, STACK, LEAST = "default2048_BYOLAs64x96-2105311814-e100-bs256-lr0003-rs42.pth", False, 1120

    def mel(self) -> nn.Module:
        from torchaudio.transforms import MelSpectrogram

        return MelSpectrogram(
            self.RATE, n_fft=1024, win_length=400, hop_length=self.HOP, f_min=60, f_max=7800, n_mels=64
        )

    def scaled(self, mel: Tensor) -> Tensor:
        return normal(logarithm(mel))
