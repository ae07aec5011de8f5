"""Self-supervised encoders of the waveform: seven convolutions, then a transformer. 16 kHz, 50 frames/s.

Hubert        Hsu et al., "HuBERT: self-supervised speech representation learning by masked prediction of hidden
              units", TASLP 2021.
WavLM         Chen et al., "WavLM: large-scale self-supervised pre-training for full stack speech processing", 2022.
Wav2Vec2      Baevski et al., "wav2vec 2.0: a framework for self-supervised learning of speech representations",
              NeurIPS 2020.
Data2VecAudio Baevski et al., "data2vec: a general framework for self-supervised learning in speech, vision and
              language", ICML 2022.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

from earmark.codecs.encoders import Encoder


class _Waveform(Encoder):
    """Frames are floor((L - 400) / 320) + 1: the convolutions do not pad, each frame sees 25 ms, 20 ms apart.

    So a second has 49 frames, and frame t stands for the samples from 320 t to 320 t + 400. A clip shorter than 400
    samples is followed by zeros up to there and has one frame. Where the checkpoint's feature extractor says so
    (`do_normalize`), a clip is brought to zero mean and unit variance first, over its true samples.
    """

    def reach_and_hop(self) -> tuple[int, int]:
        """Samples that one frame sees, and samples between frames: 400 and 320."""
        reach, hop = 1, 1
        for kernel, stride in zip(self.model.config.conv_kernel, self.model.config.conv_stride, strict=True):
            reach, hop = reach + (kernel - 1) * hop, hop * stride
        return reach, hop

    def frame_rate(self) -> float:
        return float(self.extractor.sampling_rate / self.reach_and_hop()[1])

    def layers(self, piece: Tensor) -> list[Tensor]:
        values = self.features(piece).input_values  # [1, L]
        values = pad(values, (0, max(0, self.reach_and_hop()[0] - values.shape[-1])))
        made = self.model(values, output_hidden_states=True)
        return [state[0] for state in (*made.hidden_states[:-1], made.last_hidden_state)]


class Hubert(_Waveform):
    """HuBERT."""

    model_class = "HubertModel"


class WavLM(_Waveform):
    """WavLM, whose layers share one bias by relative position."""

    model_class = "WavLMModel"


class Wav2Vec2(_Waveform):
    """wav2vec 2.0."""

    model_class = "Wav2Vec2Model"


class Data2VecAudio(_Waveform):
    """data2vec for audio."""

    model_class = "Data2VecAudioModel"
