"""Audio in: any file to float32, and the one resampler that every score is made with.

Arrays here are float32 [C, L] in [-1, 1], numpy; sample rates are in Hz.
"""

from __future__ import annotations

import functools
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark.data.manifest import WHOLE, Part

if TYPE_CHECKING:
    from earmark.data.manifest import Clip

# One resampler for the whole project: scores move by tenths of a MOS with the resampler, so it is part of each score.
RESAMPLER_QUALITY = "VHQ"

# Containers that libsndfile does not read; PyAV (FFmpeg) does.
_FFMPEG_SUFFIXES = {".m4a", ".mp4", ".aac", ".amr", ".webm", ".wma", ".mka", ".ac3"}
SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".oga", ".aif", ".aiff", ".au", ".w64"} | _FFMPEG_SUFFIXES

RUN_UP_S = 0.5  # decoded before a part and thrown away: more than any codec's memory
END_S = 0.05  # what a part may lack at the end of its file: published lengths are rounded


class AudioError(ValueError):
    """A file that cannot be scored; the message names it and says why."""


def resampler() -> str:
    """Name, version and quality of the resampler, as recorded with each score."""
    import soxr

    return f"soxr-{soxr.__version__}-{RESAMPLER_QUALITY}"


def read_clip(clip: Clip) -> tuple[np.ndarray, int]:
    """The clip of a manifest's row, a whole file or a part of one: float32 [C, L] and its sample rate in Hz.

    Of a long file only the part is decoded. Raises AudioError as `read` does.
    """
    if clip.part.is_segment and clip.part.offset is None:
        return read_segment(clip.path, clip.part, clip.checksum)
    return read(clip.path, clip.checksum, clip.part)


def read(path: Path, sha256: str | None = None, part: Part = WHOLE) -> tuple[np.ndarray, int]:
    """Read a whole audio file, or a member of an archive: float32 [C, L] and its sample rate in Hz.

    Raises AudioError, naming the file, where it is missing, not the file of the manifest (checksum), unreadable,
    truncated, empty, or holds NaN or infinity.
    """
    name = part.name(path)
    content = _bytes(path, part)
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise _changed(name)
    cut = _decode_ffmpeg if name.suffix.lower() in _FFMPEG_SUFFIXES else _decode_sndfile
    wav, sample_rate = cut(io.BytesIO(content), name, part)
    return _checked(wav, name), sample_rate


def _changed(name: Path) -> AudioError:
    return AudioError(f"{name}: its sha256 is not the manifest's; the file changed or is damaged, get it again")


def _bytes(path: Path, part: Part) -> bytes:
    try:
        if part.offset is None:
            return Path(path).read_bytes()
        with Path(path).open("rb") as file:
            file.seek(part.offset)
            return file.read(part.size)
    except OSError as error:
        raise AudioError(f"{part.name(path)}: cannot be read ({error.strerror}); check the manifest's path") from error


def _checked(wav: np.ndarray, path: Path) -> np.ndarray:
    if wav.shape[1] == 0:
        raise AudioError(f"{path}: holds no samples")
    if not np.isfinite(wav).all():
        raise AudioError(f"{path}: holds NaN or infinite samples; expected finite values in [-1, 1]")
    return wav


def read_segment(path: Path, part: Part, sha256: str | None = None) -> tuple[np.ndarray, int]:
    """The seconds from `part.start_s` to `part.end_s` of a file; decodes nothing else, however long the file is.

    The file's checksum is looked at once a process. Raises AudioError where the part is not all there.
    """
    try:
        seen = path.stat()
        if sha256 and _sha256(path, seen.st_size, seen.st_mtime_ns) != sha256:
            raise _changed(path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}); check the manifest's path") from error
    cut = _decode_ffmpeg if path.suffix.lower() in _FFMPEG_SUFFIXES else _decode_sndfile
    wav, sample_rate = cut(str(path), path, part)
    return _checked(wav, path), sample_rate


@functools.lru_cache(maxsize=4096)
def _sha256(path: Path, size: int, changed: int) -> str:
    """The checksum of a file, read piece by piece; size and time are what it is remembered by."""
    del size, changed
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decode_sndfile(content: io.BytesIO | str, path: Path, part: Part = WHOLE) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        with soundfile.SoundFile(content) as file:
            start, stop = _span(part, file.samplerate, path, file.frames)
            if start:
                file.seek(start)
            wav, sample_rate = file.read(stop - start, dtype="float32", always_2d=True), file.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: not readable as audio ({error.error_string.strip()})") from error
    if len(wav) < stop - start:
        raise AudioError(f"{path}: truncated, {len(wav)} of {stop - start} samples are there")
    return np.ascontiguousarray(wav.T), sample_rate


def _span(part: Part, sample_rate: int, path: Path, frames: int) -> tuple[int, int]:
    """First sample and the one after the last, of a part of a file that has so many of them."""
    start = round(part.start_s * sample_rate)
    stop = frames if part.end_s is None else round(part.end_s * sample_rate)
    if start >= max(frames, 1) or stop > frames + END_S * sample_rate:
        end = "its end" if part.end_s is None else f"{part.end_s:g} s"
        raise AudioError(
            f"{path}: the part {part.start_s:g} s to {end} is not in it; it has {frames / sample_rate:g} s"
        )
    return start, min(stop, frames)


def _decode_ffmpeg(content: io.BytesIO | str, path: Path, part: Part = WHOLE) -> tuple[np.ndarray, int]:
    import av

    try:
        with av.open(content, "r") as container:
            stream = container.streams.audio[0]
            if part.is_segment:
                return _cut_ffmpeg(container, stream, path, part), stream.rate
            resample = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
            frames = [out.to_ndarray() for frame in container.decode(stream) for out in resample.resample(frame)]
            frames += [out.to_ndarray() for out in resample.resample(None)]
            sample_rate = stream.rate
    except (av.FFmpegError, IndexError) as error:
        raise AudioError(f"{path}: not readable as audio ({error})") from error
    return np.concatenate(frames, axis=1) if frames else np.zeros((1, 0), np.float32), sample_rate


def _cut_ffmpeg(container: Any, stream: Any, path: Path, part: Part) -> np.ndarray:
    """The part's samples: from a key frame a while before it, as decoders need some run-up, to its end."""
    import av

    rate, first, found = stream.rate, None, []
    if part.start_s > RUN_UP_S:
        container.seek(int((part.start_s - RUN_UP_S) / stream.time_base), stream=stream)
    resample = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
    start, stop = round(part.start_s * rate), None if part.end_s is None else round(part.end_s * rate)
    at = 0
    for frame in container.decode(stream):
        if first is None:
            first = at = round(float(frame.pts * stream.time_base) * rate)
        for out in resample.resample(frame):
            found.append(out.to_ndarray())
            at += found[-1].shape[1]
        if stop is not None and at >= stop:
            break
    if first is None or at <= start or (stop is not None and at < stop - END_S * rate):
        raise AudioError(f"{path}: the part from {part.start_s:g} s is not in it; it ends at {at / rate:g} s")
    return np.concatenate(found, axis=1)[:, start - first : None if stop is None else stop - first]


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
