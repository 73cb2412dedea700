"""The admission's verdict against a search that tries every way to place workers on nodes."""

from __future__ import annotations

import random

import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InfeasibleError
from sst2_ray.run.planning.placement import ClusterView, Node, Placement, decide
from sst2_ray.sweep.concurrency import DRIVER_GIB, admit, concurrency


def node(cpus: float, gpus: float = 0, *, free: tuple[float, float] | None = None, memory: float | None = None) -> Node:
    free_cpus, free_gpus = free or (cpus, gpus)
    return Node(address="n", cpus=cpus, gpus=gpus, free_cpus=free_cpus, free_gpus=free_gpus, memory_gib=memory)


def most_trials_by_search(nodes: list[list[float]], demand: tuple[float, float], num_workers: int) -> int:
    """Place one worker after the other on every node that has room, trying all of them."""
    seen: dict[tuple[tuple[float, ...], ...], int] = {}

    def most_workers(left: list[list[float]]) -> int:
        key = tuple(sorted(tuple(n) for n in left))
        if key not in seen:
            seen[key] = 0
            for n in left:
                if n[0] >= demand[0] and n[1] >= demand[1]:
                    n[0] -= demand[0]
                    n[1] -= demand[1]
                    seen[key] = max(seen[key], 1 + most_workers(left))
                    n[0] += demand[0]
                    n[1] += demand[1]
        return seen[key]

    return most_workers([list(n) for n in nodes]) // num_workers


@pytest.mark.parametrize("case", range(30))
def test_the_verdict_agrees_with_an_exhaustive_search(case: int) -> None:
    draw = random.Random(case)
    use_gpu = draw.random() < 0.5
    shapes = [(float(draw.randint(0, 8)), float(draw.randint(0, 3))) for _ in range(draw.randint(1, 3))]
    types = [
        (float(draw.randint(1, 6)), float(draw.randint(0, 2)), draw.randint(1, 2)) for _ in range(draw.randint(0, 1))
    ]
    placement = Placement(num_workers=draw.randint(1, 4), cpus_per_worker=draw.randint(1, 4), use_gpu=use_gpu)
    everything = [list(s) for s in shapes] + [[c, g] for c, g, count in types for _ in range(count)]
    demand = (float(placement.cpus_per_worker), 1.0 if use_gpu else 0.0)
    most = most_trials_by_search(everything, demand, placement.num_workers)
    view = ClusterView(nodes=tuple(node(*shape) for shape in shapes), node_types=tuple(types))
    if most == 0:
        with pytest.raises(InfeasibleError, match="room for"):
            concurrency(placement, view, max_concurrent=None)
    else:
        assert concurrency(placement, view, max_concurrent=None).ever == most


@pytest.mark.parametrize("case", range(60))
def test_what_fits_on_cpus_with_as_many_cores_as_can_be_is_admitted(case: int) -> None:
    """A head without cores, nodes of several sizes and nodes to come, against a search over every number of cores."""
    draw = random.Random(case)
    shapes = [0, *(draw.choice((0, 1, 2, 3, 4, 8)) for _ in range(draw.randint(0, 3)))]
    types = [(draw.choice((1, 2, 4, 6)), 0, draw.randint(1, 2)) for _ in range(draw.randint(0, 2))]
    everything = [[float(c), 0.0] for c in shapes] + [[float(c), 0.0] for c, _, count in types for _ in range(count)]
    num_workers, trials = draw.randint(1, 3), draw.randint(1, 3)

    def room(cpus: int, for_trials: int) -> bool:
        return most_trials_by_search(everything, (float(cpus), 0.0), num_workers) >= for_trials

    view = ClusterView(nodes=tuple(node(c) for c in shapes), node_types=tuple(types))
    config = TrainConfig(num_workers=num_workers)
    if not room(1, 1):
        with pytest.raises(InfeasibleError, match="room for"):
            admit(config, view, max_concurrent=trials)
        return
    placement, found = admit(config, view, max_concurrent=trials)
    assert placement.cpus_per_worker == max([1, *(cpus for cpus in range(1, 9) if room(cpus, trials))])
    assert found.chosen == max(n for n in range(1, trials + 1) if room(placement.cpus_per_worker, n))
    assert decide(config, view).cpus_per_worker == max(cpus for cpus in range(1, 9) if room(cpus, 1))


def test_trials_on_nodes_that_are_still_to_come_have_their_cores() -> None:
    to_come = ClusterView(nodes=(node(0),), node_types=((8.0, 0.0, 2),))
    placement, found = admit(TrainConfig(), to_come, max_concurrent=4)
    assert (placement.cpus_per_worker, found.chosen) == (4, 4)


def test_more_than_fit_are_never_started() -> None:
    placement, found = admit(TrainConfig(), ClusterView(nodes=(node(2),)), max_concurrent=8)
    assert placement.cpus_per_worker == 1
    assert (found.chosen, found.requested) == (2, 8)
    assert "8 were asked for, no more than 2 fit" in str(found)


def test_a_trial_on_cpu_takes_a_whole_node_unless_several_shall_run_at_once() -> None:
    view = ClusterView(nodes=(node(8), node(8)))
    placement, found = admit(TrainConfig(), view, max_concurrent=None)
    assert (placement.cpus_per_worker, found.chosen, found.cost_share) == (8, 2, 1.0)
    placement, found = admit(TrainConfig(), view, max_concurrent=4)
    assert (placement.cpus_per_worker, found.chosen, found.num_nodes, found.cost_share) == (4, 4, 2, 0.5)


def test_a_trial_takes_one_gpu_unless_more_are_asked_for() -> None:
    view = ClusterView(nodes=(node(2), node(32, 8)))
    placement, found = admit(TrainConfig(), view, max_concurrent=None)
    assert (placement.num_workers, placement.use_gpu, found.chosen) == (1, True, 8)
    assert found.cost_share == pytest.approx(1 / 8)
    placement, found = admit(TrainConfig(num_workers=8), view, max_concurrent=None)
    assert (placement.num_workers, found.chosen, found.cost_share) == (8, 1, 1.0)


def test_a_trial_that_needs_several_nodes_is_counted_whole() -> None:
    view = ClusterView(nodes=(node(8, 2), node(8, 2), node(8, 2)))
    _, found = admit(TrainConfig(num_workers=4), view, max_concurrent=None)
    assert (found.chosen, found.num_nodes) == (1, 2)


def test_memory_limits_how_many_run_at_once_but_never_refuses_the_only_one() -> None:
    view = ClusterView(nodes=(node(16, memory=10),))
    placement = Placement(num_workers=1, cpus_per_worker=1, use_gpu=False)
    found = concurrency(placement, view, max_concurrent=None, worker_memory_gib=3 - DRIVER_GIB)
    assert (found.chosen, found.memory_bound) == (3, True)
    assert concurrency(placement, view, max_concurrent=None, worker_memory_gib=100).chosen == 1


def test_what_others_hold_is_said_and_nodes_to_come_count() -> None:
    view = ClusterView(nodes=(node(4, free=(1, 0)),), node_types=((4.0, 0.0, 2),))
    placement = Placement(num_workers=1, cpus_per_worker=2, use_gpu=False)
    found = concurrency(placement, view, max_concurrent=None)
    assert (found.now, found.ever, found.chosen) == (0, 6, 6)
    assert "0 in what is free now" in str(found)


def test_what_can_never_be_placed_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(InfeasibleError, match=r"9 workers of .* are asked for, room for 2"):
        admit(TrainConfig(num_workers=9, cpus_per_worker=1), ClusterView(nodes=(node(2),)), max_concurrent=None)
