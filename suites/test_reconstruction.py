"""How much of the recording survives the codec? The reconstruction dimension of AudioCodecBench and CodecBench.

Every reference is the recording itself, mono, at the metric's rate; the estimate is what the codec made of it, cut to
the same length. Waveform and spectral metrics are given as they are and, beside it, without the codec's delay
(`_aligned`). Definitions, units and sources are the registry's (`earmark metrics`). A metric runs on all audio; a score
of audio that the metric was not validated for says so.
"""

import allure
import pytest

from earmark.reports.attachments import IMAGE_DIFF, player
from earmark.scoring.examples import clips_that_failed, listening_examples, states_bits

pytestmark = pytest.mark.suite("reconstruction", needs="reconstruct")


def test_every_clip_comes_back(codec, dataset, store, listening):
    """The codec returns every clip, as long as it was; with its worst, median and best clip to listen to."""
    for example in listening_examples(codec, dataset, store):
        allure.attach(example.spectrograms, example.title, IMAGE_DIFF, "imagediff")
        heard = player([example.recording, example.estimate])
        allure.attach(heard, f"listen: {example.title}", "text/html", "html")
        listening(example, codec, dataset)
    failed = clips_that_failed(codec, dataset, store)
    assert not failed, "\n".join(f"{clip}: {why}" for clip, why in failed.items())


# -- rate -------------------------------------------------------------------------------------------------------------


def test_bitrate(codec, dataset, store, scores, gate):
    """Bitrate in kbit/s: true, from the bits that were spent; of a token codec also nominal, and by entropy."""
    if not states_bits(codec, dataset, store):
        pytest.skip(f"{codec.name} has no bitrate: it does not code")
    names = ["bitrate_kbps"]
    if codec.info.codebook_sizes:
        names += ["nominal_bitrate_kbps", "entropy_bitrate_kbps"]
    gate(*(scores(name, codec, dataset) for name in names))


# -- signal -----------------------------------------------------------------------------------------------------------


def test_delay(codec, dataset, scores, gate):
    """How far the sound comes back from where it was (ms, lower is better)."""
    gate(scores("delay_ms", codec, dataset))


def test_mse(codec, dataset, scores, gate):
    """Mean squared error of the waveform (lower is better)."""
    gate(*(scores(name, codec, dataset) for name in ("mse", "mse_aligned")))


def test_snr(codec, dataset, scores, gate):
    """Signal-to-noise ratio of the waveform (dB, higher is better)."""
    gate(*(scores(name, codec, dataset) for name in ("snr", "snr_aligned")))


def test_si_sdr(codec, dataset, scores, gate):
    """Scale-invariant signal-to-distortion ratio (dB, higher is better)."""
    gate(*(scores(name, codec, dataset) for name in ("si_sdr", "si_sdr_aligned")))


def test_si_snr(codec, dataset, scores, gate):
    """Scale-invariant signal-to-noise ratio, means removed (dB, higher is better)."""
    gate(*(scores(name, codec, dataset) for name in ("si_snr", "si_snr_aligned")))


def test_sdr(codec, dataset, scores, gate):
    """BSS-eval signal-to-distortion ratio (dB, higher is better)."""
    gate(*(scores(name, codec, dataset) for name in ("sdr", "sdr_aligned")))


def test_mel_distance(codec, dataset, scores, gate):
    """Mel distance over seven scales, as AudioCodecBench defines it (lower is better)."""
    gate(*(scores(name, codec, dataset) for name in ("mel_distance_7scale", "mel_distance_7scale_aligned")))


def test_mel_loss(codec, dataset, scores, gate):
    """Mel loss over two scales, as CodecBench defines it (lower is better)."""
    gate(*(scores(name, codec, dataset) for name in ("mel_loss", "mel_loss_aligned")))


def test_log_spectral_distance(codec, dataset, scores, gate):
    """Distance of log power spectra (dB, lower is better)."""
    gate(*(scores(name, codec, dataset) for name in ("log_spectral_distance", "log_spectral_distance_aligned")))


def test_spectral_convergence(codec, dataset, scores, gate):
    """Relative error of the magnitude spectrogram (lower is better)."""
    gate(*(scores(name, codec, dataset) for name in ("spectral_convergence", "spectral_convergence_aligned")))


def test_stft_distance(codec, dataset, scores, gate):
    """Multi-resolution STFT distance (lower is better)."""
    gate(*(scores(name, codec, dataset) for name in ("stft_distance", "stft_distance_aligned")))


