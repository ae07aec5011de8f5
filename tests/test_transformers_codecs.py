"""The codecs of `transformers`, on thin random models that keep the real sample rates, strides and quantisers.

What is not tried here: the real weights.
"""

import itertools
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from earmark import hub
from earmark.codecs import calls, pretrained, registry
from earmark.codecs.contract import Info, capabilities_of
from earmark.codecs.registry import catalogue, find
from earmark.contract import CHECKS, Subject, judge
from earmark.tests.batch_invariance import assert_a_batch_is_its_clips

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from earmark.codecs.mimi import Mimi  # noqa: E402
from earmark.tests.thin_transformers import THIN, build, encode, model_of, noise  # noqa: E402

ROWS = {name: entry for name, entry in catalogue().items() if entry.packages == ("transformers",)}
REVISION = "0123456789abcdef0123456789abcdef01234567"


every_codec = pytest.mark.parametrize("name", THIN)
CHUNK, STRIDE = 48000, 47520  # EnCodec 48 kHz: 1 s, every 0.99 s


pytestmark = pytest.mark.usefixtures("inference")


def frames_by_hand(name, length):
    """ceil(L / hop); for EnCodec 48 kHz the sum of that over its chunks."""
    hop, starts = THIN[name].hop, range(0, length, STRIDE) if name == "encodec-48k" else [0]
    return sum(math.ceil((min(length - start, CHUNK) if len(starts) > 1 else length) / hop) for start in starts)


# Shapes, and how many frames.


