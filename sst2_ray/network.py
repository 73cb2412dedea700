"""Network interfaces and addresses of this machine."""

from __future__ import annotations

import os
import socket


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


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT, where an IPv6 host stands in brackets. Raises ValueError for anything else."""
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{address}: is not HOST:PORT")
    return host.strip("[]"), int(port)
