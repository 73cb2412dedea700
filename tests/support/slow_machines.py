"""A provider for Ray's own autoscaler whose machines are processes of this one: they exist long before Ray runs on them, or are refused.

Ray's fake provider starts Ray in the moment in which it is asked for a machine; a cloud takes minutes for that.
"""

from __future__ import annotations

import threading
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException


class SlowMachines(FakeMultiNodeProvider):
    """`provider.set_up_s`: seconds from a machine to Ray on it. `provider.refusal`: every request is refused with this reason."""

    def create_node_with_resources_and_labels(
        self, node_config: Any, tags: dict[str, str], count: int, resources: Any, labels: Any
    ) -> None:
        if refusal := self.provider_config.get("refusal"):
            raise NodeLaunchException(refusal, "no machine of this type is left in the zone", None)
        start = super().create_node_with_resources_and_labels
        with self.lock:
            machine = self._next_hex_node_id()
            self._nodes[machine] = {"tags": dict(tags), "node": None}

        def set_up() -> None:
            with self.lock:
                if machine not in self._nodes:  # ended meanwhile
                    return
                self._next_node_id = int(machine[-5:]) - 1  # the same id for the machine with Ray
                start(node_config, tags, count, resources, labels)

        threading.Timer(float(self.provider_config["set_up_s"]), set_up).start()

    def _terminate_node(self, node: dict[str, Any]) -> None:
        if node["node"] is not None:
            super()._terminate_node(node)
