"""Runs that wait for machines, under Ray's own autoscaler on a host: the time for placement is over before they are set up."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.hosts import REPOSITORY, HostLab, missing_for_hosts

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(420)]

HEAD_ID = "f" * 51 + "00000"
LIMIT_S, SET_UP_S = 15, 40


def start_cluster(lab: HostLab, host: int, **provider: object) -> None:
    """Start a head without CPUs for work on a host, and an autoscaler that may add one machine."""
    lists = ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands",
             "head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")  # fmt: skip
    memory = {"object_store_memory": 150_000_000}
    config: dict[str, Any] = {
        "cluster_name": "slow", "max_workers": 1, "upscaling_speed": 1.0, "idle_timeout_minutes": 5,
        "provider": {"type": "external", "module": "tests.support.slow_machines.SlowMachines", "use_node_id_as_ip": True,
                     "disable_node_updaters": True, "disable_launch_config_check": True, "head_node_id": HEAD_ID, **provider},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0, **memory}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 2, **memory}, "node_config": {}, "min_workers": 0, "max_workers": 1},
        },
        "head_node_type": "ray.head.default", "docker": {}, "auth": {}, "file_mounts": {}, "file_mounts_sync_continuously": False,
        **{key: [] for key in lists},
    }  # fmt: skip
    (lab.root(host) / "home/ray_bootstrap_config.yaml").write_text(json.dumps(config))
    settings = {"RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                "RAY_CLOUD_INSTANCE_ID": HEAD_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID, "PYTHONPATH": str(REPOSITORY)}  # fmt: skip
    exports = " ".join(f"{key}={value}" for key, value in settings.items())
    start = "ray start --head --port=6379 --num-cpus=0 --object-store-memory=150000000 --include-dashboard=false"
    lab.run(
        host,
        f"export {exports} PATH=~/.sst2-ray/venv/bin:$PATH; {start} --autoscaling-config=~/ray_bootstrap_config.yaml",
    )


def train(lab: HostLab, host: int) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run a short training on the cluster; return how it ended, and after how many seconds."""
    words = (
        "--model modernbert-mini --data rotten-tomatoes --train-rows 64 --dev-rows 32 --epochs 1 --batch-size 16 --num-workers 1"
        f" --cpus-per-worker 2 --placement-timeout-s {LIMIT_S} --max-retries 0 --storage-path {lab.shared}/runs --name waits-{host}"
    )
    settings = f"export RAY_ADDRESS={lab.address(host)}:6379 PATH=~/.sst2-ray/venv/bin:$PATH PYTHONPATH={REPOSITORY}"
    begin = time.monotonic()
    done = lab.run(host, f"{settings}; cd {REPOSITORY} && python -m sst2_ray train {words}", check=False, timeout=300)
    return done, time.monotonic() - begin


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostLab]:
    """Yield a host for each cluster."""
    if reason := missing_for_hosts():
        pytest.skip(f"hosts cannot be made here: {reason}")
    with HostLab(tmp_path_factory.mktemp("waiting"), count=2) as lab:
        yield lab


def test_a_run_is_not_given_up_while_its_machine_is_being_set_up(lab: HostLab) -> None:
    start_cluster(lab, 0, set_up_s=SET_UP_S)
    done, seconds = train(lab, 0)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-3000:]
    assert f"not placed yet: 1 machine being set up; waiting on beyond --placement-timeout-s {LIMIT_S}" in told
    assert seconds > SET_UP_S


def test_a_cloud_that_has_no_machine_left_is_given_up_at_the_limit_with_its_reason(lab: HostLab) -> None:
    start_cluster(lab, 1, refusal="InsufficientInstanceCapacity")
    done, seconds = train(lab, 1)
    told = done.stdout + done.stderr
    assert done.returncode == 3, told[-3000:]
    assert f"the workers were not placed within --placement-timeout-s {LIMIT_S}" in told
    assert "machines were refused (worker: " in told and "InsufficientInstanceCapacity" in told
    assert LIMIT_S < seconds < LIMIT_S + 90
