"""When ranks meet, and what rank 0 tells them."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import torch

from sst2_ray.training.control import Control, Decision


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
