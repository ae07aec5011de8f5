"""Encoders of the mel spectrum, each with a window of fixed length.

Whisper     Radford et al., "Robust speech recognition via large-scale weak supervision", ICML 2023: its encoder.
Qwen2Audio  Chu et al., "Qwen2-Audio technical report", 2024: its audio encoder, Whisper's with pooling.
Ast         Gong et al., "AST: audio spectrogram transformer", Interspeech 2021.
Clap        Wu et al., "Large-scale contrastive language-audio pretraining with feature fusion and
            keyword-to-caption augmentation", ICASSP 2023: its audio tower (HTSAT).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from earmark.codecs.encoders import Encoder, fill, snapshot_of


class Whisper(Encoder):
    """Frames are ceil(L / 320), 50 a second: one for each started 20 ms of the clip.

    The encoder hears windows of 30 s, filled with zeros, without a mask, as it was trained; the frames of the zeros are
    cut off. A longer clip is heard in pieces of 30 s, each by itself, the last with zeros.
    """

    model_class = "WhisperModel"

    def load(self, repo: str, revision: str | None) -> Any:
        return super().load(repo, revision).encoder

    def hop(self) -> int:
        """Samples a frame of the transformer: two of the spectrum's."""
        return self.extractor.n_samples // int(self.model.config.max_source_positions)

    def frame_rate(self) -> float:
        return float(self.extractor.sampling_rate / self.hop())

    def pieces(self, clip: Tensor) -> list[Tensor]:
        return [*clip.split(self.extractor.n_samples)]

    def layers(self, piece: Tensor) -> list[Tensor]:
        made = self.model(self.features(piece).input_features, output_hidden_states=True)
        frames = -(-len(piece) // self.hop())
        return [state[0, :frames] for state in made.hidden_states]  # the last is after the final norm


class Qwen2Audio(Whisper):
    """Frames are floor(ceil(L / 320) / 2), at least one: 25 a second, pairs of Whisper's, the odd one left out.

    As in `Qwen2AudioModel`, attention is masked to the true frames, the last layer's output is averaged in pairs and
    normalised. The layers before are at 50 frames/s in the model; here their pairs are averaged too, so that all kinds
    have one rate. Of the checkpoint (8 billion parameters) only the audio tower (0.6) is read.
    """

    def load(self, repo: str, revision: str | None) -> Any:
        from transformers import Qwen2AudioConfig, Qwen2AudioEncoder

        snapshot = snapshot_of(self.info, repo, revision)
        config: Any = Qwen2AudioConfig.from_pretrained(snapshot)
        return fill(Qwen2AudioEncoder(config.audio_config), "audio_tower.", self.info, snapshot)

    def frame_rate(self) -> float:
        return super().frame_rate() / 2

    def layers(self, piece: Tensor) -> list[Tensor]:
        heard = -(-len(piece) // self.hop())
        mel = self.features(piece).input_features
        made = self.model(mel, attention_mask=self._mask(heard), output_hidden_states=True)
        states = [self.model.avg_pooler(state.mT).mT for state in made.hidden_states[:-1]]
        return [state[0, : max(1, heard // 2)] for state in (*states, made.last_hidden_state)]

    def _mask(self, heard: int) -> Any:
        """The attention mask over `heard` of the window's positions, in the form that the model's attention takes."""
        from transformers.masking_utils import create_bidirectional_mask

        config = self.model.config
        positions = torch.arange(config.max_source_positions, device=self.device)[None]
        shape = torch.zeros(*positions.shape, 1, device=self.device)
        return create_bidirectional_mask(config=config, inputs_embeds=shape, attention_mask=(positions < heard).long())


class Ast(Encoder):
    """Frames are ceil(F / 10), 10 a second, of the F = floor((L - 400) / 160) + 1 windows (25 ms) of the spectrum.

    A frame is the mean over the 12 patches, from low to high, that begin at one time; each spans 160 ms. The two class
    tokens are left out: they have no time. The model hears 10.255 s, 101 frames; a longer clip is heard in pieces that
    begin every 10.1 s. A clip shorter than 400 samples is followed by zeros up to there and has one frame.
    """

    model_class = "ASTModel"
    WINDOW_S, HOP_S = 0.025, 0.010  # of the spectrum; torchaudio's Kaldi, with what it is given by the extractor

    def samples(self) -> tuple[int, int, int]:
        """Samples of a window of the spectrum, between windows, and between the model's frames: 400, 160, 1600."""
        window, hop = (round(seconds * self.extractor.sampling_rate) for seconds in (self.WINDOW_S, self.HOP_S))
        return window, hop, hop * int(self.model.config.time_stride)

    def frame_rate(self) -> float:
        return float(self.extractor.sampling_rate / self.samples()[2])

    def grid(self) -> tuple[int, int]:
        """Patches from low to high, and in time."""
        low_to_high, in_time = self.model.embeddings.get_shape(self.model.config)
        return int(low_to_high), int(in_time)

    def frames(self, length: int) -> int:
        """Frames that hold something of a clip of so many samples."""
        window, hop, step = self.samples()
        windows = (max(length, window) - window) // hop + 1
        return -(-windows // (step // hop))

    def pieces(self, clip: Tensor) -> list[Tensor]:
        window, hop, step = self.samples()
        clip = pad(clip, (0, max(0, window - len(clip))))
        heard, every = window + (int(self.model.config.max_length) - 1) * hop, self.grid()[1] * step
        count = -(-self.frames(len(clip)) // self.grid()[1])
        return [clip[i * every : i * every + heard] for i in range(count)]

    def layers(self, piece: Tensor) -> list[Tensor]:
        made = self.model(self.features(piece).input_values, output_hidden_states=True)
        kept = min(self.frames(len(piece)), self.grid()[1])
        states = (*made.hidden_states[:-1], made.last_hidden_state)
        return [state[0, 2:].unflatten(0, self.grid()).mean(0)[:kept] for state in states]


class Clap(Encoder):
    """Frames are ceil(L / 480000): one embedding of 512 for each started 10 s, of unit length, beside that of a text.

    A shorter clip is repeated to fill 10 s, as in training. Of a longer one the last 10 s end with the clip, so that
    every window is full; the published extractor would take a window at random. There are no layers.
    """

    model_class = "ClapAudioModelWithProjection"

    def frame_rate(self) -> float:
        if self.model.config.enable_fusion or self.extractor.truncation != "rand_trunc":
            raise ValueError(f"{self.info.name}: a fused CLAP hears random crops; expected an unfused checkpoint")
        return float(self.extractor.sampling_rate / self.extractor.nb_max_samples)

    def depth(self) -> int:
        return -1  # none that is in time

    def pieces(self, clip: Tensor) -> list[Tensor]:
        size = self.extractor.nb_max_samples
        last = max(0, len(clip) - size)
        return [clip[min(i * size, last) :][:size] for i in range(math.ceil(len(clip) / size))]

    def layers(self, piece: Tensor) -> list[Tensor]:
        mel = self.features(piece).input_features.float()
        return [normalize(self.model(mel).audio_embeds, dim=-1)]