@pytest.mark.sample_rate(32_000)
def test_at_the_rate_of_the_codec(codec, dataset, scores, gate):
    """The signal metrics over all that a codec of 32 kHz and more gives back, not only up to 8 kHz."""
    names = ("mse", "si_sdr", "mel_loss", "log_spectral_distance", "spectral_convergence", "stft_distance")
    gate(*(scores(f"{name}_native", codec, dataset) for name in names))


def test_mel_cepstrum(codec, dataset, scores, gate):
    """Mel-cepstral distortion (dB, lower is better)."""
    gate(*(scores(name, codec, dataset) for name in ("mcd", "mcd_aligned")))


def test_pitch(codec, dataset, scores, gate):
    """Error of F0 where both are voiced (Hz), and of the voicing decision (share of frames); lower is better."""
    names = ("f0_rmse", "f0_rmse_aligned", "voicing_error", "voicing_error_aligned")
    gate(*(scores(name, codec, dataset) for name in names))


def test_loudness(codec, dataset, scores, gate):
    """Difference of integrated loudness (LU, lower is better)."""
    gate(scores("loudness_difference", codec, dataset))


# -- perceptual -------------------------------------------------------------------------------------------------------


def test_pesq_wb(codec, dataset, scores, gate):
    """Wide-band PESQ (MOS-LQO, higher is better)."""
    gate(scores("pesq_wb", codec, dataset))


def test_pesq_nb(codec, dataset, scores, gate):
    """Narrow-band PESQ (MOS-LQO, higher is better)."""
    gate(scores("pesq_nb", codec, dataset))


def test_stoi(codec, dataset, scores, gate):
    """Short-time objective intelligibility (higher is better)."""
    gate(scores("stoi", codec, dataset))


def test_estoi(codec, dataset, scores, gate):
    """Extended short-time objective intelligibility (higher is better)."""
    gate(scores("estoi", codec, dataset))


@pytest.mark.metric("visqol_speech")
def test_visqol_speech(codec, dataset, scores, gate):
    """ViSQOL in speech mode (MOS-LQO, higher is better)."""
    gate(scores("visqol_speech", codec, dataset))


@pytest.mark.metric("visqol_audio")
def test_visqol_audio(codec, dataset, scores, gate):
    """ViSQOL in audio mode, at 48 kHz (MOS-LQO, higher is better)."""
    gate(scores("visqol_audio", codec, dataset))


@pytest.mark.metric("dnsmos_ovrl")
def test_dnsmos(codec, dataset, scores, gate):
    """DNSMOS, which hears no reference: of reconstruction and recording, and the increase (MOS, higher is better)."""
    names = [f"dnsmos_{part}{of}" for part in ("ovrl", "sig", "bak", "p808") for of in ("", "_original", "_increase")]
    gate(*(scores(name, codec, dataset) for name in names))


@pytest.mark.metric("srmr")
def test_srmr(codec, dataset, scores, gate):
    """Speech-to-reverberation modulation energy ratio, which hears no reference (higher is better)."""
    gate(scores("srmr", codec, dataset))


@pytest.mark.metric("utmos")
def test_utmos(codec, dataset, scores, gate):
    """UTMOS, which hears no reference (MOS, higher is better)."""
    gate(scores("utmos", codec, dataset))


# -- content and speaker ----------------------------------------------------------------------------------------------


@pytest.mark.task("asr")
@pytest.mark.backends("asr")
def test_wer(codec, dataset, backend, scores, gate):
    """Word error rate of a recogniser on the reconstruction, on the recording, and the increase (lower is better)."""
    gate(*(scores(f"wer_{backend}{of}", codec, dataset) for of in ("", "_original", "_increase")))


@pytest.mark.task("asr")
@pytest.mark.backends("asr")
def test_cer(codec, dataset, backend, scores, gate):
    """Character error rate of a recogniser, as `test_wer` (lower is better)."""
    gate(*(scores(f"cer_{backend}{of}", codec, dataset) for of in ("", "_original", "_increase")))


@pytest.mark.backends("speaker")
def test_speaker_similarity(codec, dataset, backend, scores, gate):
    """Cosine of the speaker embeddings of the recording and of its reconstruction (higher is better)."""
    gate(scores(f"speaker_similarity_{backend}", codec, dataset))


# -- distribution -----------------------------------------------------------------------------------------------------


def test_frechet_distance(codec, dataset, encoder, scores, gate):
    """Fréchet audio distance between recordings and reconstructions, by an encoder's embeddings (lower is better)."""
    gate(scores("fad", codec, dataset, encoder=encoder))


def test_kernel_distance(codec, dataset, encoder, scores, gate):
    """Kernel audio distance between recordings and reconstructions, by an encoder's embeddings (lower is better)."""
    gate(scores("kad", codec, dataset, encoder=encoder))
