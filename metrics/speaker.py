"""Speaker: whether the voice that comes back is still the same person's.

A backend turns a clip into an embedding of its speaker: `embed(wav) -> float64 [D]`, wav float32 [L] at 16 kHz. One is
built once a process, on the CPU. The similarities of two backends are two scales: a backend is part of the name of the
metric. Each hears each clip alone, at its true length.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from earmark.hub import cache_of, fetch_command, pretrained
from earmark.metrics.checks import Array, MetricError, check_pair, require, to_numpy

if TYPE_CHECKING:
    from earmark.metrics.registry import Checkpoint

SAMPLE_RATE = 16_000
MIN_S = 0.4  # of sound, and for Resemblyzer of voice: below it same and different speakers are hard to tell apart
SILENT = 1e-5  # a peak of -100 dB, below half a step of 16 bits, is no voice


class Embedder(Protocol):
    def embed(self, wav: np.ndarray) -> np.ndarray:
        """The speaker's embedding, float [D], of wav float32 [L]; MetricError where the clip has none."""
        ...


def speaker_similarity(reference: Array, estimate: Array, backend: Embedder) -> np.ndarray:
    """Cosine of the speaker embeddings of both, per clip, -1 to 1; higher is better. Symmetric.

    reference, estimate: float [..., L] at 16 kHz. Returns float64 [...]; exactly 1 where equal.
    Raises ValueError where shapes differ, MetricError where either is silent (a peak below 1e-5), shorter than 0.4 s,
    or has no voice for a backend that looks for one. Level: see each backend.
    """
    check_pair(reference, estimate)
    if reference.shape[-1] < MIN_S * SAMPLE_RATE:
        raise MetricError(f"{reference.shape[-1]} samples are too short to tell a speaker; it takes {MIN_S} s")
    for name, wav in (("reference", reference), ("estimate", estimate)):
        magnitude: Any = abs(wav)
        require((magnitude >= SILENT).any(-1), f"{name} is silent, so it has no speaker")
    pairs = zip(_rows(reference), _rows(estimate), strict=True)
    values = [_similarity(backend, index, *pair) for index, pair in enumerate(pairs)]
    return np.array(values, dtype=np.float64).reshape(tuple(reference.shape[:-1]))


def _rows(wav: Array) -> np.ndarray:
    return np.ascontiguousarray(to_numpy(wav).reshape(-1, wav.shape[-1]), dtype=np.float32)


def _similarity(backend: Embedder, index: int, reference: np.ndarray, estimate: np.ndarray) -> float:
    embeddings = []
    for name, wav in (("reference", reference), ("estimate", estimate)):
        try:
            embeddings.append(backend.embed(wav).astype(np.float64))
        except MetricError as error:
            raise MetricError(f"clip {index}: {name}: {error}") from error
    return _cosine(*embeddings)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    """One root of the product, not a product of roots: then of equal vectors it is 1 to the bit."""
    return float(np.clip(one @ other / np.sqrt((one @ one) * (other @ other)), -1, 1))


class Resemblyzer:
    """Resemblyzer's voice encoder (GE2E, an LSTM on 40 mel bands), whose weights are in its wheel: no download.

    What it does first: a clip quieter than -30 dBFS is raised to it (a louder one keeps its level, which matters a
    little), samples beyond [-1, 1] are cut, pauses are shortened by WebRTC's voice detector. The embedding is the mean
    over windows of 1.6 s; less voice is filled up with zeros, and under 0.4 s of voice there is no answer.
    Source: Wan et al., "Generalized end-to-end loss for speaker verification", ICASSP 2018, in the library resemblyzer.
    """

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its import tells of pkg_resources, scipy.ndimage.morphology and librosa
            from resemblyzer import VoiceEncoder, audio
        # torch.load, which it calls, reads tensors alone
        self._encoder, self._audio = VoiceEncoder("cpu", verbose=False).eval(), audio

    def embed(self, wav: np.ndarray) -> np.ndarray:
        level = self._audio.audio_norm_target_dBFS
        wav = self._audio.normalize_volume(wav.astype(np.float64), level, increase_only=True)
        voice = self._audio.trim_long_silences(wav.clip(-1, 1))  # its detector's int16 would wrap
        if len(voice) < MIN_S * SAMPLE_RATE:
            raise MetricError(f"{len(voice) / SAMPLE_RATE:.2f} s of voice are too short to tell a speaker")
        return self._encoder.embed_utterance(voice.astype(np.float32))


class Ecapa:
    """SpeechBrain's ECAPA-TDNN, trained on VoxCeleb; what AudioCodecBench measures with. Any level, no trimming.

    Built here from the published parameters, with weights read as tensors alone: the repository's own
    `hyperparams.yaml` would be run as code. Mean normalisation over the clip; the embedding's is not used, as in
    SpeechBrain's own verification.
    Source: Desplanques et al., "ECAPA-TDNN", Interspeech 2020; huggingface.co/speechbrain/spkrec-ecapa-voxceleb.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        import torch
        from speechbrain.lobes.features import Fbank
        from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

        self._features = Fbank(n_mels=80).eval()
        self._model = ECAPA_TDNN(80, lin_neurons=192, channels=[1024, 1024, 1024, 1024, 3072], attention_channels=128)
        weights = cached_file(checkpoint, "embedding_model.ckpt")
        self._model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self._model.eval().requires_grad_(False)

    def embed(self, wav: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            features = self._features(torch.from_numpy(wav)[None])  # [1, T, 80] dB, floored at 1e-10
            return self._model(features - features.mean(1, keepdim=True))[0, 0].numpy()


class WavlmSv:
    """WavLM-base-plus with the x-vector head that Microsoft trained for speaker verification. Any level, no trimming.

    Source: Chen et al., "WavLM", IEEE JSTSP 2022; huggingface.co/microsoft/wavlm-base-plus-sv.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        import transformers

        where: dict[str, Any] = {"revision": checkpoint.revision, "local_files_only": True}
        where["cache_dir"] = cache_of(checkpoint.repo, checkpoint.revision, checkpoint.files)
        self._model = pretrained("WavLMForXVector", checkpoint.repo, checkpoint.revision, checkpoint.files)
        self._features = transformers.Wav2Vec2FeatureExtractor.from_pretrained(checkpoint.repo, **where)

    def embed(self, wav: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            given = self._features(wav, sampling_rate=SAMPLE_RATE, return_tensors="pt")
            return self._model(given.input_values).embeddings[0].numpy()


def cached_file(checkpoint: Checkpoint, name: str) -> Path:
    """Where a file of a checkpoint lies; FileNotFoundError, with the command that gets it, where it is not here."""
    from huggingface_hub import try_to_load_from_cache

    cache = cache_of(checkpoint.repo, checkpoint.revision, (name,))
    found = (
        try_to_load_from_cache(checkpoint.repo, name, cache_dir=cache, revision=checkpoint.revision) if cache else None
    )
    if not isinstance(found, str):
        command = fetch_command(checkpoint.repo, checkpoint.revision)
        raise FileNotFoundError(f"{checkpoint.repo} is not on this machine; run: {command}")
    return Path(found)
