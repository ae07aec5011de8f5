"""Proof of the metrics: by hand, by property, by the values that the standards publish, by peer.

What needs recordings takes them from the sampler and from the folder that EARMARK_DATA names, and skips without both.
"""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import fast_bss_eval
import numpy as np
import pystoi
import pytest
import torch
import torchaudio
import torchmetrics.functional as torchmetrics_functional
import torchmetrics.functional.audio as torchmetrics
from pesq import pesq

from earmark.data import audio
from earmark.metrics import METRICS, Metric, MetricError, compute, find, signal
from earmark.metrics.checks import remembered
from earmark.metrics.perceptual import utterances
from earmark.metrics.signal import si_sdr_db, si_snr_db, snr_db
from earmark.tests.helpers import ROOT, voice
from earmark.tests.slow_mel import slow_mel, slow_mel_distance_7scale, slow_mel_loss

pytestmark = pytest.mark.usefixtures("one_thread")
RATE = 16_000
# those that compare two waveforms by the definition alone; twins are proved in test_align.py, what a model hears in the
# tests of its family
EVERY = [
    name
    for name, row in METRICS.items()
    if row.kind == "pair" and not (row.aligned or row.native or row.heavy or name == "delay_ms")
]
TAKES_A_PAIR = [name for name, row in METRICS.items() if row.kind in ("pair", "estimate")]  # all that `compute` takes
EXACT = {"stoi": 1e-12, "estoi": 1e-12}  # pystoi adds eps to its norms and sums 15 bands x all frames


def speech_like(seconds: float = 2.0) -> np.ndarray:
    """float64 [1, L] at 16 kHz, enough like speech for PESQ and STOI."""
    return voice(seconds, RATE).astype(np.float64)[None]


def noise(like: np.ndarray, snr_db: float, seed: int = 0) -> np.ndarray:
    """White noise of the shape of like [B, L], so many dB under its energy."""
    white = np.random.default_rng(seed).standard_normal(like.shape)
    energies = (np.square(wav).sum(-1, keepdims=True) for wav in (like, white))
    return white * np.sqrt(next(energies) / next(energies)) * 10 ** (-snr_db / 20)


def quantised(wav: np.ndarray, bits: int) -> np.ndarray:
    """Uniform mid-tread quantiser over [-1, 1]."""
    step = 2.0 ** (1 - bits)
    return np.round(wav / step) * step


@pytest.fixture(scope="module")
def speech() -> list[np.ndarray]:
    """Recorded (or, in the sampler, spoken by a synthesiser) clips, float64 [L] at 16 kHz."""
    files = sorted((ROOT / "data" / "sampler" / "speech").glob("*.flac"))[:3]
    if "EARMARK_DATA" in os.environ:
        files += sorted((Path(os.environ["EARMARK_DATA"]) / "librispeech_test_other").glob("*.flac"))[2:12:3]
    if not files:
        pytest.skip("no speech here: the sampler is not built and EARMARK_DATA names no folder")
    clips = [audio.resample(*read, RATE)[0] for read in map(audio.read, files)]
    return [clip[: 8 * RATE].astype(np.float64) for clip in clips]


