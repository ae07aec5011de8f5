"""How much of the recording survives the codec? The reconstruction dimension of AudioCodecBench and CodecBench.

Every reference is the recording itself, mono, at the metric's rate; the estimate is what the codec made of it, cut to
the same length. Definitions, units and sources are the registry's (`earmark.metrics`).
"""

import allure
import pytest

from earmark.reports.attachments import IMAGE_DIFF, player, spectrogram_pair
from earmark.scoring import clips_that_failed, listening_examples, states_bits

pytestmark = pytest.mark.suite("reconstruction", needs="reconstruct")


def test_every_clip_comes_back(codec, dataset, store):
    """The codec returns every clip, as long as it was; with its median and worst clip to listen to."""
    for example in listening_examples(codec, dataset, store):
        sounds, rate = (example.reference, example.estimate), example.sample_rate
        allure.attach(spectrogram_pair(*sounds, rate, example.title), example.title, IMAGE_DIFF, "imagediff")
        labels = ("the recording", codec.name)
        page = player([(label, wav, rate) for label, wav in zip(labels, sounds, strict=True)])
        allure.attach(page, f"listen: {example.title}", "text/html", "html")
    failed = clips_that_failed(codec, dataset, store)
    assert not failed, "\n".join(f"{clip}: {why}" for clip, why in failed.items())


def test_bitrate(codec, dataset, store, scores, gate):
    """True bitrate in kbit/s, from the bits that the codec spent (lower is better)."""
    if not states_bits(codec, dataset, store):
        pytest.skip(f"{codec.name} has no bitrate: it does not code")
    gate(scores("bitrate_kbps", codec, dataset))


@pytest.mark.domains("speech")
def test_pesq_wb(codec, dataset, scores, gate):
    """Wide-band PESQ of reconstructed speech (MOS-LQO, higher is better)."""
    gate(scores("pesq_wb", codec, dataset))


@pytest.mark.domains("speech")
def test_pesq_nb(codec, dataset, scores, gate):
    """Narrow-band PESQ of reconstructed speech (MOS-LQO, higher is better)."""
    gate(scores("pesq_nb", codec, dataset))


@pytest.mark.domains("speech")
def test_stoi(codec, dataset, scores, gate):
    """Short-time objective intelligibility of reconstructed speech (higher is better)."""
    gate(scores("stoi", codec, dataset))


@pytest.mark.domains("speech")
def test_estoi(codec, dataset, scores, gate):
    """Extended short-time objective intelligibility of reconstructed speech (higher is better)."""
    gate(scores("estoi", codec, dataset))


def test_si_sdr(codec, dataset, scores, gate):
    """Scale-invariant signal-to-distortion ratio (dB, higher is better)."""
    gate(scores("si_sdr", codec, dataset))


def test_sdr(codec, dataset, scores, gate):
    """BSS-eval signal-to-distortion ratio (dB, higher is better)."""
    gate(scores("sdr", codec, dataset))


def test_mel_distance(codec, dataset, scores, gate):
    """Mel distance over seven scales, as AudioCodecBench defines it (lower is better)."""
    gate(scores("mel_distance_7scale", codec, dataset))


def test_mel_loss(codec, dataset, scores, gate):
    """Mel loss over two scales, as CodecBench defines it (lower is better)."""
    gate(scores("mel_loss", codec, dataset))


def test_mse(codec, dataset, scores, gate):
    """Mean squared error of the waveform (lower is better)."""
    gate(scores("mse", codec, dataset))
