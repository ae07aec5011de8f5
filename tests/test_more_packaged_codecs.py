"""SemantiCodec, FlowDec, Stable-Codec, and the tokenisers of Baichuan-Audio and GLM-4-Voice, on thin random models.

Checkouts and the package of Stable-Codec are not here: stand-ins have their calls. What each adapter says of a trial
beside upstream's own modules was done once, by hand.
"""

import json
import math
import zipfile

import numpy as np
import pytest

from earmark.codecs import calls, pretrained, registry
from earmark.codecs.contract import Encoded, capabilities_of
from earmark.codecs.registry import catalogue
from earmark.codecs.weights import Weights
from earmark.contract import CHECKS, Subject, judge
from earmark.store import fingerprint
from earmark.tests import standin_more_checkouts as standin
from earmark.tests.batch_invariance import assert_a_batch_is_its_clips

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("torchaudio")

from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.functional import pad, scaled_dot_product_attention  # noqa: E402

from earmark.codecs import flowdec, packaged, semanticodec, stable_codec  # noqa: E402
from earmark.codecs.continuous import seeded  # noqa: E402
from earmark.codecs.descript import descript_name  # noqa: E402
from earmark.tests import thin_contract  # noqa: E402
from earmark.tests.thin_packaged import (  # noqa: E402
    BAICHUAN,
    GLM,
    INFOS,
    SCALARS,
    Patches,
    Toward,
    build,
    checkout_of,
    encode,
    flow,
    noise,
)

pytestmark = pytest.mark.usefixtures("inference")

FRAME = {"glm": 1280, "baichuan": 1280, "stable": 640, "flowdec": 640, "semantic": 2560}  # samples that are filled
PER_FRAME = {name: 8 if name == "semantic" else 1 for name in FRAME}
every_codec = pytest.mark.parametrize("name", INFOS)
tokens_alone = pytest.mark.parametrize("name", ["glm", "baichuan"])
with_sound = pytest.mark.parametrize("name", ["stable", "flowdec", "semantic"])
stochastic = pytest.mark.parametrize("name", ["flowdec", "semantic"])


