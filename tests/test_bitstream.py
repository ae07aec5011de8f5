"""The classic codecs are real, so they are held to facts: lengths, delays, bits, and more quality for more bits."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch

from earmark.codecs import registry
from earmark.codecs.bitstream import Libav, ogg_packet_sizes
from earmark.codecs.contract import Info
from earmark.data import audio
from earmark.tests.helpers import ROOT

# Samples between packets; for Vorbis, its long block.
HOP = {"opus": 960, "mp3": 1152, "aac": 1024, "amrnb": 160, "g711": 1, "g722": 320, "vorbis": 2048}
CODECS = [name for name, entry in registry.catalogue().items() if entry.family in HOP]

# Samples by which the sound may lie off. Opus at 6 kbps codes it at 8 kHz, and delays it by a fraction of a sample.
MAX_LAG = {"opus-6": 1}

# Measured kbps on three seconds of speech: what is asked, and how far off it may be (a share). MP3 and Opus pay for
# their priming and a whole last packet (2 %), AMR-NB for a header byte and whole bytes (13 and 32 bytes every 20 ms),
# G.722 for a last packet. Opus varies by design, AAC settles over longer clips only (32.7 and 64.8 on ten seconds of
# LibriSpeech). Vorbis has no nominal rate for one channel: its values are golden.
KBPS = {
    **{"opus-6": (6, 0.1), "opus-12": (12, 0.05), "opus-24": (24, 0.1), "opus-48": (48, 0.1), "opus-96": (96, 0.05)},
    **{"mp3-16": (16, 0.05), "mp3-32": (32, 0.05), "mp3-64": (64, 0.05), "aac-32": (32, 0.3), "aac-64": (64, 0.3)},
    **{"amrnb-4.75": (5.2, 0.02), "amrnb-12.2": (12.8, 0.02)},
    **{"g711-mulaw": (64, 0), "g711-alaw": (64, 0), "g722-64": (64, 0.01)},
    **{"vorbis-q0": (45, 0.1), "vorbis-q3": (66, 0.1), "vorbis-q6": (107, 0.15)},
}

LADDERS = [
    ["opus-6", "opus-12", "opus-24", "opus-48", "opus-96"],
    ["mp3-16", "mp3-32", "mp3-64"],
    ["aac-32", "aac-64"],
    ["amrnb-4.75", "amrnb-12.2"],
    ["vorbis-q0", "vorbis-q3", "vorbis-q6"],
]


@functools.cache
def load(name: str) -> Any:
    return registry.load(registry.catalogue()[name], "cpu")


@functools.cache
def speech(sample_rate: int) -> np.ndarray:
    """float32 [L]: one sentence of the sampler, three seconds."""
    wav, own_rate = audio.read(ROOT / "data/sampler/speech/s01_shared1_neutral.flac")
    return audio.resample(wav, own_rate, sample_rate)[0]


def run(name: str, *clips: np.ndarray, filler: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The clips as one batch through a codec, with `filler` beyond the end of each: wav [B, 1, L] and bits [B]."""
    lengths = torch.tensor([len(clip) for clip in clips])
    wav = torch.full((len(clips), 1, int(lengths.max())), filler)
    for row, clip in zip(wav, clips, strict=True):
        row[0, : len(clip)] = torch.from_numpy(clip)
    decoded, bits = load(name).reconstruct(wav, lengths, seed=0)
    return decoded.numpy(), bits.numpy()


@functools.cache
def spoken(name: str) -> tuple[np.ndarray, np.ndarray, float]:
    """The sentence, what the codec makes of it, both float64 [L], and the kbps that it took."""
    sample_rate = load(name).sample_rate
    clip = speech(sample_rate)
    decoded, bits = run(name, clip)
    return clip.astype(np.float64), decoded[0, 0].astype(np.float64), bits[0] / len(clip) * sample_rate / 1000


def si_sdr_db(reference: np.ndarray, estimate: np.ndarray, lag: int = 0) -> float:
    """SI-SDR in dB with the estimate moved `lag` samples to the left."""
    estimate = np.roll(estimate, -lag)
    target = reference * (reference @ estimate) / (reference @ reference)
    return 10 * np.log10((target @ target) / ((estimate - target) @ (estimate - target)))


