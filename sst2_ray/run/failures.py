"""The class of a failure, in one line, and whether trying again can help."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sst2_ray.errors import FailureClass, InfeasibleError
from sst2_ray.records import TrialRecord

RETRIED = frozenset({FailureClass.WORKER_LOST, FailureClass.PREEMPTED, FailureClass.HUNG, FailureClass.OUT_OF_MEMORY})

_CLASS_OF_NAME = {
    "NonFiniteError": FailureClass.NON_FINITE,
    "InputError": FailureClass.DATA_ERROR,  # what only a worker can find out, such as a compiler that its node lacks
    "OutOfMemoryError": FailureClass.OUT_OF_MEMORY,
    "MemoryError": FailureClass.OUT_OF_MEMORY,
    "ObjectStoreFullError": FailureClass.OUT_OF_MEMORY,
    "RayActorError": FailureClass.WORKER_LOST,
    "ActorDiedError": FailureClass.WORKER_LOST,
    "ActorUnavailableError": FailureClass.WORKER_LOST,
    "NodeDiedError": FailureClass.WORKER_LOST,
    "WorkerCrashedError": FailureClass.WORKER_LOST,
    "WorkerHealthCheckFailedError": FailureClass.WORKER_LOST,
    "WorkerHealthCheckTimeoutError": FailureClass.WORKER_LOST,
}
"""Class by the name of an exception or of one of its bases. Names, since an error may come from a process with another
copy of the class."""

_CLASS_OF_TEXT = {
    "NonFiniteError": FailureClass.NON_FINITE,
    "OutOfMemoryError": FailureClass.OUT_OF_MEMORY,
    "out of memory": FailureClass.OUT_OF_MEMORY,
    # CUDA's libraries allocate beside torch, and name it their own way (cuBLAS, cuDNN 8 and 9).
    "CUBLAS_STATUS_ALLOC_FAILED": FailureClass.OUT_OF_MEMORY,
    "CUDNN_STATUS_ALLOC_FAILED": FailureClass.OUT_OF_MEMORY,
    "DEVICE_ALLOCATION_FAILED": FailureClass.OUT_OF_MEMORY,
    "HOST_ALLOCATION_FAILED": FailureClass.OUT_OF_MEMORY,
}
"""Class by words of the message: Ray hands some remote errors over as text."""

_COLLECTIVE_NAMES = frozenset({"DistNetworkError", "DistStoreError", "DistBackendError"})
"""Torch's exceptions for a broken collective, or for the store through which ranks find each other."""

_COLLECTIVE_WORDS = (
    *("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL", "Timed out waiting"),
    *("seconds waiting for clients", "client socket has timed out"),  # of the store
)

_PLACEMENT_TIMEOUT = "WorkerGroupStartupTimeoutError"
"""Ray Train's exception where the workers were not placed in time."""

_FULL_OR_READ_ONLY = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class HeadLostError(Exception):
    """Ray's head does not answer any more: without it nothing new starts, and what runs ends within a minute."""


