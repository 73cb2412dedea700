"""The watchdog of a worker: whoever moves is left alone, however slow; whoever hangs is ended."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from sst2_ray.run.worker import HUNG_EXIT_CODE, WorkerReporter
from sst2_ray.training.names import Phase

EVALUATE = """
import sys, time
from types import SimpleNamespace
import ray, torch
from sst2_ray.run.worker import WorkerReporter, watchdog
from sst2_ray.training.evaluate import compute_logits
from tests.support.tokens import review_lengths, token_arrays

NUM_BATCHES, BATCH_S, HANGS_AT = 40, 0.15, int(sys.argv[1])
ray.get = lambda *_, **__: False  # nobody asks it to leave
told = SimpleNamespace(remote=lambda *_: None)
reporter = WorkerReporter(SimpleNamespace(progress=told, post=told, heartbeat=told), "trial", None, 0)


class Slow(torch.nn.Module):
    done = 0
    info = SimpleNamespace(labels=("negative", "positive"))

    def forward(self, ids, mask):
        self.done += 1
        time.sleep(600 if self.done == HANGS_AT else BATCH_S)
        return torch.zeros(len(ids), 2)


with watchdog(reporter, 2.0, lambda: None):
    timer = SimpleNamespace(training_seconds=1.0, num_examples=1, seconds={}, current="evaluation")
    reporter.progress(global_step=1, total_steps=1, epoch=1.0, train_loss=None, timer=timer)
    start = time.monotonic()
    tokens = token_arrays(review_lengths(NUM_BATCHES), vocabulary=100)
    compute_logits(
        Slow(), tokens, bf16=False, pad_id=0, max_tokens=1, device=torch.device("cpu"), on_batch=reporter.alive
    )
    assert time.monotonic() - start > 2.0
"""


def evaluation(*, hangs_at: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", EVALUATE, str(hangs_at)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_an_evaluation_that_lasts_longer_than_the_time_out_is_left_alone():
    done = evaluation(hangs_at=0)
    assert done.returncode == 0, done.stderr


def test_a_batch_that_hangs_is_found():
    done = evaluation(hangs_at=5)
    assert done.returncode == HUNG_EXIT_CODE, done.stderr
    assert "rank 0 made no progress for 2 s at step 1, in evaluation" in done.stderr


class Deaf:
    """A progress actor that takes everything."""

    def __getattr__(self, _):
        return self

    def __call__(self, *_):
        return None


@pytest.mark.parametrize(
    ("phase", "tells_progress"),
    [
        (Phase.MODEL, False),
        (Phase.BEST_WEIGHTS, False),
        (Phase.EXPORT, False),
        (Phase.UPLOAD, False),
        (Phase.EVALUATION, True),
    ],
)
def test_what_tells_nothing_on_its_way_has_longer(phase, tells_progress):
    reporter = WorkerReporter(Deaf(), "trial", None, 0)
    assert not reporter.tells_progress
    reporter.phase(phase)
    assert reporter.tells_progress is tells_progress
    assert reporter._where() == (0, phase)


def test_the_last_loss_that_was_read_is_told_until_the_next_one(monkeypatch):
    told = []
    reporter = WorkerReporter(Deaf(), "trial", None, 0)
    monkeypatch.setattr(reporter, "_send", told.append)
    timer = SimpleNamespace(training_seconds=1.0, num_examples=1, seconds={})
    for step, loss in enumerate([None, 0.5, None], start=1):  # the second is too soon after the first to be told
        reporter._told -= reporter.INTERVAL_S if step == 3 else 0.0
        reporter.progress(global_step=step, total_steps=9, epoch=0.1, train_loss=loss, timer=timer)
    assert [progress.train_loss for progress in told] == [None, 0.5]
