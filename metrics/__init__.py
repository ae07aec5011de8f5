"""Metrics that compare an estimate (what a codec gave back) with its reference, clip by clip.

Conventions
-----------
Arguments are always ``reference, estimate`` in this order: floating-point waveforms in [-1, 1] of equal length, numpy
or torch. `compute` takes [B, L] and a sample rate in Hz, resamples both sides to the metric's rate with the one
resampler of the project, and returns float64 [B], one value a clip. The functions below take [..., L] (spectral:
[B, L]), return [...], and resample nothing. Torch metrics compute in float64 on the device of their input.
A name or a result that carries a unit ends in it (`si_sdr_db`); the registry holds unit and direction of each.

Where a metric was not validated it runs, and its scores say so. What a model hears is named by it: the word errors of
two recognisers are two metrics (`wer_whisper_base`, `wer_pocketsphinx`), never in one column.

A clip without an answer (silent reference, NaN, too short, no speech found) raises MetricError. It never becomes a
score: not zero, not a library's filler such as the 1e-5 of pystoi, not a mean over the rest.
A perfect match scores `Metric.best`; +inf and -inf are answers (nothing lost, nothing kept).

Metrics
-------
`registry.yaml` has them all, with unit, direction, best value, rate, domains, library and source; `earmark metrics`
shows them, with what is missing here and the command that gets it.

===============  ======================================================================================================
`rate`           true bitrate, nominal bitrate, entropy of the codes
`align`          the delay; every waveform and spectral metric has a twin without it (`si_sdr_aligned`)
`signal`         MSE, SNR, SI-SDR, SI-SNR, SDR
`spectral`       mel distances of both benchmarks, log-spectral distance, spectral convergence, STFT distance
`voice`          mel-cepstral distortion, F0 error, voicing error
`loudness`       difference of loudness (ITU-R BS.1770)
`perceptual`     PESQ, STOI;  `visqol`: ViSQOL;  `noreference`: DNSMOS and others that hear no reference
`content`        word and character errors of a recogniser (`asr`)
`speaker`        similarity of the voice, by the embeddings of a speaker model
`distribution`   Frechet and kernel audio distance between all recordings and all reconstructions
===============  ======================================================================================================
"""

from earmark.metrics.registry import METRICS, Backend, Metric, MetricError, compute, find

__all__ = ["METRICS", "Backend", "Metric", "MetricError", "compute", "find"]
