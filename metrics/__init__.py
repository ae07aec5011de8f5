"""Metrics that compare an estimate (what a codec gave back) with its reference, clip by clip.

Conventions
-----------
Arguments are always ``reference, estimate`` in this order: floating-point waveforms in [-1, 1] of equal length, numpy
or torch. `compute` takes [B, L] and a sample rate in Hz, resamples both sides to the metric's rate with the one
resampler of the project, and returns float64 [B], one value a clip. The functions below take [..., L] (spectral:
[B, L]), return [...], and resample nothing. Torch metrics compute in float64 on the device of their input.
A name or a result that carries a unit ends in it (`si_sdr_db`); the registry holds unit and direction of each.

A clip without an answer (silent reference, NaN, too short, no speech found) raises MetricError. It never becomes a
score: not zero, not a library's filler such as the 1e-5 of pystoi, not a mean over the rest.
A perfect match scores `Metric.best`; +inf and -inf are answers (nothing lost, nothing kept).

Metrics
-------
=====================  ===========  ==========  ===============================================================
name                   unit         rate        what it is, and where it is defined
=====================  ===========  ==========  ===============================================================
`mse`                  amplitude^2  16 kHz      mean squared error of the waveform
`snr`                  dB           16 kHz      energy of the reference over that of the difference
`si_sdr`               dB           16 kHz      the same, free gain, no mean removal (Le Roux et al. 2019)
`si_snr`               dB           16 kHz      the same, free gain, means removed (Luo and Mesgarani 2018)
`sdr`                  dB           16 kHz      the same, free filter of 512 taps (BSS Eval, Vincent et al. 2006)
`pesq_wb` `pesq_nb`    MOS-LQO      16 kHz      perceived speech quality (ITU-T P.862.2; P.862 with P.862.1)
`stoi` `estoi`         1            16 kHz      speech intelligibility (Taal et al. 2011; Jensen and Taal 2016)
`mel_distance_7scale`  ln(power)    codec's     log-mel distance over seven resolutions (AudioCodecBench)
`mel_loss`             1            16 kHz      log and linear mel distance over two resolutions (CodecBench)
=====================  ===========  ==========  ===============================================================
"""

from earmark.metrics.rate import RATES, bitrate_kbps
from earmark.metrics.registry import METRICS, Metric, MetricError, compute, find

__all__ = ["METRICS", "RATES", "Metric", "MetricError", "bitrate_kbps", "compute", "find"]
