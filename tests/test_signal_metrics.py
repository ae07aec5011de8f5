"""Proof of the metrics of spectra, voice and loudness: by hand, by property, by published value, by peer.

What needs recordings takes 50 of them from the folder that EARMARK_DATA names, and skips without it.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from earmark.data import audio
from earmark.metrics import METRICS, MetricError, compute
from earmark.metrics.loudness import integrated_lufs
from earmark.metrics.voice import _mel_cepstrum, _to_mel_cepstrum, _world, f0_hz
from earmark.tests.helpers import voice

pytestmark = pytest.mark.usefixtures("one_thread")
RATE = 16_000
SPECTRAL = ["log_spectral_distance", "spectral_convergence", "stft_distance"]
VOICE = ["mcd", "f0_rmse", "voicing_error"]
EVERY = [*SPECTRAL, *VOICE, "loudness_difference"]
CLIP_S = 3.0


def speech_like(seconds: float = 2.0, pitch_hz: float = 120.0) -> np.ndarray:
    """float64 [1, L] at 16 kHz."""
    return voice(seconds, RATE, pitch_hz).astype(np.float64)[None]


def white(seconds: float = 2.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Gaussian noise, float64 [1, L], rms 0.1."""
    return 0.1 * np.random.default_rng(seed).standard_normal((1, int(seconds * rate)))


def noisy(wav: np.ndarray, snr_db: float) -> np.ndarray:
    """With white noise, so many dB under its energy: [1, L]."""
    added = white(1.0, wav.shape[-1])
    return wav + added * np.sqrt(np.square(wav).sum() / np.square(added).sum()) * 10 ** (-snr_db / 20)


def buzz(f0_hz: float, seconds: float = 2.0) -> np.ndarray:
    """A steady pulse-like tone with the harmonics up to 19, float64 [1, L] at 16 kHz."""
    time = np.arange(int(seconds * RATE)) / RATE
    return 0.1 * sum(np.sin(2 * np.pi * k * f0_hz * time) / k for k in range(1, 20))[None]


def sine(hz: float, level_db: float, seconds: float, rate: int) -> np.ndarray:
    """float64 [L], peak at level_db under full scale."""
    return 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)


def score(name: str, reference: np.ndarray, estimate: np.ndarray, rate: int = RATE) -> float:
    return float(compute(name, reference, estimate, rate)[0])


@pytest.fixture(scope="module")
def recordings() -> list[tuple[np.ndarray, int]]:
    """50 clips of speech, noisy speech, music and sound as float64 [1, L] of 3 s at most, with their rates."""
    if "EARMARK_DATA" not in os.environ:
        pytest.skip("EARMARK_DATA is not set: real recordings are needed")
    root = Path(os.environ["EARMARK_DATA"])
    wanted = {"librispeech_test_other": 18, "vctk_noisy": 8, "esc10": 17, "music": 7}
    files = [file for folder, count in wanted.items() for file in _sounds(root / folder)[:count]]
    found = [_excerpt(*audio.read(file)) for file in files]
    assert len(found) == 50
    return found


def _sounds(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix in (".flac", ".ogg", ".wav", ".mp3"))