@every_codec
def test_codes_are_as_the_contract_says_and_not_all_alike(name):
    length = THIN[name].info["sample_rate"]
    adapter, encoded = encode(name, noise(name, length, batch=2), [length, length // 3])
    codes, frames = encoded.codes, encoded.frames
    assert codes.dtype == frames.dtype == torch.int64
    assert codes.shape == (2, 4, int(frames.max()))
    assert [bool((row[:, :count] >= 0).all()) for row, count in zip(codes, frames, strict=True)] == [True, True]
    assert bool((codes[1, :, frames[1] :] == -1).all())
    assert min(len(row.unique()) for row in codes[0]) > 5, "codes so alike that the tests below would prove nothing"
    decoded = calls.decode(adapter, adapter.info, encoded, noise(name, length, batch=2), 0)
    assert decoded.shape[:2] == (2, adapter.info.channels)


@every_codec
@pytest.mark.parametrize("boundary", ["1", "hop - 1", "hop", "hop + 1", "rate + 17"])
def test_frames_are_the_ceiling_and_the_sound_covers_the_clip(name, boundary):
    hop, rate = THIN[name].hop, THIN[name].info["sample_rate"]
    length = {"1": 1, "hop - 1": hop - 1, "hop": hop, "hop + 1": hop + 1, "rate + 17": rate + 17}[boundary]
    wav = noise(name, length)
    adapter, encoded = encode(name, wav)
    assert encoded.frames.tolist() == [frames_by_hand(name, length)]
    assert adapter.decode(encoded, 0).shape[-1] >= length
    for kind in pretrained.KINDS:
        latents, frames = adapter.latents(wav, torch.tensor([length]), kind, 0)
        assert frames.tolist() == encoded.frames.tolist()
        assert latents.shape[-1] == frames[0]


@every_codec
def test_measured_rates_are_the_declared_ones(name):
    # Within a frame. EnCodec 48 kHz: 1 / 0.99 of its nominal rate, for its chunks overlap by 1 %.
    thin, seconds = THIN[name], 4
    adapter, encoded = encode(name, noise(name, seconds * thin.info["sample_rate"]))
    rate = adapter.info.frame_rate / (0.99 if name == "encodec-48k" else 1)
    assert int(encoded.frames[0]) == pytest.approx(seconds * rate, abs=1)
    tokens = calls.nominal_bits(adapter.info, encoded) - (0 if encoded.side_bits is None else encoded.side_bits)
    assert float(tokens) == encoded.frames[0] * 4 * thin.bits
    assert adapter.info.bitrate_kbps == pytest.approx(thin.info["frame_rate"] * 4 * thin.bits / 1000)


def test_dac_gives_back_whole_hops():
    """Its decoder gives 9912 samples for 31 frames (10000 samples unpadded) and 8 too few for any number of them."""
    adapter = build("dac-24k")
    assert adapter.model.decoder(torch.zeros(1, 64, 31)).shape[-1] == 9912
    _, encoded = encode("dac-24k", noise("dac-24k", 10000))
    decoded = adapter.decode(encoded, 0)
    assert decoded.shape[-1] == 32 * 320
    assert bool((decoded[..., -8:] == 0).all())
    assert bool((decoded[..., -16:-8] != 0).all())


# One clip is one clip.


@every_codec
def test_a_batch_is_its_clips_whatever_lies_beyond_them(name):
    rate = THIN[name].info["sample_rate"]
    lengths, batch = [rate // 2 + 17, rate + 300, 100], noise(name, rate + 900, batch=3)
    assert_a_batch_is_its_clips(build(name), batch, lengths, kinds=pretrained.KINDS)


@every_codec
def test_clips_of_one_length_in_one_batch_are_each_as_alone(name):
    batch = noise(name, 7000, batch=3)
    _, together = encode(name, batch)
    for i in range(3):
        assert torch.equal(together.codes[i], encode(name, batch[i : i + 1])[1].codes[0])


@pytest.mark.parametrize("name", sorted(set(THIN) - {"encodec-24k", "encodec-48k"}))
def test_zeros_that_fill_the_last_frame_change_nothing(name):
    """All but EnCodec, which reflects, pad with zeros before the network, as their authors' code does."""
    hop = THIN[name].hop
    wav = noise(name, 3 * hop + hop // 3)
    filled = torch.nn.functional.pad(wav, (0, -wav.shape[-1] % hop))
    assert torch.equal(encode(name, wav)[1].codes, encode(name, filled)[1].codes)


@every_codec
def test_the_seed_and_the_run_change_nothing(name):
    adapter, wav, lengths = build(name), noise(name, 9000), torch.tensor([9000])
    first, second = adapter.encode(wav, lengths, 0), adapter.encode(wav, lengths, 1)
    assert torch.equal(first.codes, second.codes)
    assert torch.equal(adapter.decode(first, 0), adapter.decode(second, 1))


@every_codec
def test_fewer_codebooks_are_a_prefix(name):
    wav = noise(name, 12000)
    _, full = encode(name, wav)
    for codebooks in (1, 2, 3):
        _, part = encode(name, wav, codebooks=codebooks)
        assert torch.equal(part.codes, full.codes[:, :codebooks])


# The library's own way.


def library_codes(name, wav):
    model = model_of(name)
    if name.startswith("encodec"):
        return model.encode(wav, bandwidth=model.config.target_bandwidths[-1])
    if name == "xcodec":
        return model.encode(wav, bandwidth=1.2)
    return model.encode(wav)


@every_codec
def test_whole_hops_are_coded_as_the_library_codes_them(name):
    length = {"encodec-48k": 2 * STRIDE + 480, "encodec-24k": 9999}.get(name, 6 * THIN[name].hop)
    wav = noise(name, length)
    adapter, encoded = encode(name, wav)
    expected = library_codes(name, wav)
    codes = expected.audio_codes
    if name.startswith("encodec"):
        chunks = [*codes[:-1], codes[-1][..., : codes.shape[-1] - expected.last_frame_pad_length]]
        sound = adapter.model.decode(
            codes, expected.audio_scales, last_frame_pad_length=expected.last_frame_pad_length
        ).audio_values
        codes = torch.cat(chunks, dim=-1)
    else:
        sound = adapter.model.decode(audio_codes=codes).audio_values
        sound = sound[:, None] if sound.ndim == 2 else sound
    assert torch.equal(encoded.codes, codes)
    torch.testing.assert_close(adapter.decode(encoded, 0)[..., : sound.shape[-1]], sound, rtol=0, atol=1e-6)


# Latents.


@every_codec
def test_quantized_latents_are_what_the_decoder_is_given(name, monkeypatch):
    rate = THIN[name].info["sample_rate"]
    wav, lengths = noise(name, rate + 200), torch.tensor([rate + 200])
    adapter, encoded = encode(name, wav)
    given, synthesise = [], adapter.synthesise
    monkeypatch.setattr(adapter, "synthesise", lambda latents: given.append(latents) or synthesise(latents))
    adapter.decode(encoded, 0)
    quantized, _ = adapter.latents(wav, lengths, "quantized", 0)
    assert torch.equal(quantized, torch.cat(given, dim=-1))
    unquantized, _ = adapter.latents(wav, lengths, "unquantized", 0)
    assert torch.equal(adapter.quantise(unquantized), encoded.codes)
    first, _ = adapter.latents(wav, lengths, "codebook:0", 0)
    assert torch.equal(first, adapter.dequantise(encoded.codes[:, :1]))
    assert unquantized.shape == quantized.shape == first.shape
    assert not torch.equal(first, quantized)


def test_latents_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="thin-mimi has no latents 'layer:3', only unquantized, quantized, codebook:0"):
        build("mimi").latents(noise("mimi", 2000), torch.tensor([2000]), "layer:3", 0)


def test_a_token_that_is_not_there_is_refused():
    _, encoded = encode("mimi", noise("mimi", 4000))
    encoded.codes[0, 1, 0] = -1
    with pytest.raises(ValueError, match=r"thin-mimi has no way to decode a token that is not there \(-1\)"):
        build("mimi").decode(encoded, 0)


# EnCodec 48 kHz: chunks, each at its own level.


def test_scales_are_the_level_of_each_chunk_and_cost_32_bits():
    # 0.5 in both channels, then 0.25 from the second chunk on; the RMS of a constant is that constant.
    wav = torch.full((1, 2, STRIDE + 5000), 0.5)
    wav[..., STRIDE:] = 0.25
    _, encoded = encode("encodec-48k", wav)
    first = math.sqrt((STRIDE * 0.5**2 + 480 * 0.25**2) / CHUNK)
    assert encoded.side["scales"][0].tolist() == pytest.approx([first, 0.25], rel=1e-6)
    assert encoded.side["samples"].tolist() == [STRIDE + 5000]
    assert encoded.side_bits.tolist() == [64]


def test_overlapping_chunks_are_the_known_failure_of_its_rows():
    """Five chunks in 4 s: four of 150 frames, and one of 6 for the 1920 samples that are left."""
    adapter, _ = encode("encodec-48k", noise("encodec-48k", CHUNK))
    row = catalogue()["encodec-48k-4"]
    thin = row.info.model_copy(update={"codebook_sizes": adapter.info.codebook_sizes})
    entry = row.model_copy(update={"info": thin})
    found = judge(CHECKS["frame_rate"], Subject(entry, "cpu", lambda: adapter))
    assert found.verdict == "known failure"
    assert found.measured == {"frame_rate": 151.5}


def test_only_the_48_khz_model_has_side_information():
    for name in set(THIN) - {"encodec-48k"}:
        encoded = encode(name, noise(name, 2000))[1]
        assert (encoded.side, encoded.side_bits) == ({}, None)


def test_a_level_moves_the_scales_and_not_the_codes():
    wav = noise("encodec-48k", 60000)
    adapter, soft = encode("encodec-48k", wav)
    _, loud = encode("encodec-48k", 4 * wav)
    assert torch.equal(soft.codes, loud.codes)
    torch.testing.assert_close(loud.side["scales"], 4 * soft.side["scales"])
    torch.testing.assert_close(adapter.decode(loud, 0), 4 * adapter.decode(soft, 0))


def test_the_channels_are_two():
    left, right = noise("encodec-48k", 30000, seed=1), noise("encodec-48k", 30000, seed=2)
    stereo = torch.cat([left[:, :1], right[:, :1]], dim=1)
    adapter, encoded = encode("encodec-48k", stereo)
    sound = adapter.decode(encoded, 0)
    assert sound.shape[1] == 2
    assert not torch.equal(sound[:, 0], sound[:, 1])
    assert not torch.equal(encoded.codes, encode("encodec-48k", stereo.flip(1))[1].codes)


@pytest.mark.parametrize("rest", [1, 100, 160, 161, 320, 321, 480, 481])
@pytest.mark.parametrize("chunks", [1, 2])
def test_lengths_that_end_in_the_overlap(chunks, rest):
    """`EncodecModel.encode` fails at 2 x 47520 + 100, `decode` at 47520 + 200."""
    length = chunks * STRIDE + rest
    adapter, encoded = encode("encodec-48k", noise("encodec-48k", length))
    assert encoded.frames.tolist() == [frames_by_hand("encodec-48k", length)]
    sound = adapter.decode(encoded, 0)
    assert length <= sound.shape[-1] < length + 320
    assert bool(torch.isfinite(sound).all())


def test_silence_is_coded():
    adapter, encoded = encode("encodec-48k", torch.zeros(1, 2, 50000))
    assert float(adapter.decode(encoded, 0).abs().max()) < 1e-6


# The catalogue: every row against the config of its checkpoint, as the hub has it (the parts that count).

HUB_CONFIGS = {
    "facebook/encodec_24khz": lambda: transformers.EncodecConfig(),
    "facebook/encodec_48khz": lambda: transformers.EncodecConfig(
        sampling_rate=48000, audio_channels=2, target_bandwidths=[3.0, 6.0, 12.0, 24.0], normalize=True,
        chunk_length_s=1.0, overlap=0.01, norm_type="time_group_norm", use_causal_conv=False,
    ),
    "descript/dac_44khz": lambda: transformers.DacConfig(sampling_rate=44100, n_codebooks=9),
    "descript/dac_24khz": lambda: transformers.DacConfig(
        sampling_rate=24000, n_codebooks=32, downsampling_ratios=[2, 4, 5, 8], hop_length=512
    ),
    "descript/dac_16khz": lambda: transformers.DacConfig(
        sampling_rate=16000, n_codebooks=12, downsampling_ratios=[2, 4, 5, 8], hop_length=512
    ),
    "kyutai/mimi": lambda: transformers.MimiConfig(frame_rate=12.5),
    "hf-audio/xcodec": lambda: transformers.XcodecConfig(),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_row_agrees_with_its_model(name):
    entry = ROWS[name]
    cls = registry._import_adapter(entry.adapter)
    config = next(make() for repo, make in HUB_CONFIGS.items() if entry.checkpoint.repo.startswith(repo))
    pretrained._agree(entry.info, cls.measures(SimpleNamespace(model=SimpleNamespace(config=config))))
    assert set(entry.info.capabilities) == set(capabilities_of(cls))
    assert entry.info.latent_kinds == pretrained.KINDS


def test_names_and_bitrates():
    kbps = {name: round(entry.info.bitrate_kbps, 2) for name, entry in ROWS.items()}
    assert kbps["encodec-24k-8"] == kbps["dac-24k-8"] == kbps["dac-16k-12"] == 6
    assert (kbps["encodec-48k-2"], kbps["encodec-48k-16"], kbps["dac-44k-9"]) == (3, 24, 7.75)
    assert (kbps["mimi-8"], kbps["mimi-32"], kbps["xcodec-hubert-general-balanced-8"]) == (1.1, 4.4, 4)
    assert not [(a, b) for a, b in itertools.permutations(ROWS, 2) if a in b]
    assert all(len(entry.checkpoint.revision or REVISION) == 40 for entry in ROWS.values())


def test_a_row_that_disagrees_with_its_model_is_refused():
    model = model_of("mimi")
    with pytest.raises(ValueError, match=r"thin: rate, frame rate, channels, codebook size are .*25.0"):
        Mimi(Info(name="thin", sample_rate=24000, frame_rate=25, codebook_sizes="4x64"), "cpu", model=model)
    with pytest.raises(ValueError, match="thin: has 5 codebooks, the model 4"):
        Mimi(Info(name="thin", sample_rate=24000, frame_rate=12.5, codebook_sizes="5x64"), "cpu", model=model)


# Weights: where they are looked for, and what is said where they are not.


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    """A home and a hub cache, both empty."""
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def put(model, cache, repo="org/thin", revision=REVISION):
    """A model in a hub cache, as a download leaves it."""
    folder = cache / ("models--" + repo.replace("/", "--"))
    snapshot = folder / "snapshots" / revision
    with torch.inference_mode(False):
        model.save_pretrained(snapshot)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)
    return snapshot


@pytest.mark.parametrize("name", ["encodec-24k-8", "encodec-48k-4", "dac-44k-9", "mimi-8"])
def test_weights_that_are_missing_say_how_to_get_them(name, no_weights):
    repo, revision = ROWS[name].checkpoint.repo, ROWS[name].checkpoint.revision
    with pytest.raises(pretrained.WeightsMissing) as caught:
        registry.load(find(name), "cpu")
    command = f"hf download {repo} --revision {revision}"
    assert str(caught.value) == f"codec {name}: weights of {repo} missing; run: {command}"


def test_a_repository_without_a_revision_is_fetched_at_its_newest():
    assert hub.fetch_command("org/thin", None) == "hf download org/thin"


@every_codec
def test_a_model_from_the_cache_is_the_model_that_was_saved(name, no_weights):
    put(model_of(name), no_weights / "home" / "hub")
    built, wav, lengths = build(name), noise(name, 5000), torch.tensor([5000])
    loaded = THIN[name].adapter(built.info, "cpu", repo="org/thin", revision=REVISION)
    assert torch.equal(loaded.encode(wav, lengths, 0).codes, built.encode(wav, lengths, 0).codes)
    encoded = built.encode(wav, lengths, 0)
    assert torch.equal(loaded.decode(encoded, 0), built.decode(encoded, 0))
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}


def rewrite(snapshot, change):
    from safetensors.torch import load_file, save_file

    path = snapshot / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["encodec-24k", "xcodec"])
def test_weights_under_the_names_of_older_files_are_read(name, no_weights):
    """The hub's files were written when weight normalisation was called weight_g and weight_v."""
    snapshot = put(model_of(name), no_weights / "cache")
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}

    def rename(tensors):
        for new, before in old.items():
            tensors = {key.replace(new, before): tensor for key, tensor in tensors.items()}
        return tensors

    rewrite(snapshot, rename)
    built, wav, lengths = build(name), noise(name, 5000), torch.tensor([5000])
    loaded = THIN[name].adapter(built.info, "cpu", repo="org/thin", revision=REVISION)
    assert torch.equal(loaded.encode(wav, lengths, 0).codes, built.encode(wav, lengths, 0).codes)