@pytest.fixture(scope="module")
def pairs(speech: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each clip with noise, through a 6-bit quantiser, and through a filter that dulls it and delays it."""
    return [pair for clip in speech for pair in _worse(clip)]


def _worse(clip: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    dulled = np.convolve(clip, [0, 0.4, 0.3, 0.2, 0.1])[: len(clip)]
    return [(clip, clip + noise(clip, 10.0)), (clip, quantised(clip, 6)), (clip, dulled)]


@pytest.fixture(scope="module")
def fifty() -> list[tuple[np.ndarray, np.ndarray]]:
    """Fifty recordings of LibriSpeech test-other, 4 s of each, made worse in one of the three ways in turn."""
    if "EARMARK_DATA" not in os.environ:
        pytest.skip("EARMARK_DATA is not set: real recordings are needed")
    files = sorted((Path(os.environ["EARMARK_DATA"]) / "librispeech_test_other").glob("*.flac"))[:50]
    assert len(files) == 50
    clips = [audio.resample(*audio.read(file), RATE)[0][: 4 * RATE].astype(np.float64) for file in files]
    return [_worse(clip)[at % 3] for at, clip in enumerate(clips)]


@pytest.fixture(params=["pairs", "fifty"])
def compared(request) -> list[tuple[np.ndarray, np.ndarray]]:
    """What a metric and its peer are both given."""
    return request.getfixturevalue(request.param)


# --- the registry ----------------------------------------------------------------------------------------


def test_the_metrics_of_both_benchmarks_are_here():
    papers = "mse snr si_sdr si_snr sdr log_spectral_distance spectral_convergence mel_loss mel_distance_7scale"
    papers += " stft_distance mcd f0_rmse voicing_error loudness_difference pesq_wb pesq_nb stoi estoi visqol_speech"
    papers += " visqol_audio dnsmos_ovrl wer_whisper_base cer_pocketsphinx fad kad delay_ms bitrate_kbps"
    papers += (
        " nominal_bitrate_kbps entropy_bitrate_kbps speaker_similarity_ecapa speaker_similarity_wavlm_base_plus_sv"
    )
    papers += " speaker_similarity_resemblyzer"
    assert set(papers.split()) <= set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_row_is_complete(name):
    row = METRICS[name]
    assert isinstance(row, Metric)
    assert row.name == name
    assert row.unit
    assert row.source
    assert set(row.domains) <= {"speech", "music", "sound", "general"}
    assert row.rate in (None, RATE, 48_000)
    assert row.kind == "procedure" or row.implementation().__doc__
    if row.missing() is None:
        assert row.backend.startswith(f"{row.library}-")
        assert row.backend.removeprefix(f"{row.library}-")[0].isdigit()


@pytest.mark.parametrize(
    ("wrong", "right"), [("pesqwb", "pesq_wb"), ("sisdr", "si_sdr"), ("mel_distance", "mel_distance_7scale")]
)
def test_unknown_name_suggests_the_nearest(wrong, right):
    with pytest.raises(ValueError, match=rf"no metric is called '{wrong}'.*\b{right}\b"):
        find(wrong)
    with pytest.raises(ValueError, match=right):
        compute(wrong, speech_like(), speech_like(), RATE)


def test_the_registry_is_light_to_import():
    code = "import sys, earmark.metrics; print({'torch', 'scipy', 'torchaudio', 'pesq', 'pystoi'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_pesq_and_stoi_do_not_need_torch():
    """They run in pools of processes, each of which would pay for it."""
    code = (
        "import sys, numpy as np; from earmark.metrics import compute\n"
        "wav = np.random.default_rng(0).standard_normal((1, 24000))\n"
        "[compute(name, wav, wav, 24000) for name in ('pesq_wb', 'pesq_nb', 'stoi', 'estoi')]\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- every metric, by property ---------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 24_000])
@pytest.mark.parametrize("name", EVERY)
def test_a_perfect_match_scores_the_best_value(name, rate):
    wav = voice(1.5, rate)[None]
    best = pytest.approx(METRICS[name].best, rel=0, abs=EXACT.get(name, 0))
    assert compute(name, wav, wav, rate)[0] == best
    assert compute(name, wav, wav.copy(), rate)[0] == best
    assert compute(name, torch.from_numpy(wav), torch.from_numpy(wav.copy()), rate)[0] == best


# Pitch is wrong in some frames or in none, so single clips and small steps may tie or turn; their mean does not.
BY_FRAMES = ("f0_rmse", "voicing_error")


@pytest.mark.parametrize("name", [name for name in EVERY if name not in BY_FRAMES])
def test_more_noise_is_worse(name, speech):
    clip = speech[0][None]
    values = [compute(name, clip, clip + noise(clip, snr), RATE)[0] for snr in (50, 40, 30, 20, 10, 0)]
    steps = np.diff(values) * (1 if METRICS[name].higher_is_better else -1)
    assert (steps < 0).all(), values


@pytest.mark.parametrize("name", BY_FRAMES)
def test_more_noise_is_worse_over_clips(name, speech):
    values = [
        np.mean([compute(name, clip[None], clip[None] + noise(clip[None], snr), RATE) for clip in speech])
        for snr in (40, 20, 10, 0)
    ]
    assert (np.diff(values) > 0).all(), values


@pytest.mark.parametrize("name", EVERY)
def test_symmetric_only_where_declared(name):
    wav = speech_like()
    other = wav + noise(wav, 10.0)
    forth, back = compute(name, wav, other, RATE)[0], compute(name, other, wav, RATE)[0]
    if METRICS[name].symmetric:
        assert forth == pytest.approx(back, rel=1e-9)
    else:
        assert abs(forth - back) > 1e-3


# What a pair becomes when both sides, or the estimate alone, are played at a quarter of the level.
BOTH = {
    "mse": 1 / 16,
    "mel_distance_7scale": None,
    "mel_loss": None,
    "stft_distance": None,
}  # None: the floor of its logarithm is absolute
ESTIMATE_INVARIANT = {"si_sdr": 1e-9, "si_snr": 1e-9, "sdr": 1e-9, "stoi": 1e-9, "estoi": 1e-9}
ESTIMATE_INVARIANT |= {"mcd": 1e-6, "f0_rmse": 1e-6, "voicing_error": 1e-9}
ESTIMATE_INVARIANT |= {"pesq_wb": 1e-4, "pesq_nb": 1e-4}  # it aligns levels itself, in float32


@pytest.mark.parametrize("name", [name for name in EVERY if BOTH.get(name, 1)])
def test_level_of_both(name):
    wav = speech_like()
    other = wav + noise(wav, 10.0)
    before, after = (compute(name, g * wav, g * other, RATE)[0] for g in (1, 0.25))
    assert after == pytest.approx(before * BOTH.get(name, 1), rel=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_level_of_the_estimate(name):
    wav = speech_like()
    other = wav + noise(wav, 10.0)
    before, after = (compute(name, wav, g * other, RATE)[0] for g in (1, 0.25))
    if name in ESTIMATE_INVARIANT:
        assert after == pytest.approx(before, rel=ESTIMATE_INVARIANT[name])
    else:
        assert abs(after - before) > 1e-3


@pytest.mark.parametrize("rate", [16_000, 24_000])
@pytest.mark.parametrize("name", EVERY)
def test_a_batch_scores_as_its_clips(name, rate):
    batch = np.stack([voice(1.2, rate, pitch) for pitch in (90, 140, 220)])
    other = (batch + noise(batch, 15.0)).astype(np.float32)
    together = compute(name, batch, other, rate)
    alone = [compute(name, batch[i : i + 1], other[i : i + 1], rate)[0] for i in range(3)]
    assert together.shape == (3,)
    assert together.dtype == np.float64
    np.testing.assert_allclose(together, alone, rtol=1e-9)  # batched linear solves and sums differ in the last digits


@pytest.mark.parametrize("name", EVERY)
def test_both_sides_are_resampled_to_the_rate_of_the_metric(name):
    wav = voice(1.2, 48_000)[None]
    other = (wav + noise(wav, 15.0)).astype(np.float32)
    value = compute(name, wav, other, 48_000)
    at_16k = compute(name, audio.resample(wav, 48_000, RATE), audio.resample(other, 48_000, RATE), RATE)
    assert (value == at_16k) == (METRICS[name].rate == RATE)  # the other sees all of the codec's band


@pytest.mark.parametrize("name", EVERY)
def test_numpy_and_torch_agree_and_nothing_is_written_to_the_input(name):
    wav = voice(1.2, 24_000)[None]
    other = wav[:, ::-1].copy()
    kept = wav.copy(), other.copy()
    value = compute(name, wav, other, 24_000)
    assert compute(name, torch.from_numpy(wav), torch.from_numpy(other), 24_000) == pytest.approx(value, rel=1e-12)
    assert (wav == kept[0]).all()
    assert (other == kept[1]).all()


@pytest.mark.parametrize("name", EVERY)
def test_read_only_and_reversed_arrays(name):
    wav = voice(1.2, RATE)[None]
    wav.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compute(name, wav[:, ::-1], wav, RATE) == compute(name, wav[:, ::-1].copy(), wav.copy(), RATE)


@pytest.mark.parametrize("name", ["mse", "si_sdr", "sdr", "mel_distance_7scale", "mel_loss"])
def test_cuda_agrees_with_the_cpu(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    wav = torch.from_numpy(speech_like())
    other = wav + torch.from_numpy(noise(wav.numpy(), 10.0))
    value = compute(name, wav.cuda(), other.cuda(), RATE)
    np.testing.assert_allclose(value, compute(name, wav, other, RATE), rtol=1e-9)


# --- what has no answer, and what has a surprising one ---------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda w: (w, w[:, :-1]), ValueError, r"reference \(1, 32000\) and estimate \(1, 31999\) differ in shape"),
        (lambda w: (w[None], w[None]), ValueError, r"reference is \(1, 1, 32000\); expected \[B, L\]"),
        (lambda w: (w[0], w[0]), ValueError, r"reference is \(32000,\); expected \[B, L\]"),
        (lambda w: (w, np.int16(w * 9999)), ValueError, "estimate is int16; expected floats of 32 or 64 bits"),
        (lambda w: (np.float16(w), np.float16(w)), ValueError, "reference is float16; expected floats of 32 or 64"),
        (lambda w: (w[:, :0], w[:, :0]), MetricError, r"reference is empty: shape \(1, 0\)"),
        (lambda w: (0 * w, w), MetricError, "clip 0: reference is silent"),
        (lambda w: (w, w * np.nan), MetricError, "clip 0: estimate holds NaN or infinite"),
        (lambda w: (w / 0.0, w), MetricError, "clip 0: reference holds NaN or infinite"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_input_says_why(change, error, message):
    """To every metric that `compute` takes, those whose model is not here too: it is looked at first."""
    pair = change(speech_like())
    for name in TAKES_A_PAIR:
        with pytest.raises(error, match=message):
            compute(name, *pair, RATE)


def test_what_is_not_a_number_is_no_score():
    """A codec that blew up: its power in float32 is infinite, and so is the recording's beside it."""
    wav = np.concatenate([speech_like(), 1e25 * speech_like()])
    with pytest.raises(MetricError, match="clip 1: the result is not a number, as of sound far beyond full scale"):
        compute("mel_distance_7scale", wav, 0.5 * wav, RATE)


def test_the_message_names_the_clip_of_the_batch():
    batch = np.repeat(speech_like(), 3, axis=0)
    batch[1] = 0
    with pytest.raises(MetricError, match="clip 1: reference is silent"):
        compute("mse", batch, batch, RATE)
    batch[1, :8000] = speech_like()[0, :8000]  # a quarter of STOI's clips is left: half a second, partly a pause
    with pytest.raises(MetricError, match="clip 1: STOI: Not enough STFT frames"):
        compute("stoi", batch, batch, RATE)


VOICE_SHORT = "1 samples are too short to hear a voice in; it takes 676 or more"
STOI_SHORT = "STOI: 1 samples are less than one frame"
SHORT = {  # metric -> of one sample against a louder one; of 0.1 s against itself
    "mse": (0.25, 0.0),
    "snr": (0.0, np.inf),
    "si_sdr": (np.inf, np.inf),
    "si_snr": ("reference is constant", np.inf),
    "sdr": (np.inf, np.inf),
    "pesq_wb": ("Buffer needs to be at least 1/4 of a second", "at least 1/4 of a second"),
    "pesq_nb": ("Buffer needs to be at least 1/4 of a second", "at least 1/4 of a second"),
    "stoi": (STOI_SHORT, "Not enough STFT frames"),
    "estoi": (STOI_SHORT, "Not enough STFT frames"),
    "mel_distance_7scale": ("1 samples are too short for a window of 2048", 0.0),
    "mel_loss": ("1 samples are too short for a window of 2048", 0.0),
    "stft_distance": ("1 samples are too short for a window of 2048", 0.0),
    "log_spectral_distance": (20 * np.log10(2), 0.0),  # twice as loud in every bin
    "spectral_convergence": (1.0, 0.0),  # twice the magnitude is off by the whole of it
    "mcd": (VOICE_SHORT, 0.0),
    "f0_rmse": (VOICE_SHORT, "no frame is voiced in both reference and estimate"),
    "voicing_error": (VOICE_SHORT, 0.0),
    "loudness_difference": ("6.25e-05 s are too short for a loudness", "0.1 s are too short for a loudness"),
}


@pytest.mark.parametrize("name", EVERY)
def test_very_short_clips(name):
    one = np.array([[0.5]]), np.array([[1.0]])
    tenth = speech_like()[:, 2000:3600]
    for (reference, estimate), expected in zip((one, (tenth, tenth)), SHORT[name], strict=True):
        if isinstance(expected, str):
            with pytest.raises(MetricError, match=f"clip 0: .*{expected}|^{expected}"):
                compute(name, reference, estimate, RATE)
        else:
            assert compute(name, reference, estimate, RATE)[0] == pytest.approx(expected, rel=1e-12)


SILENT_ESTIMATE = {  # the codec gave back silence: what each metric makes of it
    "snr": 0.0,
    "si_sdr": -np.inf,
    "si_snr": -np.inf,
    "sdr": -np.inf,
    "stoi": 0.0,
    "pesq_wb": "clip 0: PESQ: the result is not a number, as of an estimate that is silent",
    "pesq_nb": "clip 0: PESQ: the result is not a number, as of an estimate that is silent",
    "f0_rmse": "clip 0: no frame is voiced in both reference and estimate",
    "loudness_difference": np.inf,
    "spectral_convergence": 1.0,
}


@pytest.mark.parametrize("name", EVERY)
def test_silent_estimate(name):
    wav = speech_like()
    expected = SILENT_ESTIMATE.get(name)
    if isinstance(expected, str):
        with pytest.raises(MetricError, match=expected):
            compute(name, wav, 0 * wav, RATE)
        return
    value = compute(name, wav, 0 * wav, RATE)[0]
    if expected is not None:
        assert value == expected
    elif name == "estoi":
        assert abs(value) < 0.05  # a correlation with rounding noise
    elif name == "mse":
        assert value == np.square(wav).mean()  # sum of (w - 0)^2 over L
    elif name == "log_spectral_distance":  # as far as its floor, which most bins of a voice are near
        assert value > compute(name, wav, wav + noise(wav, 20.0), RATE)[0]
    else:
        assert value > compute(name, wav, wav + noise(wav, 10.0), RATE)[0]


def test_what_is_remembered_is_bounded_and_by_the_wave():
    looked_at = []
    analyse = remembered(2)(lambda wav: looked_at.append(float(wav[0])) or len(looked_at))
    waves = [np.full(4, value) for value in (1.0, 2.0, 3.0)]
    assert [analyse(wav) for wav in (waves[0], waves[0].copy(), waves[1], waves[0])] == [1, 1, 2, 1]
    analyse(waves[2])  # the third drops the first
    assert analyse(waves[0]) == 4
    assert looked_at == [1.0, 2.0, 3.0, 1.0]


def test_no_utterance_is_no_score():
    click = np.zeros((1, RATE))
    click[0, 8000] = 1.0
    with pytest.raises(MetricError, match="clip 0: STOI: Not enough STFT frames"):
        compute("stoi", click, click, RATE)
    faint = speech_like() * np.float64(1e-30)  # float32 cannot hold its energy
    with pytest.raises(MetricError, match="clip 0: PESQ"):
        compute("pesq_wb", speech_like(), faint, RATE)


@pytest.mark.parametrize("name", ["pesq_wb", "pesq_nb"])
def test_pesq_refuses_what_would_overrun_the_itu_code(name):
    """60 bursts of 0.5 s between pauses: the library ends the process on them."""
    burst = np.concatenate([voice(0.5, RATE) + 0.1 * noise(voice(0.5, RATE), 0.0), np.zeros(8000)])
    clip = np.tile(burst, 60)[None]
    with pytest.raises(MetricError, match="clip 0: PESQ holds at most 40 utterances"):
        compute(name, clip, 0.5 * clip, RATE)


def test_pesq_scores_half_a_minute_of_real_speech(speech):
    clip = np.concatenate(speech)[: 35 * RATE]
    assert 3 < utterances(clip) <= 40
    assert compute("pesq_wb", clip[None], clip[None], RATE)[0] == METRICS["pesq_wb"].best


@pytest.mark.parametrize("estimate", ["noisy", "silent"])
def test_estoi_repeats_and_leaves_the_random_state_alone(estimate):
    wav = speech_like()
    other = wav + noise(wav, 5.0) if estimate == "noisy" else 0 * wav
    values = []
    for seed in (1, 2):
        np.random.seed(seed)
        expected = np.random.standard_normal(3)
        np.random.seed(seed)
        values.append(compute("estoi", wav, other, RATE)[0])
        assert (np.random.standard_normal(3) == expected).all()
    assert values[0] == values[1]


# --- by hand and by published value ----------------------------------------------------------------------

FOUR = np.array([[3.0, -0.5, 2.0, 7.0]]), np.array([[2.5, 0.0, 2.0, 8.0]])


def test_mse_by_hand():
    # (.5^2 + .5^2 + 0^2 + 1^2) / 4 = 1.5 / 4
    assert compute("mse", *FOUR, RATE)[0] == 0.375


def test_snr_by_hand():
    # signal 9 + .25 + 4 + 49 = 62.25; noise 1.5; 10 log10 41.5 = 16.1805 dB
    assert compute("snr", *FOUR, RATE)[0] == pytest.approx(10 * np.log10(41.5), rel=1e-14)
    assert compute("snr", *FOUR, RATE)[0] == pytest.approx(16.1805, abs=5e-5)


def test_si_sdr_by_hand():
    # <e, r> = 7.5 + 0 + 4 + 56 = 67.5; <r, r> = 62.25; |e|^2 = 6.25 + 0 + 4 + 64 = 74.25
    # target 67.5^2 / 62.25 = 73.19277; residual 74.25 - 73.19277 = 1.05723; 10 log10 of their ratio
    target = 67.5**2 / 62.25
    assert compute("si_sdr", *FOUR, RATE)[0] == pytest.approx(10 * np.log10(target / (74.25 - target)), rel=1e-12)
    assert compute("si_sdr", *FOUR, RATE)[0] == pytest.approx(18.4030, abs=5e-5)


def test_si_snr_by_hand():
    # means 2.875 and 3.125: r - mean = .125 -3.375 -.875 4.125, e - mean = -.625 -3.125 -1.125 4.875
    # <e, r> = 31.5625, <r, r> = 29.1875, |e|^2 = 35.1875
    target = 31.5625**2 / 29.1875
    assert compute("si_snr", *FOUR, RATE)[0] == pytest.approx(10 * np.log10(target / (35.1875 - target)), rel=1e-12)
    assert compute("si_snr", *FOUR, RATE)[0] == pytest.approx(15.0918, abs=5e-5)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_each_bit_is_worth_six_db(bits):
    """An n-bit quantiser on a full-scale sine: 6.02 n + 1.76 dB, so long as its error is like uniform noise."""
    sine = np.sin(2 * np.pi * 997 / 48_000 * np.arange(48_000))[None]
    assert float(snr_db(sine, quantised(sine, bits))[0]) == pytest.approx(6.02 * bits + 1.76, abs=0.1)


def test_scale_and_offset_that_cost_nothing():
    wav = speech_like()
    for gain in (2.0, 0.3, -0.7, 1e-9):
        assert si_sdr_db(wav, gain * wav)[0] == np.inf
        assert si_snr_db(wav, gain * wav + 0.5 * gain)[0] == np.inf
    assert si_sdr_db(wav, wav + 0.5)[0] < 0


def test_si_snr_of_a_constant():
    """The mean of 32000 times 0.1 is not quite 0.1; what is left of it is no signal."""
    wav = speech_like()
    constant = np.full_like(wav, 0.1)
    assert si_snr_db(wav, constant)[0] == -np.inf
    with pytest.raises(MetricError, match="clip 0: reference is constant"):
        si_snr_db(constant, wav)


@pytest.fixture
def itu_pair(real) -> tuple[np.ndarray, np.ndarray]:
    """The pair that comes with the PESQ library: speech, and it in babble at 0 dB."""
    files = [real / "conformance" / f"{name}.wav" for name in ("speech", "speech_bab_0dB")]
    if not all(file.is_file() for file in files):
        pytest.skip(f"{files[0]} and {files[1].name} are not here")
    return audio.read(files[0])[0], audio.read(files[1])[0]


@pytest.mark.parametrize(
    ("name", "value", "tolerance"),
    [("pesq_wb", 1.0832337141036987, 0), ("pesq_nb", 1.6072081327438354, 0), ("stoi", 0.6739177, 1e-7)],
)
def test_conformance(itu_pair, name, value, tolerance):
    assert compute(name, *itu_pair, RATE)[0] == pytest.approx(value, rel=0, abs=tolerance)


# --- by peer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["wb", "nb"])
def test_pesq_is_the_library(compared, mode):
    for reference, estimate in compared:
        reference, estimate = reference[: 2 * RATE], estimate[: 2 * RATE]
        value = compute(f"pesq_{mode}", reference[None], estimate[None], RATE)[0]
        assert value == pesq(RATE, reference, estimate, mode)


@pytest.mark.parametrize("name", ["stoi", "estoi"])
def test_stoi_is_the_library(compared, name):
    for reference, estimate in compared:
        peer = pystoi.stoi(reference, estimate, RATE, extended=name == "estoi")
        # estoi adds random numbers of the size of eps
        assert compute(name, reference[None], estimate[None], RATE)[0] == pytest.approx(peer, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("mse", torchmetrics_functional.mean_squared_error),
        ("snr", torchmetrics.signal_noise_ratio),
        ("si_sdr", torchmetrics.scale_invariant_signal_distortion_ratio),
        ("si_snr", torchmetrics.scale_invariant_signal_noise_ratio),
    ],
)
def test_ratios_agree_with_torchmetrics(compared, name, peer):
    for reference, estimate in compared:
        value = peer(torch.from_numpy(estimate), torch.from_numpy(reference))
        # torchmetrics adds eps, 2e-16, to each energy, which here are above 0.1
        assert compute(name, reference[None], estimate[None], RATE)[0] == pytest.approx(float(value), abs=1e-12)