def _excerpt(wav: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """The 3 s around the loudest sample: some sounds begin with silence."""
    mono = wav.mean(0)
    start = max(0, int(np.abs(mono).argmax()) - int(CLIP_S * rate / 2))
    return mono[None, start : start + int(CLIP_S * rate)].astype(np.float64), rate


@pytest.fixture(scope="module")
def pairs(recordings) -> list[tuple[np.ndarray, np.ndarray]]:
    """The 50 clips at 16 kHz, float64 [1, L]; by turns noisy, in 6 bits, and dulled and late by a sample."""
    found = []
    for index, (wav, rate) in enumerate(recordings):
        clip = audio.resample(wav, rate, RATE).astype(np.float64)
        changes = noisy(clip, 15.0), np.round(clip * 32) / 32, lfilter([0, 0.4, 0.3, 0.2, 0.1], 1, clip)
        found.append((clip, changes[index % 3]))
    return found


# --- every one of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_a_perfect_match_is_zero(name, pairs):
    assert METRICS[name].best == 0
    for clip in (speech_like(), pairs[0][0], buzz(120)):
        assert score(name, clip, clip) == score(name, clip, clip.copy()) == 0


@pytest.mark.parametrize("name", [*SPECTRAL, "mcd", "loudness_difference"])
def test_more_noise_is_worse(name, pairs):
    for clip in (speech_like(), *(clip for clip, _ in pairs[:12:3])):
        values = [score(name, clip, noisy(clip, snr)) for snr in (50, 40, 30, 20, 10, 0)]
        assert (np.diff(values) > 0).all(), values


@pytest.mark.parametrize("name", ["f0_rmse", "voicing_error"])
def test_much_more_noise_is_worse(name, pairs):
    """Pitch is robust: a little more noise may change no decision, or one back; so in big steps, over clips."""
    clips = [speech_like(), *(clip for clip, _ in pairs[:12:2])]
    means = [np.mean([score(name, clip, noisy(clip, snr)) for clip in clips]) for snr in (60, 30, 0)]
    assert means[0] < means[1] < means[2]


@pytest.mark.parametrize("name", EVERY)
def test_symmetric_only_where_declared(name, pairs):
    differences = [abs(score(name, *pair) - score(name, *pair[::-1])) for pair in pairs[:4:3]]
    assert METRICS[name].symmetric == (max(differences) < 1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_scores_as_its_clips_and_torch_as_numpy(name):
    batch = np.concatenate([speech_like(1.5, pitch) for pitch in (90, 140, 220)])
    other = np.concatenate([noisy(clip[None], 15.0) for clip in batch])
    together = compute(name, batch, other, RATE)
    assert together.dtype == np.float64
    np.testing.assert_allclose(together, [score(name, *(w[i : i + 1] for w in (batch, other))) for i in range(3)])
    assert (compute(name, torch.from_numpy(batch), torch.from_numpy(other), RATE) == together).all()


@pytest.mark.parametrize("name", SPECTRAL)
def test_cuda_agrees_with_the_cpu(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    wav, other = (torch.from_numpy(each) for each in (speech_like(), noisy(speech_like(), 10.0)))
    np.testing.assert_allclose(compute(name, wav.cuda(), other.cuda(), RATE), score(name, wav, other), rtol=1e-9)


@pytest.mark.parametrize("name", VOICE)
def test_the_voice_does_not_remember_what_ran_before(name):
    """WORLD adds noise where there is none: it must be the same noise each time."""
    wav, other = speech_like(), noisy(speech_like(), 20.0)
    other[:, 8000:16000] = 0
    first = score(name, wav, other)
    compute(name, white(1.0), white(1.0), RATE) if name != "f0_rmse" else compute(name, buzz(99), buzz(98), RATE)
    assert score(name, wav, other) == first


LEVEL_OF_BOTH = {"stft_distance": None}  # its clamp is absolute
LEVEL_OF_ESTIMATE = {"mcd": 1e-6, "f0_rmse": 1e-6, "voicing_error": 0}  # WORLD adds noise of 1e-16


@pytest.mark.parametrize("name", [name for name in EVERY if name not in LEVEL_OF_BOTH])
def test_the_level_of_both_does_not_matter(name, pairs):
    for reference, estimate in pairs[:9:4]:
        before, after = (score(name, g * reference, g * estimate) for g in (1, 0.25))
        assert after == pytest.approx(before, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_the_level_of_the_estimate(name, pairs):
    for reference, estimate in pairs[:9:4]:
        before, after = (score(name, reference, g * estimate) for g in (1, 0.25))
        if name in LEVEL_OF_ESTIMATE:
            assert after == pytest.approx(before, rel=LEVEL_OF_ESTIMATE[name])
        else:
            assert abs(after - before) > 1e-2


SHORT = "samples are too short to hear a voice in; it takes 676 or more"
NO_LOUDNESS = "s are too short for a loudness; it takes 0.4 s or more"
HARD = {  # metric -> one sample at double level; 0.1 s against itself; silent estimate
    "log_spectral_distance": (20 * np.log10(2), 0.0, None),
    "spectral_convergence": (1.0, 0.0, 1.0),
    "stft_distance": ("^1 samples are too short for a window of 2048", 0.0, None),
    "mcd": (f"^1 {SHORT}", 0.0, None),
    "f0_rmse": (f"^1 {SHORT}", "clip 0: no frame is voiced in both", "clip 0: no frame is voiced in both"),
    "voicing_error": (f"^1 {SHORT}", 0.0, None),
    "loudness_difference": (f"^6.25e-05 {NO_LOUDNESS}", f"^0.1 {NO_LOUDNESS}", np.inf),
}


@pytest.mark.parametrize("name", EVERY)
def test_one_sample_a_tenth_of_a_second_and_silence(name):
    wav = speech_like()
    tenth = wav[:, 2000:3600]
    cases = (np.array([[0.5]]), np.array([[1.0]])), (tenth, tenth.copy()), (wav, 0 * wav)
    for pair, expected in zip(cases, HARD[name], strict=True):
        if isinstance(expected, str):
            with pytest.raises(MetricError, match=expected):
                score(name, *pair)
        elif expected is not None:
            assert score(name, *pair) == pytest.approx(expected, abs=1e-12)
        else:
            assert 0 < score(name, *pair) < np.inf


@pytest.mark.parametrize("name", EVERY)
def test_a_silent_reference_has_no_score(name):
    with pytest.raises(MetricError, match="clip 1: reference is silent"):
        compute(name, np.concatenate([speech_like(), 0 * speech_like()]), np.repeat(speech_like(), 2, 0), RATE)


@pytest.mark.parametrize(
    ("name", "minutes"),  # ten minutes take DIO, whose transforms are as long as the clip, one minute
    [(name, 1 if name in ("stft_distance", *VOICE) else 10) for name in EVERY],
)
def test_a_long_clip_scores_as_its_parts(name, minutes):
    """The same ten seconds again and again, over edges that differ."""
    wav = speech_like(10.0)
    other = noisy(wav, 20.0)
    once, often = (score(name, np.tile(wav, n), np.tile(other, n)) for n in (1, 6 * minutes))
    assert often == pytest.approx(once, rel=0.05)


def test_they_are_light_where_they_run_in_pools_of_processes():
    """Voice and loudness need no torch, which each process of a pool would pay for."""
    code = (
        "import sys, numpy as np; from earmark.metrics import compute\n"
        "wav = sum(np.sin(2 * np.pi * 120 * k * np.arange(16000) / 16000) for k in range(1, 9))[None]\n"
        f"[compute(name, wav, wav, 16000) for name in {[*VOICE, 'loudness_difference']}]\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


# --- spectra: by hand ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "tolerance"), [(10.0, 1e-12), (2.0, 1e-12), (0.5, 1e-12), (0.01, 2e-4)])
def test_log_spectral_distance_of_a_gain(gain, tolerance):
    """Each bin moves by 20 log10 of the gain; at 40 dB less the floor hides part of that for a bin in a thousand."""
    expected = abs(20 * np.log10(gain))
    assert score("log_spectral_distance", white(), gain * white()) == pytest.approx(expected, rel=tolerance)


def test_log_spectral_distance_of_silence_is_the_height_over_the_floor():
    """An impulse in the middle of a frame has a flat spectrum: 80 dB in its frame; others see it through the window."""
    click = np.zeros((1, 2048))
    click[0, 1024] = 0.7  # frames of 512 are centred at multiples of 128: 1024 +- 0 128 look through 1 and 1/2
    # Hann: 1 at its centre, 1/2 a quarter of its length away (-6.02 dB), 0 half of it away; 17 frames
    expected = (80 + 2 * (80 - 20 * np.log10(2))) / 17
    assert score("log_spectral_distance", click, 0 * click) == pytest.approx(expected, rel=1e-12)


def test_the_floor_of_the_log_spectral_distance_cannot_be_moved_by_the_estimate():
    wav = speech_like()
    click = wav.copy()
    click[0, 16_000] += 100.0
    changed = score("log_spectral_distance", wav, click)
    frames = wav.shape[-1] // 128 + 1
    assert changed > 40 * 3 / frames  # a floor that rose with it would hide what it did, and all else


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_log_spectral_distance_is_one_thing_at_every_rate(rate):
    """Its frames are in milliseconds."""
    shaped = lfilter([1, 0.5], 1, white(2.0, rate))
    expected = _slow_lsd(white(2.0, rate)[0], shaped[0], 2 * round(0.016 * rate))
    function = METRICS["log_spectral_distance"].load()
    assert float(function(white(2.0, rate), shaped, rate)[0]) == pytest.approx(expected, rel=1e-9)


def test_spectral_convergence_of_a_gain():
    # |S - g S| / |S| = |1 - g|, and halves are exact in binary
    assert score("spectral_convergence", speech_like(), 0.5 * speech_like()) == 0.5
    assert score("spectral_convergence", speech_like(), 3.0 * speech_like()) == pytest.approx(2.0, rel=1e-12)


def test_spectral_convergence_is_blind_to_the_sign():
    assert score("spectral_convergence", speech_like(), -speech_like()) == 0


def test_stft_distance_of_a_gain():
    # of loud white noise at half the level: convergence 1/2, each logarithm moves by ln 2
    assert score("stft_distance", 10 * white(), 5 * white()) == pytest.approx(0.5 + np.log(2), rel=1e-6)


# --- spectra: by peer, on 50 recordings ------------------------------------------------------------------


def _slow_lsd(reference: np.ndarray, estimate: np.ndarray, n_fft: int = 512) -> float:
    """From the definition, frame by frame, with numpy alone."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    half = np.zeros(n_fft // 2)
    power = []
    for wav in (reference, estimate):
        padded = np.concatenate([half, wav, half])
        starts = range(0, len(padded) - n_fft + 1, n_fft // 4)
        power.append(np.array([np.abs(np.fft.rfft(window * padded[s : s + n_fft])) ** 2 for s in starts]))
    floor = power[0].max() / 1e8
    difference = 10 * np.log10(np.maximum(power[0], floor) / np.maximum(power[1], floor))
    return float(np.mean([np.sqrt(np.mean(frame**2)) for frame in difference]))


def test_log_spectral_distance_agrees_with_its_definition(pairs):
    for reference, estimate in pairs:
        value = score("log_spectral_distance", reference, estimate)
        assert value == pytest.approx(_slow_lsd(reference[0], estimate[0]), rel=1e-9)  # float64 both; 1e-13 measured


def test_spectral_convergence_agrees_with_librosa(pairs):
    librosa = pytest.importorskip("librosa")
    for reference, estimate in pairs:
        peer = [np.abs(librosa.stft(wav[0])) for wav in (reference, estimate)]
        expected = np.linalg.norm(peer[0] - peer[1]) / np.linalg.norm(peer[0])
        assert score("spectral_convergence", reference, estimate) == pytest.approx(expected, rel=1e-9)


def test_stft_distance_agrees_with_librosa_and_the_paper(pairs):
    librosa = pytest.importorskip("librosa")
    for reference, estimate in pairs:
        terms = []
        for n_fft, hop, window in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
            options = {"n_fft": n_fft, "hop_length": hop, "win_length": window, "pad_mode": "reflect"}
            peer = [np.abs(librosa.stft(wav[0], **options)) for wav in (reference, estimate)]
            r, e = (np.sqrt(np.maximum(np.square(magnitude), 1e-7)) for magnitude in peer)
            terms.append(np.linalg.norm(r - e) / np.linalg.norm(r) + np.abs(np.log(r) - np.log(e)).mean())
        assert score("stft_distance", reference, estimate) == pytest.approx(np.mean(terms), rel=1e-9)


# --- voice -----------------------------------------------------------------------------------------------


def test_mel_cepstrum_is_that_of_sptk():
    """pysptk 1.0.1: `sp2mc(power, 24, 0.42)`, power = exp(cos w + cos 3w / 2) at 513 frequencies from 0 to pi."""
    omega = np.pi * np.arange(513) / 512
    golden = [
        0.520762280000,
        -0.005050315200,
        0.052045260640,
        -0.101486637403,
        0.100704978950,
        -0.077037474233,
        0.051293084666,
        -0.000000408792,
    ]  # c_1 to c_7, c_24
    found = (np.cos(omega) + 0.5 * np.cos(3 * omega)) @ _to_mel_cepstrum(513)
    np.testing.assert_allclose(found[[*range(7), 23]], golden, atol=1e-11)


@functools.cache
def _warped_integral() -> np.ndarray:
    """[513, 24]: from the cosines of the linear frequency axis to c_1 to c_24, integrals over the warped one."""
    warped = np.pi * (np.arange(2048) + 0.5) / 2048
    linear = warped - 2 * np.arctan(0.42 * np.sin(warped) / (1 + 0.42 * np.cos(warped)))
    return np.cos(np.arange(513)[:, None] * linear) @ np.cos(np.arange(1, 25) * warped[:, None]) * 2 / 2048


def _envelope_distance_db(reference: np.ndarray, estimate: np.ndarray) -> float:
    """MCD the slow way: mel cepstra as integrals of the log envelope over the warped frequency axis."""
    pyworld, cepstra = _world(), []
    for wav in (reference, estimate):
        f0, times = pyworld.dio(wav, RATE)
        power = pyworld.cheaptrick(wav, pyworld.stonemask(wav, f0, times, RATE), times, RATE)
        log = np.fft.irfft(np.log(np.maximum(power, 1e-10 * power.max())))[:, :513]
        log[:, 1:-1] *= 2
        cepstra.append(0.5 * log @ _warped_integral())  # 0.5 log: ln |H| as a sum of cosines of the linear axis
    squares = np.square(cepstra[0] - cepstra[1]).sum(1)
    return float(np.mean(10 / np.log(10) * np.sqrt(2 * squares)))


def test_mcd_agrees_with_its_definition(pairs):
    for reference, estimate in pairs:
        expected = _envelope_distance_db(reference[0], estimate[0])
        assert score("mcd", reference, estimate) == pytest.approx(expected, rel=1e-9)


def test_mcd_is_the_distance_of_the_envelopes_in_db():
    """A filter whose curve in dB is known, on white noise: its deviation over the mel axis, level left out."""
    warped = np.pi * (np.arange(2048) + 0.5) / 2048
    linear = warped - 2 * np.arctan(0.42 * np.sin(warped) / (1 + 0.42 * np.cos(warped)))
    curve_db = 20 * np.log10(np.abs(1 - 0.6 * np.exp(-1j * linear)))
    filtered = lfilter([1, -0.6], 1, white(4.0))
    # frames at the ends are mostly padding, and the envelope of noise is smoothed before and after the filter alike
    assert score("mcd", white(4.0), filtered) == pytest.approx(curve_db.std(), rel=0.05)


def test_mcd_leaves_out_the_level():
    assert score("mcd", speech_like(), 0.1 * speech_like()) < 1e-4
    assert _mel_cepstrum(speech_like()[0]).shape == (401, 24)  # 2 s in frames of 5 ms, and the one at the end


def test_f0_of_two_buzzes():
    assert score("f0_rmse", buzz(120), buzz(126)) == pytest.approx(6.0, abs=0.05)
    assert score("f0_rmse", buzz(200), buzz(199)) == pytest.approx(1.0, abs=0.05)
    assert score("voicing_error", buzz(120), buzz(126)) < 0.02


def test_f0_follows_a_glide():
    """The buzz of `voice` has the phase 2 pi 120 (t + 0.1 sin 2 pi 0.7 t), so its F0 is the derivative."""
    found = f0_hz(voice(3.0, RATE).astype(np.float64))
    time = 0.005 * np.arange(len(found))
    truth = 120 * (1 + 0.1 * 2 * np.pi * 0.7 * np.cos(2 * np.pi * 0.7 * time))
    voiced = found > 0
    assert 0.4 < voiced.mean() < 0.6  # syllables are half of the time
    assert np.median(np.abs(found - truth)[voiced]) < 0.5


def test_f0_rmse_by_hand_where_half_of_it_is_off():
    """100 Hz against 100 Hz, then against 110 Hz, each half of the time: sqrt((0 + 10^2) / 2) = 7.07 Hz."""
    half = np.concatenate([buzz(100, 2.0), buzz(110, 2.0)], axis=1)
    assert score("f0_rmse", buzz(100, 4.0), half) == pytest.approx(np.sqrt(50), rel=0.03)  # the joint glides


def test_voicing_of_noise_is_the_voiced_share():
    wav = speech_like()
    share = (f0_hz(wav[0]) > 0).mean()
    assert score("voicing_error", wav, 0 * wav) == pytest.approx(share, abs=1e-12)
    assert score("voicing_error", wav, white()) == pytest.approx(share, abs=0.03)  # DIO hears little voice in noise


def test_voicing_by_hand():
    """Of 4 s the second half is replaced by silence: voiced in one only for half of the frames."""
    cut = buzz(120, 4.0)
    cut[:, 32_000:] = 0
    assert score("voicing_error", buzz(120, 4.0), cut) == pytest.approx(0.5, abs=0.01)


def test_pitch_errors_agree_with_their_definitions(pairs):
    for reference, estimate in pairs:
        tracks = [f0_hz(wav[0]) for wav in (reference, estimate)]
        both = [(r, e) for r, e in zip(*tracks, strict=True) if r and e]
        differs = sum(bool(r) != bool(e) for r, e in zip(*tracks, strict=True))
        assert score("voicing_error", reference, estimate) == pytest.approx(differs / len(tracks[0]), rel=1e-12)
        if both:
            expected = (sum((r - e) ** 2 for r, e in both) / len(both)) ** 0.5
            assert score("f0_rmse", reference, estimate) == pytest.approx(expected, rel=1e-12)
        else:
            with pytest.raises(MetricError, match="clip 0: no frame is voiced in both"):
                score("f0_rmse", reference, estimate)


def test_f0_agrees_with_pyin(pairs):
    """Another algorithm: on frames of speech that both call voiced, few differ by more than a fifth."""
    librosa = pytest.importorskip("librosa")
    wrong, shared = 0, 0
    options = {"fmin": 71, "fmax": 800, "sr": RATE, "frame_length": 1024, "hop_length": 80, "resolution": 0.1}
    for clip, _ in pairs[:18:2]:
        found = f0_hz(clip[0])
        peer, voiced, _ = librosa.pyin(clip[0], **options)
        both = (found > 0) & voiced[: len(found)]
        wrong += int((np.abs(found / peer[: len(found)] - 1)[both] > 0.2).sum())
        shared += int(both.sum())
    assert shared > 500
    assert wrong / shared < 0.03


# --- loudness --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "tolerance"), [(48_000, 0.001), (44_100, 0.01), (24_000, 0.03), (16_000, 0.05)])
def test_loudness_of_a_full_scale_sine(rate, tolerance):
    """ITU-R BS.1770: 0 dBFS at 997 Hz in one front channel reads -3.01 LKFS; the filter bends at lower rates."""
    assert integrated_lufs(sine(997, 0, 5, rate), rate) == pytest.approx(-3.01, abs=tolerance)


@pytest.mark.parametrize(
    "levels_db",
    [[(-23, 20)], [(-36, 10), (-23, 60), (-36, 10)], [(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)]],
)
def test_loudness_of_ebu_tech_3341(levels_db):
    """Its cases 1, 3 and 4: 1 kHz in two channels reads -23.0 +- 0.1 LUFS; one channel alone is 3.01 less."""
    wav = np.concatenate([sine(1000, level, seconds, 48_000) for level, seconds in levels_db])
    assert integrated_lufs(wav, 48_000) == pytest.approx(-23.0 - 3.01, abs=0.1)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
def test_loudness_of_a_gain(rate):
    wav = white(2.0, rate)
    assert score("loudness_difference", wav, 2 * wav, rate) == pytest.approx(20 * np.log10(2), abs=1e-9)
    assert score("loudness_difference", wav, 0.1 * wav, rate) == pytest.approx(20, abs=1e-9)


def test_loudness_below_the_gate():
    wav = white()
    assert score("loudness_difference", wav, 1e-4 * wav) == np.inf
    with pytest.raises(MetricError, match="clip 0: reference is under the gate of -70 LUFS, so it has no loudness"):
        score("loudness_difference", 1e-4 * wav, wav)


def test_loudness_takes_whole_blocks_only():
    """A loud end that fills no block of its own changes nothing: the standard leaves it out."""
    wav = white(1.09)
    end = wav.copy()
    end[:, 16_000:] *= 100
    assert score("loudness_difference", wav, end) == 0


def _slow_lufs(wav: np.ndarray) -> float:
    """BS.1770-4 with the coefficients of its tables 1 and 2, for mono at 48 kHz."""
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285], [1.0, -1.69065929318241, 0.73248077421585]
    high_pass = [1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621]
    weighted = lfilter(*high_pass, lfilter(*shelf, wav))
    blocks = [weighted[start : start + 19_200] for start in range(0, len(wav) - 19_200 + 1, 4800)]
    power = np.array([np.mean(block**2) for block in blocks])
    loud = power[power > 10 ** ((-70 + 0.691) / 10)]
    louder = loud[loud > loud.mean() / 10]  # 10 LU under the mean of those
    return float(-0.691 + 10 * np.log10(louder.mean()))


def test_loudness_agrees_with_the_standard(pairs):
    for reference, estimate in pairs:
        r, e = (audio.resample(wav, RATE, 48_000).astype(np.float64) for wav in (reference, estimate))
        expected = abs(_slow_lufs(e[0]) - _slow_lufs(r[0]))
        # the library designs its coefficients, which agree with the tables to 1e-9
        assert score("loudness_difference", r, e, 48_000) == pytest.approx(expected, abs=1e-6)
