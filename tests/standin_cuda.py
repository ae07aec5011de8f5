"""A stand-in for CUDA: tensors that say they are on `cuda:0`, and hold their values on the CPU.

    with standin_cuda.device():
        adapter = Adapter(info, "cuda:0")     # its calls give what they give on the CPU, to the bit

As on a GPU, an operation on tensors of two devices raises, a generator of the CPU draws nothing there, and numpy sees
a tensor only once it is on the CPU. What it does not stand for: another order of sums, memory, and that work is queued.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.modules import rnn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
# What takes tensors of both kinds on a GPU too, or only asks of them.
BOTH = ("aten::copy_", "aten::_to_copy", "aten::to", "aten::index", "aten::index_put_", "aten::_index_put_impl_")
BOTH += ("aten::_has_compatible_shallow_copy_type",)


class OnCuda(torch.Tensor):
    """A tensor whose values, `inner`, are on the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnCuda:
        how = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, **how, device=CUDA)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})

    def tolist(self) -> Any:
        return self.inner.tolist()

    def new_tensor(self, data, *, dtype=None, device=CUDA) -> torch.Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype).to(device)


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do an operation on the values, and give back tensors of the device that it is done on."""
    leaves, name = tree_leaves((args, kwargs)), function._schema.name
    given = [leaf for leaf in leaves if isinstance(leaf, OnCuda)]
    asked = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
    there = bool(given) if asked is None else asked.type == "cuda"
    if name not in BOTH:
        _agree(name, leaves, given, there)
    args, kwargs = (
        tree_map(_inner, args),
        tree_map(_inner, kwargs) | ({"pin_memory": False} if "pin_memory" in kwargs else {}),
    )
    made = function(*args, **kwargs)
    if (
        isinstance(made, torch.Tensor)
        and (same := next((each for each in given if each.inner is made), None)) is not None
    ):
        return same if there else made  # done in place
    return tree_map(lambda leaf: OnCuda(leaf) if there and type(leaf) is torch.Tensor else leaf, made)


def _agree(name: str, leaves: list[Any], given: list[Any], there: bool) -> None:
    """Raise what CUDA's operations raise of tensors and generators elsewhere; a CPU's number [] is taken anywhere."""
    elsewhere = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.device == CPU and leaf.ndim]
    if given and elsewhere:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu ({name})")
    if there and any(isinstance(leaf, torch.Generator) for leaf in leaves):
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' ({name})")


def _inner(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, OnCuda) else CPU if isinstance(leaf, torch.device) else leaf


def _recurrent(function: Any) -> Any:
    """LSTM and GRU, which ask cuDNN and not the dispatcher."""

    def run(*args: Any) -> Any:
        leaves = tree_leaves(args)
        given = [leaf for leaf in leaves if isinstance(leaf, OnCuda)]
        _agree("rnn", leaves, given, bool(given))
        made = function(*tree_map(_inner, args))
        return tree_map(lambda leaf: OnCuda(leaf) if given and isinstance(leaf, torch.Tensor) else leaf, made)

    return run


@contextlib.contextmanager
def device() -> Iterator[None]:
    """While the block lasts this machine has a GPU, `cuda:0`, as far as tensors and modules are concerned."""
    torch._C._ensureCUDADeviceGuardSet()  # that none is there is then no error: see torch's FakeTensorMode
    tensor = torch.tensor
    with pytest.MonkeyPatch.context() as patch, _Mode():
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "get_rng_state", lambda *_: torch.zeros(16, dtype=torch.uint8))
        patch.setattr(torch.cuda, "set_rng_state", lambda *_: None)
        patch.setattr(torch.cuda, "empty_cache", lambda: None)
        patch.setattr(torch.Tensor, "pin_memory", lambda self: self)
        patch.setattr(torch, "inference_mode", torch.no_grad)  # its tensors pass no dispatcher
        patch.setattr(torch, "tensor", lambda data, device=CPU, **how: tensor(data, **how).to(device))
        patch.setattr(torch.nn.LSTM, "flatten_parameters", lambda self: None)
        for name in ("lstm", "gru"):
            patch.setattr(rnn._VF, name, _recurrent(getattr(rnn._VF, name)))
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            yield
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(False)
