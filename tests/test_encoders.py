"""What the encoders of `transformers` have in common, on thin random models read from a cache; and their rows.

What is not tried here: the real weights.
"""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from earmark.codecs import calls, registry
from earmark.codecs.contract import capabilities_of
from earmark.codecs.pretrained import WeightsMissing
from earmark.codecs.registry import catalogue

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from earmark.store.batches import equal_in_batches  # noqa: E402
from earmark.tests import thin_contract  # noqa: E402
from earmark.tests.thin_encoders import (  # noqa: E402, F401 (fixtures)  # noqa: E402
    REVISION,
    THIN,
    build,
    by_hand,
    cache_of_all,
    embed,
    frames_of,
    loader,
    noise,
    put,
)

ROWS = {
    name: entry
    for name, entry in catalogue().items()
    if entry.adapter.partition(":")[0].endswith((".spectrum_encoders", ".waveform_encoders"))
}
every = pytest.mark.parametrize("name", THIN)

pytestmark = pytest.mark.usefixtures("one_thread")


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


# How many frames.


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


@pytest.mark.parametrize("name", [name for name in THIN if name != "clap"])  # whose frames are of 10 s: 400 s a clip
def test_it_keeps_the_contract(name, load):
    adapter = load(name)
    failed = thin_contract.failures(adapter, adapter.info.latent_kinds)
    assert not failed, "\n".join(failed.values())


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
