"""The delay of a codec: found to the sample, taken out of the metrics beside which it stands."""

import numpy as np
import pytest
import torch

from earmark.metrics import METRICS, MetricError, compute
from earmark.metrics.align import MAX_DELAY_MS, aligned, lag_samples
from earmark.tests.helpers import voice

pytestmark = pytest.mark.usefixtures("one_thread")
RATE = 16_000
ALIGNED = [name for name, metric in METRICS.items() if metric.aligned]
RAW = [name.removesuffix("_aligned") for name in ALIGNED]


def late(wav: np.ndarray, samples: int) -> np.ndarray:
    """The wav [L] so many samples later (earlier where negative), as long as it was, silent where nothing is."""
    shifted = np.roll(wav, samples)
    shifted[: max(samples, 0)] = 0
    if samples < 0:
        shifted[samples:] = 0
    return shifted


@pytest.mark.parametrize("lag", [0, 1, 8, -8, 320, -320, 800, -800])
def test_a_lag_is_found_to_the_sample(lag):
    wav = voice(2, RATE)
    assert lag_samples(wav, late(wav, lag), RATE) == lag
    assert lag_samples(wav, -0.3 * late(wav, lag), RATE) == lag  # quieter, and turned over
    found = compute("delay_ms", wav[None], late(wav, lag)[None], RATE)[0]
    assert found == abs(lag) * 1000 / RATE  # by definition


@pytest.mark.parametrize("snr_db", [20, 10, 0])
def test_noise_does_not_move_the_delay(snr_db):
    wav = voice(2, RATE)
    noise = np.random.default_rng(0).standard_normal(len(wav)) * wav.std() * 10 ** (-snr_db / 20)
    assert lag_samples(wav, late(wav, 37) + noise, RATE) == 37


def test_more_than_50_ms_is_not_looked_for():
    wav = voice(2, RATE)
    assert compute("delay_ms", wav[None], late(wav, 1600)[None], RATE)[0] <= MAX_DELAY_MS


def test_of_a_periodic_signal_the_smallest_delay_is_meant():
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)  # 16 samples a period
    assert lag_samples(tone, tone.copy(), RATE) == 0


@pytest.mark.parametrize("lag", [20, 60, -60])
def test_a_tone_is_not_turned_over(lag):
    """80 samples a period: 60 late it is 20 late, turned over, and that is no alignment for an error of waves."""
    tone = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    assert lag_samples(tone, late(tone, lag), RATE) == lag
    assert compute("mse_aligned", tone[None], late(tone, lag)[None], RATE)[0] == pytest.approx(0, abs=1e-12)
    steady = np.roll(tone, lag)  # it has no beginning to know its delay by: in phase is all that can be asked
    assert compute("mse_aligned", tone[None], steady[None], RATE)[0] == pytest.approx(0, abs=1e-12)
    assert abs(lag_samples(tone, steady, RATE)) <= 40


@pytest.mark.parametrize("lag", [0, 37])
def test_what_is_heard_as_the_same_has_the_same_delay_turned_over(lag):
    """Of a voice, of noise, and in noise."""
    noise = np.random.default_rng(0).standard_normal(RATE)
    for wav in (voice(1, RATE), noise):
        assert lag_samples(wav, -late(wav, lag), RATE) == lag
        assert lag_samples(wav, -late(wav, lag) + wav.std() * noise[::-1], RATE) == lag
    assert lag_samples(noise[:1], -noise[:1], RATE) == 0


def test_what_has_no_delay():
    wav = voice(1, RATE)
    assert lag_samples(wav, 0 * wav, RATE) == 0
    assert lag_samples(wav[:1], wav[:1], RATE) == 0
    with pytest.raises(MetricError, match="silent"):
        compute("delay_ms", 0 * wav[None], wav[None], RATE)


def test_the_delay_is_the_same_either_way_and_none_of_a_clip_and_itself():
    wav = voice(1, RATE)[None]
    other = late(wav[0], 37)[None]
    assert METRICS["delay_ms"].symmetric
    assert compute("delay_ms", wav, other, RATE) == compute("delay_ms", other, wav, RATE) == 37 / 16
    assert compute("delay_ms", wav, wav, RATE) == compute("delay_ms", wav, wav.copy(), RATE) == 0


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.aligned or metric.native])
def test_a_clip_and_itself_by_aliasing_and_by_copy(name):
    wav = voice(1, 32_000)[None]
    for itself in (wav, wav.copy()):
        assert compute(name, wav, itself, 32_000)[0] == METRICS[name].best


def test_each_clip_of_a_batch_has_its_own_delay():
    wav = voice(1, RATE)
    batch = np.stack([wav, wav, wav])
    other = np.stack([late(wav, lag) for lag in (0, 5, -90)])
    lengths = [pair[0].shape[-1] for pair in aligned(batch, other, RATE)]
    assert lengths == [len(wav), len(wav) - 5, len(wav) - 90]
    for reference, estimate in aligned(batch, other, RATE):
        np.testing.assert_array_equal(reference, estimate)


@pytest.mark.parametrize("name", ALIGNED)
def test_without_its_delay_a_copy_is_perfect(name):
    wav = voice(2, RATE)
    pair = wav[None], late(wav, 20)[None]
    assert compute(name, *pair, RATE)[0] == pytest.approx(METRICS[name].best, abs=1e-9)
    batch = np.concatenate([wav[None]] * 2), np.stack([late(wav, 20), late(wav, -7)])
    np.testing.assert_allclose(compute(name, *batch, RATE), METRICS[name].best, atol=1e-9)


@pytest.mark.parametrize(("name", "raw"), [*zip(ALIGNED, RAW, strict=True)])
def test_without_a_delay_nothing_changes(name, raw):
    wav = voice(2, RATE)
    noisy = wav + 0.01 * np.random.default_rng(0).standard_normal(len(wav)).astype(np.float32)
    assert compute(name, wav[None], noisy[None], RATE) == compute(raw, wav[None], noisy[None], RATE)


def test_eight_samples_cost_more_than_ten_decibels():
    """Why the delay is a score of its own (13 to 19 dB on real codecs)."""
    wav = voice(2, RATE)
    other = wav + 0.001 * np.random.default_rng(0).standard_normal(len(wav)).astype(np.float32)
    raw, without = (compute(name, wav[None], late(other, 8)[None], RATE)[0] for name in ("si_sdr", "si_sdr_aligned"))
    assert without > raw + 10


def test_torch_and_numpy_agree():
    wav = voice(1, RATE)[None]
    other = np.roll(wav, 11, 1)
    numpy = compute("si_sdr_aligned", wav, other, RATE)
    assert compute("si_sdr_aligned", torch.from_numpy(wav), torch.from_numpy(other), RATE) == numpy
