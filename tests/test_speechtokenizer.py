"""SpeechTokenizer, on a thin random model of the package's own class. The real weights are not tried here."""

import importlib.util
import json
import math

import pytest

from earmark.codecs import calls, pretrained, registry
from earmark.codecs.contract import Info
from earmark.codecs.registry import catalogue
from earmark.tests.batch_invariance import assert_a_batch_is_its_clips

torch = pytest.importorskip("torch")
if importlib.util.find_spec("speechtokenizer") is None or importlib.util.find_spec("einops") is None:
    pytest.skip("needs the package: pip install speechtokenizer", allow_module_level=True)

from earmark.codecs.speechtokenizer import FOLDER, SpeechTokenizer, build  # noqa: E402
from earmark.tests import thin_contract  # noqa: E402

# huggingface.co/fnlp/SpeechTokenizer, speechtokenizer_hubert_avg/config.json (what the network reads of it).
PUBLISHED = {
    "n_filters": 64, "strides": [8, 5, 4, 2], "dimension": 1024, "semantic_dimension": 768, "bidirectional": True,
    "dilation_base": 2, "residual_kernel_size": 3, "n_residual_layers": 1, "lstm_layers": 2, "activation": "ELU",
    "sample_rate": 16000, "codebook_size": 1024, "n_q": 8,
}  # fmt: skip
THIN = PUBLISHED | {"n_filters": 4, "dimension": 32, "semantic_dimension": 24, "codebook_size": 64, "n_q": 4}


pytestmark = pytest.mark.usefixtures("inference")


def model_of():
    """A random model, its codebooks (drawn from the first batch in training) spread over what its encoder gives."""
    torch.manual_seed(0)
    model = build(THIN).eval()
    latents = model.encoder(noise(16000))
    mean, deviation = latents.mean(dim=(0, 2)), latents.std(dim=(0, 2))
    for i, layer in enumerate(model.quantizer.vq.layers):
        book = layer._codebook
        book.embed.copy_(torch.randn(book.embed.shape) * deviation * 0.7**i + mean * (i == 0))
        book.inited.fill_(1)
    return model


def info_of(codebooks=4):
    return Info(name="thin", sample_rate=16000, frame_rate=50, codebook_sizes=(64,) * codebooks, nested=True)


def noise(length, batch=1, seed=0):
    return 0.3 * torch.randn(batch, 1, length, generator=torch.Generator().manual_seed(seed))


def encode(wav, lengths=None, codebooks=4):
    adapter = SpeechTokenizer(info_of(codebooks), "cpu", model=model_of())
    lengths = torch.full((len(wav),), wav.shape[-1]) if lengths is None else torch.tensor(lengths)
    return adapter, calls.encode(adapter, adapter.info, wav, lengths, 0)


@pytest.mark.parametrize("length", [1, 319, 320, 321, 16017])
def test_frames_are_the_ceiling_and_tokens_and_sound_the_packages(length):
    wav = noise(length)
    adapter, encoded = encode(wav)
    assert encoded.frames.tolist() == [math.ceil(length / 320)]
    tokens = adapter.model.encode(wav)
    assert torch.equal(encoded.codes, tokens.transpose(0, 1))
    sound = adapter.decode(encoded, 0)
    assert torch.equal(sound, adapter.model.decode(tokens))
    assert sound.shape[-1] == 320 * math.ceil(length / 320)


def test_codes_vary_and_cost_what_is_declared():
    adapter, encoded = encode(noise(32000))
    assert min(len(row.unique()) for row in encoded.codes[0]) > 12
    assert float(calls.nominal_bits(adapter.info, encoded)) == 2000 * adapter.info.bitrate_kbps


def test_a_batch_is_its_clips_whatever_lies_beyond_them():
    adapter = SpeechTokenizer(info_of(4), "cpu", model=model_of())
    assert_a_batch_is_its_clips(adapter, noise(17000, batch=3), [8017, 16300, 100])


def test_it_keeps_the_contract():
    adapter = SpeechTokenizer(info_of(), "cpu", model=model_of())
    failed = thin_contract.failures(adapter, ("unquantized", "quantized"))
    assert not failed, "\n".join(failed.values())


def test_fewer_codebooks_are_a_prefix():
    wav = noise(9000)
    assert torch.equal(encode(wav, codebooks=2)[1].codes, encode(wav)[1].codes[:, :2])


def test_a_row_agrees_with_the_published_config():
    for codebooks in (1, 4, 8):
        info = catalogue()[f"speechtokenizer-{codebooks}"].info
        assert info.frame_rate == info.sample_rate / math.prod(PUBLISHED["strides"])
        assert info.sample_rate == PUBLISHED["sample_rate"]
        assert info.codebook_sizes == (PUBLISHED["codebook_size"],) * codebooks


def test_a_model_from_the_cache_is_the_model_that_was_saved(tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(pretrained.WeightsMissing, match="hf download fnlp/SpeechTokenizer"):
        registry.load(catalogue()["speechtokenizer-8"], "cpu")
    revision = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "cache" / "models--org--thin" / "snapshots" / revision / FOLDER
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(THIN))
    torch.save(model_of().state_dict(), folder / "SpeechTokenizer.pt")
    loaded = SpeechTokenizer(info_of(), "cpu", repo="org/thin", revision=revision)
    wav = noise(5000)
    encoded = loaded.encode(wav, torch.tensor([5000]), 0)
    assert torch.equal(encoded.codes, encode(wav)[1].codes)
    assert not loaded.model.training
