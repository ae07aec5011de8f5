"""The encoders of `transformers`, on thin random models that keep the real rates and windows, read from a cache.

What is not tried here: the real weights.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earmark.codecs import calls, registry
from earmark.codecs.contract import Info, capabilities_of
from earmark.codecs.pretrained import WeightsMissing
from earmark.codecs.registry import catalogue

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from earmark.codecs.encoders import Encoder  # noqa: E402
from earmark.codecs.spectrum_encoders import Ast, Clap, Qwen2Audio, Whisper  # noqa: E402
from earmark.codecs.waveform_encoders import Data2VecAudio, Hubert, Wav2Vec2, WavLM  # noqa: E402
from earmark.store.batches import equal_in_batches  # noqa: E402

REVISION = "0123456789abcdef0123456789abcdef01234567"
ROWS = {
    name: entry for name, entry in catalogue().items() if entry.adapter.partition(":")[0].endswith("_encoders")
}  # fmt: skip

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


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def repository(name):
    """The random model that a repository holds, all weights of a size that matters (CLAP's begin near zero)."""
    torch.manual_seed(0)
    model = THIN[name].repository().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
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


@pytest.fixture
def load(cache, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache / "none"))
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


@every
def test_every_layer_is_the_library_s(name, load):
    clip = noise(THIN[name].rate * 2 + 77)
    adapter, expected = load(name), by_hand(name, clip)
    for kind, states in zip(THIN[name].kinds, [*expected, expected[-1]][-len(THIN[name].kinds) :], strict=True):
        found, frames = embed(adapter, clip, kind=kind)
        assert found.shape == (1, expected[-1].shape[1], int(frames[0]))
        torch.testing.assert_close(found[0].T, states[: int(frames[0])], rtol=1e-5, atol=1e-5)
    assert found.std() > 1e-3, "latents so alike that the tests below would prove nothing"


@every
def test_the_layers_differ_and_the_last_is_what_the_model_gives(name, load):
    adapter, clip = load(name), noise(THIN[name].rate)
    found = [embed(adapter, clip, kind=kind)[0] for kind in THIN[name].kinds]
    if len(found) > 1:
        assert torch.equal(found[-1], found[-2])
    assert not any(torch.equal(one, other) for one, other in itertools.pairwise(found[:-1]))


