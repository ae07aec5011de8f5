"""Every format, rate, depth and channel count reads to the same float32; a part of a file is that part of the whole."""

import hashlib
import tracemalloc

import av
import numpy as np
import pytest
import soundfile

from earmark.data import audio
from earmark.data.audio import AudioError
from earmark.data.manifest import Part, read_manifest
from earmark.tests.helpers import voice, write_manifest

# half a step of each depth, the rounding of float32 beside it
DEPTHS = [
    *[("wav", subtype, bits) for subtype, bits in (("PCM_U8", 8), ("PCM_16", 16), ("PCM_24", 24), ("PCM_32", 32))],
    *[("flac", subtype, bits) for subtype, bits in (("PCM_S8", 8), ("PCM_16", 16), ("PCM_24", 24))],
    *[("wav", "FLOAT", 25), ("wav", "DOUBLE", 25), ("aiff", "PCM_16", 16)],
]
LOSSY_SNR_DB = {"mp3": 20, "ogg": 15, "opus": 12, "m4a": 20}  # coded at its default or 192 kbit/s: the same signal


def chord(seconds: float, rate: int, channels: int) -> np.ndarray:
    """float32 [L, C]: a sum of low tones that fades in and out, another one a channel; every codec keeps it well."""
    time = np.arange(round(seconds * rate)) / rate
    tones = [sum(np.sin(2 * np.pi * hz * (1 + 0.1 * c) * time) for hz in (220, 330, 550)) for c in range(channels)]
    return (0.1 * np.sin(np.pi * time / seconds)[:, None] * np.stack(tones, 1)).astype(np.float32)


@pytest.mark.parametrize(("suffix", "subtype", "bits"), DEPTHS)
@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_a_lossless_file_reads_within_half_a_step(tmp_path, suffix, subtype, bits, channels, rate):
    wav = chord(0.05, rate, channels)
    soundfile.write(tmp_path / f"a.{suffix}", wav, rate, subtype=subtype)
    read, read_rate = audio.read(tmp_path / f"a.{suffix}")
    assert (read.dtype, read.shape, read_rate) == (np.float32, wav.T.shape, rate)
    np.testing.assert_allclose(read, wav.T, atol=1.01 * 2.0 ** -(bits - (subtype not in ("FLOAT", "DOUBLE"))))


def write_lossy(path, wav: np.ndarray, rate: int) -> None:
    if path.suffix != ".m4a":
        kind = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
        soundfile.write(path, wav, rate, **kind)
        return
    with av.open(str(path), "w") as container:
        layout = "mono" if wav.shape[1] == 1 else "stereo"
        stream = container.add_stream("aac", rate=rate, layout=layout, bit_rate=192000)
        for at in range(0, len(wav), 1024):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(wav[at : at + 1024].T), format="fltp", layout=layout
            )
            frame.sample_rate, frame.pts = rate, at
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("suffix", "rate"),
    [("mp3", 8000), ("mp3", 44100), ("ogg", 8000), ("ogg", 48000), ("ogg", 96000), ("opus", 8000), ("opus", 48000),
     ("m4a", 8000), ("m4a", 48000), ("m4a", 96000)],
)  # fmt: skip
def test_a_lossy_file_reads_to_the_same_signal(tmp_path, suffix, rate, channels):
    """Aligned to within its padding (MP3 and AAC may start a frame late), and alike to the SNR of its coding."""
    wav = chord(1.0, rate, channels)
    write_lossy(tmp_path / f"a.{suffix}", wav, rate)
    read, read_rate = audio.read(tmp_path / f"a.{suffix}")
    assert (read_rate, read.shape[0]) == (rate, channels)
    assert 0 <= read.shape[1] - len(wav) <= 3 * 1152
    assert snr_db(wav.T, read) > LOSSY_SNR_DB[suffix]


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_a_lossy_file_of_eight_channels_has_all_of_them(tmp_path, suffix):
    """The last is for low frequencies alone, and not kept as it was."""
    wav = chord(1.0, 48000, 8)
    write_lossy(tmp_path / f"a.{suffix}", wav, 48000)
    read, _ = audio.read(tmp_path / f"a.{suffix}")
    assert read.shape[0] == 8
    assert snr_db(wav.T[:7], read[:7]) > LOSSY_SNR_DB[suffix]


