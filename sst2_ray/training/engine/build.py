"""The choice of an engine by name."""

from __future__ import annotations

import torch
from torch import nn

from sst2_ray.training.engine.base import TrainEngine
from sst2_ray.training.engine.torch import TorchEngine


def build_engine(
    kind: str,
    model: nn.Module,
    optimizer: torch.optim.AdamW,
    *,
    max_grad_norm: float,
    device: torch.device,
    overlap_comm: bool = False,
) -> TrainEngine:
    """Build the engine `kind` (TrainConfig.engine); `model` is already on `device`.

    `overlap_comm`: ZeRO-2 sends gradients while the backward pass goes on.
    """
    if kind == "torch":
        return TorchEngine(model, optimizer, max_grad_norm=max_grad_norm)
    from sst2_ray.training.engine.zero import ZeroEngine  # imports DeepSpeed, which takes seconds

    return ZeroEngine(model, optimizer, max_grad_norm=max_grad_norm, device=device, overlap_comm=overlap_comm)
