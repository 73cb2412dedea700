"""Ray Train's process group, made over the interface that the nodes reach each other through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from sst2_ray.launch.network import use_node_interface


class _NodeTorchBackend(_TorchBackend):
    """Ray makes the group before the training function runs: the interface must be chosen here."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(use_node_interface)
        super().on_start(worker_group, backend_config)


@dataclass
class NodeTorchConfig(TorchConfig):
    """TorchConfig whose workers talk through the interface of their node's Ray address (see `use_node_interface`)."""

    @property
    def backend_cls(self) -> type[_NodeTorchBackend]:
        """Ray Train asks the config for its backend."""
        return _NodeTorchBackend
