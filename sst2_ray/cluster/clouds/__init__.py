"""Places to run, one module each, with the verbs of `Cloud`: create, key, head, status, end, check."""

from __future__ import annotations

from sst2_ray.cluster.clouds.aws import Aws
from sst2_ray.cluster.clouds.azure import Azure
from sst2_ray.cluster.clouds.base import AccountCloud, Cloud, CreateRequest, Instance, NoHeadError
from sst2_ray.cluster.clouds.gcp import Gcp
from sst2_ray.cluster.clouds.kuberay import KubeRay
from sst2_ray.cluster.clouds.onprem import OnPrem
from sst2_ray.cluster.clouds.slurm import Slurm
from sst2_ray.cluster.file import ClusterFile

CLOUDS: dict[str, Cloud] = {cloud.platform: cloud for cloud in (Aws(), Gcp(), Azure(), OnPrem(), KubeRay(), Slurm())}


def cloud_of(cluster: ClusterFile) -> Cloud:
    """Return the place that a cluster file runs in."""
    return CLOUDS[cluster.platform]


__all__ = ["CLOUDS", "AccountCloud", "Cloud", "CreateRequest", "Instance", "NoHeadError", "cloud_of"]
