"""Proof of ViSQOL, DNSMOS, SRMR and UTMOS: by published values, by property, by peer.

Google's pairs and real recordings come from the folder that EARMARK_DATA names; their tests skip without it. Generic
proofs that hold for every metric are in test_metrics.py.
"""

import functools
import os
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from earmark.data import audio
from earmark.metrics import METRICS, MetricError, compute, noreference, visqol
from earmark.tests.helpers import voice

RATE = {name: METRICS[name].rate for name in ("visqol_speech", "visqol_audio")}
VISQOL = [*RATE]
DNSMOS = ["dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808"]
ALONE = [*DNSMOS, "srmr"]
LEAST = dict.fromkeys(DNSMOS, 4000) | {"srmr": 4096, "visqol_speech": 10_240, "visqol_audio": 46_080}


def function(name: str):
    return METRICS[name].load()


def noisy(wav: np.ndarray, snr_db: float, seed: int = 0) -> np.ndarray:
    white = np.random.default_rng(seed).standard_normal(wav.shape)
    return wav + white * np.sqrt(np.square(wav).sum() / np.square(white).sum()) * 10 ** (-snr_db / 20)


@pytest.fixture(scope="module")
def data() -> Path:
    if "EARMARK_DATA" not in os.environ:
        pytest.skip("EARMARK_DATA names no folder of recordings")
    return Path(os.environ["EARMARK_DATA"])


def read(path: Path, rate: int | None = None) -> np.ndarray:
    """float64 [L], channels mixed, at the rate or as it is."""
    wav, own = soundfile.read(path, always_2d=True)
    mono = wav.mean(1)[None]
    return (mono if rate in (None, own) else audio.resample(mono.astype(np.float32), own, rate))[0].astype(np.float64)


# --- ViSQOL: conformance ---------------------------------------------------------------------------------------------


def google_pair(data: Path, reference: str, estimate: str, rate: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    return read(data / "conformance" / reference, rate), read(data / "conformance" / estimate, rate)


def test_audio_mode_gives_googles_value(data):
    """Google's table has 4.3325 for the glockenspiel through AAC at 48 kbit/s, whose file is 5273 samples longer."""
    pair = google_pair(data, "glock48_stereo.wav", "glock48_stereo_48kbps_aac.wav")
    assert visqol.moslqo("audio", *pair, 48_000) == pytest.approx(4.332453, abs=2e-4)
    length = len(pair[0])
    trimmed = function("visqol_audio")(pair[0], pair[1][:length])  # less silence at the end, a little louder
    assert trimmed == pytest.approx(4.332453, abs=2e-3)


def test_audio_mode_of_a_perfect_match_is_googles_value():
    """Google's table has 4.7321 for castanets against themselves; it is the same for all sounds, to the bit."""
    white = np.random.default_rng(0).standard_normal(60_000)
    for wav in (voice(1.5, 48_000), white, np.sin(np.arange(60_000) / 10), 1e-3 * voice(2, 48_000)):
        assert function("visqol_audio")(wav, wav.copy()) == METRICS["visqol_audio"].best == 4.732101253042348


def test_speech_mode_gives_googles_value(data):
    """Google's C++ says 3.312923 with its lattice and 3.374506 without, of files at 48 kHz."""
    pair = google_pair(data, "CA01_01.wav", "transcoded_CA01_01.wav")
    assert visqol.moslqo("speech", *pair, 48_000) == pytest.approx(3.312923, abs=0.003)
    at_16k = google_pair(data, "CA01_01.wav", "transcoded_CA01_01.wav", 16_000)  # as we measure: another resampler
    assert function("visqol_speech")(*at_16k) == pytest.approx(3.312923, abs=0.03)


def test_speech_mode_is_never_the_polynomial(monkeypatch):
    visqol._api.cache_clear()
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)  # as where the extra is not installed
    wav = voice(1, 16_000)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'visqol-python\[accel,lattice\]'"):
        function("visqol_speech")(wav, wav)
    monkeypatch.undo()
    function("visqol_speech")(wav, wav)
    assert type(visqol._api("speech")._manager.quality_mapper).__name__ == "TFLiteSpeechQualityMapper"


