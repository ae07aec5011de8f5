"""What a codec spends. These are measured on the codec's output alone, so they stand beside the pairwise `METRICS`."""

from __future__ import annotations

from earmark.metrics.registry import ANY_AUDIO, Metric


def bitrate_kbps(bits: float, samples: int, sample_rate: int) -> float:
    """True bitrate in kbit/s: the bits really spent on a clip of `samples` at `sample_rate` Hz.

    Bits are a bitstream codec's packet bytes, or a token codec's tokens at log2 V_k each plus its side information.

    >>> bitrate_kbps(12_000, 16_000, 16_000)
    12.0
    """
    return bits / (samples / sample_rate) / 1000


RATES: dict[str, Metric] = {
    "bitrate_kbps": Metric(
        name="bitrate_kbps",
        function="rate:bitrate_kbps",
        unit="kbit/s",
        higher_is_better=False,
        best=0.0,
        rate=None,
        domains=ANY_AUDIO,
        library="earmark",
        source="bits counted over the duration of the clip",
    )
}
