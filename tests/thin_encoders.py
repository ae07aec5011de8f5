"""Thin random encoders of `transformers` that keep the real rates and windows, in a cache as downloads leave it.

What several test files share: the models by family, the library's own way by hand, clips, and the fixtures `load`
(builds an encoder out of the cache by its family's name) and `one_thread`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from earmark.codecs import calls
from earmark.codecs.contract import Info

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from earmark.codecs.encoders import Encoder  # noqa: E402
from earmark.codecs.spectrum_encoders import Ast, Clap, Qwen2Audio, Whisper  # noqa: E402
from earmark.codecs.waveform_encoders import Data2VecAudio, Hubert, Wav2Vec2, WavLM  # noqa: E402

REVISION = "0123456789abcdef0123456789abcdef01234567"

WAVEFORM = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0,
}  # fmt: skip
STABLE = WAVEFORM | {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
WHISPER = {
    "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "num_mel_bins": 16,
}  # fmt: skip
TEXT = {
    "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 8, "vocab_size": 32, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip


def wav2vec2_extractor(**options):
    return transformers.Wav2Vec2FeatureExtractor(**{"do_normalize": True, "return_attention_mask": False} | options)


def whisper_extractor():
    return transformers.WhisperFeatureExtractor(feature_size=16)


def qwen2_audio():
    config = transformers.Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **WHISPER},
        text_config={"model_type": "qwen2", **TEXT},
        audio_token_index=1,
    )
    return transformers.Qwen2AudioForConditionalGeneration(config)


def whisper():
    config = transformers.WhisperConfig(
        **WHISPER, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16, vocab_size=32, pad_token_id=0,
        bos_token_id=0, eos_token_id=0, decoder_start_token_id=0, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    return transformers.WhisperForConditionalGeneration(config)


def ast():
    config = transformers.ASTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    return transformers.ASTForAudioClassification(config)


def clap():
    config = transformers.ClapAudioConfig(
        patch_embeds_hidden_size=8, hidden_size=64, depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1],
        enable_fusion=False, projection_dim=16,
    )  # fmt: skip
    text = transformers.ClapTextConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=32
    )
    both = transformers.ClapConfig(audio_config=config.to_dict(), text_config=text.to_dict(), projection_dim=16)
    return transformers.ClapModel(both)


@dataclass(frozen=True)
class Thin:
    """A family's class, the model and the extractor that its repository holds, and what its Info says."""

    adapter: type[Encoder]
    repository: Any
    extractor: Any
    rate: int = 16000
    frame_rate: float = 50
    layers: int | None = 2
    size: int = 16

    @property
    def kinds(self) -> tuple[str, ...]:
        count = 0 if self.layers is None else self.layers + 1
        return (*(f"layer:{i}" for i in range(count)), "unquantized")

    @property
    def hop(self) -> int:
        return round(self.rate / self.frame_rate)


THIN = {
    "hubert": Thin(Hubert, lambda: transformers.HubertModel(transformers.HubertConfig(**WAVEFORM)), wav2vec2_extractor),
    "hubert-stable": Thin(
        Hubert, lambda: transformers.HubertModel(transformers.HubertConfig(**STABLE)), wav2vec2_extractor
    ),
    "wavlm": Thin(
        WavLM,
        lambda: transformers.WavLMModel(transformers.WavLMConfig(**WAVEFORM)),
        functools.partial(wav2vec2_extractor, do_normalize=False),
    ),
    "wavlm-stable": Thin(
        WavLM, lambda: transformers.WavLMModel(transformers.WavLMConfig(**STABLE)), wav2vec2_extractor
    ),
    "wav2vec2": Thin(
        Wav2Vec2,
        lambda: transformers.Wav2Vec2ForPreTraining(
            transformers.Wav2Vec2Config(
                **WAVEFORM, codevector_dim=8, proj_codevector_dim=8, num_codevectors_per_group=4
            )
        ),
        wav2vec2_extractor,
    ),
    "wav2vec2-stable": Thin(
        Wav2Vec2, lambda: transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**STABLE)), wav2vec2_extractor
    ),
    "data2vec": Thin(
        Data2VecAudio,
        lambda: transformers.Data2VecAudioModel(transformers.Data2VecAudioConfig(**WAVEFORM)),
        wav2vec2_extractor,
    ),
    "whisper": Thin(Whisper, whisper, whisper_extractor),
    "qwen2-audio": Thin(Qwen2Audio, qwen2_audio, whisper_extractor, frame_rate=25),
    "ast": Thin(Ast, ast, transformers.ASTFeatureExtractor, frame_rate=10),
    "clap": Thin(
        Clap,
        clap,
        functools.partial(transformers.ClapFeatureExtractor, truncation="rand_trunc"),
        rate=48000,
        frame_rate=0.1,
        layers=None,
    ),
}
CONVOLUTIONS = [name for name in THIN if THIN[name].adapter.__bases__[0].__name__ == "_Waveform"]
every = pytest.mark.parametrize("name", THIN)


