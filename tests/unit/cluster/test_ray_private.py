"""Every private name of Ray that sst2_ray/cluster uses is there, and takes what it is given. What fails here, a new Ray has changed."""

from __future__ import annotations

import importlib
import inspect

import pytest

from sst2_ray.cluster import ray_private

NAMES = {
    "ray._private.runtime_env.packaging": ("_get_excludes", "get_excludes_from_ignore_files", "create_package"),
    "ray._private.services": ("canonicalize_bootstrap_address_or_die", "get_node_ip_address"),
    "ray._raylet": ("GcsClient",),
    "ray.autoscaler._private.util": (
        "prepare_config",
        "validate_config",
        "generate_ssh_key_name",
        "generate_ssh_key_paths",
    ),
    "ray.core.generated.gcs_pb2": ("GcsNodeInfo",),
    "ray.scripts.scripts": ("start",),
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in NAMES.items() for name in names])
def test_ray_still_has(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name), (
        f"{module}.{name} is gone: see sst2_ray/cluster/ray_private.py"
    )


def test_the_job_client_passes_every_request_through_one_method_that_takes_a_timeout() -> None:
    from ray.dashboard.modules.dashboard_sdk import SubmissionClient

    source = inspect.getsource(SubmissionClient._do_request)
    assert "**kwargs" in source and "requests.request(" in source, "deadlines and proxies are set in _do_request"


def test_ray_prefers_these_variables_to_the_address_that_it_is_given() -> None:
    from ray.dashboard import utils

    source = inspect.getsource(utils.get_address_for_submission_client)
    assert "RAY_API_SERVER_ADDRESS_ENVIRONMENT_VARIABLE" in source and "RAY_ADDRESS_ENVIRONMENT_VARIABLE" in source
    assert source.count("os.environ.get") == len(ray_private.ADDRESS_VARIABLES), "another variable overrides addresses"


def test_what_is_read_out_of_ray_has_content() -> None:
    assert {"--head", "--port", "--dashboard-host"} <= ray_private.start_flags()
    assert {"vmSize", "osDiskSize", "priority"} <= ray_private.azure_template_parameters().keys()
    assert (
        ray_private.generated_key("azure", None, "westus2", "g", "ubuntu").name
        == "ray-autoscaler_azure_westus2_g_ubuntu"
    )
    assert ray_private.generated_key("gcp", 0, "r", "p", "ubuntu").name == "ray-autoscaler_gcp_r_p_ubuntu_0"
