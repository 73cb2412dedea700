"""Ray's own view of its cluster, where no public API tells it. Another version of Ray that does not answer says less."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sst2_ray.run.ray.node_types import NodeGroup, declared_groups

NOT_A_HEAD = "what answers there is not a Ray head (its port is 6379 unless it was given another one)"
_REFUSED = re.compile(r"Failed to launch \d+ nodes of type (\S+): (.+)")
_LOG_BYTES = 100_000
_UNLIMITED = 1000
"""Nodes of a group for which the autoscaler has no maximum."""


def free_by_node() -> Mapping[str, Mapping[str, float]]:
    """Return the resources that are free on each node, by node id; empty where Ray does not say."""
    from ray._private import state

    try:
        free: Mapping[str, Mapping[str, float]] = state.available_resources_per_node()
        return free
    except Exception:
        return {}


def draining_nodes() -> set[str]:
    """Return the ids of the nodes that Ray drains, after a spot notice or for the autoscaler; empty where it does not say:
    then a node that is taken is a node that was lost."""
    from ray._private import state

    try:
        return set(state.state.get_draining_nodes())
    except Exception:
        return set()


def node_groups() -> tuple[NodeGroup, ...]:
    """Return the groups of nodes that the autoscaler may have; none where none runs, or it does not say.

    The autoscaler of `ray up` does not tell Ray its groups: they are read where it reads them.
    """
    from ray._private import state

    try:
        config = state.state.get_cluster_config()
        configs = list(config.node_group_configs) if config is not None else []
    except Exception:
        configs = []
    groups = [
        NodeGroup(
            name=group.name,
            resources=dict(group.resources),
            max_count=group.max_count if group.max_count >= 0 else _UNLIMITED,
        )
        for group in configs
    ]
    return tuple(groups) or declared_groups()


@dataclass(frozen=True, kw_only=True)
class NodesToCome:
    """Nodes that the autoscaler has asked for and that do not run yet."""

    num_being_set_up: int = 0
    """Machines that exist."""
    num_requested: int = 0
    refusals: tuple[str, ...] = ()
    """Requests that were refused lately: type of the node and reason."""

    @property
    def are_under_way(self) -> bool:
        """Tell whether waiting can help: a request is asked for again and again where the cloud has no machine left."""
        return self.num_being_set_up > 0 or (self.num_requested > 0 and not self.refusals)


def nodes_to_come() -> NodesToCome:
    """Ask for the autoscaler's status; none where no autoscaler (version 2) runs, or it does not say."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status

    try:
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
    except Exception:
        return NodesToCome()
    told = _logged_refusals() if any(not launch.details for launch in status.failed_launches) else {}
    refusals = (
        f"{launch.ray_node_type_name}: {launch.details or told.get(launch.ray_node_type_name, 'refused')}"
        for launch in status.failed_launches
    )
    return NodesToCome(
        num_being_set_up=len(status.pending_nodes),
        num_requested=sum(launch.count for launch in status.pending_launches),
        refusals=tuple(dict.fromkeys(" ".join(line.split())[:200] for line in refusals)),
    )


def _logged_refusals() -> dict[str, str]:
    """Read the cloud's last reason by type of node from the autoscaler's log, since its status comes without; empty off the head."""
    try:
        from ray._private import worker

        log = Path(worker._global_node.get_logs_dir_path()) / "monitor.log"
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_BYTES))
            text = file.read().decode(errors="replace")
    except (ImportError, AttributeError, OSError):
        return {}
    return dict(_REFUSED.findall(text))


def other_jobs() -> list[str]:
    """Name the other jobs that run on the cluster by their entry points; empty where Ray does not say."""
    import ray
    from ray._private import state

    mine = ray.get_runtime_context().get_job_id()
    try:
        jobs = state.state.job_table()
    except Exception:
        return []
    return [
        str(job.get("Entrypoint") or f"job {job.get('JobID')}")
        for job in jobs
        if not job.get("IsDead") and job.get("JobID") != mine
    ]


def raylet_pid() -> int:
    """Return the process id of the raylet that this process has started."""
    import ray

    pid: int = ray._private.worker._global_node.all_processes["raylet"][0].process.pid
    return pid


