"""Tests of who holds the others up, who is asked to leave, and what `--num-workers 1:2` means; no cluster is needed for it."""

from __future__ import annotations

import pytest

from sst2_ray.config.sources import read_train_command
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InfeasibleError, InputError
from sst2_ray.run import elastic
from sst2_ray.run.elastic import Elasticity
from sst2_ray.run.liveness import place_of_hang
from sst2_ray.run.messages import Heartbeat, NodeFacts
from sst2_ray.run.planning.placement import ClusterView, Node, Placement, decide
from sst2_ray.run.progress_actor import ProgressActor
from sst2_ray.training.names import Phase


def heartbeat(step: int, phase: str, *, age: float = 0.5) -> Heartbeat:
    return Heartbeat(global_step=step, phase=Phase(phase), still_s=9.0, age_s=age)


def test_a_silent_rank_is_the_one_that_was_stopped():
    said = place_of_hang({0: heartbeat(17, "communication"), 1: heartbeat(16, "backward", age=9)})
    assert said == "rank 1 was stopped or cannot be reached: last heard of at step 16, in backward"


@pytest.mark.parametrize("steps", [(17, 17), (17, 16)])
def test_where_all_are_heard_it_is_the_one_that_the_others_wait_for(steps):
    said = place_of_hang({0: heartbeat(steps[0], "communication"), 1: heartbeat(steps[1], "data")})
    assert said == f"rank 1 makes no progress at step {steps[1]}, in data"


def test_of_two_ranks_outside_of_a_step_it_is_the_one_that_is_not_as_far():
    said = place_of_hang({0: heartbeat(60, "evaluation"), 1: heartbeat(60, "training")})
    assert said == "rank 1 makes no progress at step 60, in training"


def test_who_has_heard_nothing_accuses_nobody():
    assert place_of_hang({}) is None


def test_workers_hear_with_their_heartbeat_that_they_are_asked_to_leave():
    actor, alive = ProgressActor(), heartbeat(3, "training")
    actor.open("trial")
    assert actor.heartbeat("trial", 0, alive) is False
    actor.request_preemption("trial")
    assert actor.heartbeat("trial", 1, alive) is True
    actor.open("trial")  # the next attempt
    assert actor.heartbeat("trial", 0, alive) is False


def workers_on(*nodes: str) -> list[NodeFacts]:
    return [
        NodeFacts(
            rank=rank, world_size=len(nodes), node_id=node, address=f"10.0.0.{rank}", gpu=None, cuda=None, actor=None,
            placement_group=None,
        )
        for rank, node in enumerate(nodes)
    ]  # fmt: skip


def test_a_node_that_is_taken_sends_its_workers_away(monkeypatch):
    monkeypatch.setattr(elastic, "draining_nodes", lambda: {"b", "elsewhere"})
    monkeypatch.setattr(elastic, "free_room", lambda *_: 0)
    asked = Elasticity(Placement(num_workers=2, cpus_per_worker=1, use_gpu=False))
    assert asked.why_leave([]) is None
    assert asked.why_leave(workers_on("a", "b")[:1]) is None  # one has not said where it is
    leaving = asked.why_leave(workers_on("a", "b"))
    assert (leaving.preempted, leaving.reason) == (True, "node 10.0.0.1 is taken away")
    assert asked.why_leave(workers_on("a", "c")) is None


def test_room_that_lasts_is_used_up_to_the_most_workers(monkeypatch):
    monkeypatch.setattr(elastic, "draining_nodes", set)
    rooms = iter([1, 0, 1, 1])
    monkeypatch.setattr(elastic, "free_room", lambda *_: next(rooms))
    asked = Elasticity(Placement(num_workers=1, cpus_per_worker=1, use_gpu=False, max_workers=2))
    assert asked.why_leave(workers_on("a", "b")) is None  # as many as it may have: nobody looks for room
    answers = [asked.why_leave(workers_on("a")) for _ in range(4)]
    assert answers[:3] == [None, None, None]
    assert (answers[3].preempted, answers[3].reason) == (False, "there is room for 1 more worker")


def test_a_range_of_workers_is_two_numbers_and_no_other_numbers():
    _, config = read_train_command(["--num-workers", "2:8"], prog="train")
    assert (config.num_workers, config.max_workers) == (2, 8)
    assert config.config_hash == TrainConfig().config_hash
    _, config = read_train_command(["--num-workers=3"], prog="train")
    assert (config.num_workers, config.max_workers) == (3, None)
    with pytest.raises(InputError, match="--num-workers 8:2: the second number must be at least the first"):
        read_train_command(["--num-workers", "8:2"], prog="train")


def test_an_elastic_run_is_admitted_where_its_fewest_workers_fit():
    node = Node(address="a", cpus=1, gpus=0, free_cpus=1, free_gpus=0)
    config = TrainConfig(num_workers=1, max_workers=2)
    placement = decide(config, ClusterView(nodes=(node,)))
    assert (placement.num_workers, placement.most_workers, placement.cpus_per_worker) == (1, 2, 1)
    assert str(placement) == "1 to 2 workers of 1 CPU"
    with pytest.raises(InfeasibleError):
        decide(TrainConfig(num_workers=2, max_workers=3, cpus_per_worker=1), ClusterView(nodes=(node,)))
