"""What encoders of a mel spectrum have in common whose network is rebuilt here around a published file of tensors."""

from __future__ import annotations

import abc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from earmark.codecs.contract import Info
from earmark.codecs.encoders import Encoder, read_tensors

FLOOR = torch.finfo(torch.float32).eps


class MelEncoder(Encoder):
    """An encoder whose spectrum is that of the whole clip. Subclasses say the spectrum, its scale and the network.

    folder  where the published file lies, for families without a repository on the hub.
    model   a network already built, in its place.
    """

    RATE, HOP = 16000, 160
    LEAST: int  # samples; a shorter clip is followed by zeros up to there
    FILE: str  # in the folder

    def __init__(
        self, info: Info, device: str, *, folder: Path | None = None, model: Any = None, **options: Any
    ) -> None:
        self.folder = folder
        self.spectrum = self.mel().to(device).eval()
        super().__init__(info, device, model=model, extractor=SimpleNamespace(sampling_rate=self.RATE), **options)

    def load(self, repo: str, revision: str | None) -> nn.Module:
        del repo, revision
        if self.folder is None:
            raise ValueError(f"{self.info.name}: no folder was given that holds {self.FILE}")
        return self.network(read_tensors(self.folder / self.FILE))

    @abc.abstractmethod
    def mel(self) -> nn.Module:
        """From samples [L] to their mel spectrum [F, T]."""

    @abc.abstractmethod
    def scaled(self, mel: Tensor) -> Tensor:
        """The spectrum [F, T] as the network hears it."""

    @abc.abstractmethod
    def network(self, found: Any) -> nn.Module:
        """The network, out of what the published file holds."""

    def heard(self, piece: Tensor) -> Tensor:
        """The scaled spectrum [F, T] of a piece [L] of a clip."""
        clip = pad(piece.to(self.device, torch.float32), (0, max(0, self.LEAST - len(piece))))
        return self.scaled(self.spectrum(clip))


def normal(log: Tensor) -> Tensor:
    """A log-mel spectrum of zero mean and unit variance; zeros where all of it is one value, as in silence."""
    return (log - log.mean()) / log.std().clamp_min(FLOOR)


def logarithm(mel: Tensor) -> Tensor:
    """The natural logarithm of powers, finite for silence."""
    return (mel + FLOOR).log()


def decibels(mel: Tensor, deep: float) -> Tensor:
    """10 log10 of the powers [F, T], from 1e-10 up and no deeper than so many dB below the peak."""
    found = 10.0 * mel.clamp_min(1e-10).log10()
    return found.clamp_min(found.max() - deep)