@pytest.fixture(params=CODECS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_classic_codec_has_its_facts_here():
    assert set(KBPS) == set(CODECS)


def test_sound_comes_back_without_delay(name):
    reference, estimate, _ = spoken(name)
    size = 2 * len(reference)
    correlation = np.fft.irfft(np.conj(np.fft.rfft(reference, size)) * np.fft.rfft(estimate, size), size)
    lag = (int(np.argmax(correlation)) + size // 2) % size - size // 2
    assert abs(lag) <= MAX_LAG.get(name, 0), f"{name}: what comes back lies {lag} samples late"


@pytest.mark.parametrize(
    "name", ["opus-24", "opus-48", "opus-96", "mp3-32", "mp3-64", "aac-64", "g711-alaw", "g722-64", "vorbis-q6"]
)
def test_one_sample_either_way_is_worse(name):
    reference, estimate, _ = spoken(name)
    here = si_sdr_db(reference, estimate)
    assert here > si_sdr_db(reference, estimate, lag=-1) + 1
    assert here > si_sdr_db(reference, estimate, lag=1) + 1


def test_measured_bitrate_is_the_stated_one(name):
    kbps, tolerance = KBPS[name]
    assert spoken(name)[2] == pytest.approx(kbps, rel=tolerance)


@pytest.mark.parametrize("ladder", LADDERS, ids=lambda ladder: ladder[0].split("-")[0])
def test_more_bits_sound_better(ladder):
    spent, quality = [], []
    for name in ladder:
        reference, estimate, kbps = spoken(name)
        spent.append(kbps)
        quality.append(si_sdr_db(reference, estimate))
    assert spent == sorted(spent)
    assert quality == sorted(quality)


def test_clips_of_any_length_come_back_as_long(name):
    hop = HOP[registry.catalogue()[name].family]
    clip = speech(load(name).sample_rate)
    for length in sorted({1, 2, max(hop - 1, 1), hop, hop + 1, 12345}):
        decoded, bits = run(name, clip[:length])
        assert decoded.shape == (1, 1, length)
        assert np.isfinite(decoded).all()
        assert bits[0] > 0


def test_opus_finds_the_last_samples_in_the_next_packet():
    """In narrow-band mode the sound lies 312 + 3 samples late: 645 samples end with the first packet of 960."""
    clip = speech(48000)[20000:]
    for length in range(643, 651):
        assert run("opus-6", clip[:length])[0].shape == (1, 1, length)


def test_batch_and_padding_change_nothing(name):
    sample_rate = load(name).sample_rate
    long, short = speech(sample_rate)[: sample_rate // 2], speech(sample_rate)[sample_rate : sample_rate + 3001]
    decoded, bits = run(name, long, short, filler=0.7)
    for clip, row, cost in zip((long, short), decoded, bits, strict=True):
        alone, alone_bits = run(name, clip)
        np.testing.assert_array_equal(row[0, : len(clip)], alone[0, 0])
        assert not row[0, len(clip) :].any()
        assert cost == alone_bits[0]


def test_same_clip_twice_is_the_same(name):
    clip = speech(load(name).sample_rate)
    again, bits = run(name, clip)
    np.testing.assert_array_equal(again[0, 0], spoken(name)[1].astype(np.float32))
    assert bits[0] / len(clip) * load(name).sample_rate / 1000 == spoken(name)[2]


def test_silence_stays_silence(name):
    decoded, bits = run(name, np.zeros(load(name).sample_rate, np.float32))
    assert np.abs(decoded).max() < 3e-4  # A-law has no zero: its smallest level is 8 / 32768 = 2.4e-4
    assert bits[0] > 0


@pytest.mark.parametrize("name", ["opus-96", "mp3-64", "vorbis-q3"])
def test_over_range_is_not_clamped(name):
    sample_rate = load(name).sample_rate
    sine = 1.5 * np.sin(2 * np.pi * 440 * np.arange(sample_rate) / sample_rate)
    assert np.abs(run(name, sine.astype(np.float32))[0]).max() > 1.4


def test_g711_by_hand():
    """Mu-law of 1000: 1000 + 132 lies in [1024, 2048), step 64: (1 * 8 + 132) * 8 - 132 = 988.

    A-law of 1000: it lies in [512, 1024), step 32, level (1000 - 512) // 32 = 15: 512 + 15 * 32 + 16 = 1008.
    """
    clip = np.array([1000, -1000, 0, 40000], np.float32) / 32768
    mulaw, bits = run("g711-mulaw", clip)
    alaw, _ = run("g711-alaw", clip)
    assert (mulaw[0, 0] * 32768).tolist() == [988, -988, 0, 32124]
    assert (alaw[0, 0, :2] * 32768).tolist() == [1008, -1008]
    assert bits.tolist() == [32]


def test_vorbis_takes_minutes_of_sound():
    minute = np.zeros(60 * 44100, np.float32)
    assert run("vorbis-q0", minute)[0].shape == (1, 1, len(minute))


def test_ogg_packets_by_hand():
    """Packets of 300 = 255 + 45, 510 = 255 + 255 + 0 (over two pages) and 7 bytes."""

    def page(*laces: int) -> bytes:
        return b"OggS" + bytes(22) + bytes([len(laces), *laces]) + bytes(sum(laces))

    assert ogg_packet_sizes(page(255, 45, 255) + page(255, 0, 7)) == [300, 510, 7]


def test_unknown_setting_is_named():
    info = Info(name="mine", sample_rate=48000)
    with pytest.raises(ValueError, match=r"mine: the encoder libopus has no option vrb"):
        Libav(info, "cpu", encoder="libopus", settings={"vrb": "on"})


def test_stereo_is_refused():
    with pytest.raises(ValueError, match="one channel, has 2 channels"):
        Libav(Info(name="mine", sample_rate=48000, channels=2), "cpu", encoder="libopus")
