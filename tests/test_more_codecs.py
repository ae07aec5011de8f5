"""X-Codec-2.0, NeuCodec, Higgs and the continuous codecs, on thin random models of the real modules.

The models keep the real sample rates, strides and kinds of quantiser. What is not tried here: the real weights.
"""

import functools
import math

import pytest

from earmark.codecs import calls, pretrained, registry
from earmark.codecs.contract import Info, capabilities_of
from earmark.codecs.registry import catalogue

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("torchaudio")

from earmark.codecs.continuous import PocketTts, VibeVoice, seeded  # noqa: E402
from earmark.codecs.higgs import HiggsAudio  # noqa: E402
from earmark.codecs.xcodec2 import NeuCodec, Xcodec2  # noqa: E402
from earmark.tests import thin_contract  # noqa: E402
from earmark.tests.thin_transformers import Thin, changing, thin_hubert  # noqa: E402

REVISION = "0123456789abcdef0123456789abcdef01234567"


def thin_fsq(cls):
    """64 channels, for group norm has 32 groups; three scalars of four levels are 64 codes."""
    bert = transformers.Wav2Vec2BertConfig(
        hidden_size=32, output_hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        conv_depthwise_kernel_size=7, left_max_position_embeddings=8, right_max_position_embeddings=4,
    )  # fmt: skip
    return cls(
        hidden_size=64, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        head_dim=16, encoder_hidden_size=2, semantic_model_config=bert, quantization_dim=96,
        quantization_levels=(4, 4, 4),
    )  # fmt: skip


def thin_higgs():
    ratios = [8, 5, 4, 2, 3]
    dac = transformers.DacConfig(
        encoder_hidden_size=4, decoder_hidden_size=64, hidden_size=16, codebook_size=64, downsampling_ratios=ratios,
        upsampling_ratios=ratios,
    )  # fmt: skip
    return transformers.HiggsAudioV2TokenizerConfig(
        acoustic_model_config=dac, semantic_model_config=thin_hubert(), codebook_size=64, codebook_dim=8,
        target_bandwidths=(0.15, 0.3, 0.6),
    )  # fmt: skip


def thin_pocket():
    return transformers.PocketTTSAudioTokenizerConfig(
        hidden_size=32, num_filters=4, num_attention_heads=2, num_key_value_heads=2, intermediate_size=32,
        upsample_groups=32, latent_dim=8,
    )  # fmt: skip


def thin_vibe():
    return transformers.VibeVoiceAcousticTokenizerConfig(
        num_filters=2, hidden_size=8, depths=(1,) * 7, layer_scale_init_value=0.5
    )


DISCRETE = {
    "xcodec2": Thin(
        Xcodec2,
        thin_fsq(transformers.Xcodec2Config),
        {"sample_rate": 16000, "frame_rate": 50, "codebook_sizes": "1x64"},
    ),
    "neucodec": Thin(
        NeuCodec,
        thin_fsq(transformers.NeuCodecConfig),
        {"sample_rate": 24000, "frame_rate": 50, "codebook_sizes": "1x64"},
    ),
    "higgs": Thin(
        HiggsAudio, thin_higgs(), {"sample_rate": 24000, "frame_rate": 25, "codebook_sizes": "4x64", "nested": True}
    ),
}
CONTINUOUS = {
    "pocket": Thin(PocketTts, thin_pocket(), {"sample_rate": 24000, "frame_rate": 12.5}),
    "vibe-sampled": Thin(VibeVoice, thin_vibe(), {"sample_rate": 24000, "frame_rate": 7.5, "stochastic": True}),
    "vibe-mean": Thin(VibeVoice, thin_vibe(), {"sample_rate": 24000, "frame_rate": 7.5}),
}
THIN = DISCRETE | CONTINUOUS
KINDS = {name: ("unquantized", "quantized") if name in DISCRETE else ("unquantized",) for name in THIN}
every_codec = pytest.mark.parametrize("name", THIN)
discrete = pytest.mark.parametrize("name", DISCRETE)
continuous = pytest.mark.parametrize("name", CONTINUOUS)


pytestmark = pytest.mark.usefixtures("inference")


