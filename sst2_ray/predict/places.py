"""Places of the workers that label folders: what each of them gets, and how long they wait for it."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from sst2_ray.errors import InfeasibleError
from sst2_ray.predict.config import PredictConfig

if TYPE_CHECKING:
    from sst2_ray.config.train import TrainConfig
    from sst2_ray.run.planning.placement import ClusterView, Placement


def placement_of(job: PredictConfig, view: ClusterView) -> Placement:
    """Decide what a worker gets. Raises InfeasibleError with the arithmetic."""
    from sst2_ray.run.planning.placement import decide

    return decide(_as_run(job), view)


def _as_run(job: PredictConfig) -> TrainConfig:
    """Return the run that asks for the same places."""
    from sst2_ray.config.train import TrainConfig

    use_gpu = {"cpu": False, "cuda": True}.get(job.device)
    return TrainConfig(
        batch_size=1, num_workers=job.num_workers, use_gpu=use_gpu, placement_timeout_s=job.placement_timeout_s
    )


def wait_for_place(ray: ModuleType, job: PredictConfig, placement: Placement) -> None:
    """Wait until a worker finds a place; Ray Data itself would wait for ever.

    Raises:
        InfeasibleError: None has found one in time.
    """
    within_s = placement.timeout_s(_as_run(job))

    def probe() -> None:
        """Take a worker's place for a moment."""

    answer = ray.remote(num_cpus=placement.cpus_per_worker, num_gpus=int(placement.use_gpu))(probe).remote()
    if not ray.wait([answer], timeout=within_s)[0]:
        ray.cancel(answer, force=True)
        raise InfeasibleError(
            f"--num-workers {job.num_workers}: no worker has found a place within --placement-timeout-s {within_s:g} "
            f"({placement} are asked for; others hold the cluster's cores); wait until they are done, or raise it"
        )