@functools.cache
def repository(name):
    """The random model that a repository holds, all weights of a size that matters (CLAP's begin near zero)."""
    torch.manual_seed(0)
    model = THIN[name].repository().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


@pytest.fixture(scope="module", name="thin_cache")
def cache_of_all(tmp_path_factory):
    """A hub cache with all the thin models, as downloads leave it: each as org/<name>."""
    home = tmp_path_factory.mktemp("home")
    for name in THIN:
        put(name, home / "hub")
    return home


def put(name, hub, model=True):
    folder = hub / f"models--org--{name}"
    snapshot = folder / "snapshots" / REVISION
    if model:
        repository(name).save_pretrained(snapshot)
    THIN[name].extractor().save_pretrained(snapshot)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(REVISION)
    return snapshot


@pytest.fixture(name="load")
def loader(thin_cache, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(thin_cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(thin_cache / "none"))
    return lambda name, **info: build(name, **info)


def build(name, revision: str | None = REVISION, **info):
    thin = THIN[name]
    said = {"sample_rate": thin.rate, "frame_rate": thin.frame_rate, "latent_kinds": thin.kinds} | info
    return thin.adapter(Info(name=f"thin-{name}", **said), "cpu", repo=f"org/{name}", revision=revision)


def noise(length, seed=0):
    """Noise [L] whose level changes every 50 ms."""
    generator = np.random.default_rng(seed)
    gain = generator.random(-(-length // 1200)).repeat(1200)[:length]
    return torch.from_numpy((0.3 * gain * generator.standard_normal(length)).astype(np.float32))


def embed(adapter, *clips, kind="unquantized", beyond=0.0, seed=0):
    """Latents and frames of clips [L], as one batch; beyond each clip lies `beyond`."""
    batch = torch.full((len(clips), 1, max(map(len, clips))), beyond)
    for row, clip in zip(batch, clips, strict=True):
        row[0, : len(clip)] = clip
    return calls.latents(adapter, adapter.info, batch, torch.tensor([len(clip) for clip in clips]), kind, seed)


# The library's own way, by hand.


def by_hand(name, clip):
    """All layers [T, D] of one clip of at most one window, as the library's documentation computes them."""
    thin, model = THIN[name], repository(name)
    made = thin.extractor()(clip.numpy(), sampling_rate=thin.rate, return_tensors="pt", **EXTRA.get(name, {}))
    with torch.inference_mode():
        return HAND.get(name, waveform_by_hand)(model, made)


def waveform_by_hand(model, made):
    model = getattr(model, "wav2vec2", model)
    out = model(made.input_values, output_hidden_states=True)
    return [*(state[0] for state in out.hidden_states[:-1]), out.last_hidden_state[0]]


def whisper_by_hand(model, made):
    out = model.model.encoder(made.input_features, output_hidden_states=True)
    return [state[0] for state in out.hidden_states]


def qwen2_by_hand(model, made):
    """Through the whole model: what its projector, an identity here, is given; then the layers from its encoder."""
    tower, given = model.model.audio_tower, []
    hook = tower.register_forward_hook(lambda module, args, kwargs, out: given.append((kwargs, out)), with_kwargs=True)
    count = int((made.attention_mask.sum() - 1) // 2 + 1)
    tokens = torch.ones(1, max(1, count // 2), dtype=torch.long)
    model(input_ids=tokens, input_features=made.input_features, feature_attention_mask=made.attention_mask,
          attention_mask=torch.ones_like(tokens))  # fmt: skip
    hook.remove()
    kwargs, out = given[0]
    states = tower(made.input_features, **kwargs, output_hidden_states=True).hidden_states
    pairs = [(state[0, 0::2] + state[0, 1::2]) / 2 for state in states[:-1]]
    return [*pairs, out.last_hidden_state[0]]


def ast_by_hand(model, made):
    model = model.audio_spectrogram_transformer
    out = model(made.input_values, output_hidden_states=True)
    states = [*out.hidden_states[:-1], out.last_hidden_state]
    return [state[0, 2:].reshape(12, 101, -1).mean(0) for state in states]


def clap_by_hand(model, made):
    return [model.get_audio_features(made.input_features.float()).pooler_output]


EXTRA: dict[str, dict] = {"qwen2-audio": {"return_attention_mask": True}}
HAND = {
    "whisper": whisper_by_hand, "qwen2-audio": qwen2_by_hand, "ast": ast_by_hand, "clap": clap_by_hand,
}  # fmt: skip


def frames_of(name, length):
    """The law, by hand."""
    if name in CONVOLUTIONS:
        return (max(length, 400) - 400) // 320 + 1
    if name == "ast":
        return math.ceil(((max(length, 400) - 400) // 160 + 1) / 10)
    if name == "qwen2-audio":
        whole, rest = divmod(length, 480000)
        return whole * 750 + (max(1, math.ceil(rest / 320) // 2) if rest else 0)
    return math.ceil(length / THIN[name].hop)