@every_codec
def test_a_file_that_lacks_a_tensor_is_refused(name, no_weights):
    """`transformers` would draw it at random and go on."""
    snapshot = put(model_of(name), no_weights / "cache")
    rewrite(snapshot, lambda tensors: {key: tensors[key] for key in sorted(tensors)[1:]})
    with pytest.raises(ValueError, match=r"codec thin-.*: org/thin lacks 1 tensors of"):
        THIN[name].adapter(build(name).info, "cpu", repo="org/thin", revision=REVISION)


def test_the_home_is_looked_in_before_the_cache(no_weights):
    put(model_of("mimi"), no_weights / "cache")
    assert hub.cache_of("org/thin", REVISION) == no_weights / "cache"
    put(model_of("mimi"), no_weights / "home" / "hub")
    assert hub.cache_of("org/thin", REVISION) == no_weights / "home" / "hub"
    assert hub.is_cached("org/thin", None)
    assert not hub.is_cached("org/thin", "f" * 40)
    assert not hub.is_cached("org/other", None)


def test_a_download_that_is_not_whole_is_not_cached(no_weights):
    snapshot = put(model_of("mimi"), no_weights / "cache")
    (snapshot / "model.safetensors").rename(snapshot / "model-1.safetensors")
    index = snapshot / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}')
    assert not hub.is_cached("org/thin", REVISION)
    (snapshot / "model-2.safetensors").touch()
    assert hub.is_cached("org/thin", REVISION)
    (snapshot / "config.json").unlink()
    assert not hub.is_cached("org/thin", REVISION)


def test_asking_for_weights_imports_nothing_heavy(no_weights):
    code = (
        "import sys; from earmark.hub import is_cached; is_cached('org/thin', None);"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
