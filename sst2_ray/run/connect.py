"""Joining the cluster that RAY_ADDRESS names, or starting Ray on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from types import ModuleType

from sst2_ray.errors import InputError
from sst2_ray.network import split_address, within
from sst2_ray.run.environment import prepare_driver
from sst2_ray.run.local_ray import forking_ahead, start_local_ray
from sst2_ray.run.ray.state import NOT_A_HEAD

HEAD_ANSWERS_WITHIN_S = 5.0
"""Time for a head to accept a connection, and as much again for it to answer."""

_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""Preface and empty SETTINGS of a gRPC client; a server answers with SETTINGS of its own (RFC 9113, 3.4)."""

_SETTINGS = 4


def starts_ray_here() -> bool:
    """Tell whether `start_ray` would start Ray on this machine: nobody is connected, and no cluster is named."""
    ray = sys.modules.get("ray")
    return not (ray and ray.is_initialized()) and os.environ.get("RAY_ADDRESS", "local") in ("", "local")


@contextlib.contextmanager
def importing_ahead() -> Iterator[None]:
    """Import what workers need while the caller reads and checks its input, where Ray will be started on this machine.

    A process beside this one does it, and nothing of it is left where the caller ends without Ray. Raises InputError.
    """
    prepare_driver()
    with forking_ahead() if starts_ray_here() else contextlib.nullcontext():
        yield


def start_ray() -> ModuleType:
    """Join the cluster of RAY_ADDRESS, which Ray sets in a submitted job, or start Ray on this machine alone.

    A cluster that happens to run here, or that once did and left its address behind, is joined only when asked for, with
    RAY_ADDRESS=auto: a run must not land on somebody's cluster by accident.

    Returns:
        The ray module, connected.

    Raises:
        InputError: RAY_ADDRESS names nothing that answers as a Ray head, or a cluster that this process cannot join.
    """
    prepare_driver()
    import ray

    _quiet()
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS") or "local"
        if address == "local":
            start_local_ray(ray)
        else:
            _join(ray, address)
    _quiet()  # Ray has set the level of its own
    return ray


def _quiet() -> None:
    """Leave Ray's warnings out: they are about Ray, not about the run."""
    for name in ("ray", "ray.train", "ray.tune", "ray.widgets"):
        logging.getLogger(name).setLevel(logging.ERROR)


def check_cluster() -> None:
    """Check that the cluster of RAY_ADDRESS answers, where `start_ray` would join it. Raises InputError within seconds."""
    ray = sys.modules.get("ray")
    if not starts_ray_here() and not (ray and ray.is_initialized()):
        check_head(os.environ["RAY_ADDRESS"])


def _join(ray: ModuleType, address: str) -> None:
    """Connect to a cluster that answers. Raises InputError."""
    from sst2_ray.run.ray.state import asks_for_token, keeping_signal_handlers, use_own_token

    head = check_head(address)
    try:
        is_without_token = os.environ.get("RAY_AUTH_MODE") == "token" and not asks_for_token(head)
        if not is_without_token:
            use_own_token(head)
    except ConnectionError as error:
        raise InputError(f"RAY_ADDRESS {address}: {error}; name another one, or unset RAY_ADDRESS") from None
    if is_without_token:
        raise InputError(
            f"RAY_ADDRESS {address}: the cluster was started without a token and cannot answer RAY_AUTH_MODE=token; "
            "unset it here, or start the cluster with it"
        )
    try:
        with keeping_signal_handlers():
            ray.init(address=head, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        hint = "" if "RAY_AUTH_MODE" in os.environ else "; if it asks for a token, set RAY_AUTH_MODE=token"
        raise InputError(f"RAY_ADDRESS {address}: the cluster cannot be joined ({reason[:300]}){hint}") from None


def check_head(address: str) -> str:
    """Ask whether a Ray head answers, before Ray does, which would ask for a quarter of an hour.

    Args:
        address: as RAY_ADDRESS has it: HOST:PORT, or auto.

    Returns:
        HOST:PORT of the head.

    Raises:
        InputError: None answers; known in at most twice `HEAD_ANSWERS_WITHIN_S`.
    """
    from sst2_ray.run.ray import state

    if "://" in address:
        kind = "this is a job server" if address.startswith("http") else "Ray Client cannot run this job"
        raise InputError(
            f"RAY_ADDRESS {address}: {kind}; name the head as HOST:PORT on a machine of the cluster, or use sst2-ray submit"
        )
    head: str | None = None
    try:
        head = state.head_address(address)
        reason = _why_no_head(head) if head else "no Ray runs on this machine"
    except (OSError, ValueError):
        reason = "is not HOST:PORT"
    if reason or head is None:
        raise InputError(
            f"RAY_ADDRESS {address}: {reason}; start the cluster, name another one, or unset RAY_ADDRESS to use this "
            "machine alone"
        )
    return head


def _why_no_head(address: str) -> str | None:
    try:
        where = split_address(address)
    except ValueError:
        return "is not HOST:PORT"
    try:
        # The system's search for a name knows no deadline, or another one.
        connected = within(
            HEAD_ANSWERS_WITHIN_S, lambda: socket.create_connection(where, timeout=HEAD_ANSWERS_WITHIN_S)
        )
        with connected as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                return None  # it says nothing to a client without a certificate
            connection.sendall(_HTTP2_HELLO)
            answer = connection.recv(9, socket.MSG_WAITALL)
    except TimeoutError:
        return f"did not answer within {HEAD_ANSWERS_WITHIN_S:.0f} s"
    except OSError as error:
        return f"no Ray head answers there ({error.strerror or error})"
    is_grpc = len(answer) == 9 and answer[3] == _SETTINGS
    return None if is_grpc else NOT_A_HEAD
