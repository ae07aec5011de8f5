"""Vocos on EnCodec's codes, on thin random models of the package's and the library's own classes (no real weights)."""

import functools
import warnings

import pytest
import yaml

from earmark.codecs import calls, pretrained, registry
from earmark.codecs.contract import Info
from earmark.codecs.encodec import Encodec
from earmark.codecs.registry import Checkpoint, catalogue
from earmark.tests.batch_invariance import assert_a_batch_is_its_clips

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("vocos", reason="needs the package: pip install vocos")

from earmark.codecs import vocos  # noqa: E402
from earmark.tests import thin_contract  # noqa: E402

pytestmark = pytest.mark.usefixtures("inference")
REVISION = "0123456789abcdef0123456789abcdef01234567"

# huggingface.co/charactr/vocos-encodec-24khz, config.yaml, is configs/vocos-encodec.yaml of the repository, line 36,
# with `dim: 384`, `intermediate_dim: 1152` and `num_layers: 8`.
CONFIG = {
    "feature_extractor": {
        "class_path": "vocos.feature_extractors.EncodecFeatures",
        "init_args": {"encodec_model": "encodec_24khz", "bandwidths": [1.5, 3.0, 6.0, 12.0]},
    },
    "backbone": {
        "class_path": "vocos.models.VocosBackbone",
        "init_args": {
            "input_channels": 128, "dim": 16, "intermediate_dim": 32, "num_layers": 2, "adanorm_num_embeddings": 4
        },
    },
    "head": {
        "class_path": "vocos.heads.ISTFTHead",
        "init_args": {"dim": 16, "n_fft": 1280, "hop_length": 320, "padding": "same"},
    },
}  # fmt: skip


@functools.cache
def encodec():
    torch.manual_seed(0)
    config = transformers.EncodecConfig(num_filters=2, num_lstm_layers=1)
    model = transformers.EncodecModel(config).eval()
    residual = model.encoder(noise(32000))
    for layer in model.quantizer.layers[:16]:
        layer.codebook.embed.copy_(residual[0].T[torch.randint(residual.shape[-1], (1024,))] * torch.rand(1024, 1))
        residual = residual - layer.decode(layer.encode(residual))
    return model


@functools.cache
def codebooks():
    """Vocos's copy of them is that of EnCodec; these are others, so that a test can tell which are looked up."""
    return torch.randn(16 * 1024, 128, generator=torch.Generator().manual_seed(3))


@functools.cache
def vocoder():
    torch.manual_seed(1)
    made = vocos.build(CONFIG, codebooks())
    for norm in made.backbone.modules():
        if type(norm).__name__ == "AdaLayerNorm":  # which begins alike for every bandwidth
            norm.scale.weight.copy_(torch.rand(norm.scale.weight.shape))
    return made


@functools.cache
def package():
    """The package's own model with the same weights; its EnCodec is built and not downloaded."""
    from encodec import EncodecModel
    from vocos import Vocos
    from vocos.feature_extractors import EncodecFeatures

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch's older weight_norm, which Meta's EnCodec uses
        thin = functools.partial(EncodecModel.encodec_model_24khz, pretrained=False)
        patch.setattr(EncodecModel, "encodec_model_24khz", lambda pretrained: thin())
        features = EncodecFeatures("encodec_24khz", [1.5, 3.0, 6.0, 12.0])
    features.codebook_weights.copy_(codebooks())
    return Vocos(features, vocoder()["backbone"], vocoder()["head"]).eval()


def info_of(count=8):
    sizes = (1024,) * count
    return Info(name="thin", sample_rate=24000, frame_rate=75, codebook_sizes=sizes, nested=True)


def noise(length, batch=1, seed=0):
    return 0.3 * torch.randn(batch, 1, length, generator=torch.Generator().manual_seed(seed))


def encode(wav, lengths=None, count=8):
    adapter = vocos.Vocos(info_of(count), "cpu", model=encodec(), vocoder=vocoder())
    lengths = torch.full((len(wav),), wav.shape[-1]) if lengths is None else torch.tensor(lengths)
    return adapter, calls.encode(adapter, adapter.info, wav, lengths, 0)


