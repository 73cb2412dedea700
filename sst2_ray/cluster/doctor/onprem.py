"""The parts of an on-prem file that Ray's schema lets pass: addresses, and what the start commands make of them."""

from __future__ import annotations

import ipaddress
import re

from sst2_ray.cluster.doctor.findings import Finding, error, ok, warning
from sst2_ray.cluster.doctor.ray_file import PLACEHOLDER
from sst2_ray.cluster.file import ClusterFile


def check_onprem(cluster: ClusterFile) -> list[Finding]:
    """Every check of an on-prem file that needs no host."""
    return [*_addresses(cluster), *_node_address(cluster), *_sizes(cluster)]


def hosts_of(cluster: ClusterFile) -> list[str]:
    """Head first, then the workers; what is not an address yet is left out."""
    provider = cluster.provider
    every = [provider.get("head_ip"), *(provider.get("worker_ips") or [])]
    return [str(address) for address in every if address and not PLACEHOLDER.search(str(address))]


def _addresses(cluster: ClusterFile) -> list[Finding]:
    findings, seen = [], set()
    for address in hosts_of(cluster):
        if address in seen:
            findings.append(
                error(
                    "provider",
                    f"{address} is listed twice: `ray stop` of the second set-up would end the first",
                    "every machine once; the head is not a worker",
                )
            )
        seen.add(address)
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            findings.append(
                warning(
                    "provider",
                    f"{address} is a name: every machine must resolve it to the same address",
                    "prefer the address",
                )
            )
            continue
        if parsed.is_loopback or parsed.is_unspecified:
            findings.append(
                error(
                    "provider",
                    f"{address} is not an address that other machines reach",
                    "the machine's address in your network",
                )
            )
        elif parsed.is_global:
            findings.append(
                warning(
                    "provider",
                    f"{address} is public: Ray's ports listen there, held by the token alone",
                    "a private address, or a firewall before ports 1024-65535",
                )
            )
    return findings or [ok("provider", f"{len(seen)} machines, private addresses")]


def _node_address(cluster: ClusterFile) -> list[Finding]:
    head = str(cluster.provider.get("head_ip", ""))
    command = " ".join(str(part) for part in cluster.config.get("head_start_ray_commands") or [])
    told = re.search(r"--node-ip-address[= ](\S+)", command)
    if told is None:
        return [
            warning(
                "head_start_ray_commands",
                "without --node-ip-address a head without default route announces 127.0.0.1",
                f"add --node-ip-address={head}",
            )
        ]
    if told[1] != head:
        return [
            error(
                "head_start_ray_commands",
                f"--node-ip-address={told[1]}, but provider.head_ip is {head}: workers look for the head at the wrong address",
                "use the same address",
            )
        ]
    return []


def _sizes(cluster: ClusterFile) -> list[Finding]:
    workers = len(cluster.provider.get("worker_ips") or [])
    findings = []
    for key in ("max_workers", "min_workers"):
        value = cluster.config.get(key)
        if isinstance(value, int) and value != workers:
            findings.append(
                error(
                    key,
                    f"{value}, but {workers} worker_ips: {'some never start' if value < workers else 'the rest does not exist'}",
                    f"remove it, all {workers} are used then",
                )
            )
    return findings
