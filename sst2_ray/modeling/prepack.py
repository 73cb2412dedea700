"""Weights laid out once for products in bf16 on a CPU, for models that are no longer trained.

Under autocast every product converts its weights and oneDNN lays them out again, batch after batch. Here both happen once;
bias and GELU are applied inside the product, to its sums in fp32. Outside of autocast nothing changes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

_TOKENS = 1024
"""Rows of a product that the layout is chosen for; others are computed as well."""


class _LastInput(threading.local):
    """The latest tensor that a thread has converted: query, key and value read the same one."""

    given: Tensor | None = None
    converted: Tensor | None = None

    def in_bf16(self, x: Tensor) -> Tensor:
        """Convert a tensor, which nobody changes in place."""
        if x.dtype == torch.bfloat16:
            return x
        if self.converted is None or self.given is not x:
            self.given, self.converted = x, x.to(torch.bfloat16)
        return self.converted


class _Product:
    """The forward pass of a linear layer."""

    def __init__(self, layer: nn.Linear, last: _LastInput, *, gelu: bool) -> None:
        self._in_fp32: Callable[[Tensor], Tensor] = layer.forward
        self._last, self._gelu = last, gelu
        self._weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().to(torch.bfloat16), _TOKENS)
        self._bias = None if layer.bias is None else layer.bias.detach().to(torch.bfloat16)

    def __call__(self, x: Tensor) -> Tensor:
        """Compute [..., out] of [..., in], in bf16 under autocast."""
        if not torch.is_autocast_enabled("cpu"):
            return self._in_fp32(x)
        after: tuple[str, list[float], str] = ("gelu", [], "none") if self._gelu else ("none", [], "")
        found: Tensor = torch.ops.mkldnn._linear_pointwise(self._last.in_bf16(x), self._weight, self._bias, *after)
        return found


class _DoneBefore:
    """The forward pass of an activation that the product before it applies under autocast."""

    def __init__(self, activation: nn.Module) -> None:
        self._in_fp32: Callable[[Tensor], Tensor] = activation.forward

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the activation outside of autocast."""
        return x if torch.is_autocast_enabled("cpu") else self._in_fp32(x)


def prepack(model: nn.Module) -> bool:
    """Lay out the weights of all linear layers of a model on the CPU, in place; they must not change any more.

    Returns:
        False where torch has no such products here; the model is then as it was.
    """
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    last = _LastInput()
    with_gelu = set()
    for module in model.modules():
        dense, activation = getattr(module, "dense", None), getattr(module, "intermediate_act_fn", None)
        if isinstance(dense, nn.Linear) and isinstance(activation, GELUActivation):
            with_gelu.add(dense)
            activation.forward = _DoneBefore(activation)  # type: ignore[method-assign]
    for module in model.modules():
        if type(module) is nn.Linear:
            module.forward = _Product(module, last, gelu=module in with_gelu)  # type: ignore[method-assign]
    return True
