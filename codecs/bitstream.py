"""Classic codecs, run for real: Opus, MP3, AAC, AMR-NB, G.711, G.722 (FFmpeg through PyAV) and Vorbis (libsndfile).

Conventions: mono, at `Info.sample_rate`; each clip is coded on its own, on its true samples, by a fresh encoder and a
fresh decoder, on the CPU. Nothing is drawn, so the seed does nothing. What comes back is exactly as long as what went
in, sample n of one lying over sample n of the other, and is not clamped.

Delay    FFmpeg stamps the first packet with minus the encoder's priming (`initial_padding`, in samples): 312 for Opus
         at 48 kHz (its pre-skip, RFC 7845), 1105 for LAME (576 + 529), 1024 for AAC, 22 for G.722, 0 for G.711. The
         decoder is told to skip nothing, and that many samples are dropped here. Where the stamp is wrong, the row
         says `delay`: AMR-NB looks ahead 5 ms = 40 samples, FFmpeg stamps 50. Opus is off by 2 or 3 samples more in
         some of its modes; see `Opus`. Vorbis has no delay left: libsndfile trims by the granule position.
Bits     8 x the bytes of the packets that the decoder needs for the clip: the true cost, container not counted. Whole
         packets, so a clip pays for its last one in full and for the priming.
Level    16-bit codecs (AMR-NB, G.711, G.722, and Opus where it is SILK) saturate beyond [-1, 1], FFmpeg's AAC encoder
         turns blocks above 0.95 down to that, LAME scales everything by 0.95. The others pass what is over range.
"""

from __future__ import annotations

import abc
import io
from collections import Counter
from fractions import Fraction
from typing import Any

import av
import numpy as np
import soundfile
import torch
from torch import Tensor

from earmark.codecs.contract import Info

# Silence sent after each clip, in samples: longer than any delay here, so that its last sample always comes out.
_FLUSH = 4096
# Samples a write: libvorbis keeps the whole of the first on the stack, and crashes on minutes of sound.
_BLOCK = 16384


