"""The controls give the answer that they are there to give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from earmark.codecs import calls, registry
from earmark.codecs.contract import Encoded, Info
from earmark.codecs.controls import LowPass, Uniform

HOP = 320
TOKENS = ["constant", "random-codes"]
LENGTHS = [1, 2, HOP - 1, HOP, HOP + 1, 12345]


def load(name: str) -> Any:
    return registry.load(registry.catalogue()[name], "cpu")


def noise(*lengths: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of white noise [B, 1, L], zero beyond each clip, and its lengths."""
    wav = 0.1 * torch.randn(len(lengths), 1, max(lengths), generator=torch.Generator().manual_seed(seed))
    for row, length in zip(wav, lengths, strict=True):
        row[:, length:] = 0
    return wav, torch.tensor(lengths)


def sine(hz: float, sample_rate: int, amplitude: float = 1.0) -> torch.Tensor:
    """One second [1, 1, L]."""
    time = torch.arange(sample_rate, dtype=torch.float64) / sample_rate
    return (amplitude * torch.sin(2 * torch.pi * hz * time)).float()[None, None]


def level_db(wav: torch.Tensor) -> float:
    """RMS in dB of full scale."""
    return 10 * float(wav.double().square().mean().log10())


@pytest.mark.parametrize("name", ["identity", "uniform-8bit", "lowpass"])
@pytest.mark.parametrize("length", LENGTHS)
def test_length_stays(name, length):
    wav, lengths = noise(length)
    assert load(name).reconstruct(wav, lengths, seed=0)[0].shape == wav.shape


@pytest.mark.parametrize("name", ["identity", "uniform-8bit", "lowpass"])
def test_batch_and_padding_change_nothing(name):
    wav, lengths = noise(5000, 12345)
    batch, _ = load(name).reconstruct(wav, lengths, seed=0)
    alone, _ = load(name).reconstruct(wav[:1, :, :5000], lengths[:1], seed=0)
    # convolution of another shape may add up in another order
    torch.testing.assert_close(batch[:1, :, :5000], alone, rtol=0, atol=1e-7)
    assert not batch[0, :, 5000:].any()


def test_identity_gives_back_what_it_gets():
    wav, lengths = noise(5000, 12345)
    decoded, bits = load("identity").reconstruct(wav, lengths, seed=0)
    assert torch.equal(decoded, wav)
    assert decoded is not wav
    assert bits is None


@pytest.mark.parametrize("bits", [8, 12])
def test_uniform_snr_is_six_db_a_bit(bits):
    """6.02 n + 1.76 dB on a sine, all but full-scale: its peaks are 0.625 of a step short of 1.

    The error of a sine is not quite uniform: its power is off by a term in J0(2 pi A / step), up to 0.14 dB for 8 bits,
    which is zero for such peaks. The largest sine that is not overloaded peaks 0.5 of a step short of 1.
    """
    codec = Uniform(Info(name="uniform", sample_rate=None), "cpu", bits=bits)
    wav = sine(997, 48000, amplitude=1 - 0.625 * 2.0 ** (1 - bits))
    decoded, spent = codec.reconstruct(wav, torch.tensor([48000]), seed=0)
    assert level_db(wav) - level_db(decoded - wav) == pytest.approx(6.02 * bits + 1.76, abs=0.1)
    assert spent.tolist() == [48000 * bits]


def test_uniform_by_hand():
    """Eight bits: levels of 1/128. 0.4/128 goes to 0, 0.6/128 to 1/128; 127/128 is the top, -1 the bottom."""
    wav = torch.tensor([[[0.4, 0.6, -0.6, 127.6, 300.0, -128.0, -300.0]]]) / 128
    decoded, bits = load("uniform-8bit").reconstruct(wav, torch.tensor([5]), seed=0)
    assert (decoded * 128).flatten().tolist() == [0, 1, -1, 127, 127, -128, -128]
    assert bits.tolist() == [5 * 8]


@pytest.mark.parametrize(
    ("hz", "least_db", "most_db"),
    [(100, -0.1, 0.1), (1000, -0.1, 0.1), (3500, -0.1, 0.1), (4000, -200, -50), (4200, -200, -60), (4500, -200, -60)],
)
def test_lowpass_is_the_anchor(hz, least_db, most_db):
    """ITU-R BS.1534-3: within 0.1 dB to 3.5 kHz, 25 dB down at 4 kHz, 50 dB down at 4.5 kHz."""
    wav = sine(hz, 48000)
    decoded, bits = load("lowpass").reconstruct(wav, torch.tensor([48000]), seed=0)
    steady = slice(4800, -4800)  # a tone that starts and stops has other frequencies too
    assert least_db <= level_db(decoded[..., steady]) - level_db(wav[..., steady]) <= most_db
    assert bits is None