def test_si_sdr_agrees_with_fast_bss_eval(compared):
    for reference, estimate in compared:
        (peer,) = fast_bss_eval.si_sdr(reference[None], estimate[None])
        # it goes through 1 - coherence, so it loses digits as the ratio grows: 1e-16 against 1e-3.5 at 35 dB
        assert compute("si_sdr", reference[None], estimate[None], RATE)[0] == pytest.approx(peer, abs=1e-11)


@pytest.mark.filterwarnings("ignore:mir_eval.separation:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*deprecated.*:FutureWarning")
def test_sdr_agrees_with_mir_eval(compared):
    from mir_eval.separation import bss_eval_sources

    for reference, estimate in compared:
        (peer,) = bss_eval_sources(reference[None], estimate[None], compute_permutation=False)[0]
        if peer > 120:  # equal up to a filter: 150 to 240 dB there
            peer = np.inf
        # both solve an ill-conditioned 512 x 512 system; 1 - coherence costs 1e-16 * 10^(dB / 10) on top.
        # Measured: 2e-12 dB at 20 dB and 1.5e-6 dB at 84 dB on recordings; on synthesised sound, whose gaps are empty
        # and whose spectrum has holes, 2e-6 dB for speech and 2e-5 dB for single notes
        tolerance = 1e-5 + 1e-13 * 10 ** (min(peer, 120) / 10)
        assert compute("sdr", reference[None], estimate[None], RATE)[0] == pytest.approx(peer, abs=tolerance)