class _ClipByClip(abc.ABC):
    """A codec that knows one clip at a time; subclasses say what becomes of it in `code`."""

    def __init__(self, info: Info) -> None:
        if info.sample_rate is None or info.channels != 1:
            raise ValueError(f"{info.name}: needs a sample_rate and one channel, has {info.channels} channels")
        self.info, self.sample_rate = info, info.sample_rate

    @abc.abstractmethod
    def code(self, clip: np.ndarray) -> tuple[np.ndarray, int]:
        """What is heard of a clip, float32 [L] for [L], and the bits that it took."""

    def reconstruct(self, wav: Tensor, lengths: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """The decoded wav [B, 1, L], zero beyond each clip's length, and the bits [B] (float64, CPU) spent on it.

        Raises av.FFmpegError or soundfile.LibsndfileError where the library refuses a clip.
        """
        del seed
        decoded, bits = torch.zeros(wav.shape), torch.zeros(len(wav), dtype=torch.float64)
        for i, length in enumerate(lengths.tolist()):
            heard, bits[i] = self.code(wav[i, 0, :length].cpu().numpy())
            decoded[i, 0, :length] = torch.from_numpy(heard)
        return decoded.to(wav.device), bits


class Libav(_ClipByClip):
    """Any codec that FFmpeg both encodes and decodes.

    encoder, decoder  FFmpeg's names ('libopus'); the decoder is the encoder's namesake where not given.
    bitrate           bits/s asked of the encoder; None for codecs that have one only.
    settings          the encoder's own options ({'vbr': 'constrained'}); ValueError where it has no such option.
    delay             samples by which encoder and decoder delay the sound; None: as FFmpeg stamps the first packet.
    """

    def __init__(
        self,
        info: Info,
        device: str,
        *,
        encoder: str,
        decoder: str | None = None,
        bitrate: int | None = None,
        settings: dict[str, str] | None = None,
        delay: int | None = None,
    ) -> None:
        super().__init__(info)
        del device
        self.encoder, self.decoder = encoder, decoder or encoder
        self.bitrate, self.settings, self.delay = bitrate, settings or {}, delay
        self._open_encoder()

    def code(self, clip: np.ndarray) -> tuple[np.ndarray, int]:
        """Encode the clip and the silence after it; keep and count the packets that hold some of the clip."""
        encoder = self._open_encoder()
        parts = self._frame(clip, 0), self._frame(np.zeros(_FLUSH, np.float32), len(clip)), None
        packets = [packet for part in parts for packet in encoder.encode(part)]
        delay = self._delay([packet for packet in packets if packet.pts < len(clip)])
        end = packets[0].pts + delay + len(clip)
        packets = [packet for packet in packets if packet.pts < end]
        heard = self._decode(packets, encoder.extradata)
        return heard[delay : delay + len(clip)], 8 * sum(packet.size for packet in packets)

    def _delay(self, packets: list[Any]) -> int:
        """Samples by which what is heard of a clip's packets lies late."""
        return -packets[0].pts if self.delay is None else self.delay

    def _open_encoder(self) -> Any:
        encoder: Any = av.CodecContext.create(self.encoder, "w")
        formats = [audio_format.name for audio_format in encoder.codec.audio_formats]
        encoder.format = next((name for name in formats if name.startswith("flt")), formats[0])
        encoder.sample_rate, encoder.layout, encoder.options = self.sample_rate, "mono", self.settings
        if self.bitrate:
            encoder.bit_rate = self.bitrate
        encoder.open()
        if encoder.options:  # what FFmpeg left, it does not know
            raise ValueError(f"{self.info.name}: the encoder {self.encoder} has no option {', '.join(encoder.options)}")
        return encoder

    def _frame(self, samples: np.ndarray, start: int) -> Any:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="flt", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = self.sample_rate, Fraction(1, self.sample_rate), start
        return frame

    def _decode(self, packets: list[Any], header: bytes | None) -> np.ndarray:
        """All that the decoder says, priming included, float32 [L']."""
        decoder: Any = av.CodecContext.create(self.decoder, "r")
        decoder.sample_rate, decoder.layout = self.sample_rate, "mono"
        decoder.options = {"flags2": "skip_manual", "request_sample_fmt": "flt"}
        if header:
            decoder.extradata = header
        frames = [frame.to_ndarray() for packet in [*packets, None] for frame in decoder.decode(packet)]
        heard = np.concatenate(frames, axis=1)[0]
        return heard / np.float32(32768) if heard.dtype == np.int16 else heard


class Opus(Libav):
    """Opus, whose delay depends on the mode that the encoder chooses; options as for `Libav`.

    The pre-skip is exact in CELT mode. Where SILK codes, alone or below CELT, its resamplers leave 2 or 3 samples at
    48 kHz, which no ear hears but which cost SI-SDR up to 10 dB on speech at 48 kbps. So a clip is shifted by what
    most of its packets ask for. The mode is in the first byte of each (RFC 6716, section 3.1); the shifts were measured
    over speech, music and sounds by cross-correlation (libopus in PyAV 18): narrow-band +2.6 on average, medium-band
    -2.4, wide-band and hybrid -2.1, CELT 0.0.
    """

    def _delay(self, packets: list[Any]) -> int:
        modes = [bytes(packet)[0] >> 3 for packet in packets]
        shifts = Counter(3 if mode < 4 else -2 if mode < 16 else 0 for mode in modes)
        return super()._delay(packets) + shifts.most_common(1)[0][0]


class Vorbis(_ClipByClip):
    """Ogg Vorbis by libvorbis, at a quality (variable bitrate).

    quality  0 to 1 for -q 0 to -q 10.

    Bits are those of the audio packets. Ogg's pages (about 1 %) and the three header packets (some 3.3 kB, whatever
    the clip's length) are container and are not counted, as for the other codecs here.
    """

    def __init__(self, info: Info, device: str, *, quality: float) -> None:
        super().__init__(info)
        del device
        self.quality = quality

    def code(self, clip: np.ndarray) -> tuple[np.ndarray, int]:
        """Encode into an Ogg file in memory, and read it back."""
        kind: dict[str, Any] = {"format": "OGG", "subtype": "VORBIS", "compression_level": 1 - self.quality}
        ogg = io.BytesIO()
        with soundfile.SoundFile(ogg, "w", self.sample_rate, 1, **kind) as file:
            for start in range(0, len(clip), _BLOCK):
                file.write(clip[start : start + _BLOCK])
        bits = 8 * sum(ogg_packet_sizes(ogg.getvalue())[3:])
        ogg.seek(0)
        return soundfile.read(ogg, dtype="float32")[0], bits


def ogg_packet_sizes(content: bytes) -> list[int]:
    """Bytes of each packet of a file with one Ogg stream, headers first.

    Source: RFC 3533, section 6: byte 26 of a page counts its lacing values, which follow; a value under 255 ends a
    packet.
    """
    laces: list[int] = []
    page = 0
    while page < len(content):
        segments = content[page + 27 : page + 27 + content[page + 26]]
        laces += segments
        page += 27 + len(segments) + sum(segments)
    ends = [i + 1 for i, lace in enumerate(laces) if lace < 255]
    return [sum(laces[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
