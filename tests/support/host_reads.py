"""A mode in which a read of a tensor's numbers by the host is an error: on a GPU it would wait for all queued work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

_WAITS = frozenset(
    {
        "_local_scalar_dense", "_unique", "_unique2", "bincount", "equal", "is_nonzero", "item", "masked_select", "nonzero",
        "unique_consecutive", "unique_dim",
    }
)  # fmt: skip
"""Operators whose result, or its shape, only the device knows."""


class HostReadError(AssertionError):
    """The host asked for numbers that a device is still computing."""


class _NoHostReads(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func._schema.name.split("::")[-1]
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        repeats = name == "repeat_interleave" and kwargs.get("output_size") is None
        if name in _WAITS or by_mask or repeats:
            raise HostReadError(f"{func} reads a tensor's numbers")
        return func(*args, **kwargs)


@contextmanager
def no_host_reads() -> Iterator[None]:
    """Raise HostReadError where the host reads tensors inside, also where torch's dispatcher is not asked."""

    def refused(*_: Any) -> None:
        raise HostReadError("a tensor was turned into a Python number or list")

    with pytest.MonkeyPatch.context() as patch, _NoHostReads():
        for name in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__"):
            patch.setattr(torch.Tensor, name, refused)
        yield