# --- ViSQOL: properties ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "down_to"), [("visqol_speech", 0), ("visqol_audio", 10)])
def test_visqol_falls_as_noise_rises(name, down_to):
    """Down to where each scale ends: the speech mode then stays near 1, the audio mode wanders between 2 and 3."""
    wav = voice(2, RATE[name]).astype(np.float64)
    values = [float(function(name)(wav, noisy(wav, snr))) for snr in range(60, down_to - 1, -10)]
    assert (np.diff(values) < 0).all(), values
    assert values[0] <= function(name)(wav, wav)
    beyond = [float(function(name)(wav, noisy(wav, down_to - more))) for more in (20, 30)]
    assert beyond == [1, 1] if name == "visqol_speech" else all(1.5 < value < 3 for value in beyond), beyond


def test_a_perfect_match_in_speech_mode_depends_on_the_clip():
    """So the registry states no best value: the network is also given the energy of each band."""
    wav = voice(2, 16_000).astype(np.float64)
    values = [float(function("visqol_speech")(gain * wav, gain * wav)) for gain in (1, 1e-3)]
    assert METRICS["visqol_speech"].best is None
    assert 3.8 < values[0] < 4.1
    assert 4.6 < values[1] < 4.8


@pytest.mark.parametrize("name", VISQOL)
def test_visqol_by_aliasing_and_by_copy_and_not_symmetric(name):
    wav = voice(1, RATE[name]).astype(np.float64)
    assert function(name)(wav, wav) == function(name)(wav, wav.copy())
    assert not METRICS[name].symmetric
    forth, back = function(name)(wav, noisy(wav, 40)), function(name)(noisy(wav, 40), wav)
    assert forth != back  # of audio by 1e-5 alone


@pytest.mark.parametrize("name", VISQOL)
def test_visqol_and_levels(name):
    """The estimate's own level is undone; that of both is not, for the floor under quiet parts is absolute."""
    wav = voice(2, RATE[name]).astype(np.float64)
    other = noisy(wav, 20)
    value = function(name)(wav, other)
    assert function(name)(wav, 0.25 * other) == pytest.approx(value, abs=1e-6)
    assert abs(function(name)(0.25 * wav, 0.25 * other) - value) > 1e-3


