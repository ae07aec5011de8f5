"""What a reader sees and hears of a reconstruction: a pair of spectrograms, and a player.

Both are small and complete in themselves, for attaching to a test in Allure:

    allure.attach(spectrogram_pair(reference, estimate, 24000, "mimi"), "spectrograms", IMAGE_DIFF, "imagediff")
    heard = sounds([("reference", wav, 24000), ("mimi", decoded, 24000)])
    allure.attach(player(heard), "listen", "text/html", "html")

Arrays: float [C, L] or [L], on the CPU, samples in [-1, 1]; several channels are averaged for the spectrogram only.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

IMAGE_DIFF = "application/vnd.allure.image.diff"
MAX_SECONDS = 30.0  # a spectrogram shows the start of a longer clip
WINDOW_S = 0.032
COLUMNS, ROWS, LEVELS = 300, 110, 33  # cells and colours of the picture: so few that even white noise stays below 60 kB
RANGE_DB = 80.0  # the quietest shown, below the loudest of both
DIFFERENCE_DB = 30.0
_LEFT, _TOP = 50, 35  # pixels: where the spectrogram begins
_RIGHT, _BOTTOM = _LEFT + 2 * COLUMNS, _TOP + 2 * ROWS
_SCALE, _SCALE_WIDTH = _RIGHT + 10, 14  # of the colours, beside it


def spectrogram_pair(reference: Any, estimate: Any, sample_rate: int, title: str) -> bytes:
    """Log-power spectrograms of a clip and its reconstruction, and their difference, for Allure's image comparison.

    reference, estimate: float [C, L] or [L], cut to the shorter of the two and to 30 s. Both share one dB scale, which
    ends 80 dB below the louder one's peak; the difference is estimate - reference in dB, and is zero where both lie
    below that end. Returns JSON with `expected`, `actual` and `diff` as PNG data URIs of at most 60 kB each.
    Raises ValueError where a clip is empty.
    """
    clips = [_mono(reference), _mono(estimate)]
    length = min(len(clips[0]), len(clips[1]), int(MAX_SECONDS * sample_rate))
    if length == 0:
        raise ValueError("a spectrogram needs at least one sample of each clip")
    pair = [_cells(_power(clip[:length], sample_rate)) for clip in clips]
    levels = [10 * np.log10(np.maximum(power, 1e-12)) for power in pair]
    top = max(float(level.max()) for level in levels)
    shown = [np.maximum(level, top - RANGE_DB) for level in levels]
    extent = (0.0, length / sample_rate, 0.0, sample_rate / 2000)
    scale = {"cmap": "magma", "vmin": top - RANGE_DB, "vmax": top}
    change = {"cmap": "RdBu_r", "vmin": -DIFFERENCE_DB, "vmax": DIFFERENCE_DB}
    pictures = {
        "expected": _png(shown[0], extent, f"{title}: reference", "dB", scale),
        "actual": _png(shown[1], extent, f"{title}: reconstruction", "dB", scale),
        "diff": _png(shown[1] - shown[0], extent, f"{title}: reconstruction - reference", "dB difference", change),
    }
    return json.dumps({name: _data_uri("image/png", data) for name, data in pictures.items()}).encode()


class Sound(NamedTuple):
    """A sound to play: what to say of it, and 16-bit FLAC."""

    caption: str
    flac: bytes


def sounds(clips: Sequence[tuple[str, Any, int]]) -> list[Sound]:
    """Each clip as it is, to be compared by ear with the others.

    clips: (label, wav float [C, L] or [L], sample_rate). Where one exceeds [-1, 1], all are scaled down by one factor,
    and each caption says so; nothing else is done to levels. Samples that are not finite are played as silence and
    counted.
    """
    wavs = [_channels(wav) for _, wav, _ in clips]
    peak = max((float(np.abs(np.nan_to_num(wav, posinf=0, neginf=0)).max(initial=0.0)) for wav in wavs), default=0.0)
    gain = 1.0 / peak if peak > 1 else 1.0
    return [
        Sound(_caption(label, wav, rate, gain), _flac(wav, rate, gain))
        for (label, _, rate), wav in zip(clips, wavs, strict=True)
    ]


def player(heard: Sequence[Sound]) -> str:
    """A page with one audio player a sound, each under its caption; the sound is inside the page. Plays inline in
    browsers that know FLAC, as Chromium, Firefox and Safari do.
    """
    return _PAGE + "".join(map(_figure, heard)) + "</body></html>\n"


def _figure(sound: Sound) -> str:
    return (
        f'<figure style="margin:0;flex:1 1 300px"><figcaption>{html.escape(sound.caption)}</figcaption>'
        '<audio controls preload="metadata" style="display:block;width:100%;height:36px" '
        f'src="{_data_uri("audio/flac", sound.flac)}"></audio></figure>\n'
    )


def _caption(label: str, wav: np.ndarray, sample_rate: int, gain: float) -> str:
    """Label, length and rate, and what was done to the samples to make them playable."""
    peak = float(np.abs(np.nan_to_num(wav, posinf=0, neginf=0)).max(initial=0.0))
    bad = int(np.size(wav) - np.isfinite(wav).sum())
    notes = [f"{wav.shape[-1] / sample_rate:.2f} s, {sample_rate / 1000:g} kHz"]
    if gain < 1:
        over = "exceeds full scale, " if peak > 1 else ""
        notes.append(f"peak {peak:.2f}, {over}all clips here scaled by {20 * math.log10(gain):.1f} dB")
    if bad:
        notes.append(f"{bad} samples not finite, played as silence")
    return f"{label} ({'; '.join(notes)})"


def _flac(wav: np.ndarray, sample_rate: int, gain: float) -> bytes:
    import soundfile

    playable = np.clip(np.nan_to_num(wav, posinf=0, neginf=0) * gain, -1, 1)
    buffer = io.BytesIO()
    soundfile.write(buffer, playable.T, sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _power(wav: np.ndarray, sample_rate: int) -> np.ndarray:
    """Power spectrogram [frequency, time]: Hann window of about 32 ms, a quarter of it apart; full-scale sine = 1."""
    size = 2 ** round(math.log2(max(WINDOW_S * sample_rate, 16)))
    padded = np.pad(wav, size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 4]
    window = np.hanning(size).astype(np.float32)
    return np.abs(np.fft.rfft(frames * window).T * 2 / window.sum()) ** 2


def _cells(power: np.ndarray) -> np.ndarray:
    """At most ROWS x COLUMNS cells, each the mean power of what it covers."""
    for axis, most in enumerate((ROWS, COLUMNS)):
        size = power.shape[axis]
        edges = np.arange(min(most, size)) * size // min(most, size)
        counts = np.diff(np.append(edges, size))
        power = np.add.reduceat(power, edges, axis=axis) / np.expand_dims(counts, 1 - axis)
    return power


def _png(cells: np.ndarray, extent: tuple[float, float, float, float], title: str, unit: str, colours: dict) -> bytes:
    """The picture: cells [rows, columns] from the bottom up, two pixels each, with axes, title and scale, as matplotlib
    has them; drawn by Pillow, which takes a tenth of the time.

    Its palette is LEVELS colours, the same for every picture, and greys for the text.
    """
    from PIL import Image

    page = _page(extent, title, unit, colours)
    palette, low, high = _colours(colours["cmap"]), colours["vmin"], colours["vmax"]
    pixels = LEVELS + (page.astype(int) * (255 - LEVELS) // 255).astype(np.uint8)
    levels = np.clip((cells[::-1] - low) / max(high - low, 1e-9) * LEVELS, 0, LEVELS - 1).astype(np.uint8)
    pixels[_TOP:_BOTTOM, _LEFT:_RIGHT] = _stretched(levels, _BOTTOM - _TOP, _RIGHT - _LEFT)
    scale = np.arange(LEVELS, dtype=np.uint8)[::-1, None]
    pixels[_TOP:_BOTTOM, _SCALE : _SCALE + _SCALE_WIDTH] = _stretched(scale, _BOTTOM - _TOP, _SCALE_WIDTH)
    image = Image.fromarray(pixels)
    greys = [round(i * 255 / (255 - LEVELS)) for i in range(256 - LEVELS)]
    image.putpalette([*palette, *(grey for grey in greys for _ in range(3))])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _page(extent: tuple[float, float, float, float], title: str, unit: str, colours: dict) -> np.ndarray:
    """All but the colours: frames, ticks and text, black on white, uint8 [height, width]."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (2 * COLUMNS + 140, 2 * ROWS + 80), 255)
    draw, font = ImageDraw.Draw(image), _font()
    for left, right in ((_LEFT, _RIGHT), (_SCALE, _SCALE + _SCALE_WIDTH)):
        draw.rectangle((left - 1, _TOP - 1, right, _BOTTOM), outline=0)
    for x, label in _ticks(extent[0], extent[1], _LEFT, _RIGHT, 9):
        draw.line((x, _BOTTOM, x, _BOTTOM + 4), fill=0)
        draw.text((x, _BOTTOM + 6), label, 0, font, anchor="ma")
    for y, label in _ticks(extent[2], extent[3], _BOTTOM, _TOP, 7):
        draw.line((_LEFT - 5, y, _LEFT - 1, y), fill=0)
        draw.text((_LEFT - 8, y), label, 0, font, anchor="rm")
    for y, label in _ticks(colours["vmin"], colours["vmax"], _BOTTOM, _TOP, 7):
        draw.line((_SCALE + _SCALE_WIDTH, y, _SCALE + _SCALE_WIDTH + 4, y), fill=0)
        draw.text((_SCALE + _SCALE_WIDTH + 7, y), label, 0, font, anchor="lm")
    middle = (_LEFT + _RIGHT) // 2
    draw.text((middle, _TOP - 7), " ".join(title.split()), 0, font, anchor="ms")
    draw.text((middle, _BOTTOM + 40), "time (s)", 0, font, anchor="ms")
    _upright(image, "frequency (kHz)", 16)
    _upright(image, unit, image.width - 13)
    return np.asarray(image)


