"""k nearest neighbours by cosine, each with a vote of softmax(cosine / temperature): nothing is trained.

Source: X-ARES; Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", CVPR 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot


def votes(
    known: Tensor, labels: Tensor, asked: Tensor, classes: int, neighbours: int = 10, temperature: float = 0.07
) -> Tensor:
    """known [N, D] with labels int64 [N], asked [M, D] -> the votes [M, C], of sum 1. Of fewer than k known, all vote.

    >>> votes(torch.eye(2), torch.tensor([0, 1]), torch.tensor([[2.0, 0.0]]), 2, 1).tolist()
    [[1.0, 0.0]]
    """
    cosines = normalize(asked, dim=1) @ normalize(known, dim=1).T
    nearest, index = cosines.topk(min(neighbours, len(known)), dim=1)
    weights = torch.softmax(nearest / temperature, dim=1)
    return (one_hot(labels[index], classes) * weights[..., None]).sum(1)
