"""AdamW on a GPU in one pass over memory, in Triton, which torch brings for CUDA. Imported where one is used.

torch's fused AdamW, where gradients are clipped, writes them back as well, and reaches half of a GPU's memory rate. A step of
few sentences is mostly AdamW: it touches every parameter of the model.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 2048
"""Elements of a program."""


@triton.jit
def _update(parameter, mean, square, gradient, scale, skipped, rate, decay, share1, share2, eps, correction1, correction2, size,  # type: ignore[no-untyped-def]
            CLIPS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    if tl.load(skipped) == 0.0:
        g = tl.load(gradient + at, inside, 0.0)
        if CLIPS:
            g = g / tl.load(scale)
        m = tl.load(mean + at, inside, 0.0)
        m += (g - m) * share1
        v = tl.load(square + at, inside, 0.0)
        v += (g * g - v) * share2
        p = tl.load(parameter + at, inside, 0.0)
        p -= p * (rate * decay)
        p -= rate / correction1 * m / (tl.sqrt(v) / correction2 + eps)
        tl.store(parameter + at, p, inside)
        tl.store(mean + at, m, inside)
        tl.store(square + at, v, inside)


def update(
    parameter: Tensor, mean: Tensor, square: Tensor, gradient: Tensor, *, step: int, rate: float, decay: float,
    betas: tuple[float, float], eps: float, scale: Tensor | None, skipped: Tensor,
) -> None:  # fmt: skip
    """Take AdamW's step number `step`, from 1, on fp32 tensors of one size on one GPU.

    scale: float32 scalar that gradients are divided by; None: by 1. skipped: float32 scalar; where it is not 0, nothing is
    written.
    """
    size = parameter.numel()
    with torch.cuda.device_of(parameter):
        _update[(triton.cdiv(size, _BLOCK),)](
            parameter, mean, square, gradient, skipped if scale is None else scale, skipped, rate, decay, 1 - betas[0], 1 - betas[1], eps,
            1 - betas[0] ** step, (1 - betas[1] ** step) ** 0.5, size, CLIPS=scale is not None, BLOCK=_BLOCK,
        )  # fmt: skip


@torch.no_grad()
def step_in_one_pass(optimizer: torch.optim.AdamW) -> None:
    """Take a step of AdamW whose groups are one vector each on a GPU, by its `grad_scale` and `found_inf`, as torch's fused way does.

    A step that `found_inf` leaves out is counted all the same: whoever sets it ends the training.
    """
    for group in optimizer.param_groups:
        (parameter,) = group["params"]
        state = optimizer.state[parameter]
        if not state:
            state.update(
                {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}, step=torch.zeros(())
            )
        state["step"] = state["step"].cpu() + 1  # on the host, which gives the kernel what follows from it
        update(
            parameter, state["exp_avg"], state["exp_avg_sq"], parameter.grad, step=int(state["step"]), rate=group["lr"],
            decay=group["weight_decay"], betas=group["betas"], eps=group["eps"], scale=optimizer.grad_scale,
            skipped=optimizer.found_inf,
        )  # fmt: skip
