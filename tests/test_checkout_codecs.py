"""Codecs whose code is a checkout: WavTokenizer, BigCodec, MaskGCT's and FocalCodec, with random weights.

Each runs on a stand-in with the checkout's calls (BigCodec: on its own modules, from a package that has them), and on
the checkout itself where one is on this machine (`earmark codecs` says where). The real weights are not tried here.
"""

import json

import pytest

from earmark.codecs import calls, pretrained, registry
from earmark.codecs.registry import catalogue
from earmark.tests import standin_checkouts
from earmark.tests.batch_invariance import assert_a_batch_is_its_clips

torch = pytest.importorskip("torch")
pytest.importorskip("einops")

from earmark.codecs import bigcodec, maskgct, wavtokenizer  # noqa: E402
from earmark.tests import thin_checkouts, thin_contract  # noqa: E402
from earmark.tests.thin_checkouts import noise  # noqa: E402

pytestmark = pytest.mark.usefixtures("inference")
REVISION = "0123456789abcdef0123456789abcdef01234567"

STANDINS = {
    "wavtokenizer": standin_checkouts.WAVTOKENIZER,
    "maskgct": standin_checkouts.MASKGCT,
    "focalcodec": standin_checkouts.FOCALCODEC,
}
# The authors' classes, but for torch's newer weight_norm (compared with commit 09845ab as parsed code).
AS_CHECKOUT = {
    "vq/__init__.py": "from bigcodec.modules import CodecDecoder, CodecEncoder\n",
    "vq/codec_encoder.py": "",
    "vq/codec_decoder.py": "",
}
HERE = {name: entry.checkout for name, entry in catalogue().items() if entry.checkout}
NAMES = {
    "wavtokenizer-40": "wavtokenizer-unify-40", "wavtokenizer-75": "wavtokenizer-speech-75", "bigcodec": "bigcodec",
    "maskgct": "maskgct-12", "focalcodec-50": "focalcodec-50", "focalcodec-12.5": "focalcodec-12.5",
}  # fmt: skip
PLACES = [(name, "standin") for name in NAMES]
PLACES += [(name, "checkout") for name, row in NAMES.items() if HERE[row].find()]
OF_MANY = [place for place in PLACES if place[0] == "maskgct"]  # the others have one codebook


def stand_in(case, folder):
    """Put the stand-in of a codec's checkout in a folder that weights are looked for in."""
    if case.adapter is bigcodec.BigCodec:
        pytest.importorskip("bigcodec", reason="needs the package: pip install bigcodec==0.0.3")
    modules = STANDINS.get(case.row.partition("-")[0], AS_CHECKOUT)
    standin_checkouts.write(modules, folder / HERE[case.row].folder)


@pytest.fixture(params=PLACES, ids=":".join, scope="module")
def made(request, tmp_path_factory):
    """A codec in thin, its checkout, and a random model of it."""
    (name, kind), folder = request.param, tmp_path_factory.mktemp("weights")
    case = thin_checkouts.case(name, folder)
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]), torch.no_grad():
        if kind == "standin":
            stand_in(case, folder)
            patch.setenv("EARMARK_WEIGHTS", str(folder))
        checkout = HERE[case.row]
        torch.manual_seed(0)
        model = case.build(checkout).eval()
        case.spread(model, noise(100 * case.hop))
        yield case, checkout, model


def encode(made, wav, lengths=None, codebooks=None):
    case, _, model = made
    adapter = case.adapter(case.info(codebooks), "cpu", model=model)
    lengths = torch.full((len(wav),), wav.shape[-1]) if lengths is None else torch.tensor(lengths)
    return adapter, calls.encode(adapter, adapter.info, wav, lengths, 0)


def test_it_keeps_the_contract(made):
    case, _, model = made
    failed = thin_contract.failures(case.adapter(case.info(), "cpu", model=model), ("unquantized", "quantized"))
    assert not failed, "\n".join(failed.values())


@pytest.mark.parametrize("boundary", [(0, 1), (1, -1), (1, 0), (1, 1), (7, 17), (8, 0)])
def test_codes_and_sound_are_upstreams_and_cover_the_clip(made, boundary):
    case, _, model = made
    length = boundary[0] * case.hop + boundary[1]
    clip = noise(length)
    adapter, encoded = encode(made, clip)
    assert encoded.frames.tolist() == [case.frames(length)]
    codes, sound = case.upstream(model, clip)
    assert torch.equal(encoded.codes, codes)
    decoded = adapter.decode(encoded, 0)
    torch.testing.assert_close(decoded, sound, rtol=0, atol=1e-5)
    assert decoded.shape == (1, 1, case.hop * case.frames(length))


def test_codes_vary_and_cost_what_is_declared(made):
    length = 100 * made[0].hop
    adapter, encoded = encode(made, noise(length))
    assert min(len(row.unique()) for row in encoded.codes[0]) > 8
    bits = float(calls.nominal_bits(adapter.info, encoded))
    assert bits == pytest.approx(6 * adapter.info.num_codebooks * made[0].frames(length))


def test_a_batch_is_its_clips_whatever_lies_beyond_them(made):
    case, _, model = made
    adapter = case.adapter(case.info(None), "cpu", model=model)
    assert_a_batch_is_its_clips(adapter, noise(10 * case.hop, batch=3), [5 * case.hop + 7, 9 * case.hop, 100])