@pytest.fixture(autouse=True)
def checkouts(tmp_path_factory, monkeypatch):
    """A home, a hub's cache and checkouts of our own; nothing of the user's is seen."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("EARMARK_HOME", str(home))
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "cache"))
    monkeypatch.delenv("EARMARK_WEIGHTS", raising=False)
    standin.write(standin.FLOWDEC, home / "weights" / "FlowDec")
    standin.write(standin.SEMANTICODEC, home / "weights" / "SemantiCodec-inference")
    return home


@every_codec
def test_it_keeps_the_contract(name, checkouts):
    failed = thin_contract.failures(build(name, checkouts), ("unquantized", "quantized"))
    assert not failed, "\n".join(failed.values())


def test_whole_tokens_are_the_known_failure_of_semanticodecs_rows(checkouts):
    """A second is of 7 tokens of 160 ms, in eight bands 56, where 50 are declared."""
    adapter, row = build("semantic", checkouts), catalogue()["semanticodec-8192"]
    thin = row.info.model_copy(update={"codebook_sizes": adapter.info.codebook_sizes})
    subject = Subject(row.model_copy(update={"info": thin}), "cpu", lambda: adapter)
    found = judge(CHECKS["frame_rate"], subject)
    assert found.verdict == "known failure"
    assert "came      56\n" in found.message


# What holds for all.


@every_codec
@pytest.mark.parametrize("boundary", [(0, 1), (1, -1), (1, 0), (1, 1), (5, 77)])
def test_frames_are_the_ceiling_and_the_sound_covers_the_clip(name, boundary, checkouts):
    length = boundary[0] * FRAME[name] + boundary[1]
    adapter = build(name, checkouts)
    encoded, frames = encode(adapter, noise(length)), math.ceil(length / FRAME[name])
    assert encoded.frames.tolist() == [frames * PER_FRAME[name]]
    if "decode" in capabilities_of(type(adapter)):
        assert calls.decode(adapter, adapter.info, encoded, noise(length), 0).shape == (1, 1, frames * FRAME[name])
    for kind in ("unquantized", "quantized", "codebook:0"):
        latents, counts = adapter.latents(noise(length), torch.tensor([length]), kind, 0)
        assert counts.tolist() == encoded.frames.tolist()
        assert latents.shape[-1] == frames * PER_FRAME[name]


@every_codec
def test_codes_vary_and_are_those_of_the_latents(name, checkouts):
    adapter, wav = build(name, checkouts), noise(40000)
    encoded = encode(adapter, wav)
    assert min(len(row.unique()) for row in encoded.codes[0]) > 4, "codes so alike that the tests would prove nothing"
    unquantized = adapter.latents(wav, torch.tensor([40000]), "unquantized", 0)[0]
    assert torch.equal(adapter.quantise(unquantized), encoded.codes)
    quantized = adapter.latents(wav, torch.tensor([40000]), "quantized", 0)[0]
    assert torch.equal(adapter.dequantise(encoded.codes), quantized)


@every_codec
def test_a_batch_is_its_clips_whatever_lies_beyond_them(name, checkouts):
    lengths = [FRAME[name] + 5, 9 * FRAME[name] + 300, 100]
    assert_a_batch_is_its_clips(build(name, checkouts), noise(10 * FRAME[name], batch=3), lengths, seed=1)


@pytest.mark.parametrize("name", ["baichuan", "stable", "flowdec"])
def test_fewer_codebooks_are_a_prefix_and_decode(name, checkouts):
    full, info = encode(build(name, checkouts), noise(30000)), INFOS[name]
    adapter = build(name, checkouts, codebook_sizes=info.codebook_sizes[:2])
    part = encode(adapter, noise(30000))
    assert torch.equal(part.codes, full.codes[:, :2])
    if name != "baichuan":
        assert bool(torch.isfinite(adapter.decode(part, 0)).all())


@every_codec
def test_nothing_global_moves_and_a_run_repeats(name, checkouts):
    adapter = build(name, checkouts)
    before = torch.get_rng_state(), torch.get_default_dtype()
    encoded = encode(adapter, noise(30000))
    if hasattr(adapter, "decode"):
        assert torch.equal(adapter.decode(encoded, 3), adapter.decode(encoded, 3))
    assert torch.equal(encoded.codes, encode(adapter, noise(30000)).codes)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_default_dtype() == before[1]


@stochastic
def test_noise_follows_the_seed(name, checkouts):
    adapter = build(name, checkouts)
    encoded = encode(adapter, noise(30000))
    assert not torch.equal(adapter.decode(encoded, 1), adapter.decode(encoded, 2))


@with_sound
def test_a_missing_token_is_refused(name, checkouts):
    adapter = build(name, checkouts)
    encoded = encode(adapter, noise(30000))
    codes = encoded.codes.clone()
    codes[0, 0, 1] = -1
    with pytest.raises(ValueError, match=rf"thin-{name} has no way to decode a token that is not there"):
        adapter.decode(Encoded(codes, encoded.frames), 0)


@tokens_alone
def test_tokenisers_encode_only(name, checkouts):
    assert capabilities_of(type(build(name, checkouts))) == ("encode", "embed")


# Tokenisers on Whisper's encoder.


@tokens_alone
def test_thirty_seconds_are_heard_alone(name, checkouts):
    adapter, wav = build(name, checkouts), noise(31 * 16000)
    codes = encode(adapter, wav).codes
    assert torch.equal(codes[..., :375], encode(adapter, wav[..., :480000]).codes)
    assert torch.equal(codes[..., 375:], encode(adapter, wav[..., 480000:]).codes)


def test_glm_attention_is_upstreams(checkouts):
    """The mask as speech_tokenizer/modeling_whisper.py, line 1150, builds it, on the same layers, in a padded batch."""
    net, lengths = build("glm", checkouts).model, [70000, 33000]
    wavs = [noise(length, seed=length)[0, 0].numpy() for length in lengths]
    heard = transformers.WhisperFeatureExtractor(feature_size=128)(
        wavs, sampling_rate=16000, return_attention_mask=True, return_tensors="pt", padding="longest",
        pad_to_multiple_of=1280,
    )  # fmt: skip
    mask, states = heard.attention_mask[:, ::2].bool(), heard.input_features
    states = nn.functional.gelu(net.conv2(pad(nn.functional.gelu(net.conv1(pad(states, (2, 0)))), (2, 0))))
    states = states.transpose(1, 2) + net.embed_positions.weight[: mask.shape[1]]
    blocks = torch.block_diag(*(torch.ones(len(part), len(part)) for part in torch.arange(mask.shape[1]).split(200)))
    allowed = (torch.tril(torch.ones_like(blocks)).bool() | blocks.bool()) & mask[:, None]
    for layer in net.layers:
        states = layer(states, (1.0 - allowed.float())[:, None] * torch.finfo(torch.float32).min)
    states = nn.functional.avg_pool1d(states.transpose(1, 2), 4)
    adapter = build("glm", checkouts)
    for i, (wav, length) in enumerate(zip(wavs, lengths, strict=True)):
        mine = adapter.embed(torch.from_numpy(wav)[None, None])
        torch.testing.assert_close(mine[0], states[i, :, : math.ceil(length / 1280)], rtol=0, atol=2e-3)


def test_baichuan_hears_what_upstream_computes(checkouts):
    """Mel frames as baichuan-omni/model/processor_omni.py, line 304: of 30 s, cut to a frame more than hops."""
    wav = noise(16640)[0, 0]
    spectrum = torch.stft(pad(wav, (0, 480000 - 16640)), 400, 160, window=torch.hann_window(400), return_complex=True)
    bank = transformers.audio_utils.mel_filter_bank(201, 128, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    mel = (torch.from_numpy(bank).float().T @ spectrum[:, :-1].abs().square()).clamp(min=1e-10).log10()
    expected = (torch.maximum(mel, mel.max() - 8) + 4) / 4
    (heard,) = build("baichuan", checkouts).heard(wav)
    assert heard.shape[-1] == 16640 // 160 + 1
    torch.testing.assert_close(heard[0], expected[:, : heard.shape[-1]], rtol=0, atol=1e-4)


def put(tensors, config, cache, repo="org/thin"):
    """A repository in a hub cache, as a download leaves it."""
    folder = cache / ("models--" + repo.replace("/", "--"))
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    (snapshot / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, snapshot / "model.safetensors")
    return snapshot


@tokens_alone
def test_a_tokeniser_from_the_cache_is_the_one_that_was_saved(name, checkouts):
    built = build(name, checkouts)
    tensors = {f"{built.prefix}{key}": tensor.half().float() for key, tensor in built.model.state_dict().items()}
    config = GLM if name == "glm" else BAICHUAN
    put(tensors | {"model.decoder.other": torch.zeros(2)}, config, checkouts / "cache")
    built.model.load_state_dict({key.removeprefix(built.prefix): value for key, value in tensors.items()})
    loaded = type(built)(built.info, "cpu", repo="org/thin")
    assert torch.equal(encode(loaded, noise(30000)).codes, encode(built, noise(30000)).codes)
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    lost = next(key for key in tensors if "layers.1" in key)
    put({key: value for key, value in tensors.items() if key != lost}, config, checkouts / "cache", "org/torn")
    with pytest.raises(ValueError, match=rf"org/torn lacks 1 tensors of thin-{name}, such as {lost}"):
        type(built)(built.info, "cpu", repo="org/torn")


# Stable-Codec.


@pytest.mark.parametrize("stages", SCALARS)
def test_scalars_are_cut_finer_by_every_stage(stages, checkouts):
    levels, scales = SCALARS[stages]
    info = INFOS["stable"].model_copy(update={"codebook_sizes": (levels**6,) * stages})
    adapter = stable_codec.StableCodec(info, "cpu", model=Patches(), levels=levels, scales=scales)
    latents = 1.5 * torch.randn(1, 6, 3000, generator=torch.Generator().manual_seed(1))
    codes = adapter.quantise(latents)
    assert 0 <= int(codes.min()) < int(codes.max()) < levels**6
    for count in range(1, stages + 1):
        worst = (adapter.dequantise(codes[:, :count]) - latents.tanh()).abs().max()
        assert float(worst) == pytest.approx(scales[count - 1] / (levels - 1), rel=2e-3)  # half a step


def test_a_code_by_hand(checkouts):
    """tanh 0 is level 1 of 0, 1, 2 in each scalar: 1 + 3 + 9 + 27 + 81 + 243 = 364; near 1, level 2: 728."""
    codes = build("stable", checkouts).quantise(torch.tensor([0.0, 9.0]).expand(1, 6, 2))
    assert codes[0, 0].tolist() == [364, 728]
    assert codes[0, 1].tolist() == [364, 364]


@pytest.mark.parametrize("window", [(3, 4), (-1, -1), (600, 0)])
def test_attention_keeps_to_its_window(window):
    q, k, v = (torch.randn(1, 1100, 2, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    away = torch.arange(1100)[None] - torch.arange(1100)[:, None]
    heard = torch.ones_like(away).bool() if window[0] < 0 else (away >= -window[0]) & (away <= window[1])
    expected = scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)), attn_mask=heard)
    made = stable_codec.windowed(q, k, v, window_size=window)
    torch.testing.assert_close(made, expected.transpose(1, 2), rtol=0, atol=1e-5)


def test_a_clip_is_brought_to_minus_20_lufs(checkouts):
    import pyloudnorm

    adapter = build("stable", checkouts)
    made = adapter.levelled(0.1 * noise(64000))
    assert pyloudnorm.Meter(16000).integrated_loudness(made[0, 0].numpy()) == pytest.approx(-20, abs=0.1)
    click = torch.zeros(1, 1, 64000)
    click[..., ::4000] = 0.5
    assert float(adapter.levelled(click).abs().max()) == pytest.approx(0.95)
    for same in (noise(5000), torch.zeros(1, 1, 64000)):  # too short to have a loudness; silent
        assert torch.equal(adapter.levelled(same), same)


# FlowDec.


def test_the_filter_follows_the_flow():
    """x' = -x by the midpoint rule in three steps of 1/3: each multiplies by 1 - 1/3 + 1/18, on noiseless spectra."""
    wav, generator = noise(9601), torch.Generator()
    factor = (1 - 1 / 3 + 1 / 18) ** 3
    expected = wav * factor ** (1 / 0.3)  # amplitudes are compressed to the power .3
    torch.testing.assert_close(flow(Toward(), 0.0)(wav, generator), expected, rtol=0, atol=1e-6)


