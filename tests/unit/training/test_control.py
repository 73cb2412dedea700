"""Tests of when ranks meet, and what rank 0 tells them."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import torch

from sst2_ray.training.control import Control, Decision, checkpoint_interval_s


def control_of(*, every_s=None, leave=lambda: False) -> Control:
    return Control(world_size=1, rank=0, device=torch.device("cpu"), every_s=every_s, preemption_requested=leave)


def test_without_a_clock_and_a_wish_everybody_goes_on():
    control = control_of()
    assert {control.decide() for _ in range(5000)} == {Decision.CONTINUE}


def test_who_is_asked_to_leave_is_asked_at_a_meeting_and_fast_steps_meet_seldom():
    asked = []
    control = control_of(leave=lambda: asked.append(True) or len(asked) == 12)
    steps = 1
    while control.decide() is not Decision.YIELD:
        steps += 1
    assert steps > 500


def test_a_checkpoint_is_due_when_its_seconds_have_passed():
    control = control_of(every_s=0.01)
    control.last_checkpoint = time.monotonic() + 3600
    assert control.decide() is Decision.CONTINUE
    control.last_checkpoint = time.monotonic() - 1
    assert Decision.CHECKPOINT in {control.decide() for _ in range(2000)}


def test_checkpoints_come_as_often_as_loses_the_least_time():
    # The time lost a second is cost / interval + interval / (2 * mean time between failures): least at Young's optimum.
    cost_s, failures_s = 0.5, 900.0
    lost = {every_s: cost_s / every_s + every_s / (2 * failures_s) for every_s in range(1, 300)}
    chosen = checkpoint_interval_s(300.0, cost_s=cost_s, failure_interval_s=failures_s)
    assert chosen == 30.0 == min(lost, key=lost.get)


def test_checkpoints_come_no_more_seldom_than_was_said_and_take_at_most_a_twentieth_of_the_time():
    assert checkpoint_interval_s(300.0, cost_s=0.5, failure_interval_s=None) == 300.0
    assert checkpoint_interval_s(None, cost_s=0.5, failure_interval_s=10.0) is None
    assert checkpoint_interval_s(60.0, cost_s=5.0, failure_interval_s=86400.0) == 60.0
    assert checkpoint_interval_s(300.0, cost_s=1.0, failure_interval_s=10.0) == 20.0


def test_after_a_failure_the_first_checkpoint_comes_at_once_and_tells_what_one_costs():
    control = Control(
        world_size=1, rank=0, device=torch.device("cpu"), every_s=300.0, failure_interval_s=50.0,
        preemption_requested=lambda: False,
    )  # fmt: skip
    assert control.decide() is Decision.CHECKPOINT
    control.saved(0.25)
    assert control.every_s == 5.0
    assert control.decide() is Decision.CONTINUE


def _meet(rank: int, port: int, out: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    deadline = time.monotonic() + 1.0
    control = Control(
        world_size=2, rank=rank, device=torch.device("cpu"), every_s=None,
        preemption_requested=lambda: rank == 0 and time.monotonic() > deadline,
    )  # fmt: skip
    steps = 1
    while control.decide() is not Decision.YIELD:
        steps += 1
        time.sleep(0.001 * (1 + rank))  # one is slower than the other
    Path(f"{out}/{rank}").write_text(str(steps))
    torch.distributed.destroy_process_group()


def test_all_ranks_leave_at_the_same_step_though_rank_0_alone_was_asked(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(_meet, args=(port, str(tmp_path)), nprocs=2, start_method="spawn")
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text()
