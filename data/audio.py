"""Audio in: any file to float32, and the one resampler that every score is made with.

Arrays here are float32 [C, L] in [-1, 1], numpy; sample rates are in Hz.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

# One resampler for the whole project: scores move by tenths of a MOS with the resampler, so it is part of each score.
RESAMPLER_QUALITY = "VHQ"

# Containers that libsndfile does not read; PyAV (FFmpeg) does.
_FFMPEG_SUFFIXES = {".m4a", ".mp4", ".aac", ".amr", ".webm", ".wma", ".mka", ".ac3"}


class AudioError(ValueError):
    """A file that cannot be scored; the message names it and says why."""


def resampler() -> str:
    """Name, version and quality of the resampler, as recorded with each score."""
    import soxr

    return f"soxr-{soxr.__version__}-{RESAMPLER_QUALITY}"


def read(path: Path, sha256: str | None = None) -> tuple[np.ndarray, int]:
    """Read a whole audio file: float32 [C, L] and its sample rate in Hz.

    Raises AudioError, naming the file, where it is missing, not the file of the manifest (checksum), unreadable,
    truncated, empty, or holds NaN or infinity.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}); check the manifest's path") from error
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise AudioError(f"{path}: its sha256 is not the manifest's; the file changed or is damaged, get it again")
    decode = _decode_ffmpeg if Path(path).suffix.lower() in _FFMPEG_SUFFIXES else _decode_sndfile
    wav, sample_rate = decode(content, path)
    if wav.shape[1] == 0:
        raise AudioError(f"{path}: holds no samples")
    if not np.isfinite(wav).all():
        raise AudioError(f"{path}: holds NaN or infinite samples; expected finite values in [-1, 1]")
    return wav, sample_rate


def _decode_sndfile(content: bytes, path: Path) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            wav, sample_rate, promised = file.read(dtype="float32", always_2d=True), file.samplerate, file.frames
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: not readable as audio ({error.error_string.strip()})") from error
    if len(wav) < promised:
        raise AudioError(f"{path}: truncated, {len(wav)} of {promised} samples are there")
    return np.ascontiguousarray(wav.T), sample_rate


def _decode_ffmpeg(content: bytes, path: Path) -> tuple[np.ndarray, int]:
    import av

    try:
        with av.open(io.BytesIO(content), "r") as container:
            stream = container.streams.audio[0]
            resample = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
            frames = [out.to_ndarray() for frame in container.decode(stream) for out in resample.resample(frame)]
            frames += [out.to_ndarray() for out in resample.resample(None)]
            sample_rate = stream.rate
    except (av.FFmpegError, IndexError) as error:
        raise AudioError(f"{path}: not readable as audio ({error})") from error
    return np.concatenate(frames, axis=1) if frames else np.zeros((1, 0), np.float32), sample_rate


def resample(wav: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Resample [C, L] between two rates; the same array comes back where they are equal.

    Source: soxr (the SoX resampler), quality VHQ.
    """
    if from_hz == to_hz:
        return wav
    import soxr

    return np.ascontiguousarray(soxr.resample(wav.T, from_hz, to_hz, quality=RESAMPLER_QUALITY).T, dtype=np.float32)


def to_channels(wav: np.ndarray, channels: int) -> np.ndarray:
    """[C, L] with as many channels as asked: mixed down to their mean, or that mean repeated."""
    if wav.shape[0] == channels:
        return wav
    return np.repeat(wav.mean(axis=0, keepdims=True), channels, axis=0)
