"""AdamW with weight decay on matrices only, and its learning rate schedule: linear warm-up, linear decay to 0."""

from __future__ import annotations

import math

import torch
from torch import nn

from sst2_ray.config.train import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Build AdamW with two groups: parameters with two or more axes decay, vectors (biases, norms) do not.

    By axes and not by names: a list of names misses BERT's `LayerNorm.weight`. Embedding tables are matrices and decay,
    as in the ModernBERT authors' fine-tuning. Frozen parameters are left out.

    torch's AdamW decays by p *= 1 - lr_t * wd. The ModernBERT paper's optimizer (optimi's "fully decoupled" decay)
    applies p *= 1 - (lr_t / lr_max) * wd. Both are the same step where wd_torch = wd / lr_max, so
    `weight_decay_form="fully_decoupled"` divides by the peak learning rate: 1e-5 at 8e-5 becomes 0.125.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": torch_weight_decay(config)},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_eps,
        fused=True,
    )


def torch_weight_decay(config: TrainConfig) -> float:
    """Convert `config.weight_decay` to torch's AdamW (see `build_optimizer`)."""
    if config.weight_decay_form == "fully_decoupled":
        return config.weight_decay / config.learning_rate
    return config.weight_decay


def num_warmup_steps(total_steps: int, warmup_fraction: float) -> int:
    """Return ceil(warmup_fraction * total_steps), with products rounded to 9 digits before."""
    return math.ceil(round(warmup_fraction * total_steps, 9))


def lr_factor(step: int, total_steps: int, warmup_steps: int) -> float:
    """Return the share of the peak learning rate for the optimizer step after `step` finished ones.

    Rises from 0 as step / warmup_steps, is 1 at step = warmup_steps, falls as (total - step) / (total - warmup_steps),
    is 0 from `total_steps` on: transformers' `get_linear_schedule_with_warmup`, so rates mean the same as elsewhere.
    """
    if step < warmup_steps:
        return step / warmup_steps
    if step >= total_steps:
        return 0.0
    return (total_steps - step) / (total_steps - warmup_steps)
