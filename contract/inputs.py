"""Sounds at the edge of what a recording can hold: each must come back as finite sound, or be refused."""

from __future__ import annotations

import numpy as np

from earmark.contract.subject import Subject
from earmark.contract.verdict import Broken, asked

PEAK = 8.0  # a sound that comes back so many times as loud as speech does, or as full scale, is a blow-up
FAINT = 1e-5  # -100 dB of full scale, a third of a 16-bit step
CORPORA = "Corpora hold such clips; one NaN in a batch ends a training run, one exception ends an encoding job."


@asked("Every recording has pauses: where they come back as bursts, a model learns bursts.")
def silence(subject: Subject) -> None:
    """Silence comes back finite, and at most twice as loud as speech does."""
    samples = subject.rate // 2
    quiet = subject.of(subject.channels(np.zeros(samples)), "digital silence")
    if "sound" in quiet:
        given = subject.given
        loud = subject.of(subject.speech(samples))["sound"]
        subject.given = given
        subject.measured["silence_rms"] = _rms(quiet["sound"])
        if _rms(quiet["sound"]) > 2 * _rms(loud) + 1e-3:
            raise Broken(f"an RMS of at most {2 * _rms(loud):.2g}", f"{_rms(quiet['sound']):.2g}")


@asked(CORPORA)
def dc(subject: Subject) -> None:
    """A constant of half of full scale comes back finite."""
    _comes_back(subject, np.full(subject.rate // 2, 0.5), "a constant of 0.5")


@asked(CORPORA)
def full_scale(subject: Subject) -> None:
    """A sound that touches full scale comes back finite."""
    wav = np.sin(2 * np.pi * 440 * np.arange(subject.rate // 2) / subject.rate)
    _comes_back(subject, wav / np.abs(wav).max(), "a sine of 440 Hz at full scale")


@asked("Resampling a clipped recording goes beyond full scale; half of the music there is, does.")
def clipping(subject: Subject) -> None:
    """A clipped sound with the overshoot that a resampler gives it comes back finite."""
    _comes_back(subject, subject.speech(subject.rate // 2)[0].clip(-0.02, 0.02) * 55, "speech clipped at 1.1")


@asked(CORPORA)
def faint(subject: Subject) -> None:
    """A sound 100 dB below full scale comes back finite."""
    _comes_back(subject, subject.speech(subject.rate // 2)[0] * 2 * FAINT, "speech-like sound at -100 dB")


def _comes_back(subject: Subject, wav: np.ndarray, what: str) -> None:
    """The calls check that all is finite and in its codebook; here, that it does not blow up."""
    sound = subject.of(subject.channels(wav), what).get("sound")
    if sound is None or np.abs(sound).max() <= PEAK:
        return
    given, speech = subject.given, subject.of(subject.speech(len(wav)))["sound"]
    subject.given, most = given, PEAK * max(1.0, float(np.abs(speech).max()))
    if np.abs(sound).max() > most:
        raise Broken(f"a peak of at most {most:.3g}, as speech gives", f"{np.abs(sound).max():.3g}")


def _rms(wav: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(wav, dtype=np.float64))))