@pytest.mark.parametrize("name", VISQOL)
def test_visqol_is_blind_to_a_delay(name):
    wav = voice(2, RATE[name]).astype(np.float64)
    late = np.r_[np.zeros(RATE[name] // 50), wav[: -RATE[name] // 50]]  # 20 ms
    assert function(name)(wav, late) > function(name)(wav, wav) - 0.15


@pytest.mark.parametrize("name", VISQOL)
def test_visqol_gives_the_same_bits_whatever_ran_before(name):
    wav, other = voice(1.2, RATE[name]), noisy(voice(1.2, RATE[name]), 15)
    first = function(name)(wav, other)
    for neighbour in VISQOL:
        function(neighbour)(voice(1, RATE[neighbour], 200), noisy(voice(1, RATE[neighbour], 200), 5))
    assert function(name)(wav, other) == first
    assert function(name)(torch.from_numpy(wav), torch.from_numpy(other)) == first


def test_visqol_of_two_threads_at_once():
    """numba's own answer to two threads in its parallel code is to end the process."""
    wav = voice(1, 16_000)
    others = [noisy(wav, snr) for snr in (30, 20, 10, 0)]
    alone = [float(function("visqol_speech")(wav, other)) for other in others]
    with ThreadPoolExecutor(2) as pool:
        assert [float(value) for value in pool.map(functools.partial(function("visqol_speech"), wav), others)] == alone


def test_visqol_takes_one_thread_and_gives_the_others_back():
    numba = pytest.importorskip("numba")
    before = numba.get_num_threads()
    with visqol._one_numba_thread():
        assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == before


@pytest.mark.parametrize("name", VISQOL)
def test_visqol_batch_is_its_clips(name):
    batch = np.stack([voice(1, RATE[name], pitch) for pitch in (90, 150, 220)])
    other = noisy(batch, 15)
    together = function(name)(batch, other)
    assert together.dtype == np.float64
    assert together.tolist() == [float(function(name)(*pair)) for pair in zip(batch, other, strict=True)]


@pytest.mark.parametrize("name", VISQOL)
def test_visqol_of_short_and_silent_clips(name):
    wav = voice(1, RATE[name])
    least = LEAST[name]
    assert 1 <= function(name)(wav[:least], wav[:least]) <= 5
    for short in (wav[: least - 1], wav[: RATE[name] // 10], wav[:1] + 1):
        too_short = rf"ViSQOL: {len(short)} samples are too short; .* takes 0\.\d\d s or more"
        with pytest.raises(MetricError, match=too_short):
            function(name)(short, short)
    with pytest.raises(MetricError, match="the estimate is silent"):
        function(name)(wav, 0 * wav)
    with pytest.raises(MetricError, match="clip 0: ViSQOL: the similarity is not a number"):
        function(name)(wav.astype(np.float64), 1e-200 * wav.astype(np.float64))
    with pytest.raises(MetricError, match="clip 1: ViSQOL"):
        function(name)(np.stack([wav, wav]).astype(np.float64), np.stack([wav, 1e-200 * wav.astype(np.float64)]))


def test_visqol_does_not_need_torch():
    code = (
        "import sys, numpy as np; from earmark.metrics import compute\n"
        "wav = np.random.default_rng(0).standard_normal((1, 240000))\n"
        "[compute(name, wav, wav, 48000) for name in ('visqol_speech', 'visqol_audio', 'srmr', 'dnsmos_sig')]\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- DNSMOS ----------------------------------------------------------------------------------------------------------


def test_dnsmos_gives_the_known_values(data):
    """Of jfk.flac, as measured with another resampler; the resampler and the channel move them by less than 0.01."""
    wav = read(data / "misc" / "jfk.flac", 16_000)
    values = [float(function(name)(wav)) for name in DNSMOS]
    np.testing.assert_allclose(values, [2.713, 3.473, 2.990, 3.099], rtol=0, atol=0.01)


def test_dnsmos_is_the_librarys(data):
    """The library's own call, whose sessions take all cores: float32 sums in another order."""
    from speechmos import dnsmos

    wav = read(data / "misc" / "jfk.flac", 16_000).astype(np.float32)
    library = dnsmos.run(wav, 16_000)
    values = [float(function(name)(wav)) for name in DNSMOS]
    np.testing.assert_allclose(values, [library[f"{name.removeprefix('dnsmos_')}_mos"] for name in DNSMOS], atol=1e-4)


def test_dnsmos_tells_clean_from_noisy(data):
    """VCTK's talker 287 and the same with noise of the street; SIG is about the voice alone and moves less."""
    for clip in (1, 4):
        clean, dirty = (read(data / "vctk_noisy" / f"{kind}_p287_00{clip}.wav", 16_000) for kind in ("clean", "noisy"))
        for name in ("dnsmos_ovrl", "dnsmos_bak", "dnsmos_p808"):
            assert function(name)(clean) > function(name)(dirty), (clip, name)


def test_dnsmos_falls_as_noise_rises(data):
    """Of a recording that is clean to begin with; where some noise is there already, SIG and P808 may turn."""
    wav = read(data / "vctk_noisy" / "clean_p287_004.wav", 16_000)
    for name in DNSMOS:
        values = [float(function(name)(noisy(wav, snr))) for snr in (40, 30, 20, 10, 0)]
        assert (np.diff(values) < -0.01).all(), (name, values)


def test_dnsmos_of_a_long_clip_is_the_mean_of_its_windows():
    """9.01 s from each whole second on, as long as the clip lasts: ten minutes are 591 windows, two minutes' work."""
    wav = voice(11.02, 16_000)
    windows = [wav[start : start + 144_160] for start in (0, 16_000)]
    mean = np.mean([function("dnsmos_sig")(window) for window in windows])
    assert function("dnsmos_sig")(wav) == pytest.approx(mean, abs=1e-9)


def test_dnsmos_of_a_short_clip_is_that_of_the_clip_repeated():
    wav = voice(5, 16_000)
    assert function("dnsmos_p808")(wav) == function("dnsmos_p808")(np.tile(wav, 2))


def test_four_scores_cost_one_run(monkeypatch):
    model, runs = noreference._dnsmos_model(), []
    monkeypatch.setattr(noreference, "_dnsmos_model", lambda: lambda *given: runs.append(1) or model(*given))
    batch = np.stack([voice(5, 16_000, pitch) for pitch in (101, 151, 211)])
    values = [function(name)(batch) for name in DNSMOS]
    assert len(runs) == 3
    assert len({float(value[0]) for value in values}) == 4


def test_dnsmos_takes_one_thread():
    options = noreference._dnsmos_model().onnx_sess.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


def test_beyond_full_scale_is_clipped():
    wav = voice(5, 16_000)
    loud = wav / np.abs(wav).max() * 1.2
    assert function("dnsmos_ovrl")(loud) == function("dnsmos_ovrl")(loud.clip(-1, 1))


# --- SRMR ------------------------------------------------------------------------------------------------------------


def test_srmr_agrees_with_torchmetrics(data):
    """On 50 recordings. Its Hamming window is a sample too long, hence the tolerance; SRMRpy itself agrees to 1e-11."""
    pytest.importorskip("gammatone")
    from torchmetrics.functional.audio import speech_reverberation_modulation_energy_ratio as peer

    paths = sorted((data / "librispeech_test_other").glob("*.flac"))[:50]
    assert len(paths) == 50
    for path in paths:
        wav = read(path, 16_000)[16_000:24_000]  # of so few windows a sample weighs more than of 2 s: 9e-4 measured
        assert function("srmr")(wav) == pytest.approx(float(peer(torch.from_numpy(wav), 16_000)), rel=2e-3)


def test_windowed_energy_by_hand():
    wav = np.random.default_rng(0).standard_normal(9_000)
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(4096) / 4096)  # Hamming, periodic
    energies = [np.square(window * wav[start : start + 4096]).sum() for start in range(0, 9_000 - 4096 + 1, 1024)]
    assert len(energies) == 5
    assert noreference._windowed_energy(wav) == pytest.approx(np.mean(energies), rel=1e-12)


def test_srmr_falls_as_reverberation_lasts():
    """Of rooms whose sound takes so long to fall by 60 dB: noise that fades, behind what comes straight."""
    pytest.importorskip("gammatone")
    values, time = [], np.arange(16_000) / 16_000
    for t60_s in (0.2, 0.5, 1.0):
        room = np.random.default_rng(0).standard_normal(16_000) * 10 ** (-3 * time / t60_s)
        room[0] = 5.0
        values.append(float(function("srmr")(np.convolve(voice(3, 16_000), room)[:48_000])))
    assert (np.diff(values) < 0).all(), values


def test_level_does_not_matter_to_srmr():
    pytest.importorskip("gammatone")
    wav = voice(1, 16_000)
    assert function("srmr")(0.25 * wav) == function("srmr")(wav)  # a power of two: to the bit
    assert function("srmr")(3 * wav) == pytest.approx(function("srmr")(wav), rel=1e-6)


# --- what holds for all that listen to one wave ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dnsmos_sig", "srmr"])
def test_one_wave_batch_is_its_clips_to_the_bit(name, monkeypatch):
    monkeypatch.setattr(noreference, "_dnsmos_scores", noreference._dnsmos_scores.__wrapped__)  # or it would remember
    batch = np.stack([voice(5, 16_000, pitch) for pitch in (90, 220)])  # doubled, these are one window of DNSMOS
    together = function(name)(batch)
    assert together.dtype == np.float64
    assert together.tolist() == [float(function(name)(clip)) for clip in batch[::-1]][::-1]
    assert function(name)(torch.from_numpy(batch)[None]).tolist() == [together.tolist()]
    assert function(name)(batch.astype(np.float64)[:, None]).shape == (2, 1)


@pytest.mark.parametrize("name", ALONE)
def test_one_wave_without_an_answer(name):
    wav = voice(5, 16_000)
    assert np.isfinite(function(name)(wav[: LEAST[name]]))
    for short in (LEAST[name] - 1, 1600, 1, 0):
        with pytest.raises(MetricError, match=f"{short} samples are too short; it takes {LEAST[name]} or more"):
            function(name)(wav[:short])
    wrong = ((0 * wav, "it is silent"), (np.nan * wav, "NaN or infinite"), (np.inf + wav, "NaN or infinite"))
    for clip, message in wrong:
        with pytest.raises(MetricError, match=f"clip 1: .*{message}"):
            function(name)(np.stack([wav, clip]))
    with pytest.raises(ValueError, match="int16; expected floats"):
        function(name)(np.int16(wav * 9999))


@pytest.mark.parametrize("name", ALONE)
def test_the_reference_is_not_looked_at(name):
    wav = voice(5, 16_000)[None]
    assert compute(name, wav, wav, 16_000) == compute(name, noisy(wav, 0).astype(np.float32), wav, 16_000)
    original, increase = METRICS.get(f"{name}_original"), METRICS.get(f"{name}_increase")
    if original and increase:
        assert compute(increase.name, wav, wav, 16_000) == 0
        other = noisy(wav, 5).astype(np.float32)
        gained = compute(name, wav, other, 16_000) - compute(original.name, wav, other, 16_000)
        assert compute(increase.name, wav, other, 16_000) == gained


# --- UTMOS: what does not need its weights, which no package carries --------------------------------------------------


@pytest.fixture
def upstream(monkeypatch, tmp_path):
    """`utmos_pytorch` 0.1.0 as its utmos_torch.py has it: UTMOSModel with the state dict that the file is loaded into,
    and UTMOSScoreTorch(ckpt_path), whose score takes [T] and gives [1], 2 x + 3 of the network's mean output."""

    class UTMOSModel(torch.nn.Linear):
        def __init__(self):
            super().__init__(1, 1)

    class UTMOSScoreTorch:
        def __init__(self, ckpt_path):
            self.model = UTMOSModel()
            self.model.load_state_dict(torch.load(ckpt_path, weights_only=True), strict=False)

        @torch.no_grad()
        def score(self, wavs):
            assert wavs.dtype == torch.float32
            return self.model(wavs[:, None]).mean(0) * 2 + 3

    module = types.SimpleNamespace(UTMOSModel=UTMOSModel, UTMOSScoreTorch=UTMOSScoreTorch)
    monkeypatch.setitem(sys.modules, "utmos_pytorch", types.SimpleNamespace(utmos_torch=module))
    monkeypatch.setitem(sys.modules, "utmos_pytorch.utmos_torch", module)
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    noreference._utmos_model.cache_clear()
    yield tmp_path / "hub" / "models--Blinorot--UTMOS-PyTorch"
    noreference._utmos_model.cache_clear()


def put_weights(repo: Path, weights: dict) -> None:
    """The file as `hf download` leaves it."""
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    (repo / "snapshots" / "abc").mkdir(parents=True)
    torch.save(weights, repo / "snapshots" / "abc" / "utmos_state_dict.pt")


def test_utmos_with_package_and_weights(upstream):
    put_weights(upstream, {"weight": torch.tensor([[2.0]]), "bias": torch.tensor([0.1])})
    state = torch.random.get_rng_state()
    batch = np.stack([np.full(400, 0.2), np.full(400, -0.3)])
    np.testing.assert_allclose(noreference.utmos(batch), [4.0, 2.0], rtol=1e-6)  # 2 (2 x 0.2 + 0.1) + 3
    assert (torch.random.get_rng_state() == state).all()
    for clip, message in ((batch[:, 1:], "399 samples are too short"), (0 * batch, "clip 0: it is silent")):
        with pytest.raises(MetricError, match=message):
            noreference.utmos(clip)


def test_utmos_without_all_of_its_weights_is_no_score(upstream):
    """The library loads what is there and leaves the rest at random."""
    put_weights(upstream, {"weight": torch.tensor([[2.0]])})
    with pytest.raises(ValueError, match=r"utmos_state_dict.pt of UTMOS lacks 1 weights, such as bias"):
        noreference.utmos(voice(1, 16_000))


def test_utmos_without_weights_says_how_to_get_them(upstream):
    assert noreference.utmos_weights() is None
    with pytest.raises(FileNotFoundError, match=r"hf download Blinorot/UTMOS-PyTorch utmos_state_dict\.pt"):
        noreference.utmos(voice(1, 16_000))


def test_a_metric_whose_library_is_not_here_says_what_to_install():
    for name, distribution in (("utmos", "utmos-pytorch"), ("srmr", "gammatone"), ("dnsmos_ovrl", "speechmos")):
        assert METRICS[name].missing() in (None, f"pip install {distribution}")


@pytest.mark.parametrize(("name", "rate"), [("visqol_speech", 16_000), ("visqol_audio", 48_000)])
def test_visqol_refuses_what_it_cannot_hold(name, rate):
    wav = np.full((1, 61 * rate), 0.1)
    with pytest.raises(MetricError, match="ViSQOL: 61 s are longer than the 60 s that it is given; cut the clip"):
        function(name)(wav, wav)