def test_the_filters_noise_has_its_deviation():
    class Still(nn.Module):
        def forward(self, state, given, time):
            self.state = state - given
            return torch.zeros_like(state)

    network = Still()
    flow(network, 0.5)(noise(48000), torch.Generator().manual_seed(0))
    assert float(network.state.abs().square().mean().sqrt()) == pytest.approx(0.5, rel=0.02)


def test_operations_by_hand():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    up = flowdec.upfirdn2d(x, torch.ones(2, 2), up=2, pad=(1, 0))
    assert up[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert flowdec.upfirdn2d(x, torch.ones(2, 2) / 4, down=2)[0, 0].tolist() == [[2.5]]
    shifted = flowdec.upfirdn2d(x, torch.tensor([[0.0, 1.0], [0.0, 0.0]]), pad=(1, 0))  # a kernel is turned round
    assert shifted[0, 0].tolist() == [[0, 1], [0, 3]]


def descript_file(model, path):
    """A checkpoint as Descript's code leaves it: weights as direction and size."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        there = name if name.startswith("quantizer.") else descript_name(name)
        if name.endswith("weight") and "codebook" not in name:
            size = tensor.flatten(1).norm(dim=1).reshape(-1, 1, 1)
            tensors |= {f"{there}_g": size, f"{there}_v": 3 * tensor}
        else:
            tensors[there] = tensor
    said = {
        "encoder_dim": 4, "encoder_rates": [2, 4, 8, 10], "decoder_dim": 32, "decoder_rates": [10, 8, 4, 2],
        "n_codebooks": 4, "codebook_size": 64, "codebook_dim": 4, "sample_rate": 48000,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": tensors, "metadata": {"kwargs": said}}, path)


def test_flowdec_from_its_files(checkouts, tmp_path):
    built = build("flowdec", checkouts)
    descript_file(built.model, tmp_path / flowdec.CODEC)
    made = flowdec.build_filter(checkout_of("flowdec"), torch.hann_window(1534), torch.full((768, 1), 0.5))
    assert (made.hop, made.power, made.gain) == (384, 0.3, 0.33)
    tensors = {f"backbone.{name}": tensor for name, tensor in made.network.state_dict().items()}
    tensors |= {"feature_extractor.complex_stft.window": made.window, "sigma_y": made.sigma, "sigma_x": torch.zeros(())}
    (tmp_path / flowdec.FILTER).parent.mkdir(parents=True)
    torch.save({"_pl_ema_state_dict": tensors, "epoch": 1}, tmp_path / flowdec.FILTER)
    loaded = flowdec.FlowDec(built.info, "cpu", folder=tmp_path, checkout=checkout_of("flowdec"))
    encoded = encode(loaded, noise(9000))
    assert torch.equal(encoded.codes, encode(built, noise(9000)).codes)
    built.filter = made
    torch.testing.assert_close(loaded.decode(encoded, 3), built.decode(encoded, 3), rtol=0, atol=1e-5)


def test_a_checkpoint_that_holds_more_than_tensors_is_refused(tmp_path):
    torch.save({"state_dict": {}, "config": zipfile.ZipInfo()}, tmp_path / "more.ckpt")
    with pytest.raises(ValueError, match=r"more\.ckpt holds more than tensors"):
        packaged.tensors_alone(tmp_path / "more.ckpt")


# SemantiCodec.


def test_streams_are_told_apart(checkouts):
    """Clusters first; the decoder is given the second stream's vectors before the first's, and -1 beyond the tokens."""
    adapter = build("semantic", checkouts)
    encoded, given = encode(adapter, noise(30000)), []
    adapter.model.decoder.generate_sample = lambda tokens, **options: given.append(tokens) or np.zeros((1, 1, 163840))
    adapter.decode(encoded, 0)
    first = adapter.model.encoder.centroid_npy[encoded.codes[0, 0]]
    second = adapter.model.encoder.quantizer.codebook[encoded.codes[0, 1]]
    count = int(encoded.frames[0])
    assert torch.equal(given[0][0, :count], torch.cat([second, first], dim=-1))
    assert bool((given[0][0, count:] == -1).all())


def test_long_clips_are_joined_where_windows_overlap(checkouts):
    """25 s are 1256 tokens: windows of 512 start every 480, and the sound is what is left of 20 ms a token."""
    adapter, windows = build("semantic", checkouts), []
    encoded = encode(adapter, noise(25 * 16000))
    adapter.model.decoder.generate_sample = lambda tokens, **_: windows.append(tokens) or np.ones((1, 1, 163840))
    made = adapter.decode(encoded, 0)
    assert len(windows) == 3
    assert made.shape[-1] == 1256 * 320
    torch.testing.assert_close(made, torch.ones_like(made))


def test_semanticodec_from_the_cache(checkouts):
    built = build("semantic", checkouts)
    snapshot = put({"x": torch.zeros(1)}, {}, checkouts / "cache")
    torch.save(built.model.encoder.state_dict(), snapshot / "encoder.ckpt")
    torch.save(built.model.decoder.state_dict(), snapshot / "decoder.ckpt")
    np.save(snapshot / "clusters.npy", built.model.encoder.centroid_npy.numpy())
    files = ["encoder.ckpt", "decoder.ckpt", "clusters.npy"]
    loaded = semanticodec.SemantiCodec(
        built.info, "cpu", repo="org/thin", checkout=checkout_of("semanticodec"), files=files
    )
    encoded = encode(loaded, noise(30000))
    assert torch.equal(encoded.codes, encode(built, noise(30000)).codes)
    assert torch.equal(loaded.decode(encoded, 2), built.decode(encoded, 2))


def test_clusters_of_another_size_are_refused(checkouts):
    with pytest.raises(ValueError, match=r"\(64, 32\).*the model's are.*\(48, 32\)"):
        build("semantic", checkouts, codebook_sizes=(64, 32))


# Rows.

# SemantiCodec: its README; FlowDec: its README, demo.ipynb and hop 640; Stable-Codec: its README (.4, .7 and 1.0 as
# rounded there); Baichuan: config.json and its paper; GLM-4-Voice: its README (12.5 tokens a second).
KBPS = {
    "semanticodec-8192": 1.3, "semanticodec-16384": 1.35, "flowdec-8": 6.0, "flowdec-10": 7.5, "stable-codec-1": 0.388,
    "stable-codec-2": 0.697, "stable-codec-4": 0.951, "baichuan-audio": 1.075, "glm-4-voice": 0.175,
}  # fmt: skip


def test_rows_have_the_published_bitrates():
    assert {name: round(catalogue()[name].info.bitrate_kbps, 3) for name in KBPS} == KBPS


@pytest.mark.parametrize("name", KBPS)
def test_a_row_says_what_its_class_can_do_and_what_it_lacks(name):
    entry = catalogue()[name]
    assert entry.info.capabilities == capabilities_of(registry._import_adapter(entry.adapter))
    status = registry.status(entry)
    assert not status.ready
    assert status.command.startswith(("pip install", "hf download", "curl"))
    with pytest.raises((pretrained.WeightsMissing, FileNotFoundError, ImportError)):
        registry.load(entry, "cpu")


@pytest.mark.parametrize("stages", SCALARS)
def test_stable_codecs_rows_have_its_presets(stages):
    """stable_codec/model.py, line 43, at 8535544."""
    entry = catalogue()[f"stable-codec-{stages}"]
    assert (entry.options["levels"], entry.options["scales"]) == SCALARS[stages]
    assert entry.info.codebook_sizes == (SCALARS[stages][0] ** 6,) * stages


def test_weights_in_an_archive_are_found_in_a_folder_of_its_own(checkouts):
    weights = Weights(folder="thing", url="https://host/path", archive="all.zip", files={"a/b.pth": None})
    inner = checkouts / "weights" / "thing" / "checkpoints"
    assert weights.find() is None
    assert weights.command.endswith("https://host/path/all.zip && unzip "
                                    f"{inner.parent}/all.zip -d {inner.parent}")  # fmt: skip
    (inner / "a").mkdir(parents=True)
    (inner / "a" / "b.pth").write_text("1")
    assert weights.verified() == inner
    before = weights.stamps()
    (inner / "a" / "b.pth").write_text("22")
    assert weights.stamps() != before


def test_a_result_depends_on_weights_without_a_checksum(checkouts):
    entry, folder = catalogue()["flowdec-8"], checkouts / "weights" / "flowdec"
    for name in entry.weights.files:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("1")
    before = fingerprint.of_row(entry)
    assert before == fingerprint.of_row(entry)
    (folder / name).write_text("22")
    assert before != fingerprint.of_row(entry)


# Where Stable-Codec's package is (pip install as `earmark codecs` says): its own network.


def test_stable_codec_on_its_package():
    pytest.importorskip("alias_free_torch", reason="needs the package: see `earmark codecs`")
    part = {
        "channels": 128, "c_mults": [1, 1], "strides": [32, 20], "transformer_depths": [1, 1], "latent_dim": 6,
        "sliding_window": [3, 4],
    }  # fmt: skip
    config = {
        "model_type": "autoencoder", "sample_size": 16000, "sample_rate": 16000, "audio_channels": 1,
        "model": {
            "encoder": {"type": "taae", "config": {"in_channels": 1, **part}},
            "decoder": {"type": "taae", "config": {"out_channels": 1, **part}},
            "bottleneck": {"type": "dithered_fsq", "config": {"dim": 6, "levels": 17}},
            "latent_dim": 6, "downsampling_ratio": 640, "io_channels": 1,
        },
    }  # fmt: skip
    model = stable_codec.build(config)
    adapter = stable_codec.StableCodec(INFOS["stable"], "cpu", model=model, levels=3, scales=SCALARS[4][1])
    encoded = encode(adapter, noise(30000))
    assert encoded.frames.tolist() == [47]
    assert adapter.decode(encoded, 0).shape == (1, 1, 47 * 640)
    assert seeded(0, encoded.codes).initial_seed() == seeded(0, encode(adapter, noise(30000)).codes).initial_seed()
