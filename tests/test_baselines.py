"""The encoders that need no weights: their frames, their values, and that a clip's latents are its own alone."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import SimpleNamespace

import librosa
import numpy as np
import pytest
import scipy.fft
import torch

from earmark.codecs import calls, registry
from earmark.data import cards
from earmark.store.batches import equal_in_batches
from earmark.store.jobs import latents_job
from earmark.store.store import Store
from earmark.tests.helpers import voice, write_dataset

HOPS = {"logmel": 160, "mfcc": 160, "random-latents": 320}
SIZES = {"logmel": 64, "mfcc": 20, "random-latents": 128}
EVERY = [*HOPS]


def load(name):
    return registry.load(registry.catalogue()[name], "cpu")


def embed(name, *wavs, seed=0, pad=0):
    """Latents and frames of wavs float32 [L], as one batch; beyond each clip lies `pad` or another clip's end."""
    batch = torch.full((len(wavs), 1, max(map(len, wavs))), float(pad))
    for row, wav in zip(batch, wavs, strict=True):
        row[0, : len(wav)] = torch.from_numpy(wav)
    entry = registry.catalogue()[name]
    lengths = torch.tensor([len(wav) for wav in wavs])
    return calls.latents(load(name), entry.info, batch, lengths, "unquantized", seed)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("length", [1, 2, 159, 160, 161, 319, 320, 321, 12345])
def test_a_frame_for_each_started_hop(name, length):
    found, frames = embed(name, voice(1.0, 16000)[:length])
    assert frames.tolist() == [math.ceil(length / HOPS[name])]
    assert found.shape == (1, SIZES[name], frames[0])
    assert found.dtype == torch.float32


@pytest.mark.parametrize("name", EVERY)
def test_the_frame_rate_is_the_declared_one(name):
    info = registry.find(name).info
    assert info.sample_rate / info.frame_rate == HOPS[name]


@pytest.mark.parametrize("name", EVERY)
def test_batch_and_padding_change_nothing(name):
    wavs = [voice(1.0, 16000)[:length] for length in (5000, 16000, 7)]
    together, frames = embed(name, *wavs, pad=0.7)
    for found, count, wav in zip(together, frames.tolist(), wavs, strict=True):
        alone, _ = embed(name, wav)
        assert torch.equal(found[:, :count], alone[0])
        assert not found[:, count:].any()
    assert equal_in_batches(load(name), registry.find(name), "cpu", "latents")


@pytest.mark.parametrize("name", EVERY)
def test_the_same_clip_gives_the_same_latents_and_leaves_the_global_generator_alone(name):
    torch.manual_seed(1)
    state, (first, _) = torch.get_rng_state(), embed(name, voice(0.5, 16000))
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, embed(name, voice(0.5, 16000))[0])


@pytest.mark.parametrize("name", EVERY)
def test_an_unknown_kind_is_refused(name):
    wav = torch.zeros(1, 1, 160)
    with pytest.raises(calls.CodecError, match=r"has latents \('unquantized',\), not 'quantized'"):
        calls.latents(load(name), registry.find(name).info, wav, torch.tensor([160]), "quantized", 0)


@pytest.mark.parametrize("count", [0, 4])
def test_frames_that_a_clip_cannot_have_are_the_codecs_failure(count):
    """Of no frames there is no mean: a NaN, by which a probe loses all other clips too."""
    adapter = SimpleNamespace(latents=lambda *of: (torch.zeros(1, 2, 3), torch.tensor([count])))
    with pytest.raises(calls.CodecError, match=rf"'unquantized' are \[{count}\], expected 1 to T = 3"):
        calls.latents(adapter, registry.find("logmel").info, torch.zeros(1, 1, 9), torch.tensor([9]), "unquantized", 0)


def test_a_baseline_without_its_rate_says_so():
    from earmark.codecs.baselines import LogMel
    from earmark.codecs.contract import Info

    with pytest.raises(ValueError, match="x: needs a sample_rate and a frame_rate"):
        LogMel(Info(name="x", sample_rate=None, frame_rate=100), "cpu")


def test_logmel_of_silence_and_of_a_tone_by_hand():
    silent, _ = embed("logmel", np.zeros(1600, np.float32))
    torch.testing.assert_close(silent, torch.full_like(silent, math.log(0.01)))
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    found = embed("logmel", tone)[0][0, :, 50]
    # 66 corners evenly over 2595 lg(1 + f / 700) from 125 to 7500 Hz: the centre nearest to 1 kHz is the 21st
    mels = np.linspace(*(2595 * np.log10(1 + np.array([125, 7500]) / 700)), 66)[1:-1]
    assert int(found.argmax()) == int(np.abs(mels - 2595 * np.log10(1 + 1000 / 700)).argmin())
    # a Hann window of 400 gives a sine of amplitude 1 a peak of 400 / 4; the filters around it weigh it by 1 in all
    assert 100 < float((found.exp() - 0.01).sum()) < 300


