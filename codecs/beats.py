"""BEATs: a transformer over patches of a mel spectrum, trained on the tokens of a tokeniser that is trained on it.

Chen et al., "BEATs: audio pre-training with acoustic tokenizers", ICML 2023. The network is the authors' own, from a
checkout of github.com/microsoft/unilm at 768a3c87, folder beats; the call is that of BEATs.py:127-172 and its README.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from earmark.codecs.checkout import Checkout
from earmark.codecs.contract import Info
from earmark.codecs.encoders import Encoder, outputs_of, read_tensors


class Beats(Encoder):
    """Frames are floor((floor((L - 400) / 160) + 1) / 16), 6.25 a second: the mean of eight patches, low to high.

    A clip shorter than 2800 samples is followed by zeros up to there and has one frame. A clip is heard whole, whatever
    its length: attention takes memory by its square, and training clips were of 10 s.

    folder    where the published file lies: tensors, and the network's settings beside them.
    file      its name.
    checkout  the authors' code.
    """

    RATE, HOP, WINDOW, BANDS = 16000, 160, 400, 128

    def __init__(self, info: Info, device: str, *, folder: Path, file: str, checkout: Checkout, **options: Any) -> None:
        self.path, self.checkout = folder / file, checkout
        super().__init__(info, device, extractor=SimpleNamespace(sampling_rate=self.RATE), **options)

    def load(self, repo: str, revision: str | None) -> Any:
        del repo, revision
        found = read_tensors(self.path)
        with self.checkout.importable():
            from BEATs import BEATs, BEATsConfig

            network = BEATs(BEATsConfig(found["cfg"]))
        network.load_state_dict(found["model"])
        return network

    def patch(self) -> int:
        """Spectra, and bands, in a patch."""
        return int(self.model.cfg.input_patch_size)

    def depth(self) -> int:
        return len(self.model.encoder.layers)

    def frame_rate(self) -> float:
        return self.RATE / (self.HOP * self.patch())

    def layers(self, piece: Tensor) -> list[Tensor]:
        """What enters the first layer and what each gives, [T, D] each."""
        least = self.WINDOW + (self.patch() - 1) * self.HOP
        clip = pad(piece.to(self.device, torch.float32), (0, max(0, least - len(piece))))
        drawn = np.random.get_state()  # the network draws a number for every layer, in use too: backbone.py:148
        try:
            states, _ = outputs_of(self.model.encoder.layers, lambda: self.model.extract_features(clip[None]))
        finally:
            np.random.set_state(drawn)
        rows = self.BANDS // self.patch()
        return [state[:, 0].unflatten(0, (-1, rows)).mean(1) for state in states]
