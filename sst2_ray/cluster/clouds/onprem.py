"""Machines of one's own, reached by SSH."""

from __future__ import annotations

import ipaddress
import re
import sys
from pathlib import Path

from sst2_ray.cluster.clouds.base import Cloud, Instance, own_key
from sst2_ray.cluster.file import ClusterFile
from sst2_ray.cluster.findings import Findings


class OnPrem(Cloud):
    """Machines of one's own: nothing is started or ended but Ray."""

    platform = "local"

    def check(self, cluster: ClusterFile) -> Findings:
        """Check addresses, what the start commands make of them, and sizes."""
        found = Findings()
        _check_addresses(cluster, found)
        _check_node_address(cluster, found)
        _check_login(cluster, found)
        _check_sizes(cluster, found)
        return found

    def key(self, cluster: ClusterFile) -> Path | None:
        """Return the key that the file names."""
        return own_key(cluster)

    def head(self, cluster: ClusterFile) -> str:
        """Return the head's address as the file gives it, whether Ray runs there or not."""
        return cluster.provider.text("head_ip")

    def status(self, cluster: ClusterFile) -> list[Instance]:
        """Return nothing: the machines are the user's, running or not."""
        del cluster
        return []

    def end(self, cluster: ClusterFile) -> None:
        """Stop Ray on every host: `ray down` stops the head only, and agents on workers would stay until the next start."""
        for address in cluster.hosts:
            answer = self.host(cluster, address).run("ray stop --force")
            if answer.returncode != 0:
                reason = " ".join(answer.stderr.split())[:120]
                print(
                    f"{address}: Ray could not be stopped ({reason}); run `ray stop` there", file=sys.stderr, flush=True
                )


def _check_addresses(cluster: ClusterFile, found: Findings) -> None:
    seen: set[str] = set()
    if not isinstance(cluster.provider.get("worker_ips"), list):
        found.error("provider.worker_ips", "is not a list", "worker_ips: [192.168.7.11, 192.168.7.12]")
    if not cluster.provider.text("head_ip"):
        found.error("provider.head_ip", "missing", "the address of the machine that the others join")
    if not cluster.auth.text("ssh_user"):
        found.error("auth.ssh_user", "missing", "the user of the machines, the same everywhere")
    if "coordinator_address" in cluster.provider:
        found.error(
            "provider", "coordinator_address and worker_ips name the machines twice", "remove coordinator_address"
        )
    for address in cluster.hosts:
        if address in seen:
            what = f"{address} is listed twice: `ray stop` of the second set-up would end the first"
            found.error("provider", what, "every machine once; the head is not a worker")
        seen.add(address)
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            if re.search(r"[:/]", address) or not re.search(r"[A-Za-z]", address):
                found.error("provider", f"{address!r} is no address", "four numbers up to 255, without port or network")
                continue
            what = f"{address} is a name: every machine must resolve it to the same address"
            found.warning("provider", what, "prefer the address")
            continue
        if any((parsed.is_loopback, parsed.is_unspecified, parsed.is_link_local, parsed.is_multicast)):
            what = f"{address} is not an address that other machines reach"
            found.error("provider", what, "the machine's address in your network")
        elif parsed.is_global:
            what = f"{address} is public: Ray's ports listen there, held by the token alone"
            found.warning("provider", what, "a private address, or a firewall before ports 1024-65535")
    if not found:
        found.ok("provider", f"{len(seen)} machines, private addresses")


def _check_login(cluster: ClusterFile, found: Findings) -> None:
    proxy = cluster.auth.text("ssh_proxy_command")
    if proxy and not re.search(r"%h", proxy):
        found.error("auth.ssh_proxy_command", f"{proxy!r} does not say where to go on", "ssh -W %h:%p USER@BASTION")
    if cluster.provider.items("worker_ips") and not cluster.auth.text("ssh_private_key"):
        what = "missing: the head reaches the workers with whatever key its own home has"
        found.warning("auth.ssh_private_key", what, "a key of this cluster, which goes to the head")


def _check_node_address(cluster: ClusterFile, found: Findings) -> None:
    where, head = "head_start_ray_commands", cluster.provider.text("head_ip")
    told = re.search(r"--node-ip-address[= ](\S+)", " ".join(cluster.document.texts(where)))
    if told is None:
        what = "without --node-ip-address a head without default route announces 127.0.0.1"
        found.warning(where, what, f"add --node-ip-address={head}")
    elif told[1] != head:
        what = f"--node-ip-address={told[1]}, but provider.head_ip is {head}: workers look for the head at the wrong address"
        found.error(where, what, "use the same address")


def _check_sizes(cluster: ClusterFile, found: Findings) -> None:
    workers = len(cluster.provider.items("worker_ips"))
    for key in ("max_workers", "min_workers"):
        value = cluster.document.whole(key)
        if value is not None and value != workers:
            effect = "some never start" if value < workers else "the rest does not exist"
            found.error(key, f"{value}, but {workers} worker_ips: {effect}", f"remove it, all {workers} are used then")