@functools.cache
def model_of(name):
    """A random model whose weights, tiny as built, are drawn large enough that its codes and its sound vary."""
    torch.manual_seed(0)
    model = getattr(transformers, THIN[name].adapter.model_class)(THIN[name].config)
    layers = (torch.nn.Linear,) if name == "pocket" else (torch.nn.Linear, torch.nn.Conv1d, torch.nn.ConvTranspose1d)
    for module in model.modules():
        if isinstance(module, layers) and not torch.nn.utils.parametrize.is_parametrized(module):
            module.reset_parameters()
    if name in DISCRETE:
        spread(model, build(name, model=model).embed(noise(name, 24000)))
    return model


def spread(model, latents):
    """Spread what is quantised over the codes: the scalars to mean 0 and unit deviation, codebooks over the latents."""
    latents = latents.transpose(1, 2)
    if hasattr(model.quantizer, "project_in"):
        project = model.quantizer.project_in
        mean, deviation = project(latents).mean(dim=(0, 1)), project(latents).std(dim=(0, 1))
        project.weight /= deviation[:, None]
        project.bias.copy_((project.bias - mean) / deviation)
        return
    for layer in model.quantizer.quantizers:
        found = layer.project_in(latents)[0]
        layer.codebook.embed.copy_(torch.randn(layer.codebook.embed.shape) * found.std(dim=0) + found.mean(dim=0))
        latents = latents - layer.project_out(layer.codebook.decode(layer.codebook.encode(layer.project_in(latents))))


def build(name, model=None, **info):
    thin = THIN[name]
    options = {"sample": name == "vibe-sampled"} if name.startswith("vibe") else {}
    return thin.adapter(Info(name=f"thin-{name}", **thin.info | info), "cpu", model=model or model_of(name), **options)


def noise(name, length, batch=1, seed=0):
    del name  # all have one channel
    return changing(length, batch=batch, seed=seed)


def encode(name, wav, lengths=None, **info):
    adapter = build(name, **info)
    lengths = torch.full((len(wav),), wav.shape[-1]) if lengths is None else torch.tensor(lengths)
    return adapter, calls.encode(adapter, adapter.info, wav, lengths, 0)


def reconstruct(name, wav, lengths=None, seed=0):
    adapter = build(name)
    lengths = torch.full((len(wav),), wav.shape[-1]) if lengths is None else torch.tensor(lengths)
    return calls.reconstruct(adapter, adapter.info, wav, lengths, seed)[0]


def embed(name, wav, kind="unquantized", lengths=None, seed=0):
    adapter = build(name)
    lengths = torch.full((len(wav),), wav.shape[-1]) if lengths is None else torch.tensor(lengths)
    return calls.latents(adapter, adapter.info, wav, lengths, kind, seed)


def frames_by_hand(name, length):
    """ceil(L / hop); a zero more always for X-Codec-2.0."""
    return length // 320 + 1 if name == "xcodec2" else math.ceil(length / THIN[name].hop)


@every_codec
def test_it_keeps_the_contract(name):
    """What continuous codecs make of random weights is loud."""
    failed = thin_contract.failures(build(name), KINDS[name])
    assert set(failed) == ({"range"} if name in CONTINUOUS else set()), "\n".join(failed.values())


# Shapes, and how many frames.


@every_codec
@pytest.mark.parametrize("boundary", ["1", "hop - 1", "hop", "hop + 1", "rate + 17"])
def test_frames_follow_the_law_and_the_sound_covers_the_clip(name, boundary):
    hop, rate = THIN[name].hop, THIN[name].info["sample_rate"]
    length = {"1": 1, "hop - 1": hop - 1, "hop": hop, "hop + 1": hop + 1, "rate + 17": rate + 17}[boundary]
    wav, expected = noise(name, length), frames_by_hand(name, length)
    assert reconstruct(name, wav).shape == (1, 1, expected * hop)
    if name in DISCRETE:
        assert encode(name, wav)[1].frames.tolist() == [expected]
    for kind in KINDS[name]:
        latents, frames = embed(name, wav, kind)
        assert frames.tolist() == [expected]
        assert latents.shape[-1] == expected


@discrete
def test_codes_vary_and_cost_what_is_declared(name):
    thin, seconds = THIN[name], 3
    adapter, encoded = encode(name, noise(name, seconds * thin.info["sample_rate"]))
    assert min(len(row.unique()) for row in encoded.codes[0]) > 12, "codes so alike that the tests would prove nothing"
    frames = int(encoded.frames[0])
    assert frames == pytest.approx(seconds * thin.info["frame_rate"], abs=1)
    bits = float(calls.nominal_bits(adapter.info, encoded))
    assert bits == frames * 6 * adapter.info.num_codebooks
    assert bits == pytest.approx(1000 * adapter.info.bitrate_kbps * frames / thin.info["frame_rate"])


