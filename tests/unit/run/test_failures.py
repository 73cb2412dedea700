"""Classes of failures, from exceptions as Ray and torch raise them."""

from __future__ import annotations

import errno
import pickle

import pytest
import torch
from ray.exceptions import ActorDiedError, NodeDiedError, ObjectStoreFullError, OutOfDiskError, OutOfMemoryError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from safetensors import SafetensorError

from sst2_ray.errors import FailureClass, InfeasibleError, InputError, RunFailedError
from sst2_ray.run.failures import RETRIED, HeadLostError, classify, failure_interval_s, is_placement_timeout
from sst2_ray.training.engine.base import NonFiniteError
from tests.support.records import trial

GLOO = RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4242")


def of_workers(*errors: BaseException) -> WorkerGroupError:
    return WorkerGroupError("training failed", dict(enumerate(errors)))


@pytest.mark.parametrize(
    ("error", "failure_class"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "out_of_memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out_of_memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"), "bug"),
        (NonFiniteError("gradient norm nan at step 3"), "non_finite"),
        (ActorDiedError(), "worker_lost"),
        (NodeDiedError("gone"), "worker_lost"),
        (GLOO, "worker_lost"),
        (torch.distributed.DistNetworkError("Broken pipe"), "worker_lost"),
        (RunFailedError("the folder is not on this node", "data_error"), "data_error"),
        (InputError("--compile: no C compiler on this worker"), "data_error"),
        (OSError(errno.ENOSPC, "No space left on device"), "storage_error"),
        (OSError(errno.EROFS, "Read-only file system"), "storage_error"),
        (OutOfMemoryError("Task was killed due to the node running low on memory."), "out_of_memory"),
        (ObjectStoreFullError("object of 2 GiB"), "out_of_memory"),
        (OutOfDiskError("objects cannot be spilled"), "storage_error"),
        (SafetensorError("Error while serializing: I/O error: Input/output error (os error 5)"), "storage_error"),
        (ZeroDivisionError("division by zero"), "bug"),
    ],
)
def test_a_failure_of_a_worker_has_its_class(error, failure_class):
    failure = classify(of_workers(error))
    assert failure.failure_class == failure_class
    assert failure.failure_class in set(FailureClass)
    assert failure.message.startswith("rank 0: ")
    assert "\n" not in failure.message


def test_the_rank_that_failed_is_named_not_those_that_waited_for_it():
    failure = classify(of_workers(GLOO, ActorDiedError(), NonFiniteError("gradient norm nan at step 3"), GLOO))
    assert failure.failure_class == "non_finite"
    assert failure.message == "rank 2: NonFiniteError: gradient norm nan at step 3"


def test_a_bug_is_told_before_the_collectives_it_broke():
    assert classify(of_workers(GLOO, ZeroDivisionError("x"))).message == "rank 1: ZeroDivisionError: x"


def test_what_a_watchdog_said_counts():
    failure = classify(of_workers(ActorDiedError()), hung="rank 1 made no progress for 60 s at step 7, in forward")
    assert (failure.failure_class, failure.message[:6]) == ("hung", "rank 1")


def test_workers_that_were_never_placed():
    assert is_placement_timeout(ControllerError(RuntimeError("WorkerGroupStartupTimeoutError: timed out")))
    assert is_placement_timeout(pickle.loads(pickle.dumps(ControllerError(WorkerGroupStartupTimeoutError(2)))))
    failure = classify(InfeasibleError("the workers were not placed within --placement-timeout-s 600"))
    assert failure.failure_class == "not_placeable"
    assert failure.message == "the workers were not placed within --placement-timeout-s 600"


@pytest.mark.parametrize(
    "error",
    [
        torch.distributed.DistStoreError("Timed out after 61 seconds waiting for clients. 1/2 clients joined."),
        RuntimeError("Timed out after 61 seconds waiting for clients. 1/2 clients joined."),
        RuntimeError("The client socket has timed out after 60000ms while trying to connect to (10.0.0.1, 4242)."),
        RuntimeError("[1]: Timed out waiting 60000ms for recv operation to complete"),
    ],
)
def test_workers_that_did_not_find_each_other_were_placed(error):
    raised = ControllerError(error)
    assert not is_placement_timeout(raised)
    failure = classify(raised)
    assert (failure.failure_class, failure.may_retry) == ("worker_lost", True)


def test_without_a_head_there_is_nothing_to_try_again_on():
    failure = classify(HeadLostError("Ray's head at 10.0.0.1:6379 has not answered for 45 s"))
    assert (failure.failure_class, failure.may_retry) == ("worker_lost", False)
    assert classify(of_workers(ActorDiedError())).may_retry


def test_the_trace_holds_this_projects_frames_alone():
    error = ZeroDivisionError("x")
    error._traceback_str = (
        'Traceback\n  File "/venv/ray/train.py", line 1, in run\n    go()\n'
        '  File "/venv/sst2_ray/training/loop.py", line 9, in _train_step\n    1 / 0\nZeroDivisionError: x'
    )
    trace = classify(of_workers(error)).trace
    assert "training/loop.py" in trace
    assert "ray/train.py" not in trace
    assert trace.endswith("ZeroDivisionError: x")


def test_trying_again_is_for_what_another_time_may_go_well():
    assert set(FailureClass) >= RETRIED
    assert not RETRIED & {"non_finite", "data_error", "bug", "user_stop", "not_placeable"}


def test_the_time_between_failures_counts_those_that_come_without_a_notice():
    rows = [
        trial("a", status="failed", failure_class="worker_lost", seconds=40.0),
        trial("a", status="stopped", failure_class="preempted", seconds=30.0),
        trial("a", status="lost", failure_class="worker_lost", seconds=None),
        trial("a", status="failed", failure_class="out_of_memory", seconds=10.0),
    ]
    assert failure_interval_s(rows) == 40.0
    assert failure_interval_s(rows[1:2]) is None