def test_latents_are_those_that_are_quantised_and_decoded(made):
    wav, lengths = noise(3000), torch.tensor([3000])
    adapter, encoded = encode(made, wav)
    unquantized, frames = adapter.latents(wav, lengths, "unquantized", 0)
    quantized, _ = adapter.latents(wav, lengths, "quantized", 0)
    assert frames.tolist() == encoded.frames.tolist()
    assert unquantized.shape == quantized.shape == (1, made[0].dimensions, int(frames[0]))
    assert torch.equal(adapter.quantise(unquantized), encoded.codes)
    torch.testing.assert_close(adapter.synthesise(quantized), adapter.decode(encoded, 0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("made", OF_MANY, ids=":".join, indirect=True)
def test_fewer_codebooks_are_a_prefix_and_decode(made):
    wav = noise(9000)
    adapter, part = encode(made, wav, codebooks=2)
    full, encoded = encode(made, wav)
    assert torch.equal(part.codes, encoded.codes[:, :2])
    assert not torch.equal(adapter.decode(part, 0), full.decode(encoded, 0))


def test_a_model_from_the_cache_is_the_model_that_was_saved(made, tmp_path, monkeypatch):
    case, checkout, model = made
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "models--org--thin" / "snapshots" / REVISION
    folder.mkdir(parents=True)
    case.save(model, folder)
    # The sizes of these two are not beside their weights.
    monkeypatch.setattr(bigcodec, "build", case.build)
    monkeypatch.setattr(maskgct, "CONFIG", str(tmp_path / "maskgct.json"))
    (tmp_path / "maskgct.json").write_text(json.dumps({"model": {"acoustic_codec": thin_checkouts.MASKGCT}}))
    loaded = case.adapter(case.info(), "cpu", repo="org/thin", revision=REVISION, checkout=checkout, **case.options)
    wav = noise(5000)
    built, expected = encode(made, wav)
    encoded = loaded.encode(wav, torch.tensor([5000]), 0)
    assert torch.equal(encoded.codes, expected.codes)
    assert torch.equal(loaded.decode(encoded, 0), built.decode(expected, 0))
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_without_a_checkout_there_is_no_network(made):
    case, _, _ = made
    with pytest.raises(ValueError, match="thin: needs a checkout, or a model"):
        case.adapter(case.info(), "cpu", repo="org/thin")


# Rows against what is published.

# Rate, hop, codebook size, kbps: WavTokenizer's configs, BigCodec's defaults, maskgct.json, FocalCodec's README.md.
ROWS = {
    "wavtokenizer-unify-40": (24000, 600, 4096, 0.48),
    "wavtokenizer-speech-75": (24000, 320, 4096, 0.9),
    "bigcodec": (16000, 200, 8192, 1.04),
    "maskgct-8": (24000, 480, 1024, 4),
    "maskgct-10": (24000, 480, 1024, 5),
    "maskgct-12": (24000, 480, 1024, 6),
    "focalcodec-50": (16000, 320, 8192, 0.65),
    "focalcodec-25": (16000, 640, 8192, 0.325),
    "focalcodec-12.5": (16000, 1280, 8192, 0.1625),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_what_is_published(name):
    info, (rate, hop, size, kbps) = catalogue()[name].info, ROWS[name]
    assert (info.sample_rate, info.frame_rate, set(info.codebook_sizes)) == (rate, rate / hop, {size})
    assert info.bitrate_kbps == pytest.approx(kbps)


@pytest.mark.parametrize("name", ["wavtokenizer-unify-40", "wavtokenizer-speech-75", "bigcodec", "maskgct-12"])
def test_a_row_agrees_with_the_checkouts_own_network(name):
    """At its full size, on no device; FocalCodec's configs are beside its weights."""
    entry = catalogue()[name]
    if entry.checkout.find() is None:
        pytest.skip(f"needs a checkout: {entry.checkout.command}")
    adapter = object.__new__(registry._import_adapter(entry.adapter))
    with torch.device("meta"):
        if entry.family == "wavtokenizer":
            adapter.model = wavtokenizer.build(entry.checkout, entry.options["config"])
        elif entry.family == "maskgct":
            config = json.loads((entry.checkout.here() / maskgct.CONFIG).read_text())
            adapter.model = maskgct.build(entry.checkout, config["model"]["acoustic_codec"])
        else:
            adapter.model = bigcodec.build(entry.checkout)
    pretrained._agree(entry.info, adapter.measures())


@pytest.mark.parametrize("name", ROWS)
def test_what_is_missing_is_one_command(name, tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EARMARK_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    entry = catalogue()[name].model_copy(update={"packages": ()})
    checkout, target = entry.checkout, tmp_path / "home" / "weights" / entry.checkout.folder
    command = f"git clone {checkout.url} {target} && git -C {target} checkout {checkout.commit}"
    fetch = " ".join(["hf download", entry.checkpoint.repo, *entry.checkpoint.files])
    assert str(registry.status(entry)).startswith(f"package missing; run: {command} && {fetch}")
    for file in checkout.files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        (target / file).touch()
    assert str(registry.status(entry)).startswith(f"weights missing; run: {fetch}")
    with pytest.raises(pretrained.WeightsMissing, match=f"codec {name}: .*; run: hf download {entry.checkpoint.repo}"):
        registry.load(entry, "cpu")