def head_address(address: str) -> str | None:
    """Return HOST:PORT of a head as Ray will look for it.

    "auto" is the Ray that runs on this machine, as its last start left it; None where there is none. A loopback address
    becomes the outward one, which a head listens on.
    """
    from ray._private import services

    try:
        found: str | None = services.canonicalize_bootstrap_address(address)
        return found
    except ConnectionError:
        return None


def asks_for_token(head: str) -> bool:
    """Ask a head, HOST:PORT, without a token whether it is alive: one that wants a token says so.

    One that does not answer counts as one that asks, as does any with RAY_USE_TLS: it says nothing to a client without a
    certificate. Raises ConnectionError where what answers knows nothing of Ray: Ray would ask it for half a minute.
    """
    import grpc

    if os.environ.get("RAY_USE_TLS", "0") == "1":
        return True
    # Ray's processes talk to each other directly, whatever proxy the environment names.
    with grpc.insecure_channel(head, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=10, wait_for_ready=True)
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise ConnectionError(NOT_A_HEAD) from None
            return True
    return False


def use_own_token(head: str) -> None:
    """Authenticate with this user's token at a head on this machine that asks for one.

    Ray does so for the address "auto" only. Other machines are not sent the token unless RAY_AUTH_MODE says so. A driver
    that authenticates at a head without tokens would take none of its answers: its first actor would never start.
    """
    from ray._private import services
    from ray._private.authentication import authentication_token_setup as setup

    host = head.rpartition(":")[0]
    if (host == services.get_node_ip_address() or host.startswith("127.")) and asks_for_token(head):
        setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


@contextlib.contextmanager
def loopback_only() -> Iterator[None]:
    """Have a Ray that is started meanwhile, and its processes, use 127.0.0.1, as Ray does on macOS and Windows.

    On Linux it would bind to the outward address, and end when a laptop changes networks. `_node_ip_address` is no way: Ray
    turns a loopback address into the outward one.
    """
    from ray._private import ray_constants

    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before, enabled = os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = enabled
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def patient_start(limit_s: float = 90.0) -> Iterator[None]:
    """Give a Ray that is started meanwhile `limit_s` instead of Ray's fixed 30 s, as long as its raylet lives.

    A container with a part of a core takes longer, and all the more as Ray asks again without a pause.
    """
    from ray._private import services

    ask = services.get_node

    def waiting(*where: str) -> object:
        deadline = time.monotonic() + limit_s
        while True:
            try:
                return ask(*where)
            except RuntimeError:  # it has not registered yet
                if time.monotonic() > deadline or not _raylet_lives():
                    raise
            time.sleep(0.2)

    services.get_node = waiting
    try:
        yield
    finally:
        services.get_node = ask


def _raylet_lives() -> bool:
    """Tell whether a raylet runs below this process."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return any(
            child.name() == "raylet" and child.status() != psutil.STATUS_ZOMBIE
            for child in psutil.Process().children(recursive=True)
        )
    return True  # a process ended while it was looked at: asked again


@contextlib.contextmanager
def own_process_groups() -> Iterator[None]:
    """Start Ray's processes in process groups of their own.

    A closed terminal, `timeout` and batch systems send their signal to the whole group of the command: Ray's processes would
    end with it, and the workers, which are to write a checkpoint first, with them.
    """
    from ray._private import services

    before = services.ConsolePopen

    class InOwnGroup(before):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, preexec_fn: Callable[[], None], **options: Any) -> None:
            def lead_a_group() -> None:
                os.setpgid(0, 0)
                preexec_fn()

            super().__init__(*args, preexec_fn=lead_a_group, **options)

    services.ConsolePopen = InOwnGroup
    try:
        yield
    finally:
        services.ConsolePopen = before


@contextlib.contextmanager
def keeping_signal_handlers() -> Iterator[None]:
    """Keep SIGTERM for this program while Ray starts or connects.

    Ray's Python code would end the command on the spot. Its native code installs a handler that aborts with a stack trace:
    the program's own is put back afterwards.
    """
    from ray._private import utils

    before, handler = utils.set_sigterm_handler, signal.getsignal(signal.SIGTERM)
    utils.set_sigterm_handler = lambda _handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = before
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
