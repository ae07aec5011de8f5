"""What lies between latents or codes and a probe's answers: a way in, and a body that looks along the time.

    LatentsIn, CodesIn            [B, T, D] or [B, T, K] -> [B, T, width]
    BiLstm, Conformer, WideConformer   (x [B, T, width], lengths [B]) -> [B, T, body.width]

No body lets padding change anything. Both Conformer libraries mask their attention alone: their convolutions read the
padding and their batch statistics count it, which is mended here (`_blind_to_padding`).
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from earmark.probes.sequences import inside


class LatentsIn(nn.Module):
    """Latents to a width by a linear map, scaled first; mean, deviation [D]: of the training frames."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, dim: int, width: int, dropout: float = 0.0, mean: Tensor | None = None, deviation: Tensor | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim) if mean is None else mean)
        self.register_buffer("deviation", torch.ones(dim) if deviation is None else deviation)
        self.project, self.dropout = nn.Linear(dim, width), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.project((x - self.mean) / self.deviation))


class CodesIn(nn.Module):
    """Codes to a width: an embedding of each codebook, side by side, through one linear map.

    Each codebook has an entry more than codes, for a frame where it has no token; that one stays zero.
    Source: AudioCodecBench, `ctc_model.py`: Embedding(V + 1, 1024) a codebook, Linear(1024 K, 1024), dropout .1.
    """

    def __init__(self, sizes: Sequence[int], embedding: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.books = nn.ModuleList(nn.Embedding(size + 1, embedding, padding_idx=size) for size in sizes)
        self.project, self.dropout = nn.Linear(embedding * len(sizes), width), nn.Dropout(dropout)
        self.register_buffer("none", torch.tensor(list(sizes)), persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        codes = torch.where(codes < 0, self.none, codes)  # type: ignore[arg-type]
        return self.dropout(self.project(torch.cat([book(codes[..., k]) for k, book in enumerate(self.books)], -1)))


class BiLstm(nn.Module):
    """Bidirectional LSTM; the backward one of each clip starts at the clip's own end. CodecBench: 2 layers of 1024.

    Two one-way LSTMs a layer, the second over each clip turned round: what `nn.LSTM` makes of packed sequences, which
    takes six times as long on a CPU.
    """

    def __init__(self, dim: int, hidden: int, layers: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        dims = [dim, *[2 * hidden] * (layers - 1)]
        self.ahead = nn.ModuleList(nn.LSTM(of, hidden, batch_first=True) for of in dims)
        self.back = nn.ModuleList(nn.LSTM(of, hidden, batch_first=True) for of in dims)
        self.dropout, self.width = nn.Dropout(dropout), 2 * hidden

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        frames = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        turned = torch.where(inside(lengths, x.shape[1]), lengths[:, None] - 1 - frames, frames)[..., None]
        for layer, (ahead, back) in enumerate(zip(self.ahead, self.back, strict=True)):
            x = self.dropout(x) if layer else x
            after = back(x.gather(1, turned.expand_as(x)))[0]
            x = torch.cat([ahead(x)[0], after.gather(1, turned.expand_as(after))], -1)
        return x


class _Masked(nn.Module, abc.ABC):
    """A Conformer that is blind to padding: its frames are zero before each convolution and in no batch statistics."""

    def __init__(self, net: nn.Module, width: int) -> None:
        super().__init__()
        self.net, self.width = net, width
        self.kept: Tensor = torch.empty(0)  # bool [B, T], of the batch at hand
        _blind_to_padding(self)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        self.kept = inside(lengths, x.shape[1])
        return self.run(x, lengths)

    @abc.abstractmethod
    def run(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The library's own call, which sees `kept`."""


class Conformer(_Masked):
    """torchaudio's Conformer. Source: Gulati et al., "Conformer", Interspeech 2020."""

    def __init__(self, width: int, layers: int, heads: int, ffn: int, kernel: int = 31, dropout: float = 0.0) -> None:
        from torchaudio.models import Conformer as Net

        super().__init__(Net(width, heads, ffn, layers, kernel, dropout), width)

    def run(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.net(x, lengths)[0]


class WideConformer(_Masked):
    """The package `conformer`'s, whose convolution is wider than its input, as AudioCodecBench has it.

    Its own dropout options are given to no layer (version 0.3.2), so there is none, as in the published probe.
    Raises ImportError, with the command that gets it, where the package is not here.
    """

    def __init__(self, width: int, layers: int = 3, heads: int = 8, kernel: int = 31) -> None:
        try:
            from conformer import Conformer as Net
        except ImportError as error:
            raise ImportError("this probe needs the package `conformer`; run: pip install 'earmark[probes]'") from error
        net = Net(width, depth=layers, dim_head=width // heads, heads=heads, ff_mult=4, conv_expansion_factor=2,
                  conv_kernel_size=kernel)  # fmt: skip
        super().__init__(net, width)

    def run(self, x: Tensor, lengths: Tensor) -> Tensor:
        del lengths  # `kept` says it
        for block in self.net.layers:  # type: ignore[union-attr]
            x = block(x, mask=self.kept)
        return x


class _BatchNorm(nn.BatchNorm1d):
    """Batch statistics of the clips' own frames; x [B, C, T], and zero beyond them."""

    def __init__(self, channels: int, owner: _Masked) -> None:
        super().__init__(channels)
        self.owner = [owner]  # in a list, or it would be a part of its own part

    def forward(self, x: Tensor) -> Tensor:
        kept, frames = self.owner[0].kept, x.transpose(1, 2)
        normal = torch.zeros_like(frames)
        normal[kept] = super().forward(frames[kept])
        return normal.transpose(1, 2)


def _blind_to_padding(owner: _Masked) -> None:
    """Have the net's convolutions read zeros in place of padding, and its batch norms leave it out."""

    def silence(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        del module
        return (given[0] * owner.kept[:, None].to(given[0]), *given[1:])

    for parent in [*owner.net.modules()]:
        for name, part in parent.named_children():
            if isinstance(part, nn.BatchNorm1d):
                setattr(parent, name, _BatchNorm(part.num_features, owner))
            elif _reads_along(part):
                part.register_forward_pre_hook(silence)


def _reads_along(part: Any) -> bool:
    """Whether a module mixes frames: a convolution wider than 1, or the package's, which pads and then convolves."""
    if type(part).__name__ == "DepthWiseConv1d":
        return True  # its inner convolution does not pad, so the next line leaves that alone
    return isinstance(part, nn.Conv1d) and part.padding[0] not in (0, "valid")
