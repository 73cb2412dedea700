"""Lower bounds of a run's time on GPUs that are not here, for its workers and for more of them. Nothing is measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sst2_ray import formatting
from sst2_ray.run.model_size import ModelSize
from sst2_ray.run.planning.cost_model import BACKWARD, StepTime, communication_bytes, launches, step_time
from sst2_ray.training.gpus import GPUS, Gpu

CHIPS = {
    "A100": "NVIDIA A100-SXM4-40GB",
    "A100-40G": "NVIDIA A100-SXM4-40GB",
    "A100-80G": "NVIDIA A100-SXM4-80GB",
    "H100": "NVIDIA H100 80GB HBM3",
    "H200": "NVIDIA H200",
    "L4": "NVIDIA L4",
    "L40S": "NVIDIA L40S",
}
"""Device of the data sheets by Ray's name of an accelerator; others get no forecast."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """An optimizer step of a run, whoever computes it."""

    size: ModelSize
    tokens: float
    """Tokens of the global batch."""
    length: int
    """Mean tokens of a sentence."""
    micro_batch_tokens: int
    """Most tokens that a worker computes at once."""
    compiled: bool
    """The encoder's layers are."""


@dataclass(frozen=True, kw_only=True)
class PaperForecast:
    """The least time of a run, by number of workers (one GPU each)."""

    chip: str
    """Device name of the data sheet."""
    num_steps: int
    num_workers: int
    """Workers of the run."""
    step_seconds: Mapping[int, float]
    """Least seconds of a step by number of workers; those that need a network of unknown rate are left out."""
    sent_bytes: Mapping[int, float]
    """Sent by all workers together in the whole run, by number of workers."""
    network_gbit_per_s: float | None
    needed_gbit_per_s: float | None
    """Rate from which twice the workers are faster; None: they never are."""

    @property
    def seconds(self) -> float | None:
        """Return the time of all steps of the run, without its start and its evaluations."""
        step = self.step_seconds.get(self.num_workers)
        return None if step is None else self.num_steps * step

    def rows(self) -> list[tuple[str, str]]:
        """Return rows of the plan."""
        rows = []
        if self.seconds is not None:
            step = 1e3 * self.step_seconds[self.num_workers]
            what = f"all steps at least {formatting.duration(self.seconds)} ({step:.3g} ms each)"
            where = f"on {self.num_workers} x {self.chip} at the data sheet's peak"
            rows.append(("on paper", f"{what} {where}; start and evaluations come on top"))
        return [*rows, ("more workers", self._more_words())]

    def _more_words(self) -> str:
        now = self.step_seconds.get(self.num_workers)
        known = {count: step for count, step in self.step_seconds.items() if count > self.num_workers}
        if now is not None and known:
            rate = f", {self.network_gbit_per_s:g} Gbit/s between machines" if self.network_gbit_per_s else ""
            said = [
                f"{count} are {'faster' if step < now else 'slower' if step > now else 'no faster'} "
                f"({1e3 * step:.3g} ms a step at least)"
                for count, step in sorted(known.items())
            ]
            return f"on paper {', '.join(said)}{rate}"
        twice = 2 * self.num_workers
        if self.needed_gbit_per_s is None:
            return f"{twice} are no faster on paper, on any network: their shares of a batch are too small"
        return f"{twice} on machines of their own are slower on paper below {self.needed_gbit_per_s:,.0f} Gbit/s between them"

    def to_dict(self) -> dict[str, object]:
        """Return what other programs need of it, as JSON takes it."""
        return {
            "chip": self.chip,
            "num_workers": self.num_workers,
            "seconds": self.seconds,
            "step_seconds": {str(count): step for count, step in self.step_seconds.items()},
            "sent_bytes": {str(count): sent for count, sent in self.sent_bytes.items()},
        }


def paper_forecast(
    step: Step,
    chips: Iterable[str],
    *,
    num_steps: int,
    num_workers: int,
    gpus_per_node: int = 1,
    network_gbit_per_s: float | None = None,
) -> PaperForecast | None:
    """Compute the least time of a run on the first of `chips` (Ray's names) that has a data sheet here; None without one."""
    device = next((CHIPS[chip] for chip in chips if chip in CHIPS), None)
    if device is None:
        return None
    gpu = GPUS[device]
    counts = [num_workers * factor for factor in (1, 2, 4, 8)]
    times = {
        count: _step(step, gpu, count, gpus_per_node, network_gbit_per_s).total
        for count in counts
        if network_gbit_per_s is not None or count <= gpus_per_node
    }
    return PaperForecast(
        chip=device,
        num_steps=num_steps,
        num_workers=num_workers,
        step_seconds=times,
        sent_bytes={n: num_steps * n * communication_bytes(step.size, num_workers=n) for n in counts},
        network_gbit_per_s=network_gbit_per_s,
        needed_gbit_per_s=_needed_rate(step, gpu, num_workers),
    )


def _step(step: Step, gpu: Gpu, num_workers: int, gpus_per_node: int, network_gbit_per_s: float | None) -> StepTime:
    micro_batches = math.ceil(step.tokens / num_workers / step.micro_batch_tokens)
    return step_time(
        step.size,
        gpu,
        num_gpus=num_workers,
        tokens_per_gpu=step.tokens / num_workers,
        length=step.length,
        gpus_per_node=gpus_per_node,
        network_bytes_per_s=(network_gbit_per_s or 1.0) * 1e9 / 8,
        num_launches=launches(step.size, micro_batches=micro_batches, compiled=step.compiled),
    )


def _needed_rate(step: Step, gpu: Gpu, num_workers: int) -> float | None:
    """Return the Gbit/s at which twice the workers, on machines of their own, take a step as fast; None: at no rate.

    Solves `total` of both for the rate: the time that is saved, and what hides behind the backward pass, pay for the messages.
    """
    before, after = (_step(step, gpu, count, count, None) for count in (num_workers, 2 * num_workers))
    saved = before.total - (after.arithmetic + after.optimizer)
    if saved <= 0 or after.launching >= before.total:
        return None
    share = after.can_hide / after.communication  # of the messages that can hide, at any rate
    seconds = min(saved / (1 - share), saved + after.arithmetic * BACKWARD)
    rate = communication_bytes(step.size, num_workers=2 * num_workers) / seconds
    return 8e-9 * rate if rate <= gpu.link_bytes_per_s else None
