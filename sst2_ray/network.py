"""Network interfaces and addresses of this machine, and a deadline for calls that have none."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TypeVar

from sst2_ray.background import in_background, result_of

T = TypeVar("T")


def use_node_interface() -> str | None:
    """Make gloo and NCCL use the interface that carries Ray's address of this node, unless the environment names one.

    Gloo looks its own address up by the hostname, which Debian and Ubuntu resolve to 127.0.1.1, and which may not resolve
    at all: ranks on other nodes then try to reach it on their own loopback. Call this in every worker before the process
    group is made.

    Returns:
        The name of the interface; None if no interface has the address.
    """
    import psutil
    import ray

    address = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(item.address == address for item in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
            return name
    return None


def free_port(host: str = "127.0.0.1") -> int:
    """Find a TCP port that nothing listens on at the moment. `host` "" means every interface."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def within(timeout_s: float, call: Callable[[], T]) -> T:
    """Call `call` and return its result; it goes on in a thread that nobody waits for where it takes longer.

    For what has no deadline of its own: a name that no server resolves, an answer that comes byte by byte. Signals are
    heard meanwhile. Raises TimeoutError, and what `call` raises.
    """
    return result_of(in_background(call, "within"), timeout_s)


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT, where an IPv6 host stands in brackets. Raises ValueError for anything else."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not 0 < int(port) < 2**16:  # the system would take a larger one for another
        raise ValueError(f"{address}: is not HOST:PORT")
    return host.strip("[]"), int(port)
