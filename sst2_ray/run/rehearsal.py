"""A rehearsal: 20 optimizer steps of the real loop on one node, through Ray Train and ZeRO-2, on made-up sentences.

`doctor --rehearse` calls it by name inside a task on the node. It needs no data, no weights and no storage but the node's
own: what fails here would fail in a run.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from typing import TYPE_CHECKING

from sst2_ray.data.tokens import TokenArrays

if TYPE_CHECKING:
    from sst2_ray.training.task import Task

STEPS, WARM_UP_STEPS = 20, 3
BATCH_SIZE = 32
_LENGTH = 16
"""Tokens of a sentence."""

_START_TIMEOUT_S = 120
_TEXT = "a gripping , funny film that never comes to life uneasy warm engaging slow and clever"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Figures of a rehearsal, as its worker measured them."""

    steps_per_sec: float
    """Rate after warm-up."""
    train_loss: float
    device: str
    """Name of the GPU; empty: its CPUs."""
    precision: str
    attention: str
    peak_memory_gib: float


def rehearse(address: str, *, cpus: int, use_gpu: bool) -> dict[str, float | str]:
    """Train with one worker on the node at `address`, on which this is called; returns the fields of Rehearsal.

    Raises what Ray Train raises.
    """
    import os

    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from sst2_ray.run.environment import worker_env
    from sst2_ray.run.ray.torch_backend import NodeTorchConfig
    from sst2_ray.run.ray.trainer import Trainer

    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(_START_TIMEOUT_S)
    with tempfile.TemporaryDirectory() as folder:
        result = Trainer(
            _take_steps,
            backend_config=NodeTorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=1,
                use_gpu=use_gpu,
                # Every node has a resource of its own name: the worker runs on this one, where `folder` is.
                resources_per_worker={"CPU": cpus, "GPU": int(use_gpu), f"node:{address}": 0.001},
            ),
            run_config=RunConfig(
                name="rehearsal",
                storage_path=folder,
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
                worker_runtime_env={"env_vars": worker_env(use_gpu=use_gpu, compile_threads=cpus if use_gpu else None)},
            ),
        ).fit()
    found: dict[str, float | str] = result.return_value
    return found


def _take_steps() -> dict[str, float | str]:
    """Take the steps, on the worker: ModernBERT's base shape on a GPU, its mini shape on CPUs, from random weights."""
    import ray.train.torch
    import torch

    from sst2_ray.training.calibrate import loop_of, measure_steps
    from sst2_ray.training.throughput import peak_memory_gib

    device = ray.train.torch.get_device()
    task, tokens = made_up_task(base_shape=device.type == "cuda")
    loop = loop_of(task, tokens, device=device)
    measure_steps(loop, WARM_UP_STEPS)
    loop.sums.zero_()
    _, seconds = measure_steps(loop, STEPS)
    loss_sum, _, count = loop.sums.tolist()
    rehearsed = Rehearsal(
        steps_per_sec=STEPS / seconds,
        train_loss=loss_sum / count,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        precision="bf16" if loop.context.bf16 else "fp32",
        attention=loop.context.model.info.attention,
        peak_memory_gib=peak_memory_gib(device),
    )
    return dataclasses.asdict(rehearsed)


def made_up_task(*, base_shape: bool) -> tuple[Task, dict[str, TokenArrays]]:
    """Make the task of a worker and its tokens by split, out of nothing."""
    from sst2_ray.config.registry import MODELS
    from sst2_ray.config.train import TrainConfig
    from sst2_ray.modeling.sources import resolve_model
    from sst2_ray.modeling.tokenizers import load_tokenizer, tokenizer_to_json
    from sst2_ray.training.task import Task

    config = TrainConfig(model="modernbert-mini", batch_size=BATCH_SIZE, epochs=100)
    resolved = resolve_model(config)
    if base_shape:
        architecture = {"model_type": "modernbert", **MODELS["modernbert-base"].shape}
        resolved = dataclasses.replace(resolved, architecture=architecture)
    tokenizer = load_tokenizer(resolved, lambda: [_TEXT])
    task = Task(
        config=config,
        experiment="rehearsal",
        trial_id="rehearsal",
        attempt=0,
        resolved=resolved,
        tokenizer_json=tokenizer_to_json(tokenizer),
        micro_batch_tokens=None,
        source="",
        eval_split="dev",
        corpora=(),
        started_at=time.time(),
    )
    rows = (STEPS + WARM_UP_STEPS) * BATCH_SIZE
    return task, {"train": made_up_tokens(rows, len(tokenizer)), "dev": made_up_tokens(BATCH_SIZE, len(tokenizer))}


def made_up_tokens(rows: int, vocabulary: int) -> TokenArrays:
    """Make sentences of random tokens with random labels, the same every time."""
    import numpy as np

    chance = np.random.default_rng(0)
    return TokenArrays(
        input_ids=chance.integers(0, vocabulary, rows * _LENGTH).astype(np.int32),
        offsets=np.arange(rows + 1, dtype=np.int64) * _LENGTH,
        labels=chance.integers(0, 2, rows).astype(np.int16),
        row_ids=np.arange(rows, dtype=np.int64),
        num_truncated=0,
    )