def test_logmel_agrees_with_librosa():
    """Its window of 400 lies in the middle of its 512, ours at the start: the magnitudes are the same."""
    wav = voice(1.0, 16000)
    found, frames = embed("logmel", wav)
    padded = np.pad(wav, (120 + 56, 400))
    peer = librosa.feature.melspectrogram(
        y=padded, sr=16000, n_fft=512, win_length=400, hop_length=160, center=False, power=1,
        n_mels=64, fmin=125, fmax=7500, htk=True, norm=None,
    )  # fmt: skip
    np.testing.assert_allclose(found[0].exp() - 0.01, peer[:, : frames[0]], rtol=1e-3, atol=1e-4)


def test_logmel_frames_lie_where_their_samples_are():
    """A click in the middle of hop 7 sounds loudest there, and is heard in the hops beside it alone."""
    click = np.zeros(3200, np.float32)
    click[7 * 160 + 80] = 1.0
    loudness = embed("logmel", click)[0][0].mean(0)
    assert int(loudness.argmax()) == 7
    quiet = math.log(0.01)
    assert [i for i, level in enumerate(loudness.tolist()) if level > quiet + 1e-3] == [6, 7, 8]


def test_mfcc_is_the_cosine_transform_of_the_bands():
    wav = voice(0.5, 16000)
    bands, found = embed("logmel", wav)[0][0], embed("mfcc", wav)[0][0]
    peer = scipy.fft.dct(bands.double().numpy(), axis=0, norm="ortho")[:20]
    np.testing.assert_allclose(found, peer, atol=1e-4)  # float32 sums of 64 logarithms


def test_random_latents_are_unit_noise_of_the_clip_and_the_seed():
    wav = voice(4.0, 16000)
    found, _ = embed("random-latents", wav)
    assert found.mean().abs() < 4 / math.sqrt(found.numel())
    assert found.std() == pytest.approx(1, abs=4 / math.sqrt(2 * found.numel()))
    for other in (embed("random-latents", wav, seed=1)[0], embed("random-latents", wav * 0.999)[0]):
        correlation = np.corrcoef(found.flatten(), other.flatten())[0, 1]
        assert abs(correlation) < 4 / math.sqrt(found.numel())


def test_spectra_tell_sounds_apart():
    """Four voices, and again a little quieter: the nearest to each is itself."""
    voices = [voice(1.0, 16000, pitch) for pitch in (90, 130, 180, 250)]
    for name in ("logmel", "mfcc"):
        own, quieter = ([embed(name, gain * wav)[0][0].mean(1) for wav in voices] for gain in (1, 0.9))
        nearest = torch.cdist(torch.stack(quieter), torch.stack(own)).argmin(1)
        assert nearest.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", EVERY)
def test_the_store_keeps_them(name, tmp_path, monkeypatch):
    """Through the store from a file at another rate: float16 [D, T], and not computed twice."""
    wavs = {"a.flac": voice(0.5, 24000), "b.flac": voice(0.31, 24000)}
    monkeypatch.setenv("EARMARK_DATA", str(write_dataset(tmp_path / "d", wavs, 24000, dataset="d", domain="speech")))
    clips = cards.load(cards.select(["d"])[0]).clips
    entry = registry.find(name)
    found = [*Store(tmp_path / "store", "cpu", "1").outcomes(latents_job(entry, "unquantized"), clips)]
    for outcome, samples in zip(found, (8000, 4960), strict=True):
        assert outcome.error is None
        assert outcome.facts["frames"] == math.ceil(samples / HOPS[name])
        assert outcome.arrays["latents"].shape == (SIZES[name], outcome.facts["frames"])
        assert outcome.arrays["latents"].dtype == np.float16
    again = [*Store(tmp_path / "store", "cpu", "2").outcomes(latents_job(entry, "unquantized"), clips)]
    assert not Store(tmp_path / "store", "cpu", "3").missing(latents_job(entry, "unquantized"), clips)
    assert all((one.arrays["latents"] == two.arrays["latents"]).all() for one, two in zip(found, again, strict=True))


@pytest.mark.parametrize("name", EVERY)
def test_the_store_keeps_those_of_the_sampler(name, tmp_path):
    dataset = next((card for card in cards.select(["sampler"]) if card.domain == "speech"), None)
    if dataset is None:
        pytest.skip("the sampler is not built")
    (clip, *_), entry = cards.load(dataset).clips, registry.find(name)
    (found,) = Store(tmp_path, "cpu", "1").outcomes(latents_job(entry, "unquantized"), [clip])
    assert found.error is None
    assert found.arrays["latents"].shape == (SIZES[name], math.ceil(found.facts["samples"] / HOPS[name]))


def test_logmel_on_recordings_is_in_the_range_that_a_learner_likes():
    folder = Path(os.environ.get("EARMARK_DATA", "")) / "librispeech_test_other"
    files = sorted(folder.glob("*.flac"))[:2]
    if not files:
        pytest.skip("EARMARK_DATA names no folder with recorded speech")
    from earmark.data import audio

    for file in files:
        found, _ = embed("logmel", audio.resample(*audio.read(file), 16000)[0].astype(np.float32))
        assert -4.61 < found.min() < found.mean() < found.max() < 6