@pytest.mark.parametrize("length", [1, 319, 320, 321, 5555])
@pytest.mark.parametrize(("count", "bandwidth"), [(2, 0), (4, 1), (8, 2), (16, 3)])
def test_codes_are_encodecs_and_the_sound_is_the_packages(length, count, bandwidth):
    wav = noise(length)
    adapter, encoded = encode(wav, count=count)
    plain = Encodec(info_of(count), "cpu", model=encodec())
    assert torch.equal(encoded.codes, calls.encode(plain, plain.info, wav, torch.tensor([length]), 0).codes)
    features = package().codes_to_features(encoded.codes.transpose(0, 1))
    expected = package().decode(features, bandwidth_id=torch.tensor([bandwidth]))
    sound = adapter.decode(encoded, 0)
    torch.testing.assert_close(sound[:, 0], expected, rtol=0, atol=1e-6)
    assert sound.shape[-1] == 320 * -(-length // 320)


def test_the_bandwidth_is_that_of_the_codes_that_are_there():
    """Of 16 codebooks the first four: those of 3 kbps; of five, the next that it was trained for, 6 kbps."""
    adapter, encoded = encode(noise(9000), count=16)
    for count, bandwidth in ((1, 0), (4, 1), (5, 2), (16, 3)):
        codes = encoded.codes[:, :count]
        expected = package().decode(
            package().codes_to_features(codes.transpose(0, 1)), bandwidth_id=torch.tensor([bandwidth])
        )
        torch.testing.assert_close(adapter.decode_clip(codes, {})[:, 0], expected, rtol=0, atol=1e-6)
    few = encode(noise(9000), count=4)[0]
    assert torch.equal(few.decode_clip(encoded.codes[:, :4], {}), adapter.decode_clip(encoded.codes[:, :4], {}))
    latents = adapter.dequantise(encoded.codes[:, :4])
    assert not torch.equal(adapter.synthesise(latents), few.synthesise(latents))


def test_a_batch_is_its_clips_whatever_lies_beyond_them():
    adapter = vocos.Vocos(info_of(8), "cpu", model=encodec(), vocoder=vocoder())
    assert_a_batch_is_its_clips(adapter, noise(9000, batch=3), [4000, 7777, 100])


def test_it_keeps_the_contract():
    adapter = vocos.Vocos(info_of(), "cpu", model=encodec(), vocoder=vocoder())
    failed = thin_contract.failures(adapter, ("unquantized", "quantized"))
    assert not failed, "\n".join(failed.values())


def test_quantized_latents_are_what_is_decoded():
    wav, lengths = noise(6400), torch.tensor([6400])
    adapter, encoded = encode(wav)
    quantized, frames = adapter.latents(wav, lengths, "quantized", 0)
    assert quantized.shape == (1, 128, 20)
    assert frames.tolist() == [20]
    assert torch.equal(adapter.synthesise(quantized), adapter.decode(encoded, 0))
    # the sum of eight rows of Vocos's own table
    expected = sum(codebooks()[1024 * k + int(encoded.codes[0, k, 3])] for k in range(8))
    torch.testing.assert_close(quantized[0, :, 3], expected)


def test_a_number_of_codebooks_that_it_does_not_know_is_refused():
    with pytest.raises(ValueError, match="thin: has 32 codebooks, Vocos was trained for 2, 4, 8 and 16"):
        encode(noise(320), count=32)


def test_a_model_from_the_cache_is_the_model_that_was_saved(tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    own, base = (tmp_path / "cache" / f"models--org--{name}" / "snapshots" / REVISION for name in ("vocos", "encodec"))
    own.mkdir(parents=True)
    (own / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    tensors = {name: value for name, value in package().state_dict().items() if ".encodec." not in name}
    torch.save(tensors, own / "pytorch_model.bin")
    with torch.inference_mode(False):
        encodec().save_pretrained(base)
    loaded = vocos.Vocos(
        info_of(), "cpu", repo="org/vocos", revision=REVISION, base=Checkpoint(repo="org/encodec", revision=REVISION)
    )
    wav = noise(5000)
    built, expected = encode(wav)
    encoded = loaded.encode(wav, torch.tensor([5000]), 0)
    assert torch.equal(encoded.codes, expected.codes)
    assert torch.equal(loaded.decode(encoded, 0), built.decode(expected, 0))
    assert not loaded.vocoder.training
    assert not any(parameter.requires_grad for parameter in loaded.vocoder.parameters())


def test_rows_need_both_checkpoints(tmp_path, monkeypatch):
    """Kbps: the bandwidths of README.md."""
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    rows = {name: entry for name, entry in catalogue().items() if entry.family == "vocos"}
    assert {name: entry.info.bitrate_kbps for name, entry in rows.items()} == {
        "vocos-2": 1.5, "vocos-4": 3, "vocos-8": 6, "vocos-16": 12,
    }  # fmt: skip
    entry = rows["vocos-8"]
    assert entry.base == catalogue()["encodec-24k-8"].checkpoint
    missing = "hf download charactr/vocos-encodec-24khz config.yaml pytorch_model.bin"
    assert str(registry.status(entry)).startswith(f"weights missing; run: {missing} && hf download facebook/encodec")
    with pytest.raises(pretrained.WeightsMissing, match=missing):
        registry.load(entry, "cpu")
    own = tmp_path / "cache" / "models--charactr--vocos-encodec-24khz" / "snapshots" / REVISION
    own.mkdir(parents=True)
    for file in entry.checkpoint.files:
        (own / file).touch()
    (own.parent.parent / "refs").mkdir()
    (own.parent.parent / "refs" / "main").write_text(REVISION)
    assert str(registry.status(entry)).startswith("weights missing; run: hf download facebook/encodec_24khz --revision")