def snr_db(reference: np.ndarray, read: np.ndarray, latest: int = 2305) -> float:
    """The best over start delays of so many samples."""
    spectrum = np.fft.rfft(reference[0], 2 * read.shape[1]).conj() * np.fft.rfft(read[0], 2 * read.shape[1])
    delay = int(np.argmax(np.fft.irfft(spectrum)[:latest]))
    part = read[:, delay : delay + reference.shape[1]]
    kept = reference[:, : part.shape[1]]
    return float(10 * np.log10(np.square(kept).sum() / np.square(kept - part).sum()))


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "opus", "m4a"])
@pytest.mark.parametrize(("start", "end"), [(0.0, 0.5), (1.25, 2.0), (2.5, None)])
def test_a_part_is_that_part_of_the_whole(tmp_path, suffix, start, end):
    """Exactly, where the format is lossless; where it has a memory, to what its decoder forgets in half a second."""
    path, rate = tmp_path / f"a.{suffix}", 16000
    write_lossy(path, voice(3.5, rate)[:, None], rate)
    whole = audio.read(path)[0]
    part, part_rate = audio.read_segment(path, Part(start, end))
    stop = whole.shape[1] if end is None else round(end * rate)
    wanted = whole[:, round(start * rate) : stop]
    archive = tmp_path / "a.tar"
    archive.write_bytes(b"x" * 7 + path.read_bytes() + b"x" * 9)
    member = audio.read_segment(archive, Part(start, end, 7, path.stat().st_size, path.name))[0]
    assert part_rate == rate
    assert part.shape == wanted.shape
    np.testing.assert_array_equal(member, part)
    np.testing.assert_allclose(part, wanted, atol=0 if suffix in ("wav", "flac") else 2e-3)


def test_a_part_of_a_long_file_costs_the_memory_of_the_part(tmp_path):
    """30 minutes at 8 kHz are 58 MB of float32; one second of them is 32 kB."""
    path = tmp_path / "long.flac"
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16") as file:
        second = (0.1 * rng.standard_normal(8000)).astype(np.float32)
        for _ in range(1800):
            file.write(second)
    content = path.read_bytes()
    checksum, archive = hashlib.sha256(content).hexdigest(), tmp_path / "long.tar"
    archive.write_bytes(b"before" + content + b"after")
    del content
    for where, part in (
        (path, Part(1700.0, 1701.0)),
        (archive, Part(1700.0, 1701.0, 6, path.stat().st_size, "recital.flac")),
    ):
        tracemalloc.start()
        wav, _ = audio.read_segment(where, part, checksum)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_allclose(wav[0], second, atol=2**-15)
        assert peak < 2e6


@pytest.mark.parametrize("suffix", ["wav", "m4a"])
@pytest.mark.parametrize(("start", "end"), [(2.0, 3.0), (0.5, 1.5)])
def test_a_part_that_is_not_there_is_an_error(tmp_path, suffix, start, end):
    write_lossy(tmp_path / f"a.{suffix}", voice(1.0, 16000)[:, None], 16000)
    with pytest.raises(AudioError, match=rf"a.{suffix}: the part .*{start:g} s .*is not in it"):
        audio.read_segment(tmp_path / f"a.{suffix}", Part(start, end))


def test_a_manifest_s_rows_may_be_parts(tmp_path):
    """Two parts of a file are two clips, each with an address of its own; their checksum is the file's."""
    soundfile.write(tmp_path / "a.wav", voice(2.0, 16000), 16000)
    row = {"path": "a.wav", "dataset": "d", "sha256": hashlib.sha256((tmp_path / "a.wav").read_bytes()).hexdigest()}
    parts = [{"start_s": "0", "end_s": "0.5"}, {"start_s": "0.5", "end_s": "1.25"}]
    write_manifest(tmp_path, [row | part for part in parts])
    first, second = read_manifest(tmp_path / "manifest.csv")["d"]
    assert (first.id, second.id) == ("a.wav[0-0.5]", "a.wav[0.5-1.25]")
    assert len({first.sha256, second.sha256, row["sha256"]}) == 3
    assert (first.group, second.group) == ("a.wav", "a.wav")
    np.testing.assert_array_equal(audio.read_clip(second)[0], audio.read(tmp_path / "a.wav")[0][:, 8000:20000])


def test_a_part_of_a_changed_file_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", voice(1.0, 16000), 16000)
    with pytest.raises(AudioError, match=r"a.wav: its sha256 is not the manifest's"):
        audio.read_segment(tmp_path / "a.wav", Part(0.2, 0.4), "0" * 64)
