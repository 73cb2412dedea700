"""The TorchTrainer of an attempt, made from what its workers are handed."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import TYPE_CHECKING, TypedDict

from sst2_ray import formatting
from sst2_ray.errors import InfeasibleError
from sst2_ray.run.elastic import free_room
from sst2_ray.run.environment import worker_env
from sst2_ray.run.failures import is_placement_timeout
from sst2_ray.run.messages import Note, WorkerPayload
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.ray.state import NodesToCome, nodes_to_come
from sst2_ray.training.outcome import AttemptEnd

if TYPE_CHECKING:
    from ray.train import RunConfig, ScalingConfig


class _LoopConfig(TypedDict):
    """The dict that Ray Train hands to its workers."""

    payload: WorkerPayload


WAIT_ON_S = 60.0
"""Seconds between two looks at machines that are being set up, once the time for placement is over."""


def import_for_fit() -> None:
    """Import what `fit` does: while tokens are made the driver has the time, later the first worker would wait for it."""
    from sst2_ray.run.ray import torch_backend, trainer  # noqa: F401


def fit(payload: WorkerPayload, placement: Placement) -> AttemptEnd:
    """Train with Ray Train and return what rank 0 returned.

    Raises InfeasibleError where the workers are not placed in time and no machine for them is being set up, and what Ray
    Train raises.
    """
    from ray.train import ControllerError

    timeout_s, number = placement.timeout_s(payload.task.config), 0
    while True:
        try:
            return _fit(payload, placement, timeout_s=WAIT_ON_S if number else timeout_s, number=number)
        except ControllerError as error:
            if not is_placement_timeout(error):
                raise
            coming = nodes_to_come() if placement.can_scale else NodesToCome()
            if not coming.are_under_way:
                raise InfeasibleError(not_placed(timeout_s, coming)) from error
            line = f"not placed yet: {_coming_words(coming)}; waiting on beyond --placement-timeout-s {timeout_s:g}"
            payload.progress_actor.post.remote(payload.task.trial_id, Note(line=line))
            number += 1


def not_placed(timeout_s: float, coming: NodesToCome) -> str:
    """Word the end of a wait for places; `sst2-ray submit` looks for these words."""
    why = f"; machines were refused ({'; '.join(coming.refusals)})" if coming.refusals else ""
    return f"the workers were not placed within --placement-timeout-s {timeout_s:g}{why}"


def _coming_words(coming: NodesToCome) -> str:
    counts = {"being set up": coming.num_being_set_up, "asked for": coming.num_requested}
    return ", ".join(f"{formatting.count(count, 'machine')} {what}" for what, count in counts.items() if count)


def _fit(payload: WorkerPayload, placement: Placement, *, timeout_s: float, number: int) -> AttemptEnd:
    """Run one TorchTrainer. `number`: of trainers before it in the same attempt."""
    from sst2_ray.run.ray.torch_backend import NodeTorchConfig
    from sst2_ray.run.ray.trainer import REPLACE_S, ElasticTrainer, Trainer

    config = payload.task.config
    # Otherwise Ray gives up after a minute: too short for a node that has to be started first. Where there is a choice of
    # how many workers, it is made anew every `one_try_s`.
    one_try_s = min(REPLACE_S, timeout_s) if placement.is_elastic else timeout_s
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(one_try_s)
    trainer = partial(ElasticTrainer, room=partial(free_room, placement)) if placement.is_elastic else Trainer
    result = trainer(
        _work,
        train_loop_config=_LoopConfig(payload=payload),
        backend_config=NodeTorchConfig(
            backend="nccl" if placement.use_gpu else "gloo", timeout_s=int(config.step_timeout_s) + 60
        ),
        scaling_config=_scaling(placement),
        run_config=_run_config(payload, placement, num_tries=math.ceil(timeout_s / one_try_s), number=number),
    ).fit()
    end: AttemptEnd = result.return_value
    return end


def _work(config: _LoopConfig) -> AttemptEnd:
    """Import the worker's code on the worker only: the driver needs no torch."""
    from sst2_ray.run.worker import train_worker

    return train_worker(config["payload"])


def _scaling(placement: Placement) -> ScalingConfig:
    from ray.train import ScalingConfig

    bounds = (placement.num_workers, placement.most_workers)
    return ScalingConfig(
        # Where there is a choice, it is made when the attempt starts; whether to change it meanwhile, in elastic.py.
        num_workers=bounds if placement.is_elastic else placement.num_workers,
        elastic_resize_monitor_interval_s=math.inf,
        use_gpu=placement.use_gpu,
        resources_per_worker=placement.resources_per_worker,
        placement_strategy="PACK",
    )


def _run_config(payload: WorkerPayload, placement: Placement, *, num_tries: int, number: int) -> RunConfig:
    """Keep Ray's own bookkeeping below the run; what counts lies beside it, in a form that needs no Ray."""
    from ray.train import FailureConfig, RunConfig

    task, run = payload.task, payload.workspace.storage.child(payload.run_path)
    may_compile = placement.use_gpu and task.config.compile is not False
    env = worker_env(use_gpu=placement.use_gpu, compile_threads=placement.cpus_per_worker if may_compile else None)
    return RunConfig(
        name=f"attempt-{task.attempt}" + (f"-{number}" if number else ""),
        storage_path=f"{run.root}/ray",
        storage_filesystem=None if run.is_local else run.filesystem,
        failure_config=FailureConfig(max_failures=0, controller_failure_limit=num_tries - 1, max_preemption_failures=0),
        worker_runtime_env={"env_vars": env},
    )
