"""Recognisers: what is heard in a clip. Each has `transcribe(wav) -> text`; one is built once a process, on the CPU.

wav is float [L] at 16 kHz. The text is as the recogniser gives it; `content.normalise` makes texts comparable. A clip
that is zero in 16 bits has no text, without asking: PocketSphinx hears 'dog' in it, and Whisper is known for 'you'.
Raises MetricError where the clip is empty or not finite. The same clip is heard the same whatever was heard before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from earmark.hub import cache_of, pretrained
from earmark.metrics.checks import MetricError

if TYPE_CHECKING:
    from earmark.metrics.registry import Checkpoint

SAMPLE_RATE = 16_000
WINDOW_S = 30.0  # what Whisper hears at once
SILENT = 2.0**-16  # half a step of 16 bits


class Whisper:
    """Whisper through `transformers`: greedy, no timestamps in the text, no sampling whatever comes out.

    A clip longer than 30 s is heard window by window, each from where the model says that the last whole segment
    ended, and without the text before, so that one window's mistake stays in it.
    Source: Radford et al., "Robust speech recognition via large-scale weak supervision", ICML 2023, section 4.5.
    """

    def __init__(self, checkpoint: Checkpoint, language: str = "en") -> None:
        """checkpoint: from the hub's cache only. language: ISO 639-1; told to the model, so that it need not guess."""
        import transformers

        where: dict[str, Any] = {"revision": checkpoint.revision, "local_files_only": True}
        where["cache_dir"] = cache_of(checkpoint.repo, checkpoint.revision)
        self.model = pretrained("WhisperForConditionalGeneration", checkpoint.repo, checkpoint.revision)
        self.processor = transformers.WhisperProcessor.from_pretrained(checkpoint.repo, **where)
        config = self.model.generation_config
        self._options: dict[str, Any] = {"do_sample": False, "num_beams": 1, "condition_on_prev_tokens": False}
        if getattr(config, "is_multilingual", True):  # a model of English alone is not asked for a language
            self._options |= {"language": language, "task": "transcribe"}

    def transcribe(self, wav: np.ndarray) -> str:
        """What is heard in wav [L]."""
        import torch

        if silent(wav):
            return ""
        long = len(wav) > WINDOW_S * SAMPLE_RATE
        features = self.processor(
            audio=wav.astype(np.float32),
            sampling_rate=SAMPLE_RATE,
            return_tensors="pt",
            truncation=False,
            padding="longest" if long else "max_length",
            return_attention_mask=True,
        )
        with torch.inference_mode():
            tokens = self.model.generate(
                features.input_features, attention_mask=features.attention_mask, return_timestamps=long, **self._options
            )
        return self.processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()


class Pocketsphinx:
    """PocketSphinx with the model of US English that its wheel carries: no download, many errors, quick.

    WER .61 on LibriSpeech test-other, .21 on LJSpeech: good enough to compare, not to read. Each clip has a decoder of
    its own, since one that goes on keeps the cepstral mean of what it heard before.
    Source: Huggins-Daines et al., "PocketSphinx", ICASSP 2006.
    """

    def transcribe(self, wav: np.ndarray) -> str:
        """What is heard in wav [L]; samples beyond [-1, 1] are cut to it."""
        import pocketsphinx

        if silent(wav):
            return ""
        samples = (wav.clip(-1, 1) * 32767).round().astype("<i2")
        decoder = pocketsphinx.Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return found.hypstr if found else ""


def silent(wav: np.ndarray) -> bool:
    """Whether a clip is zero in 16 bits; raises where it is none: not float [L], empty, or not finite."""
    if wav.ndim != 1 or wav.dtype.kind != "f":
        raise ValueError(f"a recogniser takes one clip of floats, [L]; this is {wav.dtype} {wav.shape}")
    if not len(wav):
        raise MetricError("the clip is empty, so there is nothing to hear")
    if not np.isfinite(wav).all():
        raise MetricError("the clip holds NaN or infinite samples")
    return bool(np.abs(wav).max() < SILENT)
