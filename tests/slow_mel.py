"""The mel distances as their definitions read, one filter and one frame after the other."""

import functools

import numpy as np


@functools.cache
def slow_mel_filters(n_fft: int, mels: int, rate: int, slaney: bool) -> np.ndarray:
    """[mels, n_fft / 2 + 1], from the formulas: triangles between mels + 2 points equally spaced on the mel scale."""

    def to_mel(hz):
        if slaney:
            return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)
        return 2595 * np.log10(1 + hz / 700)

    def to_hz(mel):
        if slaney:
            return mel * 200 / 3 if mel < 15 else 1000 * np.exp(np.log(6.4) * (mel - 15) / 27)
        return 700 * (10 ** (mel / 2595) - 1)

    points = [to_hz(mel) for mel in np.linspace(0, to_mel(rate / 2), mels + 2)]
    bins = np.arange(n_fft // 2 + 1) * rate / n_fft
    filters = np.zeros((mels, len(bins)))
    for m, (low, centre, high) in enumerate(zip(points, points[1:], points[2:], strict=False)):
        for k, hz in enumerate(bins):
            filters[m, k] = max(0.0, min((hz - low) / (centre - low), (high - hz) / (high - centre)))
        if slaney:
            filters[m] *= 2 / (high - low)
    return filters


def slow_mel(wav: np.ndarray, n_fft: int, mels: int, rate: int, slaney: bool) -> np.ndarray:
    """[mels, T]: one frame after the other; magnitude with sqrt-Hann for Slaney, else power with Hann."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    window, power = (np.sqrt(window), 1) if slaney else (window, 2)
    padded = np.concatenate([wav[n_fft // 2 : 0 : -1], wav, wav[-2 : -n_fft // 2 - 2 : -1]])
    starts = range(0, len(padded) - n_fft + 1, n_fft // 4)
    frames = [np.abs(np.fft.rfft(window * padded[start : start + n_fft])) ** power for start in starts]
    return slow_mel_filters(n_fft, mels, rate, slaney) @ np.array(frames).T


def slow_mel_distance_7scale(reference, estimate, rate):
    distances = []
    for n_fft, mels in zip([32, 64, 128, 256, 512, 1024, 2048], [5, 10, 20, 40, 80, 160, 320], strict=True):
        logs = [np.log(np.maximum(slow_mel(w, n_fft, mels, rate, False), 1e-5)) for w in (reference, estimate)]
        distances.append(np.abs(logs[0] - logs[1]).mean())
    return np.mean(distances)


def slow_mel_loss(reference, estimate, rate):
    total = 0.0
    for n_fft, mels in ((2048, 150), (512, 80)):
        mel = [slow_mel(w, n_fft, mels, rate, True) for w in (reference, estimate)]
        logs = [np.log10(np.maximum(m, 1e-5) ** 2) for m in mel]
        total += np.abs(logs[0] - logs[1]).mean() + np.abs(mel[0] - mel[1]).mean()
    return total
