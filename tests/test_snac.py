"""SNAC, on thin random models of the package's own class. The real weights are not tried here."""

import functools
import json
import math

import pytest

from earmark.codecs import calls, pretrained, registry
from earmark.codecs.contract import Encoded, Info
from earmark.codecs.registry import catalogue
from earmark.contract import CHECKS, Subject, judge
from earmark.tests import thin_contract
from earmark.tests.batch_invariance import assert_a_batch_is_its_clips

torch = pytest.importorskip("torch")
snac = pytest.importorskip("snac", reason="needs the package: pip install snac")

from earmark.codecs.continuous import seeded  # noqa: E402
from earmark.codecs.snac import Snac  # noqa: E402

THIN = {"codebook_size": 64, "codebook_dim": 4, "noise": True, "depthwise": True}
# The shape of the released models (their config.json), with fewer channels.
CONFIGS = {
    "24k": THIN | {
        "sampling_rate": 24000, "encoder_dim": 4, "encoder_rates": [2, 4, 8, 8], "decoder_dim": 64,
        "decoder_rates": [8, 8, 4, 2], "attn_window_size": None, "vq_strides": [4, 2, 1],
    },
    "44k": THIN | {
        "sampling_rate": 44100, "encoder_dim": 4, "encoder_rates": [2, 3, 8, 8], "decoder_dim": 64,
        "decoder_rates": [8, 8, 3, 2], "attn_window_size": 32, "vq_strides": [8, 4, 2, 1],
    },
}  # fmt: skip
GROUP = {"24k": 4 * 512, "44k": 32 * 384}  # samples that are padded to
HOP = {"24k": 512, "44k": 384}
both = pytest.mark.parametrize("name", CONFIGS)


pytestmark = pytest.mark.usefixtures("inference")


@functools.cache
def weights_of(name):
    """Random weights; what each quantiser looks up is centred, or (by angle) nearly all would find one code."""
    torch.manual_seed(0)
    model = snac.SNAC(**CONFIGS[name]).eval()
    residual = model.encoder(noise(4 * GROUP[name]))
    for quantizer in model.quantizer.quantizers:
        pooled = torch.nn.functional.avg_pool1d(residual, quantizer.stride, quantizer.stride)
        quantizer.in_proj.bias -= quantizer.in_proj(pooled).mean(dim=(0, 2))
        residual = residual - quantizer(residual)[0]
    return model.state_dict()


def model_of(name):
    model = snac.SNAC(**CONFIGS[name]).eval()
    model.load_state_dict(weights_of(name))
    return model


def info_of(name, codebooks=None):
    config = CONFIGS[name]
    strides = config["vq_strides"][:codebooks]
    rate = config["sampling_rate"]
    return Info(
        name=f"thin-{name}", sample_rate=rate, frame_rate=rate / HOP[name], codebook_sizes=(64,) * len(strides),
        strides=strides, nested=True, stochastic=True,
    )  # fmt: skip


def build(name, codebooks=None):
    return Snac(info_of(name, codebooks), "cpu", model=model_of(name))


def noise(length, batch=1, seed=0):
    return 0.3 * torch.randn(batch, 1, length, generator=torch.Generator().manual_seed(seed))


def encode(name, wav, lengths=None, codebooks=None):
    adapter = build(name, codebooks)
    lengths = torch.full((len(wav),), wav.shape[-1]) if lengths is None else torch.tensor(lengths)
    return adapter, calls.encode(adapter, adapter.info, wav, lengths, 0)


@both
@pytest.mark.parametrize("boundary", [(0, 1), (1, -1), (1, 0), (1, 1), (3, 17)])
def test_frames_are_whole_groups_and_the_sound_covers_the_clip(name, boundary):
    length = boundary[0] * GROUP[name] + boundary[1]
    adapter, encoded = encode(name, noise(length))
    frames = math.ceil(length / GROUP[name]) * GROUP[name] // HOP[name]
    assert encoded.frames.tolist() == [frames]
    assert adapter.decode(encoded, 0).shape == (1, 1, frames * HOP[name])


@both
def test_tokens_stand_at_their_strides_and_cost_what_is_declared(name):
    length = 4 * 32 * 384  # 24 groups at 24 kHz
    adapter, encoded = encode(name, noise(length))
    frames = int(encoded.frames[0])
    for k, stride in enumerate(CONFIGS[name]["vq_strides"]):
        there = encoded.codes[0, k] >= 0
        assert there.tolist() == [t % stride == 0 for t in range(frames)]
        assert len(encoded.codes[0, k].unique()) > 8
    seconds = length / adapter.info.sample_rate
    bits = float(calls.nominal_bits(adapter.info, encoded))
    assert bits / seconds == pytest.approx(1000 * adapter.info.bitrate_kbps)


@both
def test_tokens_and_sound_are_the_packages(name):
    wav = noise(3 * GROUP[name] - 100)
    adapter, encoded = encode(name, wav)
    package = model_of(name)
    tokens = package.encode(wav)
    for k, stride in enumerate(CONFIGS[name]["vq_strides"]):
        assert torch.equal(encoded.codes[:, k, ::stride], tokens[k])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeded(3, encoded.codes).initial_seed())
        expected = package.decode(tokens)
    torch.testing.assert_close(adapter.decode(encoded, 3), expected, rtol=0, atol=1e-6)


