"""Whether a run fits a cluster, from numbers alone."""

from __future__ import annotations

import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InfeasibleError, InputError
from sst2_ray.run.planning.nodes import addable_types, this_machine
from sst2_ray.run.planning.placement import (
    ClusterView,
    Node,
    Placement,
    decide,
    workers_that_fit,
)
from sst2_ray.run.ray.node_types import NodeGroup


def cluster(*shapes: tuple[float, float], types=()) -> ClusterView:
    """Nodes of (CPUs, GPUs), and what an autoscaler may add: (CPUs, GPUs, most nodes)."""
    nodes = tuple(
        Node(address=f"10.0.0.{i}", cpus=cpus, gpus=gpus, free_cpus=cpus, free_gpus=gpus)
        for i, (cpus, gpus) in enumerate(shapes)
    )
    return ClusterView(nodes=nodes, node_types=tuple(types))


@pytest.mark.parametrize(
    ("shapes", "types", "config", "workers", "cpus", "use_gpu"),
    [
        # No GPU: one worker with all the cores of the largest node.
        ([(2, 0)], [], {}, 1, 2, False),
        ([(2, 0), (8, 0)], [], {}, 1, 8, False),
        ([(2, 0)], [], {"num_workers": 2}, 2, 1, False),
        ([(4, 0), (4, 0)], [], {"num_workers": 2}, 2, 4, False),
        # Nodes of several sizes, a head without cores, nodes to come: as many cores each as all of them can have.
        ([(0, 0), (8, 0)], [], {"num_workers": 2}, 2, 4, False),
        ([(16, 0), (4, 0)], [], {"num_workers": 2}, 2, 8, False),
        ([(0, 0)], [(8, 0, 1)], {"num_workers": 4}, 4, 2, False),
        ([(0, 0)], [(8, 0, 4)], {"num_workers": 4}, 4, 8, False),
        # One worker a GPU, at most 8 cores each.
        ([(32, 4)], [], {}, 4, 8, True),
        ([(8, 4), (8, 4)], [], {}, 8, 2, True),
        ([(8, 4)], [], {"num_workers": 2, "cpus_per_worker": 3}, 2, 3, True),
        ([(8, 4)], [], {"use_gpu": False}, 1, 8, False),
        # A small head, and GPU nodes that the autoscaler may add.
        ([(2, 0)], [(16, 1, 4)], {}, 4, 8, True),
        ([(0, 0)], [(2, 0, 2)], {"num_workers": 2}, 2, 2, False),
    ],
)
def test_what_the_config_leaves_open_is_filled_in(shapes, types, config, workers, cpus, use_gpu):
    placement = decide(TrainConfig(**config), cluster(*shapes, types=types))
    assert placement == Placement(num_workers=workers, cpus_per_worker=cpus, use_gpu=use_gpu)


@pytest.mark.parametrize(
    ("shapes", "types", "config", "arithmetic"),
    [
        ([(2, 0)], [], {"num_workers": 3}, "3 workers of 1 CPU are asked for, room for 2 is all there can be"),
        ([(8, 2)], [], {"num_workers": 3}, "3 workers of 4 CPUs and 1 GPU are asked for, room for 2"),
        ([(8, 0)], [], {"use_gpu": True}, "1 worker of 1 CPU and 1 GPU are asked for, room for 0"),
        # GPUs without cores beside them are of no use.
        ([(2, 4)], [], {"num_workers": 4, "cpus_per_worker": 1}, "room for 2"),
        # A worker lies on one node: two halves are no whole.
        ([(2, 0), (2, 0)], [], {"cpus_per_worker": 3}, "1 worker of 3 CPUs are asked for, room for 0"),
        ([(2, 0)], [(16, 1, 4)], {"num_workers": 5}, "its autoscaler can add 4 x (16 CPUs, 1 GPUs)"),
    ],
)
def test_what_can_never_be_placed_is_refused_with_the_arithmetic(shapes, types, config, arithmetic):
    with pytest.raises(InfeasibleError) as refused:
        decide(TrainConfig(**config), cluster(*shapes, types=types))
    assert arithmetic in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("asked", [{"attention": "flash_attention_2"}, {"compile": True}])
def test_what_needs_a_gpu_is_refused_where_workers_have_none(asked):
    flag = f"--{next(iter(asked))}"
    with pytest.raises(InputError, match=f"^{flag}.*the workers have none"):
        decide(TrainConfig(**asked), cluster((8, 0)))
    with pytest.raises(InputError, match=f"^{flag}"):
        decide(TrainConfig(**asked, use_gpu=False), cluster((8, 4)))
    assert decide(TrainConfig(**asked), cluster((8, 4))).use_gpu
    assert decide(TrainConfig(**asked), cluster((2, 0), types=[(16, 1, 4)])).use_gpu


def test_workers_are_counted_a_node():
    placement = Placement(num_workers=1, cpus_per_worker=3, use_gpu=True)
    assert workers_that_fit([(8, 4), (3, 1), (2, 8), (9, 0)], placement) == 3


@pytest.mark.parametrize(
    ("shapes", "more"),
    [
        ([], [(8.0, 1.0, 8), (8.0, 1.0, 2), (16.0, 0.0, 3)]),
        ([(0, 0), *[(8, 1)] * 3], [(8.0, 1.0, 5), (8.0, 1.0, 2), (16.0, 0.0, 3)]),
        ([(8, 1)] * 9 + [(16, 0)], [(8.0, 1.0, 1), (16.0, 0.0, 2)]),
        ([(8, 1)] * 10, [(16.0, 0.0, 3)]),
    ],
)
def test_a_node_that_is_there_is_taken_from_one_type_only(shapes, more):
    """Spot and on-demand nodes of one shape, and a type of another."""
    groups = [
        NodeGroup(name="spot", resources={"CPU": 8, "GPU": 1}, max_count=8),
        NodeGroup(name="on_demand", resources={"CPU": 8, "GPU": 1}, max_count=2),
        NodeGroup(name="cpu", resources={"CPU": 16}, max_count=3),
    ]
    assert addable_types(groups, cluster(*shapes).nodes) == tuple(more)


def test_this_machine_has_a_core():
    (node,) = this_machine().nodes
    assert node.cpus >= 1
    assert node.free_cpus == node.cpus


def test_this_machine_has_what_ray_is_told(monkeypatch):
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 7, "GPU": 3}')
    (node,) = this_machine().nodes
    assert (node.cpus, node.gpus) == (7, 3)
