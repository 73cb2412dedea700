"""Which class a failure is of, in one line, and whether trying again can help."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from sst2_ray.errors import FailureClass

_LOST = frozenset(
    {
        "RayActorError",
        "ActorDiedError",
        "ActorUnavailableError",
        "NodeDiedError",
        "WorkerCrashedError",
        "WorkerHealthCheckFailedError",
        "WorkerHealthCheckTimeoutError",
    }
)
"""Ray's exceptions for a process or a node that is gone."""


class HeadLostError(Exception):
    """Ray's head does not answer any more: without it nothing new starts, and what runs ends within a minute."""


RETRIED = frozenset({FailureClass.WORKER_LOST, FailureClass.PREEMPTED, FailureClass.HUNG, FailureClass.OUT_OF_MEMORY})


@dataclass(frozen=True, kw_only=True)
class Failure:
    """`failure_class` is a FailureClass; `trace` holds this project's frames."""

    failure_class: FailureClass
    message: str
    trace: str = ""
    head_lost: bool = False
    """There is no Ray to try again on."""

    @property
    def may_retry(self) -> bool:
        return self.failure_class in RETRIED and not self.head_lost


def classify(error: BaseException, *, hung: str | None = None) -> Failure:
    """From what `TorchTrainer.fit` raised. `hung`: what a worker's watchdog said before it ended its process."""
    from ray.train import ControllerError, WorkerGroupError

    if isinstance(error, HeadLostError):
        return Failure(failure_class=FailureClass.WORKER_LOST, message=str(error), head_lost=True)
    if isinstance(error, WorkerGroupError):
        rank, cause = _root(error)
        failure_class = FailureClass.HUNG if hung else _class_of(cause)
        message = hung or f"rank {rank}: {_line(cause)}"
        return Failure(failure_class=failure_class, message=message, trace=_own_frames(cause))
    if isinstance(error, ControllerError):
        text = str(error)
        if "StartupTimeout" in text or "timed out" in text.lower():
            return Failure(
                failure_class=FailureClass.NOT_PLACEABLE,
                message="the workers were not placed within --placement-timeout-s",
            )
        return Failure(failure_class=_class_of(error.controller_failure), message=_line(error.controller_failure))
    if type(error).__name__ == "PreemptionError":
        return Failure(failure_class=FailureClass.PREEMPTED, message=_line(error))
    return Failure(failure_class=_class_of(error), message=_line(error), trace=_own_frames(error))


def _root(error: object) -> tuple[int, BaseException]:
    """The failure that says most: an exception of the code rather than the loss of the ranks that waited for it."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    ranked = sorted(
        failures.items(),
        key=lambda item: (
            _class_of(item[1]) in (FailureClass.WORKER_LOST, FailureClass.BUG),
            _is_collective(item[1]),
            item[0],
        ),
    )
    return ranked[0] if ranked else (0, RuntimeError(str(error)))


def _is_collective(error: BaseException) -> bool:
    """What the other ranks say when one has gone: their collective broke."""
    text = str(error)
    # The store through which ranks find each other, or a collective's connection.
    return bool(_names(error) & {"DistNetworkError", "DistStoreError", "DistBackendError"}) or any(
        mark in text
        for mark in ("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL", "Timed out waiting")
    )


def _names(error: BaseException) -> set[str]:
    names, seen = set(), error
    for _ in range(5):
        names |= {c.__name__ for c in type(seen).__mro__}
        following = getattr(seen, "_base_exc", None) or seen.__cause__ or getattr(seen, "cause", None)
        if not isinstance(following, BaseException) or following is seen:
            break
        seen = following
    return names


def _class_of(error: BaseException) -> FailureClass:
    names, text = _names(error), str(error)
    if "NonFiniteError" in names or "NonFiniteError" in text:
        return FailureClass.NON_FINITE
    if "InputError" in names:  # what only a worker can find out, such as a compiler that its node lacks
        return FailureClass.DATA_ERROR
    if (
        names & {"OutOfMemoryError", "MemoryError", "ObjectStoreFullError"}
        or "OutOfMemoryError" in text
        or "out of memory" in text
    ):
        return FailureClass.OUT_OF_MEMORY
    if names & _LOST:
        return FailureClass.WORKER_LOST
    if _is_collective(error):
        return FailureClass.WORKER_LOST
    own_class = getattr(error, "failure_class", None)
    if own_class:
        return FailureClass(own_class)
    if "PreemptionError" in names:
        return FailureClass.PREEMPTED
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) or "No space left" in text:
        return FailureClass.STORAGE_ERROR
    if names & {"OSError", "ArrowException", "OutOfDiskError"} or ("SafetensorError" in names and "os error" in text):
        return FailureClass.STORAGE_ERROR
    return FailureClass.BUG


def _line(error: BaseException) -> str:
    """`Class: first line`, of the exception that the code raised."""
    inner = getattr(error, "_base_exc", None) or error
    lines = [line for line in str(inner).strip().splitlines() if line.strip()]
    if isinstance(inner, Exception) and lines and "Traceback" in str(inner):
        lines = lines[-1:]  # Ray hands remote tracebacks over as text: what was raised stands last
    text = lines[0] if lines else ""
    name = type(inner).__name__
    return (
        text if text.startswith(name) or name in ("UserExceptionWithTraceback", "RayTaskError") else f"{name}: {text}"
    )


def _own_frames(error: BaseException) -> str:
    """The frames of this project out of a remote traceback, oldest first, and the last line."""
    text = getattr(error, "_traceback_str", None) or str(error)
    lines = text.splitlines()
    kept: list[str] = []
    for index, line in enumerate(lines):
        if line.strip().startswith("File ") and "/sst2_ray/" in line:
            kept += lines[index : index + 2]
    return "\n".join([*kept, *[line for line in lines[-1:] if line.strip()]]) if kept else ""