@both
def test_a_batch_is_its_clips_whatever_lies_beyond_them(name):
    lengths = [GROUP[name] + 5, 2 * GROUP[name] + 300, 100]
    assert_a_batch_is_its_clips(build(name), noise(3 * GROUP[name], batch=3), lengths, seed=1)


@both
def test_noise_follows_the_seed_and_moves_nothing_global(name):
    adapter, encoded = encode(name, noise(GROUP[name]))
    before = torch.get_rng_state()
    one, again, other = adapter.decode(encoded, 1), adapter.decode(encoded, 1), adapter.decode(encoded, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@both
def test_fewer_codebooks_are_a_prefix_and_decode(name):
    wav = noise(2 * GROUP[name])
    _, full = encode(name, wav)
    adapter, part = encode(name, wav, codebooks=2)
    assert torch.equal(part.codes, full.codes[:, :2])
    assert bool(torch.isfinite(adapter.decode(part, 0)).all())


@both
def test_latents_are_those_that_are_quantised_and_decoded(name):
    wav, lengths = noise(2 * GROUP[name]), torch.tensor([2 * GROUP[name]])
    adapter, encoded = encode(name, wav)
    unquantized, frames = adapter.latents(wav, lengths, "unquantized", 0)
    quantized, _ = adapter.latents(wav, lengths, "quantized", 0)
    assert frames.tolist() == encoded.frames.tolist()
    assert torch.equal(adapter.quantise(unquantized), encoded.codes)
    expected = adapter.model.quantizer(unquantized)[0]
    torch.testing.assert_close(quantized, expected, rtol=0, atol=1e-5)


@both
def test_it_keeps_the_contract_otherwise(name):
    failed = thin_contract.failures(build(name), ("unquantized", "quantized"))
    assert not failed, "\n".join(failed.values())


@both
def test_whole_groups_are_the_known_failure_of_its_rows(name):
    """10 s at 24 kHz are ceil(240000 / 2048) = 118 groups of 4 frames, 472; 1 s at 44.1 kHz is 4 of 32, 128."""
    adapter = build(name)
    row = catalogue()[f"snac-{name}"]
    thin = row.info.model_copy(update={"codebook_sizes": adapter.info.codebook_sizes})
    entry = row.model_copy(update={"info": thin})
    found = judge(CHECKS["frame_rate"], Subject(entry, "cpu", lambda: adapter))
    assert found.verdict == "known failure"
    assert found.measured == {"frame_rate": {"24k": 47.2, "44k": 128}[name]}


def test_a_missing_token_is_refused_and_a_gap_is_not():
    adapter, encoded = encode("24k", noise(GROUP["24k"]))
    broken = Encoded(encoded.codes.clone(), encoded.frames)
    broken.codes[0, 0, 0] = -1
    with pytest.raises(ValueError, match=r"thin-24k has no way to decode a token that is not there \(-1\)"):
        adapter.decode(broken, 0)


def test_strides_that_are_not_the_models_are_refused():
    info = info_of("24k").model_copy(update={"strides": (1, 1, 1)})
    with pytest.raises(ValueError, match=r"thin-24k: strides are \(1, 1, 1\), the model's are \[4, 2, 1\]"):
        Snac(info, "cpu", model=model_of("24k"))


# huggingface.co/hubertsiuzdak/snac_{24,32,44}khz, config.json, which says nothing of hops: their product.
ROWS = {
    "snac-24k": (24000, 512, (4, 2, 1)),
    "snac-32k": (32000, 384, (8, 4, 2, 1)),
    "snac-44k": (44100, 384, (8, 4, 2, 1)),
}
KBPS = {"snac-24k": 0.98, "snac-32k": 1.88, "snac-44k": 2.58}  # the model cards': .98, 1.9, 2.6


@pytest.mark.parametrize("name", ROWS)
def test_a_row_agrees_with_its_model(name):
    info, (rate, hop, strides) = catalogue()[name].info, ROWS[name]
    assert (info.sample_rate, info.frame_rate, info.strides) == (rate, rate / hop, strides)
    assert set(info.codebook_sizes) == {4096}
    assert round(info.bitrate_kbps, 2) == KBPS[name]


def test_a_model_from_the_cache_is_the_model_that_was_saved(tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(pretrained.WeightsMissing, match="hf download hubertsiuzdak/snac_24khz"):
        registry.load(catalogue()["snac-24k"], "cpu")
    revision = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "cache" / "models--org--thin" / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(CONFIGS["24k"]))
    torch.save(model_of("24k").state_dict(), snapshot / "pytorch_model.bin")
    loaded = Snac(info_of("24k"), "cpu", repo="org/thin", revision=revision)
    wav = noise(5000)
    encoded = loaded.encode(wav, torch.tensor([5000]), 0)
    assert torch.equal(encoded.codes, encode("24k", wav)[1].codes)
    assert torch.equal(loaded.decode(encoded, 0), build("24k").decode(encoded, 0))
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
