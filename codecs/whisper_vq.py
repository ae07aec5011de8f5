"""Tokenisers made of Whisper's encoder and a quantiser, four of its frames a token; each encodes only.

    GlmVoice  Zeng et al., "GLM-4-Voice: Towards Intelligent and Human-Like End-to-End Spoken Chatbot", 2024. The calls
              are those of github.com/THUDM/GLM-4-Voice, commit eb00ce9: speech_tokenizer/utils.py, line 40
              (`extract_speech_token`), and speech_tokenizer/modeling_whisper.py, line 1168 (`WhisperVQEncoder`).
    Baichuan  Li et al., "Baichuan-Audio: A Unified Framework for End-to-End Speech Interaction", 2025. The calls are
              those of github.com/baichuan-inc/Baichuan-Omni-1.5, commit 51f55ff, baichuan-omni/model, the code that the
              checkpoint ships: processor_omni.py, line 304 (`extract_fbank_features`), and audio_modeling_omni.py,
              lines 191 (`OmniAudioEncoder`) and 437 (`OmniAudioVQBridgeTokenizer`).

Their networks are built here of `transformers`' Whisper layers, under the names of the checkpoints: both come as code
that the hub would have to be trusted with, and Baichuan's imports flash-attn and deepspeed.

Both make sound by flow matching into a vocoder of their own (CosyVoice's), which is not run here.

Tried once, on thin random weights, beside upstream's own modules (attention in place of flash-attn's): all tokens of
clips of 1 sample to 31 s are equal, Baichuan's where a clip has whole frames.
"""

from __future__ import annotations

import abc
import json
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, silu

from earmark.codecs.contract import Info
from earmark.codecs.packaged import cached_files, tensors_of
from earmark.codecs.pretrained import ClipTokenizer, Measures

SAMPLE_RATE, HOP = 16000, 160  # of Whisper's mel spectrogram
SEGMENT = 30 * SAMPLE_RATE
FRAMES = 2  # mel frames of one of Whisper's


class _WhisperTokens(ClipTokenizer):
    """Frames are ceil(L / 1280): zeros fill the last frame of 80 ms. Every 30 s are heard alone, as upstream does."""

    prefix: str

    def __init__(self, info: Info, device: str, **options: Any) -> None:
        from transformers import WhisperFeatureExtractor

        super().__init__(info, device, **options)
        self.extractor = WhisperFeatureExtractor(feature_size=self.model.conv1.in_channels)

    @classmethod
    def load(cls, info: Info, repo: str, revision: str | None) -> Any:
        """The network with the checkpoint's tensors. Raises ValueError where one is not there."""
        (config,) = cached_files(info, repo, revision, ())
        model = cls.build(json.loads(config.read_text(encoding="utf-8")))
        missing = model.load_state_dict(tensors_of(info, repo, revision, cls.prefix), strict=False).missing_keys
        if missing:
            raise ValueError(f"{repo} lacks {len(missing)} tensors of {info.name}, such as {cls.prefix}{missing[0]}")
        return model

    @staticmethod
    @abc.abstractmethod
    def build(config: dict[str, Any]) -> Any:
        """The network of a checkpoint's config, with weights yet to come."""

    @abc.abstractmethod
    def heard(self, segment: Tensor) -> tuple[Tensor, ...]:
        """What the network is given for at most 30 s [L]: mel frames [1, M, F] and what else it takes."""

    def embed(self, clip: Tensor) -> Tensor:
        parts = [self.heard(segment) for segment in clip[0, 0].cpu().split(SEGMENT)]  # alike on every device
        return torch.cat([self.model(*(tensor.to(self.device) for tensor in part)) for part in parts], dim=-1)