@pytest.mark.parametrize("name", [name for name in THIN if "stable" in name])
def test_the_last_layer_is_normalised_where_the_library_lists_it_before(name, load):
    """`hidden_states[-1]` of such a model is not its `last_hidden_state`; the norm makes one of the other."""
    model, adapter, clip = repository(name), load(name), noise(8000)
    values = THIN[name].extractor()(clip.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    with torch.inference_mode():
        made = model(values, output_hidden_states=True)
        normalised = model.encoder.layer_norm(made.hidden_states[-1])
    found, _ = embed(adapter, clip, kind="layer:2")
    torch.testing.assert_close(found[0].T, normalised[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found[0].T, made.hidden_states[-1][0], atol=1e-2)


def test_a_level_and_an_offset_are_taken_out_where_the_checkpoint_says_so(load):
    clip = noise(8000)
    for name, same in {"hubert": True, "wavlm": False}.items():
        adapter = load(name)
        plain, other = embed(adapter, clip)[0], embed(adapter, 0.25 * clip + 0.3)[0]
        assert torch.allclose(plain, other, atol=1e-3) is same


# How many frames.


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


@every
@pytest.mark.parametrize(
    "length", ["1", "2", "hop - 1", "hop", "hop + 1", "399", "400", "401", "719", "720", "2 s + 7"]
)
def test_frames_are_as_the_docstring_says(name, length, load):
    hop, rate = THIN[name].hop, THIN[name].rate
    named = {"hop - 1": hop - 1, "hop": hop, "hop + 1": hop + 1, "2 s + 7": 2 * rate + 7}
    samples = named.get(length) or int(length)
    found, frames = embed(load(name), noise(samples))
    assert frames.tolist() == [frames_of(name, samples)]
    assert found.shape == (1, THIN[name].size, frames[0])
    assert bool(torch.isfinite(found).all())


@every
def test_the_measured_rate_is_the_declared_one(name, load):
    seconds = 40 if name == "clap" else 20
    _, frames = embed(load(name), noise(seconds * THIN[name].rate))
    assert abs(int(frames[0]) - seconds * THIN[name].frame_rate) <= 1


@every
@pytest.mark.parametrize("wav", ["silence", "dc", "full scale"])
def test_dull_clips_are_heard(name, wav, load):
    clip = {"silence": torch.zeros(9000), "dc": torch.full((9000,), 0.5), "full scale": noise(9000).sign()}[wav]
    assert bool(torch.isfinite(embed(load(name), clip)[0]).all())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@every
def test_what_is_not_a_number_is_refused(name, value, load):
    clip = noise(9000)
    clip[5000] = value
    with pytest.raises(calls.CodecError, match="NaN or infin"):
        embed(load(name), clip)


# One clip is one clip.


@every
def test_a_batch_is_its_clips_whatever_lies_beyond_them(name, load):
    adapter = load(name)
    clips = [noise(length, seed) for seed, length in enumerate((9000, 24000, 100))]
    together, frames = embed(adapter, *clips, beyond=1.0)
    for found, count, clip in zip(together, frames.tolist(), clips, strict=True):
        alone, _ = embed(adapter, clip)
        assert torch.equal(found[:, :count], alone[0])
        assert not found[:, count:].any()


@every
def test_the_store_batches_them(name, load):
    adapter = load(name)
    entry = registry.Entry(info=adapter.info, adapter="x:X")
    assert equal_in_batches(adapter, entry, "cpu", "latents")


@every
def test_neither_seed_nor_run_nor_global_state_matters(name, load):
    adapter, clip = load(name), noise(9000)
    torch.manual_seed(1)
    np.random.seed(1)
    state, first = torch.get_rng_state(), embed(adapter, clip, seed=0)[0]
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(first, embed(adapter, clip, seed=1)[0])
    assert not adapter.model.training
    assert not any(parameter.requires_grad for parameter in adapter.model.parameters())
    assert {parameter.dtype for parameter in adapter.model.parameters()} == {torch.float32}


# Clips beyond a window.


@pytest.mark.parametrize("name", ["whisper", "qwen2-audio"])
def test_beyond_thirty_seconds_each_piece_is_heard_by_itself(name, load):
    adapter, clip = load(name), noise(30 * 16000 + 5000)
    found, frames = embed(adapter, clip)
    assert frames.tolist() == [frames_of(name, len(clip))]
    parts = [embed(adapter, part)[0] for part in clip.split(30 * 16000)]
    assert torch.equal(found, torch.cat(parts, dim=2))


def test_ast_hears_a_long_clip_without_a_seam(load):
    """Frame 101 is the first of the second piece; the patches before and after hold what they hold in the whole."""
    adapter, clip = load("ast"), noise(25 * 16000)
    found, frames = embed(adapter, clip)
    assert frames.tolist() == [frames_of("ast", len(clip))] == [250]
    second, _ = embed(adapter, clip[101 * 1600 :][: 400 + 1023 * 160])
    torch.testing.assert_close(found[:, :, 101:202], second[:, :, :101], rtol=0, atol=1e-5)
    for length in (164079, 164080, 164081, 161600 + 2400, 161600 + 239, 161600 + 240, 323200 + 400):
        assert embed(adapter, noise(length))[1].tolist() == [frames_of("ast", length)]


def test_clap_hears_full_windows_the_last_at_the_end(load):
    adapter, clip = load("clap"), noise(23 * 48000)
    found, frames = embed(adapter, clip)
    assert frames.tolist() == [3]
    parts = [embed(adapter, clip[start:][:480000])[0] for start in (0, 480000, 13 * 48000)]
    assert torch.equal(found, torch.cat(parts, dim=2))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(1, 3))


def test_a_clap_that_draws_at_random_is_refused(load):
    extractor = transformers.ClapFeatureExtractor()  # truncation "fusion"
    info = Info(name="fused", sample_rate=48000, frame_rate=0.1, latent_kinds=("unquantized",))
    with pytest.raises(ValueError, match="fused: a fused CLAP hears random crops; expected an unfused checkpoint"):
        Clap(info, "cpu", model=load("clap").model, extractor=extractor)


# What is refused, and what is said.


def test_another_kind_is_refused(load):
    with pytest.raises(calls.CodecError, match="thin-hubert has no latents 'layer:7', only layer:0, layer:1, layer:2"):
        embed(load("hubert"), noise(4000), kind="layer:7")


@pytest.mark.parametrize("wrong", [{"frame_rate": 49}, {"sample_rate": 24000}])
@pytest.mark.parametrize("name", ["hubert", "whisper", "ast", "clap"])
def test_a_row_with_other_rates_is_refused(name, wrong, load):
    with pytest.raises(ValueError, match=f"thin-{name}: sample rate and frame rate are .*, the model's are"):
        load(name, **wrong)


def test_a_row_with_layers_that_the_model_lacks_is_refused(load):
    with pytest.raises(ValueError, match=r"thin-wavlm: latent kinds \['layer:3'\] are not the model's"):
        load("wavlm", latent_kinds=("layer:3", "unquantized"))


def test_weights_that_are_missing_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    command = f"hf download org/hubert --revision {REVISION}"
    with pytest.raises(WeightsMissing, match=f"codec thin-hubert: weights of org/hubert missing; run: {command}"):
        build("hubert")
    put("hubert", tmp_path / "hub", model=False)  # a download that was interrupted
    with pytest.raises(WeightsMissing, match=command):
        build("hubert")


@every
def test_a_file_that_lacks_a_tensor_is_refused(name, tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file

    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    path = put(name, tmp_path / "hub") / "model.safetensors"
    tensors = load_file(path)
    gone = min(key for key in tensors if re.search(r"(encoder|audio_tower)\.", key) and re.search(r"layers?\.0\.", key))
    save_file({key: tensors[key] for key in tensors if key != gone}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"codec thin-{name}: .*org.+{name} lacks 1 tensors"):
        build(name)


@pytest.mark.parametrize("name", ["hubert", "wavlm-stable", "data2vec"])
def test_a_repository_of_the_time_before_safetensors_is_read(name, tmp_path, monkeypatch, load):
    """As HuBERT's and WavLM's are: pytorch_model.bin, with weight normalisation under its old names."""
    expected = embed(load(name), noise(9000))[0]
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    snapshot = put(name, tmp_path / "hub")
    (snapshot / "model.safetensors").unlink()
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    tensors = {}
    for key, tensor in repository(name).state_dict().items():
        tensors[functools.reduce(lambda done, new: done.replace(new, old[new]), old, key)] = tensor.clone()
    torch.save(tensors, snapshot / "pytorch_model.bin")
    assert torch.equal(embed(build(name, revision=None), noise(9000))[0], expected)


# The catalogue: every row against the config of its checkpoint (the parts that count).

LARGE = {"num_hidden_layers": 24, "do_stable_layer_norm": True}
HUB = {
    "hubert-base": transformers.HubertConfig(),
    "hubert-large": transformers.HubertConfig(**LARGE),
    "wavlm-base-plus": transformers.WavLMConfig(),
    "wavlm-large": transformers.WavLMConfig(**LARGE),
    "wav2vec2-base": transformers.Wav2Vec2Config(),
    "wav2vec2-large": transformers.Wav2Vec2Config(**LARGE),
    "data2vec-audio-base": transformers.Data2VecAudioConfig(),
    "data2vec-audio-large": transformers.Data2VecAudioConfig(num_hidden_layers=24),
    "whisper-base": transformers.WhisperConfig(encoder_layers=6),
    "whisper-small": transformers.WhisperConfig(encoder_layers=12),
    "qwen2-audio": transformers.Qwen2AudioEncoderConfig(),
    "ast-audioset": transformers.ASTConfig(),
    "clap": transformers.ClapAudioConfig(),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_agrees_with_its_model(name):
    """Built without weights: the network on the meta device, the published extractor."""
    entry, config = ROWS[name], next(config for part, config in HUB.items() if name.startswith(part))
    cls = registry._import_adapter(entry.adapter)
    family = next(thin for thin in THIN.values() if thin.adapter is cls)
    adapter = object.__new__(cls)
    adapter.info, adapter.extractor = entry.info, family.extractor()
    adapter.model = type("Model", (), {"config": config})()
    adapter._agree()
    assert entry.info.latent_kinds == adapter.kinds()
    assert entry.info.latent_kinds[-1] == "unquantized"  # what distances between distributions are measured by
    assert set(entry.info.capabilities) == set(capabilities_of(cls)) == {"embed"}
    assert entry.proved == "random"
    assert entry.paper
    assert entry.checkpoint.revision is None or len(entry.checkpoint.revision) == 40


def test_the_catalogue_has_the_encoders_of_the_papers():
    families = {entry.family for entry in ROWS.values()}
    assert families == {"hubert", "wavlm", "wav2vec2", "data2vec", "whisper", "qwen2-audio", "ast-audioset", "clap"}


# Modules in the form of HEAR and classes in that of X-ARES.

HEAR_MODULE = '''
import torch

class Model(torch.nn.Module):
    sample_rate, scene_embedding_size, timestamp_embedding_size = {rate}, 3, 4

    def __init__(self, gain):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((1, 4), gain))

def load_model(model_file_path="", gain=2.0):
    return Model(gain)

def get_timestamp_embeddings(audio, model):
    """Energies of hops of 50 ms, centred."""
    hops = torch.nn.functional.pad(audio, (0, -audio.shape[1] % 400)).unflatten(1, (-1, 400))
    times = (torch.arange(hops.shape[1]) * {hop_ms} + 25.0).expand(len(audio), -1)
    return hops.square().mean(2, keepdim=True) * model.weight, times

def get_scene_embeddings(audio, model):
    return get_timestamp_embeddings(audio, model)[0].mean(1)[:, :3]
'''

XARES_MODULE = '''
import torch

class MeanEncoder(torch.nn.Module):
    def __init__(self, channels=2):
        super().__init__()
        self.sampling_rate, self.output_dim, self.hop_size_in_ms = 8000, {said}, 40
        self.register_buffer("gain", torch.arange(1.0, channels + 1))

    def forward(self, audio):
        """Means of hops of 40 ms, the last not whole."""
        hops = torch.nn.functional.pad(audio, (0, -audio.shape[-1] % 320)).unflatten(-1, (-1, 320))
        return hops.mean(-1, keepdim=True) * self.gain

class Bare(torch.nn.Module):
    pass
'''

OWN_FILE = """
from earmark.codecs.hear import Hear, HearScene, Xares
Energy = Hear.of("{hear}", name="energy", sample_rate=8000, frame_rate=20, options={{"gain": 3.0}}, domains=("speech",))
Scene = HearScene.of("{hear}", name="scene", sample_rate=8000)
Rateless = Hear.of("{hear}", name="rateless", sample_rate=8000)
Mean = Xares.of("{xares}:MeanEncoder", name="mean", sample_rate=8000, frame_rate=25)
Slow = Xares.of("{xares}:MeanEncoder", name="slow", sample_rate=8000, frame_rate=20)
Wide = Xares.of("{xares}:MeanEncoder", name="wide", sample_rate=16000, frame_rate=25)
Bare = Xares.of("{xares}:Bare", name="bare", sample_rate=16000, frame_rate=25)
Classless = Xares.of("{xares}", name="classless", sample_rate=16000, frame_rate=25)
"""


@pytest.fixture
def own(tmp_path, monkeypatch, request):
    """A function that writes a user's files and finds what they name; every test has modules of its own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    tag = re.sub(r"\W+", "_", request.node.name)

    def entry(name, *, rate=8000, hop_ms=50.0, said=2):
        hear, xares, file = f"hear_{tag}", f"xares_{tag}", f"own_{tag}"
        Path(tmp_path, f"{hear}.py").write_text(HEAR_MODULE.format(rate=rate, hop_ms=hop_ms))
        Path(tmp_path, f"{xares}.py").write_text(XARES_MODULE.format(said=said))
        Path(tmp_path, f"{file}.py").write_text(OWN_FILE.format(hear=hear, xares=xares))
        return registry.find(f"{file}:{name}")

    return entry


def test_a_hear_module_loads_as_it_is(own):
    entry = own("Energy")
    assert (entry.name, entry.info.capabilities, entry.info.domains) == ("energy", ("embed",), ("speech",))
    assert entry.info.latent_kinds == ("unquantized",)
    adapter = registry.load(entry, "cpu")
    clip = torch.cat([torch.full((400,), 0.5), torch.full((400,), 1.0), torch.zeros(100)])
    found, frames = embed(adapter, clip)
    # energies 1/4, 1 and 0, times the gain of 3
    assert frames.tolist() == [3]
    assert found[0].tolist() == [[0.75, 3.0, 0.0]] * 4
    assert not adapter.model.weight.requires_grad


def test_the_scene_of_a_hear_module_is_one_embedding_a_clip(own):
    entry = own("Scene")
    assert entry.info.frame_rate is None
    clip = torch.cat([torch.full((400,), 0.5), torch.full((400,), 1.0), torch.zeros(100)])
    found, frames = embed(registry.load(entry, "cpu"), clip)
    # the mean of 1/4, 1 and 0, times the gain of 2
    assert frames.tolist() == [1]
    assert found[0].flatten().tolist() == pytest.approx([5 / 6] * 3)


def test_an_xares_encoder_loads_as_it_is(own):
    adapter = registry.load(own("Mean"), "cpu")
    clip = torch.cat([torch.full((320,), 0.5), torch.full((320,), 0.25), torch.full((160,), 1.0)])
    found, frames = embed(adapter, clip)
    # means, the last half of zeros, times the gains of 1 and 2
    assert frames.tolist() == [3]
    assert found[0].tolist() == [[0.5, 0.25, 0.5], [1.0, 0.5, 1.0]]


@pytest.mark.parametrize("name", ["Energy", "Scene", "Mean"])
def test_such_an_encoder_hears_one_clip_at_a_time(own, name):
    entry = own(name)
    adapter, clips = registry.load(entry, "cpu"), [noise(length) for length in (1000, 4000, 1)]
    together, frames = embed(adapter, *clips, beyond=1.0)
    for found, count, clip in zip(together, frames.tolist(), clips, strict=True):
        assert torch.equal(found[:, :count], embed(adapter, clip)[0][0])
    with pytest.raises(calls.CodecError, match="has no latents 'quantized', only"):
        embed(adapter, noise(500), kind="quantized")


@pytest.mark.parametrize("name", ["Energy", "Mean"])
def test_its_source_and_its_weights_are_in_its_fingerprint(own, name, tmp_path):
    from earmark.store.fingerprint import of_adapter

    def fingerprint():
        return of_adapter(entry, adapter)

    entry = own(name)
    adapter = registry.load(entry, "cpu")
    before = fingerprint()
    assert before is not None
    assert registry.load(entry, "cpu").source == adapter.source
    next(iter(adapter.model.state_dict().values())).mul_(2)
    assert fingerprint() not in (None, before)
    next(iter(adapter.model.state_dict().values())).div_(2)
    assert fingerprint() == before
    for path in tmp_path.glob("*ares_*.py" if name == "Mean" else "hear_*.py"):
        path.write_text(path.read_text() + "\n# changed")
    assert registry.load(entry, "cpu").source != adapter.source


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Slow", "slow: the frame rate is said to be 20.0, .*:MeanEncoder has 25"),
        ("Wide", "wide: the sample rate is said to be 16000, .* has 8000"),
        ("Bare", "bare: .*:Bare has no sampling_rate and no output_dim and no hop_size_in_ms"),
        ("Classless", "classless: .* names no class; expected package.module:Class"),
    ],
)
def test_an_xares_encoder_that_is_not_as_said_is_refused(own, name, message):
    with pytest.raises(ValueError, match=message):
        registry.load(own(name), "cpu")


def test_an_xares_encoder_of_another_size_than_it_says_fails(own):
    adapter = registry.load(own("Mean", said=5), "cpu")
    with pytest.raises(calls.CodecError, match="returned embeddings of 2, it says 5"):
        embed(adapter, noise(4000))


def test_a_hear_module_at_another_rate_is_refused(own):
    with pytest.raises(ValueError, match=r"energy: the sample rate is said to be 8000, .* has 16000"):
        registry.load(own("Energy", rate=16000), "cpu")


def test_a_hear_module_with_other_timestamps_fails(own):
    adapter = registry.load(own("Energy", hop_ms=100.0), "cpu")
    with pytest.raises(calls.CodecError, match=r"energy: the frame rate is said to be 20.0, .* has 10"):
        embed(adapter, noise(4000))
    adapter = registry.load(own("Rateless"), "cpu")
    with pytest.raises(calls.CodecError, match=r"rateless: the frame rate is said to be None, .* has 10"):
        embed(adapter, noise(4000))


# Dasheng, where its package is installed (pip install dasheng).

DASHENG = {"embed_dim": 16, "depth": 2, "num_heads": 2}


@pytest.fixture
def dasheng(tmp_path, monkeypatch):
    """The authors' network with random weights, what loads the adapter from a cache that holds it, and its folder."""
    network = pytest.importorskip("dasheng.pretrained.pretrained").Dasheng
    from safetensors.torch import save_file

    from earmark.codecs.dasheng import Dasheng

    torch.manual_seed(0)
    model = network(**DASHENG).eval()
    snapshot = tmp_path / "hub" / "models--org--dasheng" / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    named = {f"encoder.{key}": part for key, part in model.state_dict().items() if not key.startswith("front_end")}
    save_file(named | {"outputlayer.weight": torch.zeros(2)}, snapshot / "model.safetensors")
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    kinds = ("layer:0", "layer:1", "layer:2", "unquantized")
    info = Info(name="thin-dasheng", sample_rate=16000, frame_rate=25, latent_kinds=kinds)
    return model, lambda: Dasheng(info, "cpu", repo="org/dasheng", revision=REVISION, size=DASHENG), snapshot


def test_dasheng_is_its_package_s(dasheng):
    model, load, _ = dasheng
    adapter, clip = load(), noise(25 * 16000 + 77)  # three pieces
    with torch.inference_mode():
        expected = model(clip[None])
    for kind in ("unquantized", "layer:2"):
        found, frames = embed(adapter, clip, kind=kind)
        assert torch.equal(found[0].T, expected[0])
        assert frames.tolist() == [625]
    with torch.inference_mode():
        patches = model.patch_embed(model.forward_to_spec(clip[None]))[..., :252]
        entered = (patches + model.time_pos_embed + model.freq_pos_embed)[0, :, 0].T
        through = model.blocks[0](entered[None])[0]
    torch.testing.assert_close(embed(adapter, clip, kind="layer:0")[0][0, :, :252].T, entered)
    torch.testing.assert_close(embed(adapter, clip, kind="layer:1")[0][0, :, :252].T, through)


@pytest.mark.parametrize(
    "length", [1, 256, 479, 480, 639, 640, 1119, 1120, 16000, 10 * 16000 + 1280, 10 * 16000 + 1281]
)
def test_dasheng_frames(dasheng, length):
    found, frames = embed(dasheng[1](), noise(length))
    assert frames.tolist() == [(max(length, 480) // 160 + 1) // 4]
    assert found.shape == (1, 16, frames[0])
    assert bool(torch.isfinite(found).all())


def test_dasheng_hears_each_clip_alone(dasheng):
    adapter, clips = dasheng[1](), [noise(length, seed) for seed, length in enumerate((9000, 24000, 100))]
    together, frames = embed(adapter, *clips, beyond=1.0)
    for found, count, clip in zip(together, frames.tolist(), clips, strict=True):
        assert torch.equal(found[:, :count], embed(adapter, clip)[0][0])


def test_dasheng_s_weights_must_be_whole(dasheng):
    from safetensors.torch import load_file, save_file

    _, load, snapshot = dasheng
    tensors = load_file(snapshot / "model.safetensors")
    del tensors["encoder.norm.weight"]
    save_file(tensors, snapshot / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks 1 tensors of Dasheng and has 0 too many, such as norm.weight"):
        load()
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(WeightsMissing, match=f"hf download org/dasheng --revision {REVISION}"):
        load()


@pytest.mark.parametrize(("name", "depth"), [("dasheng-base", 12), ("dasheng-06b", 32)])
def test_dasheng_s_rows_have_its_layers(name, depth):
    """Sizes as in the package's own `dasheng_base` and `dasheng_06B`."""
    entry = catalogue()[name]
    assert entry.options["size"]["depth"] == depth
    assert entry.info.latent_kinds == (*(f"layer:{i}" for i in range(depth + 1)), "unquantized")
    assert entry.info.frame_rate == 16000 / (160 * 4)
