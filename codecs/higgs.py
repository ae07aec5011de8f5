"""The tokenizer of Higgs Audio v2: X-Codec's network at 24 kHz and 25 frames a second.

Boson AI, "Higgs Audio v2", 2025 (github.com/boson-ai/higgs-audio);
`transformers.HiggsAudioV2TokenizerModel`.
"""

from __future__ import annotations

from earmark.codecs.xcodec import Xcodec


class HiggsAudio(Xcodec):
    """Frames are ceil(L / 960): a clip is padded with zeros to whole hops of 40 ms; 960 samples a frame come back.

    HuBERT hears the clip at 16 kHz, at 50 frames a second, of which every second is taken. Of whole hops both encoders
    give as many frames; `transformers` alone gives other counts in between (961 samples -> 1 frame). Zeros after a clip
    reach it through HuBERT's attention and normalisation (29 of 50 frames changed on a random model): clips go alone.

    Latents have D = 1024 (256 acoustic and 768 semantic, mixed by one linear layer). The adapter is X-Codec's.
    """

    model_class = "HiggsAudioV2TokenizerModel"