class GlmVoice(_WhisperTokens):
    """D = 1280, the mean of four of Whisper's frames after its sixteenth layer; 'quantized' is the codebook's vector.

    Convolutions hear the past alone, attention the past and its own block of 4 s.
    """

    prefix = "model.encoder."

    @staticmethod
    def build(config: dict[str, Any]) -> GlmEncoder:
        return GlmEncoder(config)

    def measures(self) -> Measures:
        model = self.model
        return Measures(SAMPLE_RATE, HOP * FRAMES * model.pool, 1, 1, model.codebook.num_embeddings)

    def heard(self, segment: Tensor) -> tuple[Tensor, ...]:
        """Mel frames, with those that zeros alone fill masked [1, F]."""
        made = self.extractor(
            segment.numpy(), sampling_rate=SAMPLE_RATE, padding="longest", pad_to_multiple_of=self.hop,
            return_attention_mask=True, return_tensors="pt",
        )  # fmt: skip
        return made.input_features, made.attention_mask

    def quantise(self, latents: Tensor) -> Tensor:
        book, rows = self.model.codebook.weight, latents[0].T
        distances = torch.addmm(book.square().sum(1) + rows.square().sum(1, keepdim=True), rows, book.T, alpha=-2)
        return distances.argmin(dim=1)[None, None]

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.model.codebook(codes[:, 0]).transpose(1, 2)


