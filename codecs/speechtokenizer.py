"""SpeechTokenizer: EnCodec's kind of network, its first codebook taught by HuBERT.

Zhang et al., "SpeechTokenizer: Unified Speech Tokenizer for Speech Large Language Models", ICLR 2024; the package
`speechtokenizer` (github.com/ZhangXInFD/SpeechTokenizer, 1.0.1).
"""

from __future__ import annotations

import importlib
import json
import warnings
from typing import Any

import torch
from torch import Tensor

from earmark.codecs.contract import Info
from earmark.codecs.packaged import cached_files, without_init
from earmark.codecs.pretrained import ClipByClip, Measures

FOLDER = "speechtokenizer_hubert_avg"  # of the repository, which has another model (snake) beside it
PACKAGE = "speechtokenizer"


class SpeechTokenizer(ClipByClip):
    """Frames are ceil(L / 320): each layer reflects the clip's end to fill its last frame, as in EnCodec.

    A bidirectional LSTM hears the whole clip, so every frame depends on all of it. 320 samples a frame come back.
    Latents have D = 1024; 'codebook:0' is what was taught to carry the words.
    """

    FILES = (f"{FOLDER}/config.json", f"{FOLDER}/SpeechTokenizer.pt")

    def __init__(
        self, info: Info, device: str, *, repo: str = "", revision: str | None = None, model: Any = None
    ) -> None:
        super().__init__(info, device, model=load(info, repo, revision) if model is None else model)

    def measures(self) -> Measures:
        model = self.model
        return Measures(model.sample_rate, int(model.downsample_rate), 1, model.n_q, model.quantizer.bins)

    def embed(self, clip: Tensor) -> Tensor:
        return self.model.encoder(clip)

    def quantise(self, latents: Tensor) -> Tensor:
        return self.model.quantizer.encode(latents, n_q=self.info.num_codebooks).transpose(0, 1)

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.decode(codes.transpose(0, 1))

    def synthesise(self, latents: Tensor) -> Tensor:
        return self.model.decoder(latents)


def load(info: Info, repo: str, revision: str | None) -> Any:
    """A model from the hub cache; its pickled file is read as tensors alone."""
    config, weights = cached_files(info, repo, revision, SpeechTokenizer.FILES)
    model = build(json.loads(config.read_text(encoding="utf-8")))
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model


def build(config: dict[str, Any]) -> Any:
    """The package's network, with weights yet to come.

    The package itself is not imported: that would import its trainer, and with it beartype and tensorboard, which
    `pip install speechtokenizer` does not bring.
    """
    without_init(PACKAGE)
    with warnings.catch_warnings():
        # torch warns of its older weight_norm and of torch.jit.script, which the package uses
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(f"{PACKAGE}.model").SpeechTokenizer(config)
