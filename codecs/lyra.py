"""Lyra v2: Google's released SoundStream, a causal codec for speech that runs in TensorFlow Lite.

Zeghidour et al., "SoundStream: An End-to-End Neural Audio Codec", IEEE/ACM TASLP 2021. The calls are those of the
released code, github.com/google/lyra at v1.3.2: lyra/soundstream_encoder.cc, residual_vector_quantizer.cc and
lyra_gan_model.cc. Two things differ: samples go in and come out as float32, where it rounds both to 16 bits and clips
what comes out; and the quantiser too runs on XNNPACK, which it does without there (the codes are the same).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from earmark.codecs.contract import Info
from earmark.codecs.pretrained import ClipByClip, Measures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SAMPLE_RATE = 16000  # kInternalSampleRateHz in lyra_config.h; no model file says it
ENCODER, QUANTISER, DECODER = "soundstream_encoder.tflite", "quantizer.tflite", "lyragan.tflite"


class Lyra(ClipByClip):
    """Frames are ceil(L / 320): a clip is padded with zeros to whole frames of 20 ms; 320 samples a frame come back.

    folder  holds the three model files of one release: 1.2.0 (float32), or 1.3.x (one set for all, int8 inside).

    The released rates are 16, 30 and 46 stages of 4 bits; any K up to 46 is a prefix of the same codes. Latents have
    D = 64. Encoder and decoder carry a state from frame to frame that no call clears, so each clip gets new ones.
    Runs on one thread of the CPU, whatever the device.
    """

    def __init__(self, info: Info, device: str, *, folder: Path) -> None:
        del device
        self.files = {name: (Path(folder) / name).read_bytes() for name in (ENCODER, QUANTISER, DECODER)}
        self.quantiser = self.interpreter(QUANTISER)
        self.to_codes = self.quantiser.get_signature_runner("encode")
        self.to_latents = self.quantiser.get_signature_runner("decode")
        self.stages = int(self.to_latents.get_input_details()["encoding_indices"]["shape"][0])
        super().__init__(info, "cpu", model=torch.nn.Identity())  # there is no torch module to place

    def measures(self) -> Measures:
        hop = self.interpreter(ENCODER).get_input_details()[0]["shape"][1]
        silence = np.zeros((1, 1, 64), np.float32)
        bits = self.to_codes(input_frames=silence, num_quantizers=np.int32(1))["output_1"]
        return Measures(SAMPLE_RATE, int(hop), 1, self.stages, 2 ** int(bits))

    def embed(self, clip: Tensor) -> Tensor:
        return self._embed(self.interpreter(ENCODER), clip)

    def quantise(self, latents: Tensor) -> Tensor:
        books = self.info.num_codebooks
        rows = [
            self.to_codes(input_frames=frame, num_quantizers=np.int32(books))["output_0"][:books, 0, 0]
            for frame in _frames(latents)
        ]
        return _columns(np.array(rows, np.int64).reshape(-1, books))

    def dequantise(self, codes: Tensor) -> Tensor:
        indices = np.full((codes.shape[2], self.stages, 1, 1), -1, np.int32)  # -1: a stage that is not used
        indices[:, : codes.shape[1], 0, 0] = codes[0].T.numpy()
        rows = [self.to_latents(encoding_indices=frame)["output_0"] for frame in indices]
        return _columns(np.array(rows, np.float32).reshape(-1, 64))

    def synthesise(self, latents: Tensor) -> Tensor:
        return self._synthesise(self.interpreter(DECODER), latents)

    def stream(self, chunks: Iterator[Tensor], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """A frame of codes and of sound for each chunk of 320 samples; encoder and decoder keep their state."""
        del seed
        encoder, decoder = self.interpreter(ENCODER), self.interpreter(DECODER)
        for chunk in chunks:
            codes = self.quantise(self._embed(encoder, chunk.cpu()))
            yield codes.to(chunk.device), self._synthesise(decoder, self.dequantise(codes)).to(chunk.device)

    def _embed(self, encoder: Any, clip: Tensor) -> Tensor:
        return _columns(_run(encoder, self.whole_frames(clip).reshape(-1, 1, self.hop).numpy()))

    def _synthesise(self, decoder: Any, latents: Tensor) -> Tensor:
        return torch.from_numpy(_run(decoder, _frames(latents))).reshape(1, 1, -1)

    def interpreter(self, name: str) -> Any:
        """A new interpreter of one of the model files, its state clear."""
        from ai_edge_litert.interpreter import Interpreter

        made = Interpreter(model_content=self.files[name], num_threads=1)
        made.allocate_tensors()
        return made


def _run(model: Any, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a model of one input and one output makes of the frames of a clip in turn, [T, ...] -> [T, size]."""
    (given,), (made,) = model.get_input_details(), model.get_output_details()
    rows = np.empty((len(frames), int(made["shape"][-1])), np.float32)
    for row, frame in zip(rows, frames, strict=True):
        model.set_tensor(given["index"], frame)
        model.invoke()
        row[:] = model.get_tensor(made["index"]).reshape(-1)
    return rows


def _frames(latents: Tensor) -> NDArray[np.float32]:
    """[1, D, T] -> [T, 1, 1, D]."""
    return np.ascontiguousarray(latents[0].T.numpy()[:, None, None])


def _columns(rows: NDArray[Any]) -> Tensor:
    """[T, D] -> [1, D, T]."""
    return torch.from_numpy(rows).T[None]
