"""Tests of whether a run fits a cluster, from numbers alone."""

from __future__ import annotations

import dataclasses

import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InfeasibleError, InputError
from sst2_ray.run.planning.placement import (
    ClusterView,
    Node,
    Placement,
    decide,
    workers_that_fit,
)


def cluster(*shapes: tuple[float, float], types=()) -> ClusterView:
    """Make a cluster of nodes of (CPUs, GPUs), and what an autoscaler may add: (CPUs, GPUs, most nodes)."""
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
        # A small head, and GPU nodes that the autoscaler may add, which cost: one, however many happen to be there.
        ([(2, 0)], [(16, 1, 4)], {}, 1, 8, True),
        ([(2, 0), (16, 1), (16, 1)], [(16, 1, 2)], {}, 1, 8, True),
        ([(2, 0)], [(16, 1, 4)], {"num_workers": 4}, 4, 8, True),
        ([(0, 0)], [(2, 0, 2)], {"num_workers": 2}, 2, 2, False),
    ],
)
def test_what_the_config_leaves_open_is_filled_in(shapes, types, config, workers, cpus, use_gpu):
    placement = decide(TrainConfig(**config), cluster(*shapes, types=types))
    assert placement == Placement(num_workers=workers, cpus_per_worker=cpus, use_gpu=use_gpu, can_scale=bool(types))


def test_a_cluster_that_has_grown_to_its_limit_still_gives_one_worker():
    grown = dataclasses.replace(cluster((0, 0), (8, 1), (8, 1)), autoscales=True)
    assert decide(TrainConfig(), grown).num_workers == 1
    assert decide(TrainConfig(), cluster((8, 1), (8, 1))).num_workers == 2


@pytest.mark.parametrize(
    ("shapes", "types", "config", "arithmetic"),
    [
        ([(2, 0)], [], {"num_workers": 3}, "3 workers of 1 CPU are asked for, room for 2 is all there can be"),
        ([(8, 2)], [], {"num_workers": 3}, "3 workers of 4 CPUs and 1 GPU are asked for, room for 2"),
        ([(8, 0)], [], {"use_gpu": True}, "--use-gpu True: there is no GPU here (1 node without one); leave it out"),
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


@pytest.mark.parametrize("asked", [{"attention": "flash_attention_2"}, {"attention": "varlen"}, {"compile": True}])
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