def failure_interval_s(attempts: Sequence[TrialRecord]) -> float | None:
    """Return the mean seconds between failures that come without a notice, from a trial's end rows; None: none came."""
    num_failures = sum(row.failure_class in (FailureClass.WORKER_LOST, FailureClass.HUNG) for row in attempts)
    return sum(row.seconds or 0.0 for row in attempts) / num_failures if num_failures else None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failed attempt as the user and the table are told."""

    failure_class: FailureClass
    message: str
    """Message of one line."""
    trace: str = ""
    """Frames of this project."""
    head_lost: bool = False
    """True if there is no Ray to try again on."""

    @property
    def may_retry(self) -> bool:
        """Tell whether another attempt may go well."""
        return self.failure_class in RETRIED and not self.head_lost


def classify(error: BaseException, *, hung: str | None = None) -> Failure:
    """Classify what `TorchTrainer.fit` raised. `hung`: line of a watchdog that ended its process."""
    from ray.train import ControllerError, WorkerGroupError

    if isinstance(error, HeadLostError):
        return Failure(failure_class=FailureClass.WORKER_LOST, message=str(error), head_lost=True)
    if isinstance(error, WorkerGroupError):
        rank, cause = _root(error.worker_failures, str(error))
        failure_class = FailureClass.HUNG if hung else _class_of(cause)
        message = hung or f"rank {rank}: {_line(cause)}"
        return Failure(failure_class=failure_class, message=message, trace=_own_frames(cause))
    if isinstance(error, InfeasibleError):
        return Failure(failure_class=FailureClass.NOT_PLACEABLE, message=str(error))
    if isinstance(error, ControllerError):
        return Failure(failure_class=_class_of(error.controller_failure), message=_line(error.controller_failure))
    if type(error).__name__ == "PreemptionError":
        return Failure(failure_class=FailureClass.PREEMPTED, message=_line(error))
    return Failure(failure_class=_class_of(error), message=_line(error), trace=_own_frames(error))


def is_placement_timeout(error: BaseException) -> bool:
    """Tell whether Ray Train waited in vain for the workers' places; the workers' own waits for each other time out as well."""
    failure = getattr(error, "controller_failure", error)
    return _PLACEMENT_TIMEOUT in _names(failure) or _PLACEMENT_TIMEOUT in str(failure)


def _root(failures: dict[int, BaseException], text: str) -> tuple[int, BaseException]:
    """Pick the rank and failure that say most: an exception of the code, not the loss of ranks that waited for it.

    Args:
        failures: by rank.
        text: of the whole, where no rank has one.
    """

    def says_less(item: tuple[int, BaseException]) -> tuple[bool, bool, int]:
        rank, error = item
        is_vague = _class_of(error) in (FailureClass.WORKER_LOST, FailureClass.BUG)
        return is_vague, _is_collective(error), rank

    return min(failures.items(), key=says_less) if failures else (0, RuntimeError(text))


def _is_collective(error: BaseException) -> bool:
    """Recognize what ranks raise when another one has gone: their collective broke."""
    return bool(_names(error) & _COLLECTIVE_NAMES) or any(words in str(error) for words in _COLLECTIVE_WORDS)


def _names(error: BaseException) -> set[str]:
    """Name the classes of an exception and of its causes, with their bases."""
    return {base.__name__ for one in _causes(error) for base in type(one).__mro__}


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and, at most four deep, what caused it."""
    for _ in range(5):
        yield error
        following = getattr(error, "_base_exc", None) or error.__cause__ or getattr(error, "cause", None)
        if not isinstance(following, BaseException) or following is error:
            return
        error = following


def _class_of(error: BaseException) -> FailureClass:
    names, text = _names(error), str(error)
    for found in (
        FailureClass.NON_FINITE,
        FailureClass.DATA_ERROR,
        FailureClass.OUT_OF_MEMORY,
        FailureClass.WORKER_LOST,
    ):
        by_name = any(_CLASS_OF_NAME.get(name) is found for name in names)
        if by_name or any(words in text for words, meant in _CLASS_OF_TEXT.items() if meant is found):
            return found
    if _is_collective(error):
        return FailureClass.WORKER_LOST
    own_class = getattr(error, "failure_class", None)
    if own_class:
        return FailureClass(own_class)
    if "PreemptionError" in names:
        return FailureClass.PREEMPTED
    return FailureClass.STORAGE_ERROR if _is_of_storage(error, names, text) else FailureClass.BUG


def _is_of_storage(error: BaseException, names: set[str], text: str) -> bool:
    is_full = getattr(error, "errno", None) in _FULL_OR_READ_ONLY or "No space left" in text
    by_name = names & {"OSError", "ArrowException", "OutOfDiskError"}
    return is_full or bool(by_name) or ("SafetensorError" in names and "os error" in text)


def _line(error: BaseException) -> str:
    """Format `Class: first line` of the exception that the code raised."""
    inner = getattr(error, "_base_exc", None) or error
    lines = [line for line in str(inner).strip().splitlines() if line.strip()]
    if isinstance(inner, Exception) and lines and "Traceback" in str(inner):
        lines = lines[-1:]  # Ray hands remote tracebacks over as text: what was raised stands last
    text, name = lines[0] if lines else "", type(inner).__name__
    is_named = text.startswith(name) or name in ("UserExceptionWithTraceback", "RayTaskError")
    return text if is_named else f"{name}: {text}"


def _own_frames(error: BaseException) -> str:
    """Cut the frames of this project out of a remote traceback, oldest first, with its last line."""
    text = getattr(error, "_traceback_str", None) or str(error)
    lines = text.splitlines()
    kept: list[str] = []
    for index, line in enumerate(lines):
        if line.strip().startswith("File ") and "/sst2_ray/" in line:
            kept += lines[index : index + 2]
    return "\n".join([*kept, *[line for line in lines[-1:] if line.strip()]]) if kept else ""