def _ticks(low: float, high: float, first: int, last: int, most: int) -> list[tuple[int, str]]:
    """Round numbers between low and high, and the pixel of each."""
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    span = max(high - low, 1e-9)
    inside = [value for value in map(float, values) if low - 1e-6 * span <= value <= high + 1e-6 * span]
    places = [first + (value - low) / span * (last - first) for value in inside]
    return [(round(place), f"{value:.6g}".replace("-", "\u2212")) for place, value in zip(places, inside, strict=True)]


def _upright(image: Any, text: str, centre: int) -> None:
    """Write a text from the bottom up, on the middle of the axes."""
    from PIL import Image, ImageDraw

    font = _font()
    line = Image.new("L", (round(font.getlength(text)) + 2, 20), 255)
    ImageDraw.Draw(line).text((1, 10), text, 0, font, anchor="lm")
    turned = line.transpose(Image.Transpose.ROTATE_90)
    image.paste(turned, (centre - 10, (_TOP + _BOTTOM - turned.height) // 2))


def _font() -> Any:
    """DejaVu Sans, which comes with matplotlib; made anew each time, as threads must not share one."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    file = f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(file, 13.5, layout_engine=ImageFont.Layout.BASIC)


def _colours(name: str) -> list[int]:
    """LEVELS colours of a map of matplotlib's: red, green, blue, red, ..."""
    from matplotlib import colormaps

    return colormaps[name].resampled(LEVELS)(np.arange(LEVELS), bytes=True)[:, :3].ravel().tolist()


def _stretched(levels: np.ndarray, height: int, width: int) -> np.ndarray:
    """[rows, columns] -> [height, width], each cell a block."""
    rows = np.arange(height) * len(levels) // height
    return levels[rows][:, np.arange(width) * levels.shape[1] // width]


def _channels(wav: Any) -> np.ndarray:
    """float32 [C, L] of an array or a CPU tensor."""
    array = np.atleast_2d(np.asarray(wav, dtype=np.float32))
    if array.ndim != 2:
        raise ValueError(f"expected [channels, samples] or [samples], not shape {list(array.shape)}")
    return array


def _mono(wav: Any) -> np.ndarray:
    return np.nan_to_num(_channels(wav).mean(axis=0), posinf=0, neginf=0)


def _data_uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


_PAGE = (  # two clips beside each other: Allure shows 150 pixels of an attachment where the report is opened from disk
    '<!DOCTYPE html>\n<html><head><meta charset="utf-8"></head>'
    '<body style="font:13px/1.4 system-ui,sans-serif;margin:0;padding:4px;display:flex;flex-wrap:wrap;gap:6px 12px">\n'
)