class Baichuan(_WhisperTokens):
    """Eight residual codebooks, of 8192, 4096, 2048 and five times 1024.

    'unquantized' has D = 5120, four of Whisper's frames mixed; 'quantized' D = 1280, what the decoder is given.

    On whole frames this is the authors' call; they drop what is left over, here zeros fill it.
    """

    prefix = "audio_tokenizer."

    @staticmethod
    def build(config: dict[str, Any]) -> BaichuanEncoder:
        return BaichuanEncoder(config["audio_config"])

    def measures(self) -> Measures:
        books = self.model.codebooks
        sizes = tuple(len(book) for book in books)
        return Measures(SAMPLE_RATE, HOP * FRAMES * self.model.pool, 1, len(books), sizes)

    def heard(self, segment: Tensor) -> tuple[Tensor, ...]:
        """Mel frames, where 30 s leave room one more than there are hops."""
        whole = pad(segment, (0, -len(segment) % self.hop))
        made = self.extractor(whole.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        return (made[..., : len(whole) // HOP + 1],)

    def quantise(self, latents: Tensor) -> Tensor:
        codes, rest = [], latents[0].T
        for book in self.model.codebooks[: self.info.num_codebooks]:
            distances = (rest.square().sum(1, keepdim=True) + book.square().sum(1) - 2 * rest @ book.T).clamp(min=0)
            codes.append(distances.sqrt().argmin(dim=1))  # of the root, as upstream: rounding makes ties
            rest = rest - book[codes[-1]]
        return torch.stack(codes)[None]

    def dequantise(self, codes: Tensor) -> Tensor:
        vectors = [book[row] for book, row in zip(self.model.codebooks, codes[0], strict=False)]
        return self.model.audio_bridge_model.proj_decoder(sum(reversed(vectors)))[None].transpose(1, 2)


class GlmEncoder(nn.Module):
    """`WhisperVQEncoder` up to its quantiser: mel frames [1, M, 8 T], 1 where they are true [1, 8 T] -> [1, D, T]."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        expected = {"encoder_causal_convolution": True, "pooling_type": "avg", "encoder_causal_attention": False}
        wrong = [name for name, value in expected.items() if config[name] != value]
        if wrong or config["pooling_position"] != config["quantize_position"]:
            raise ValueError(
                f"not the released GLM-4-Voice tokenizer: {', '.join(wrong) or 'pooling_position'} differs"
            )
        size, self.pool = config["d_model"], config["pooling_kernel_size"]
        self.block = config["quantize_causal_block_size"]
        self.conv1 = nn.Conv1d(config["num_mel_bins"], size, 3)
        self.conv2 = nn.Conv1d(size, size, 3, stride=2)
        self.embed_positions = nn.Embedding(config["max_source_positions"], size)
        self.layers = _layers(config, config["quantize_position"])
        self.codebook = nn.Embedding(config["quantize_vocab_size"], size)

    def forward(self, mel: Tensor, true: Tensor) -> Tensor:
        states = gelu(self.conv2(pad(gelu(self.conv1(pad(mel, (2, 0)))), (2, 0)))).transpose(1, 2)
        frame = torch.arange(states.shape[1], device=mel.device)
        states = states + self.embed_positions(frame)
        block_end = (frame // self.block + 1) * self.block
        allowed = (frame[None] < block_end[:, None]) & true[0, ::FRAMES].bool()
        for layer in self.layers:
            states = layer(states, torch.where(allowed, 0.0, torch.finfo(states.dtype).min)[None, None])
        return nn.functional.avg_pool1d(states.transpose(1, 2), self.pool)


class BaichuanEncoder(nn.Module):
    """`OmniAudioEncoder` and the bridge up to its quantisers: mel frames [1, M, F] -> [1, D, T]."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size, self.pool = config["d_model"], config["avg_pooler"]
        positions = config["max_audio_seconds"] * config["sampling_rate"] // config["hop_length"] // FRAMES
        self.audio_model: Any = nn.Module()
        self.audio_model.conv1 = nn.Conv1d(config["num_mel_bins"], size, 3, padding=1)
        self.audio_model.conv2 = nn.Conv1d(size, size, 3, stride=2, padding=1)
        self.audio_model.register_buffer("positional_embedding", torch.empty(positions, size))
        self.audio_model.layers = _layers(config, config["encoder_layers"])
        self.audio_model.layer_norm = nn.LayerNorm(size)
        self.audio_bridge_model: Any = self.bridge(size, config["vq_config"]["codebook_sizes"])

    def bridge(self, size: int, codebook_sizes: list[int]) -> nn.Module:
        """What joins four frames, gated, and the quantisers' codebooks."""
        made, wide = nn.Module(), size * self.pool
        books = [nn.Module() for _ in codebook_sizes]
        made.gate_proj = nn.Conv1d(size, wide, self.pool, self.pool, bias=False)
        made.up_proj = nn.Conv1d(size, wide, self.pool, self.pool, bias=False)
        made.down_proj = nn.Linear(wide, wide, bias=False)
        made.layer_norm, made.proj_decoder = nn.LayerNorm(wide), nn.Linear(wide, size)
        made.vq_list = nn.ModuleList(nn.ModuleDict({"codebook": book}) for book in books)
        for book, entries in zip(books, codebook_sizes, strict=True):
            book.register_buffer("embed", torch.empty(entries, wide))
        return made

    @property
    def conv1(self) -> nn.Conv1d:
        return self.audio_model.conv1

    @property
    def codebooks(self) -> list[Tensor]:
        """[V_k, D] of each."""
        return [each["codebook"].embed for each in self.audio_bridge_model.vq_list]

    def forward(self, mel: Tensor) -> Tensor:
        encoder, bridge = self.audio_model, self.audio_bridge_model
        states = gelu(encoder.conv2(gelu(encoder.conv1(mel)))).transpose(1, 2)
        states = states + encoder.positional_embedding[: states.shape[1]]
        for layer in encoder.layers:
            states = layer(states, None)
        states = encoder.layer_norm(states)
        states = states[:, : states.shape[1] // self.pool * self.pool]  # the rest is in no frame
        across, whole = states.transpose(1, 2), states.reshape(1, -1, bridge.layer_norm.normalized_shape[0])
        gated = silu(bridge.gate_proj(across)) * bridge.up_proj(across)
        return bridge.layer_norm(bridge.down_proj(gated.transpose(1, 2)) + whole).transpose(1, 2)


def _layers(config: dict[str, Any], count: int) -> nn.ModuleList:
    """Whisper's encoder layers, without dropout."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

    names = ("d_model", "encoder_attention_heads", "encoder_ffn_dim")
    sizes: dict[str, Any] = {name: config[name] for name in names}
    whisper = WhisperConfig(**sizes, attn_implementation="sdpa")  # type: ignore[call-arg]
    return nn.ModuleList(WhisperEncoderLayer(whisper) for _ in range(count))