def test_sdr_forgives_a_filter_and_si_sdr_does_not(speech):
    clip = speech[0]
    dulled = np.convolve(clip, [0.4, 0.3, 0.2, 0.1])[None, : len(clip)]
    assert compute("sdr", clip[None], dulled, RATE)[0] > 40  # not infinite: the tail of the filter is cut off
    assert compute("si_sdr", clip[None], dulled, RATE)[0] < 20


def test_sdr_of_an_exact_match_is_infinite_however_ill_conditioned(speech):
    time = np.arange(5 * RATE) / RATE
    tones = [np.sin(2 * np.pi * f * time) for f in (1, 50, 440, 7999)]
    for wav in [*tones, np.sign(tones[1]), np.ones(RATE), *speech]:
        low = audio.resample(audio.resample(wav[None], RATE, 2000), 2000, RATE)  # nothing above 1 kHz: singular
        for exact in (wav[None], low):
            assert compute("sdr", exact, exact.copy(), RATE)[0] == np.inf
            assert compute("sdr", exact, 0.3 * exact, RATE)[0] == np.inf


def test_sdr_of_an_exact_match_is_infinite_however_long(monkeypatch):
    """The rounding of ten minutes reaches down to 120 dB; here that of a second counts as if it were resolved."""
    monkeypatch.setattr(signal, "SDR_RESOLUTION_DB", np.inf)
    for pitch in (90, 120, 150):
        wav = voice(1.0, RATE, pitch)[None]
        assert signal.sdr_db(wav, wav.copy())[0] == np.inf


