"""Ray Train's process group, made over the interface that the nodes reach each other through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from sst2_ray.errors import RunFailedError
from sst2_ray.network import use_node_interface

if TYPE_CHECKING:
    from ray.train._internal.base_worker_group import BaseWorkerGroup


class _NodeTorchBackend(_TorchBackend):
    """A backend that chooses the interface and checks the GPUs before Ray makes the group."""

    def on_start(self, worker_group: BaseWorkerGroup, backend_config: TorchConfig) -> None:
        """Prepare every worker, then make the group."""
        worker_group.execute(use_node_interface)
        if backend_config.backend == "nccl":
            _refuse_unusable(worker_group.execute(_unusable_gpu))
        super().on_start(worker_group, backend_config)


def _unusable_gpu() -> str | None:
    """Describe the GPU that Ray gave to this worker if torch cannot compute on it; None if it can."""
    import ray
    import ray.train.torch
    import torch

    reason = ""
    if torch.cuda.is_available():
        try:  # a GPU that is newer or older than this build is there, but has no kernels
            torch.ones(1, device=ray.train.torch.get_device()).add_(1).item()
            return None
        except RuntimeError as error:
            reason = f": {str(error).splitlines()[0]}"
    held = ", ".join(map(str, ray.get_gpu_ids()))
    return f"GPU {held} of {ray.util.get_node_ip_address()} (torch {torch.__version__}){reason}"


def _refuse_unusable(gpus: list[str | None]) -> None:
    """Raise RunFailedError if any rank has a GPU that torch cannot use: computing on its CPUs would be slow and costly."""
    unusable = [f"rank {rank}: {gpu}" for rank, gpu in enumerate(gpus) if gpu is not None]
    if unusable:
        raise RunFailedError(
            f"torch cannot compute on the GPUs of {len(unusable)} workers: {'; '.join(unusable)}; "
            "install a CUDA build of torch and a driver that it supports there, or pass --use-gpu False"
        )


@dataclass
class NodeTorchConfig(TorchConfig):
    """A TorchConfig whose workers talk through the interface of their node's Ray address (see `use_node_interface`)."""

    @property
    def backend_cls(self) -> type[_NodeTorchBackend]:
        """Return the backend that Ray Train makes."""
        return _NodeTorchBackend
