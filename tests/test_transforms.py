"""What is done to a clip before a codec: each step by hand, and the same in every run."""

from pathlib import Path

import numpy as np
import pytest

from earmark.data import audio
from earmark.data.audio import AudioError
from earmark.data.cards import SAMPLER
from earmark.data.manifest import Clip, read_manifest
from earmark.store import transforms
from earmark.store.transforms import Excerpt, Level, Lost, Noise, Resampled, Shift
from earmark.tests.helpers import voice

RATE = 16000


def clip(name="a", group="g"):
    return Clip(name, Path(name), (name * 64)[:64].replace("g", "0"), group, "speech", None, {})


CLIP = clip()
WAV = 0.5 * voice(1.0, RATE)[None]


def power_db(wav):
    return 10 * np.log10(np.mean(np.square(wav, dtype=np.float64)))


@pytest.mark.parametrize(
    "step", [Shift(2), Noise("white", 20), Noise("babble", 20), Noise("music", 20), Level(-6), Resampled(8000)]
)
def test_steps_keep_shape_and_dtype_and_are_the_same_again(step):
    for wav in (WAV, np.repeat(WAV, 2, axis=0)):
        made = step(wav, RATE, CLIP)
        assert (made.shape, made.dtype) == (wav.shape, np.float32)
        assert np.array_equal(made, step(wav, RATE, clip()))
        assert not np.array_equal(made, wav)


def test_a_shift_of_two_ms_rolls_by_32_samples_and_zeroes_the_head():
    made = Shift(2)(WAV, RATE, CLIP)
    assert not made[:, :32].any()
    assert np.array_equal(made[:, 32:], WAV[:, :-32])
    assert not Shift(5000)(WAV, RATE, CLIP).any()  # later than it is long


@pytest.mark.parametrize("kind", ["white", "babble", "music"])
def test_noise_has_its_snr_and_is_the_same_at_each(kind):
    added = {snr: Noise(kind, snr)(WAV / 8, RATE, CLIP) - WAV / 8 for snr in (40, 20, 0)}
    for snr, noise in added.items():
        assert power_db(WAV / 8) - power_db(noise) == pytest.approx(snr, abs=0.02)
    assert np.corrcoef(added[20][0], added[0][0])[0, 1] > 0.9999


@pytest.mark.parametrize("kind", ["white", "babble", "music"])
@pytest.mark.parametrize("rate", [24000, 44100, 48000])
def test_noise_is_the_same_whatever_the_rate_of_the_codec(kind, rate):
    """The same sound, and as loud: codecs of several rates are compared by what they make of it."""
    wav = audio.resample(WAV / 8, RATE, rate)
    low = Noise(kind, 20)(WAV / 8, RATE, CLIP) - WAV / 8
    high = audio.resample(Noise(kind, 20)(wav, rate, CLIP) - wav, rate, RATE)[:, : WAV.shape[1]]
    assert power_db(high) == pytest.approx(power_db(low), abs=0.2)
    assert np.corrcoef(low[0, : high.shape[1]], high[0])[0, 1] > 0.9  # the start of a tune is off by half a sample


def test_noise_differs_from_clip_to_clip_and_kind_to_kind():
    made = [Noise(kind, 0)(WAV, RATE, of) - WAV for kind in ("white", "music") for of in (CLIP, clip("b"))]
    for i, one in enumerate(made):
        assert all(abs(np.corrcoef(one[0], other[0])[0, 1]) < 0.5 for other in made[:i])


def test_noise_is_never_of_the_clips_own_group(monkeypatch):
    """Music in a clip of the sampler's music is another tune."""
    own = read_manifest(SAMPLER / "manifest.csv")["sampler_music"][0]
    taken = []
    monkeypatch.setattr(transforms, "_sampler_sound", lambda of, rate: taken.append(of.group) or WAV)
    for snr in range(40):
        Noise("music", snr)(WAV, RATE, clip(f"{snr:02}", own.group))
        Noise("babble", snr)(WAV, RATE, clip(f"{snr:02}", "s01"))
    assert len(set(taken)) > 10
    assert own.group not in taken
    assert "s01" not in taken


def test_what_goes_over_range_is_clipped():
    assert np.abs(Level(40)(WAV, RATE, CLIP)).max() == 1
    assert np.abs(Noise("white", -40)(WAV, RATE, CLIP)).max() == 1
    assert power_db(WAV) - power_db(Level(-20)(WAV, RATE, CLIP)) == pytest.approx(20, abs=1e-4)
    assert not Noise("white", 0)(0 * WAV, RATE, CLIP).any()


def test_another_sample_rate_takes_what_is_above_its_half_and_little_else():
    time = np.arange(RATE) / RATE
    low, high = (np.sin(2 * np.pi * hz * time)[None].astype(np.float32) for hz in (1000, 6000))
    assert power_db(Resampled(8000)(high, RATE, CLIP)[:, 500:-500]) < -60
    assert power_db((Resampled(8000)(low, RATE, CLIP) - low)[:, 500:-500]) < -80
    lost = (Resampled(44100)(WAV, RATE, CLIP) - WAV)[:, 500:-500]  # what is above 7.5 kHz
    assert power_db(lost) < power_db(WAV) - 30


def test_an_excerpt_begins_at_whole_hops():
    wav = np.arange(1000, dtype=np.float32)[None]  # 100 hops of 10 at 100 Hz; 2 s are 20 hops
    assert Excerpt(2, 0, 10).place(1000, 100) == (40, 40, 20)
    assert Excerpt(2, 0.5, 10).place(1009, 100) == (35, 40, 20)
    assert Excerpt(2, 0, 10)(wav, 100, CLIP)[0, [0, -1]].tolist() == [400, 599]
    assert Excerpt(2, 0.5, 10)(wav, 100, CLIP)[0, [0, -1]].tolist() == [350, 649]
    assert Excerpt(2, 60, 10)(wav, 100, CLIP).shape == (1, 1000)
    with pytest.raises(AudioError, match="shorter than the 2 s"):
        Excerpt(2, 0, 10)(wav[:, :150], 100, CLIP)


@pytest.mark.parametrize("of", ["frames", "tokens"])
def test_the_share_that_is_lost(of):
    codes = np.arange(8 * 201).reshape(8, 201) + 1
    lost = {share: Lost(share, of, "zero")(codes, CLIP) == 0 for share in (0.01, 0.05, 0.2)}
    for share, where in lost.items():
        assert where.sum() == round(share * 1600)  # of 8 x 200 after the first frame
        assert not where[:, 0].any()
        assert (where.all(0) | ~where.any(0)).all() == (of == "frames")
    assert (lost[0.05] <= lost[0.2]).all()
    assert not np.array_equal(lost[0.2], Lost(0.2, of, "zero")(codes, clip("b")) == 0)


def test_a_lost_token_is_the_last_that_arrived(monkeypatch):
    lost = np.array([[False, True, True, False, True, True]] * 2)
    monkeypatch.setattr(Lost, "mask", lambda self, shape, clip: lost)
    codes = np.array([[1, 2, 3, 4, 5, 6], [7, -1, 8, -1, 9, -1]])
    assert Lost(0.5, "tokens", "repeat")(codes, CLIP).tolist() == [[1, 1, 1, 4, 4, 4], [7, -1, 7, -1, 7, -1]]
    assert Lost(0.5, "tokens", "zero")(codes, CLIP).tolist() == [[1, 0, 0, 4, 0, 0], [7, -1, 0, -1, 0, -1]]