def test_sdr_of_a_faint_clip():
    """fast_bss_eval alone is 60 dB off here: it does not normalise what is fainter than 1e-6."""
    wav = speech_like()
    other = wav + noise(wav, 20.0)
    loud, faint = (compute("sdr", g * wav, g * other, RATE)[0] for g in (1, 1e-9))
    assert faint == pytest.approx(loud, rel=1e-9)


# --- mel distances against a slow reading of their definitions -------------------------------------------


@pytest.mark.parametrize("seconds", [0.0666, 1.0])
@pytest.mark.parametrize(
    ("name", "slow", "rate"),
    [
        ("mel_distance_7scale", slow_mel_distance_7scale, 16_000),
        ("mel_distance_7scale", slow_mel_distance_7scale, 24_000),
        ("mel_distance_7scale", slow_mel_distance_7scale, 44_100),
        ("mel_loss", slow_mel_loss, 16_000),
    ],
)
def test_mel_distances_agree_with_their_definition(name, slow, rate, seconds):
    wav = voice(seconds, rate).astype(np.float64)
    other = wav + noise(wav, 15.0)
    # torchaudio's filters are float32; 2e-8 measured
    assert compute(name, wav[None], other[None], rate)[0] == pytest.approx(slow(wav, other, rate), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "slow"), [("mel_distance_7scale", slow_mel_distance_7scale), ("mel_loss", slow_mel_loss)]
)
def test_mel_distances_agree_with_their_definition_on_recordings(name, slow, fifty):
    for reference, estimate in fifty:
        reference, estimate = reference[: RATE // 8], estimate[: RATE // 8]  # the slow definition takes its time
        value = compute(name, reference[None], estimate[None], RATE)[0]
        # spectrograms in float32: 1.5e-6 measured where a recording is quiet
        assert value == pytest.approx(slow(reference, estimate, RATE), rel=1e-5)


@pytest.mark.parametrize("name", ["mse", "snr", "si_sdr", "si_snr", "sdr", "mel_distance_7scale", "mel_loss", "stoi"])
def test_ten_minutes(name):
    """As good as the seconds that it repeats: noise at 20 dB, whatever the length."""
    short = voice(5, RATE)[None]
    other = short + noise(short, 20.0).astype(np.float32)
    expected = compute(name, short, other, RATE)[0]
    value = compute(name, np.tile(short, 120), np.tile(other, 120), RATE)[0]
    assert value == pytest.approx(expected, rel=0.02)  # where the pieces meet


@pytest.mark.parametrize("name", ["pesq_wb", "pesq_nb"])
def test_ten_minutes_of_utterances_are_more_than_pesq_holds(name):
    wav = np.tile(voice(5, RATE)[None], 120)
    with pytest.raises(MetricError, match="PESQ holds at most 40 utterances here; cut the clip into shorter ones"):
        compute(name, wav, wav, RATE)


def test_mel_distance_agrees_with_the_published_transforms(pairs):
    """As Codec-Evaluation computes it: torchaudio's MelSpectrogram with its defaults, in float32."""
    reference, estimate = (torch.from_numpy(wav).float() for wav in pairs[1])
    distances = []
    for n_fft, mels in zip([32, 64, 128, 256, 512, 1024, 2048], [5, 10, 20, 40, 80, 160, 320], strict=True):
        with warnings.catch_warnings(action="ignore"):  # of empty filters
            transform = torchaudio.transforms.MelSpectrogram(RATE, n_fft=n_fft, hop_length=n_fft // 4, n_mels=mels)
        logs = [transform(wav).clamp(min=1e-5).log() for wav in (reference, estimate)]
        distances.append(float((logs[0] - logs[1]).abs().mean()))
    value = compute("mel_distance_7scale", pairs[1][0][None], pairs[1][1][None], RATE)[0]
    assert value == pytest.approx(np.mean(distances), rel=1e-5)  # float32 against float64


def test_mel_loss_of_a_level_change_by_hand():
    """Of loud noise at a tenth of its level: each log10 of the square moves by 2, each magnitude by nine tenths."""
    wav = np.random.default_rng(0).standard_normal((1, RATE))
    mean_mel = [slow_mel(wav[0], n_fft, mels, RATE, True).mean() for n_fft, mels in ((2048, 150), (512, 80))]
    assert compute("mel_loss", wav, 0.1 * wav, RATE)[0] == pytest.approx(2 + 2 + 0.9 * sum(mean_mel), rel=1e-5)
