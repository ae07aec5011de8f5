"""The registry of pairwise metrics, one row each, and `compute`, the one call for any of them.

Importing this costs neither torch nor scipy: a row names its function, which is imported when it is first called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from math import inf

import numpy as np

from earmark.data.audio import resample
from earmark.metrics.checks import Array, MetricError, check_pair, to_numpy

__all__ = ["METRICS", "Metric", "MetricError", "compute", "find"]

ANY_AUDIO = ("speech", "music", "sound")


@dataclass(frozen=True)
class Metric:
    """One row of the registry: what a score's number means, and the function that yields it.

    function: "module:function" in this package. rate: Hz at which it is evaluated; None is the rate of the codec.
    best: the value of a perfect match. domains: where it was validated. library: the distribution whose version can
    move the value. needs_rate: the function is told the sample rate. symmetric: swapping the pair changes nothing.
    """

    name: str
    function: str
    unit: str
    higher_is_better: bool
    best: float
    rate: int | None
    domains: tuple[str, ...]
    library: str
    source: str
    needs_rate: bool = False
    symmetric: bool = False

    @property
    def backend(self) -> str:
        """Library and installed version, such as 'pesq-0.0.4', as recorded with each score."""
        return f"{self.library}-{version(self.library)}"

    def load(self) -> Callable[..., Array]:
        """Import and return the function: (reference, estimate[, sample_rate]) -> [...], one value a clip."""
        module, function = self.function.split(":")
        return getattr(import_module(f"earmark.metrics.{module}"), function)


_ROWS = (
    Metric(
        name="mse",
        function="signal:mse",
        unit="amplitude^2",
        higher_is_better=False,
        best=0.0,
        rate=16_000,
        domains=ANY_AUDIO,
        library="torch",
        source="mean squared error of the waveform; rate of CodecBench",
        symmetric=True,
    ),
    Metric(
        name="snr",
        function="signal:snr_db",
        unit="dB",
        higher_is_better=True,
        best=inf,
        rate=16_000,
        domains=ANY_AUDIO,
        library="torch",
        source="signal-to-noise ratio of the waveform",
    ),
    Metric(
        name="si_sdr",
        function="signal:si_sdr_db",
        unit="dB",
        higher_is_better=True,
        best=inf,
        rate=16_000,
        domains=ANY_AUDIO,
        library="torch",
        source="Le Roux et al., SDR - half-baked or well done?, ICASSP 2019",
        symmetric=True,
    ),
    Metric(
        name="si_snr",
        function="signal:si_snr_db",
        unit="dB",
        higher_is_better=True,
        best=inf,
        rate=16_000,
        domains=ANY_AUDIO,
        library="torch",
        source="Luo and Mesgarani, TasNet, ICASSP 2018",
        symmetric=True,
    ),
    Metric(
        name="sdr",
        function="signal:sdr_db",
        unit="dB",
        higher_is_better=True,
        best=inf,
        rate=16_000,
        domains=ANY_AUDIO,
        library="fast_bss_eval",
        source="Vincent et al., BSS Eval, IEEE TASLP 2006; Scheibler, SDR - medium rare with fast computations, 2022",
    ),
    Metric(
        name="pesq_wb",
        function="perceptual:pesq_wb",
        unit="MOS-LQO",
        higher_is_better=True,
        # 0.999 + 4 / (1 + exp(-1.3669 * 4.5 + 3.8224)), in float32 as the ITU code computes it
        best=4.643888473510742,
        rate=16_000,
        domains=("speech",),
        library="pesq",
        source="ITU-T P.862.2",
    ),
    Metric(
        name="pesq_nb",
        function="perceptual:pesq_nb",
        unit="MOS-LQO",
        higher_is_better=True,
        # 0.999 + 4 / (1 + exp(-1.4945 * 4.5 + 4.6607)), in float32 as the ITU code computes it
        best=4.548638343811035,
        rate=16_000,
        domains=("speech",),
        library="pesq",
        source="ITU-T P.862 and P.862.1",
    ),
    Metric(
        name="stoi",
        function="perceptual:stoi",
        unit="1",
        higher_is_better=True,
        best=1.0,
        rate=16_000,
        domains=("speech",),
        library="pystoi",
        source="Taal et al., An algorithm for intelligibility prediction, IEEE TASLP 2011",
    ),
    Metric(
        name="estoi",
        function="perceptual:estoi",
        unit="1",
        higher_is_better=True,
        best=1.0,
        rate=16_000,
        domains=("speech",),
        library="pystoi",
        source="Jensen and Taal, IEEE TASLP 2016",
    ),
    Metric(
        name="mel_distance_7scale",
        function="spectral:mel_distance_7scale",
        unit="ln(power)",
        higher_is_better=False,
        best=0.0,
        rate=None,
        domains=ANY_AUDIO,
        library="torchaudio",
        source="AudioCodecBench, after Kumar et al. (DAC), NeurIPS 2023",
        needs_rate=True,
        symmetric=True,
    ),
    Metric(
        name="mel_loss",
        function="spectral:mel_loss",
        unit="1",
        higher_is_better=False,
        best=0.0,
        rate=16_000,
        domains=ANY_AUDIO,
        library="torchaudio",
        source="CodecBench, after the default mel loss of descript-audiotools",
        needs_rate=True,
        symmetric=True,
    ),
)

METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}


def find(name: str) -> Metric:
    """The row of a metric; an unknown name is a ValueError that suggests the nearest ones.

    >>> find("pesq_wb").unit
    'MOS-LQO'
    """
    if name not in METRICS:
        nearest = get_close_matches(name, METRICS, n=3, cutoff=0.4) or sorted(METRICS)
        raise ValueError(f"no metric is called {name!r}; did you mean {' or '.join(nearest)}?")
    return METRICS[name]


def compute(name: str, reference: Array, estimate: Array, sample_rate: int) -> np.ndarray:
    """Score each clip of a batch with one metric; both sides are first resampled to the metric's own rate.

    reference, estimate: float [B, L], numpy or torch, of one length, at sample_rate Hz. Returns float64 [B].
    Raises ValueError for a wrong shape, dtype or name; MetricError, naming the clip, where there is no score.

    >>> compute("mse", np.array([[1.0, 0.0]]), np.array([[0.0, 0.0]]), 16_000)
    array([0.5])
    """
    metric = find(name)
    if reference.ndim != 2:
        raise ValueError(
            f"reference is {tuple(reference.shape)}; expected [B, L]: one row a clip, channels mixed first"
        )
    check_pair(reference, estimate)
    rate = metric.rate or sample_rate
    if rate != sample_rate:
        reference, estimate = _resampled(reference, sample_rate, rate), _resampled(estimate, sample_rate, rate)
    values = metric.load()(reference, estimate, **({"sample_rate": rate} if metric.needs_rate else {}))
    return np.asarray(to_numpy(values), dtype=np.float64)


def _resampled(wav: Array, from_hz: int, to_hz: int) -> Array:
    """Resample [B, L] on the CPU with the one resampler; a tensor goes back to where it came from."""
    resampled = resample(to_numpy(wav), from_hz, to_hz)
    return resampled if isinstance(wav, np.ndarray) else wav.new_tensor(resampled)
