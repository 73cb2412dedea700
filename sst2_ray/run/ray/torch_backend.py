"""Ray Train's process group, made over the interface that the nodes reach each other through."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ray.train.backend import Backend, BackendConfig

from sst2_ray.errors import RunFailedError
from sst2_ray.network import use_node_interface

if TYPE_CHECKING:
    from ray.train._internal.base_worker_group import BaseWorkerGroup
    from ray.train.torch import TorchConfig


class _NodeTorchBackend(Backend):
    """A backend that chooses the interface and checks the GPUs before Ray's own for torch makes the group.

    The driver makes one too, and sends it to Train's controller: torch is imported there alone.
    """

    share_cuda_visible_devices = True

    def on_start(self, worker_group: BaseWorkerGroup, backend_config: NodeTorchConfig) -> None:
        """Prepare every worker, then make the group."""
        from ray.train.torch.config import _TorchBackend

        worker_group.execute(use_node_interface)
        if backend_config.backend == "nccl":
            _refuse_unusable(worker_group.execute(_unusable_gpu))
        _TorchBackend().on_start(worker_group, backend_config.of_ray())

    def on_training_start(self, worker_group: BaseWorkerGroup, backend_config: NodeTorchConfig) -> None:
        """Prepare the training function, as Ray's own backend does."""
        from ray.train.torch.config import _TorchBackend

        _TorchBackend().on_training_start(worker_group, backend_config.of_ray())

    def on_shutdown(self, worker_group: BaseWorkerGroup, backend_config: NodeTorchConfig) -> None:
        """Take the group down."""
        from ray.train.torch.config import _TorchBackend

        _TorchBackend().on_shutdown(worker_group, backend_config.of_ray())


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


def _in_torch_s_context() -> AbstractContextManager[object]:
    """Make the context that Ray runs a training function with torch in."""
    from ray.train.torch import TorchConfig

    context: AbstractContextManager[object] = TorchConfig().train_func_context()
    return context


@dataclass
class NodeTorchConfig(BackendConfig):
    """A config like TorchConfig whose workers talk through the interface of their node's Ray address (`use_node_interface`).

    Ray's own imports torch, a second of the driver's, which needs it for nothing else.
    """

    backend: str
    timeout_s: int = 1800

    def of_ray(self) -> TorchConfig:
        """Make Ray's own config. Imports torch."""
        from ray.train.torch import TorchConfig

        return TorchConfig(backend=self.backend, timeout_s=self.timeout_s)

    @property
    def backend_cls(self) -> type[_NodeTorchBackend]:
        """Return the backend that Ray Train makes."""
        return _NodeTorchBackend

    @property
    def train_func_context(self) -> Callable[[], AbstractContextManager[object]]:
        """Return what makes the context of the training function."""
        return _in_torch_s_context

    @property
    def framework(self) -> object:
        """Return Ray's name for torch, which only its own records of runs ask for."""
        return self.of_ray().framework

    def to_dict(self) -> dict[str, object]:
        """Return what Ray's own records of runs show."""
        values: dict[str, object] = self.of_ray().to_dict()
        return values