@every_codec
def test_the_sound_depends_on_the_clip(name):
    rate = THIN[name].info["sample_rate"]
    one, other = reconstruct(name, noise(name, rate, seed=1)), reconstruct(name, noise(name, rate, seed=2))
    assert float((one - other).std()) > 1e-4, "sounds so alike that the tests would prove nothing"


# One clip is one clip.


@every_codec
def test_a_batch_is_its_clips_whatever_lies_beyond_them(name):
    rate = THIN[name].info["sample_rate"]
    lengths = [rate // 2 + 17, rate + 300, 100]
    batch = noise(name, rate + 900, batch=3)
    for row, length in zip(batch, lengths, strict=True):
        row[:, length:] = 1e3
    sounds = reconstruct(name, batch, lengths, seed=5)
    for i, length in enumerate(lengths):
        wav = batch[i : i + 1, :, :length]
        alone = reconstruct(name, wav, seed=5)[0]
        assert torch.equal(sounds[i, :, : alone.shape[-1]], alone)
        assert not sounds[i, :, alone.shape[-1] :].any()
        for kind in KINDS[name]:
            latents, frames = embed(name, batch, kind, lengths, seed=5)
            expected = embed(name, wav, kind, seed=5)[0][0]
            assert torch.equal(latents[i, :, : frames[i]], expected)
            assert not latents[i, :, frames[i] :].any()


@discrete
def test_codes_of_a_batch_are_those_of_its_clips(name):
    rate = THIN[name].info["sample_rate"]
    batch, lengths = noise(name, rate, batch=3), [rate, rate // 3, rate // 3]
    _, together = encode(name, batch, lengths)
    for i, length in enumerate(lengths):
        alone = encode(name, batch[i : i + 1, :, :length])[1].codes[0]
        assert torch.equal(together.codes[i, :, : alone.shape[-1]], alone)
        assert bool((together.codes[i, :, alone.shape[-1] :] == -1).all())


@pytest.mark.parametrize("name", ["neucodec", "higgs", "pocket"])
def test_zeros_that_fill_the_last_frame_change_nothing(name):
    hop = THIN[name].hop
    wav = noise(name, 3 * hop + hop // 3)
    filled = torch.nn.functional.pad(wav, (0, -wav.shape[-1] % hop))
    assert torch.equal(reconstruct(name, wav), reconstruct(name, filled))


@pytest.mark.parametrize("name", sorted(set(THIN) - {"vibe-sampled"}))
def test_the_seed_and_the_run_change_nothing(name):
    wav = noise(name, 9000)
    assert torch.equal(reconstruct(name, wav, seed=0), reconstruct(name, wav, seed=1))


@every_codec
def test_nothing_global_moves(name):
    before = torch.get_rng_state(), torch.get_default_dtype()
    reconstruct(name, noise(name, 5000))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_default_dtype() == before[1]


@every_codec
def test_silence_stays_finite(name):
    assert bool(torch.isfinite(reconstruct(name, torch.zeros(1, 1, 5000))).all())


# The library's own way.


def library_inputs(name, wav):
    """What the family's feature extractor makes of a clip, at the rate that the encoder hears."""
    from torchaudio.functional import resample

    heard = resample(wav, 24000, 16000) if name == "neucodec" else wav
    extractor = getattr(transformers, THIN[name].adapter.extractor_class)()
    return extractor(audio=heard[0, 0], sampling_rate=16000, return_tensors="pt")


@discrete
def test_whole_hops_are_coded_as_the_library_codes_them(name):
    wav, model = noise(name, 40 * THIN[name].hop), model_of(name)
    adapter, encoded = encode(name, wav)
    made = model.encode(wav, bandwidth=0.6) if name == "higgs" else model.encode(**library_inputs(name, wav))
    assert torch.equal(encoded.codes, made.audio_codes.long())
    assert torch.equal(adapter.decode(encoded, 0), model.decode(audio_codes=made.audio_codes).audio_values)


def test_any_length_is_coded_as_x_codec_2_0_codes_it_in_the_library():
    for length in (1, 319, 320, 321, 5555):
        wav = noise("xcodec2", length)
        made = model_of("xcodec2").encode(**library_inputs("xcodec2", wav))
        assert torch.equal(encode("xcodec2", wav)[1].codes, made.audio_codes.long())


def test_continuous_sound_is_the_librarys():
    wav = noise("pocket", 50 * 1920)
    made = model_of("pocket")(wav)
    assert torch.equal(reconstruct("pocket", wav), made.audio_values)
    assert torch.equal(embed("pocket", wav)[0], made.latents.transpose(1, 2))


def test_clips_are_brought_to_minus_25_db_and_back():
    wav = noise("vibe-mean", 20000)
    heard = transformers.VibeVoiceAcousticTokenizerFeatureExtractor()(wav[0, 0].numpy(), sampling_rate=24000)
    made = model_of("vibe-mean")(heard.input_values, sample=False)
    torch.testing.assert_close(embed("vibe-mean", wav)[0], made.latents.transpose(1, 2), rtol=1e-5, atol=1e-6)
    gain = 10 ** (-25 / 20) / float(wav.square().mean().sqrt())
    torch.testing.assert_close(reconstruct("vibe-mean", wav), made.audio / gain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["vibe-mean"])
def test_a_level_moves_the_sound_and_not_the_latents(name):
    wav = noise(name, 20000)
    torch.testing.assert_close(embed(name, wav)[0], embed(name, 4 * wav)[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(4 * reconstruct(name, wav), reconstruct(name, 4 * wav), rtol=1e-3, atol=1e-4)


def test_a_peak_that_would_clip_is_brought_to_full_scale():
    """One sample of 1 in 24000 zeros has an RMS of 1 / 155 = -44 dB, so -25 dB would put it at 8.7."""
    click = torch.zeros(1, 1, 24000)
    click[..., 100] = 1
    assert float(build("vibe-mean").gain(click)) == pytest.approx(1, abs=1e-5)


def test_noise_is_the_librarys_and_follows_the_seed():
    wav, model = noise("vibe-sampled", 6 * 3200), model_of("vibe-sampled")
    adapter = build("vibe-sampled")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeded(7, wav).initial_seed())
        made = model.encode(wav * adapter.gain(wav), sample=True).latents.transpose(1, 2)
    assert torch.equal(embed("vibe-sampled", wav, seed=7)[0], made)
    assert not torch.equal(embed("vibe-sampled", wav, seed=8)[0], made)
    mean = build("vibe-mean", model=model)
    expected, _ = mean.latents(wav, torch.tensor([wav.shape[-1]]), "unquantized", 7)
    assert 0 < float((made - expected).std()) < 5 * 0.625


def test_no_two_clips_share_their_noise():
    first, second = noise("vibe-sampled", 6400, seed=1), noise("vibe-sampled", 6400, seed=2)
    assert seeded(0, first).initial_seed() != seeded(0, second).initial_seed()
    assert seeded(0, first).initial_seed() != seeded(1, first).initial_seed()


# Quantisers and latents.


@discrete
def test_quantized_latents_are_what_the_decoder_is_given(name):
    wav = noise(name, 20000)
    adapter, encoded = encode(name, wav)
    unquantized, quantized = embed(name, wav)[0], embed(name, wav, "quantized")[0]
    assert torch.equal(adapter.quantise(unquantized), encoded.codes)
    assert torch.equal(quantized, adapter.dequantise(encoded.codes))
    assert torch.equal(adapter.synthesise(quantized), adapter.decode(encoded, 0))
    assert unquantized.shape == quantized.shape


def test_fewer_codebooks_are_a_prefix():
    wav = noise("higgs", 24000)
    _, full = encode("higgs", wav)
    for codebooks in (1, 2, 3):
        _, part = encode("higgs", wav, codebook_sizes=(64,) * codebooks)
        assert torch.equal(part.codes, full.codes[:, :codebooks])


@continuous
def test_latents_of_another_kind_are_refused(name):
    with pytest.raises(ValueError, match=f"thin-{name} has no latents 'quantized', only unquantized"):
        build(name).latents(noise(name, 2000), torch.tensor([2000]), "quantized", 0)


@continuous
def test_continuous_codecs_have_no_bits(name):
    adapter, wav = build(name), noise(name, 5000)
    assert calls.reconstruct(adapter, adapter.info, wav, torch.tensor([5000]), 0)[1] is None
    assert adapter.info.bitrate_kbps is None
    assert capabilities_of(type(adapter)) == ("reconstruct", "embed")


# The catalogue: every row against the config of its checkpoint, as the hub has it (the parts that count).

HUB_CONFIGS = {
    # What the library documents as the checkpoint's own (Xcodec2Config, NeuCodecConfig).
    "HKUSTAudio/xcodec2-hf": lambda: transformers.Xcodec2Config(),
    "neuphonic/neucodec": lambda: transformers.NeuCodecConfig(),
    # huggingface.co/eustlb/tmp, config.json (the conversion); bandwidths: the model card's.
    "bosonai/higgs-audio-v2-tokenizer": lambda: transformers.HiggsAudioV2TokenizerConfig(
        acoustic_model_config={"downsampling_ratios": [8, 5, 4, 2, 3], "upsampling_ratios": [8, 5, 4, 2, 3]},
        target_bandwidths=[0.5, 1, 1.5, 2],
    ),
    "eustlb/pocket-tts-audio-tokenizer": lambda: transformers.PocketTTSAudioTokenizerConfig(),
    # As in huggingface.co/microsoft/VibeVoice-ASR-HF, config.json, `acoustic_tokenizer_encoder_config`.
    "microsoft/VibeVoice-AcousticTokenizer": lambda: transformers.VibeVoiceAcousticTokenizerConfig(
        downsampling_ratios=[2, 2, 4, 5, 5, 8], hidden_size=64, vae_std=0.625
    ),
}
ROWS = {name: entry for name, entry in catalogue().items() if entry.checkpoint and entry.checkpoint.repo in HUB_CONFIGS}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_agrees_with_its_model(name):
    entry = ROWS[name]
    cls = registry._import_adapter(entry.adapter)
    with torch.device("meta"):
        config = HUB_CONFIGS[entry.checkpoint.repo]()
        bare = torch.nn.Module()
    bare.config = config
    if hasattr(cls, "measures"):
        adapter = object.__new__(cls)
        adapter.model = bare
        pretrained._agree(entry.info, adapter.measures())
    else:
        cls(entry.info, "cpu", model=bare, **entry.options)
    assert set(entry.info.capabilities) == set(capabilities_of(cls))


def test_rows_are_all_here_with_their_bitrates():
    kbps = {name: entry.info.bitrate_kbps for name, entry in ROWS.items()}
    assert kbps == {
        "xcodec2": 0.8, "neucodec": 0.8, "higgs-v2-2": 0.5, "higgs-v2-4": 1, "higgs-v2-8": 2, "pockettts": None,
        "vibevoice-sampled": None, "vibevoice-mean": None,
    }  # fmt: skip
    assert [name for name, entry in ROWS.items() if entry.info.stochastic] == ["vibevoice-sampled"]


def test_a_row_that_disagrees_with_its_model_is_refused():
    with pytest.raises(ValueError, match=r"thin-pocket: rate and frame rate are \(24000, 25.0\), the model's are"):
        build("pocket", frame_rate=25)
    with pytest.raises(ValueError, match=r"thin-xcodec2: rate, frame rate, channels, codebook size are"):
        build("xcodec2", codebook_sizes="1x65536")


# Weights.


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A home and a hub cache, both empty."""
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put(model, cache, repo="org/thin", revision=REVISION):
    """A model in a hub cache, as a download leaves it."""
    folder = cache / ("models--" + repo.replace("/", "--"))
    with torch.inference_mode(False):
        model.save_pretrained(folder / "snapshots" / revision)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)


@every_codec
def test_a_model_from_the_cache_is_the_model_that_was_saved(name, cache):
    put(model_of(name), cache)
    built, wav = build(name), noise(name, 5000)
    options = {"sample": built.sample} if name.startswith("vibe") else {}
    loaded = type(built)(built.info, "cpu", repo="org/thin", revision=REVISION, **options)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    found, _ = calls.reconstruct(loaded, loaded.info, wav, torch.tensor([5000]), 0)
    assert torch.equal(found, reconstruct(name, wav))


@pytest.mark.parametrize("name", ROWS)
def test_weights_that_are_missing_say_how_to_get_them(name, cache):
    del cache
    repo = ROWS[name].checkpoint.repo
    with pytest.raises(pretrained.WeightsMissing, match=f"codec {name}: weights of {repo} missing; run: hf download"):
        registry.load(ROWS[name], "cpu")
