"""Dasheng: a masked auto-encoder of the mel spectrum, trained on 272 000 h of every kind of sound.

Dinkel et al., "Scaling up masked audio encoder learning for general audio classification", Interspeech 2024; the
network is that of the authors' package `dasheng`, the weights their conversion of them on the hub (mispeech/dasheng-*),
whose names are the package's behind `encoder.`; the spectrum's filters, which it lacks, are computed.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from earmark.codecs.contract import Info
from earmark.codecs.encoders import Encoder, fill, outputs_of, snapshot_of


class Dasheng(Encoder):
    """Frames are floor((floor(L / 160) + 1) / 4), 25 a second: four windows of the spectrum, 10 ms apart, make one.

    The spectrum is that of the whole clip, no deeper than 120 dB below its peak; the transformer hears it in pieces of
    252 frames (10.08 s), each by itself. A clip shorter than 480 samples is followed by zeros up to there: one frame.

    size  embed_dim, depth and num_heads of the network.
    """

    RATE, LEAST = 16000, 480

    def __init__(self, info: Info, device: str, *, size: dict[str, int], **options: Any) -> None:
        self.size = size
        super().__init__(info, device, **options)

    def load(self, repo: str, revision: str | None) -> Any:
        from dasheng.pretrained.pretrained import Dasheng as Network

        return fill(Network(**self.size), "encoder.", self.info, snapshot_of(self.info, repo, revision), "front_end.")

    def load_extractor(self, repo: str, revision: str | None) -> Any:
        del repo, revision  # the spectrum is the network's first layer
        return SimpleNamespace(sampling_rate=self.RATE)

    def depth(self) -> int:
        return len(self.model.blocks)

    def frame_rate(self) -> float:
        return float(self.RATE / (self.model.hop_size * self.model.patch_stride[-1]))

    def layers(self, piece: Tensor) -> list[Tensor]:
        """What enters the first block, and what comes out of each, the last one normalised: [T, D] each."""
        clip = pad(piece[None].to(self.device), (0, max(0, self.LEAST - len(piece))))
        states, last = outputs_of(self.model.blocks, lambda: self.model(clip))
        return [*(state[0] for state in states[:-1]), last[0]]