def test_lowpass_has_no_delay():
    wav = sine(1000, 48000)
    decoded, _ = load("lowpass").reconstruct(wav, torch.tensor([48000]), seed=0)
    torch.testing.assert_close(decoded[..., 4800:-4800], wav[..., 4800:-4800], rtol=0, atol=2e-3)


def test_a_control_without_its_rate_says_so():
    with pytest.raises(ValueError, match="needs a sample_rate"):
        LowPass(Info(name="lowpass", sample_rate=None), "cpu", pass_hz=3500, stop_hz=4000)


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_token_for_each_started_frame(name, length):
    codec, (wav, lengths) = load(name), noise(length)
    encoded = codec.encode(wav, lengths, seed=0)
    frames = -(-length // HOP)
    assert encoded.codes.shape == (1, 8, frames)
    assert encoded.frames.tolist() == [frames]
    assert codec.decode(encoded, seed=0).shape == (1, 1, frames * HOP)


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_keep_the_contract(name):
    """The calls that the store makes check shapes and ranges; 50 frames of 8 x 10 bits are 4 kbps."""
    codec, (wav, lengths) = load(name), noise(16000, 100)
    decoded, bits = calls.reconstruct(codec, codec.info, wav, lengths, seed=0)
    assert decoded.shape == wav.shape
    assert bits is not None
    assert bits.tolist() == [4000, 80]


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_know_nothing_of_batch_and_padding(name):
    codec, (wav, lengths) = load(name), noise(12345, 5000)
    both = codec.encode(wav, lengths, seed=3)
    alone = codec.encode(wav[1:, :, :5000], lengths[1:], seed=3)
    assert torch.equal(both.codes[1:, :, :16], alone.codes)
    assert (both.codes[1, :, 16:] == -1).all()
    assert torch.equal(codec.decode(both, seed=0)[1:, :, : 16 * HOP], codec.decode(alone, seed=0))
    assert not codec.decode(both, seed=0)[1, :, 16 * HOP :].any()


def test_constant_codes_are_all_zero():
    codec, (wav, lengths) = load("constant"), noise(16000)
    encoded = codec.encode(wav, lengths, seed=0)
    assert not encoded.codes.any()
    decoded = codec.decode(encoded, seed=0).reshape(50, HOP)
    assert torch.equal(decoded, decoded[:1].expand(50, HOP))
    assert level_db(decoded) == pytest.approx(-50, abs=1)


def test_random_codes_are_uniform():
    """Chi-square over 1024 codes, 8 x 3000 draws: 1023 degrees of freedom, mean 1023, deviation sqrt(2046) = 45."""
    codec, (wav, lengths) = load("random-codes"), noise(3000 * HOP)
    counts = np.bincount(codec.encode(wav, lengths, seed=0).codes.flatten().numpy(), minlength=1024)
    expected = counts.sum() / 1024
    assert len(counts) == 1024
    assert ((counts - expected) ** 2 / expected).sum() == pytest.approx(1023, abs=4 * 45)


def test_random_codes_depend_on_the_clip_and_the_seed_only():
    codec, (wav, lengths) = load("random-codes"), noise(16000)
    codes = codec.encode(wav, lengths, seed=0).codes
    assert torch.equal(codes, load("random-codes").encode(wav, lengths, seed=0).codes)
    for others in (codec.encode(wav, lengths, seed=1), codec.encode(wav + 1e-3, lengths, seed=0)):
        # two independent draws agree once in 1024, here 400 draws
        assert (codes == others.codes).float().mean() < 0.02


def test_random_codes_sound_as_loud_as_speech():
    codec, (wav, lengths) = load("random-codes"), noise(5 * 16000)
    assert level_db(codec.decode(codec.encode(wav, lengths, seed=0), seed=0)) == pytest.approx(-26, abs=0.5)


def test_decode_sums_the_codebooks():
    """One code alone and another alone add up to both; where there is no token there is silence."""
    codec = load("random-codes")

    def sound(*codes: int) -> torch.Tensor:
        return codec.decode(Encoded(torch.tensor([[[code] for code in codes]]), torch.tensor([1])), seed=0)

    none = [-1] * 6
    torch.testing.assert_close(sound(5, 7, *none), sound(5, -1, *none) + sound(-1, 7, *none))
    assert not sound(-1, -1, *none).any()
