"""The shipped cluster files with the user's own values filled in, and with mistakes planted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = {
    "aws": REPOSITORY / "ray_cluster.yaml",
    "gcp": REPOSITORY / "cluster/gcp.yaml",
    "azure": REPOSITORY / "cluster/azure.yaml",
    "onprem": REPOSITORY / "cluster/onprem.yaml",
    "kuberay": REPOSITORY / "cluster/kuberay-rayjob.yaml",
}
VALUES = {
    "YOUR_PROJECT": "acme-nlp",
    "YOUR_PUBLIC_KEY": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIexample sst2-ray",
    "YOUR_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000001",
    "YOUR_REGISTRY": "registry.example.org/acme",
    "WORKER_ADDRESS_1": "192.168.7.11",
    "WORKER_ADDRESS_2": "192.168.7.12",
    "HEAD_ADDRESS": "192.168.7.10",
    "SSH_USER": "ubuntu",
}


def render(name: str, **values: str) -> str:
    """Text of a shipped file with every placeholder replaced; `values` go before VALUES."""
    text = FILES[name].read_text(encoding="utf-8")
    for placeholder, value in {**values, **{key: value for key, value in VALUES.items() if key not in values}}.items():
        text = text.replace(placeholder, value)
    return text


def rendered(name: str, **values: str) -> dict[str, Any]:
    """The same, parsed."""
    document: dict[str, Any] = yaml.safe_load(render(name, **values))
    return document


def planted(name: str, mistake: Callable[[dict[str, Any]], object], **values: str) -> dict[str, Any]:
    """A rendered file with one mistake in it."""
    document = copy.deepcopy(rendered(name, **values))
    mistake(document)
    return document
