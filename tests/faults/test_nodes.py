"""Nodes that come and go under a run: with as many workers as before it ends with the same bits, else the same losses."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

from sst2_ray.cluster.spot_watcher import CLOUDS
from tests.support.clouds import endpoint_of
from tests.support.faults import REPOSITORY, TinyRun, slowed, started_cluster
from tests.support.waiting import waited

pytestmark = pytest.mark.timeout(1200)

START_S, END_S = 180, 240
"""Seconds until an attempt's workers are there, and until it has ended, on a machine that others use as well."""

NOTICE_S = 30
"""Warning time of Azure and Google."""


def started(run: TinyRun, attempt: int, *, world_size: int) -> None:
    """Wait until an attempt has all its workers, so many."""
    waited(
        lambda: all(run.log(attempt, rank) is not None for rank in range(world_size)),
        f"attempt {attempt} with {world_size} workers",
        START_S,
    )
    assert run.log(attempt, world_size) is None


def under_way(run: TinyRun, attempt: int, *, world_size: int) -> None:
    """Wait until it has gone on from its checkpoint as well."""
    started(run, attempt, world_size=world_size)
    waited(lambda: "going on from the checkpoint" in run.log(attempt, 0), f"the resumption of {attempt}", START_S)


def trains(node: Any) -> bool:
    """Tell whether a worker of the run lives on this node: among its raylet's processes. A drained raylet ends when it is idle."""
    (raylet,) = node.all_processes["raylet"]
    listing = ["ps", "-o", "args", "--ppid", str(raylet.process.pid)]
    children = subprocess.run(listing, capture_output=True, text=True, check=False).stdout
    return raylet.process.poll() is None and "RayTrainWorker" in children


def take(cloud: str, cluster: Any, node: Any, seconds: float) -> None:
    """Give the cloud's notice; the watcher, which runs on every node, then has Ray drain this one."""
    with endpoint_of(cloud) as endpoint:
        where = [f"--endpoint={endpoint.url}", f"--address={cluster.address}", f"--node-id={node.node_id}"]
        watcher = subprocess.Popen(
            [sys.executable, "-m", "sst2_ray.cluster.spot_watcher", f"--cloud={cloud}", *where],
            cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert "watching" in watcher.stdout.readline()
            endpoint.take(seconds)
            assert watcher.wait(timeout=30) == 0
            assert f"node {node.node_id} drains" in watcher.stdout.read()
        finally:
            watcher.kill()


def newest_checkpoint_at(run: TinyRun) -> float:
    """Return the time at which the newest checkpoint was whole."""
    manifests = (run.run_folder / "checkpoints").glob("step-*/manifest.json")
    return max(path.stat().st_mtime for path in manifests)


def ends_of(run: TinyRun) -> list[tuple[str, str | None, int]]:
    return [(row["status"], row["failure_class"], row["world_size"]) for row in run.attempts()]


def test_a_run_of_1_to_2_workers_shrinks_and_grows_with_the_cluster_and_keeps_its_losses(undisturbed):
    run = TinyRun(undisturbed.folder, "elastic", num_workers="1:2")
    faults, log = slowed(4, by_s=0.4), undisturbed.folder / "elastic.log"
    with started_cluster(faults) as cluster:
        process = run.start(faults, env={"RAY_ADDRESS": cluster.address}, log=log)
        try:
            started(run, 0, world_size=1)
            node = cluster.add_node(num_cpus=1)
            under_way(run, 1, world_size=2)
            take("aws", cluster, node, 600)
            under_way(run, 2, world_size=1)  # though the cloud has not taken the node yet
            cluster.remove_node(node)
            node = cluster.add_node(num_cpus=1)
            under_way(run, 3, world_size=2)
            cluster.remove_node(node, allow_graceful=False)
            assert process.wait(timeout=END_S) == 0, log.read_text()
        finally:
            process.kill()
    assert ends_of(run) == [
        ("stopped", None, 1),
        ("stopped", "preempted", 2),
        ("stopped", None, 1),
        ("failed", "worker_lost", 2),
        ("succeeded", None, 1),
    ]
    for mine, its in zip(run.curve(), undisturbed.curve(), strict=True):
        assert mine == pytest.approx(its, rel=1e-5)


@pytest.mark.slow
def test_nodes_that_three_clouds_take_are_left_in_time_and_cost_no_retry_and_no_bit(undisturbed):
    run = TinyRun(undisturbed.folder, "spot", max_retries=0)
    faults, log = slowed(len(CLOUDS), by_s=0.2), undisturbed.folder / "spot.log"
    with started_cluster(faults) as cluster:
        spot = [cluster.add_node(num_cpus=1) for _ in range(2)]
        process = run.start(faults, env={"RAY_ADDRESS": cluster.address}, log=log)
        try:
            for attempt, cloud in enumerate(CLOUDS):
                started(run, attempt, world_size=2)
                node = next(node for node in spot if trains(node))
                noticed = time.time()
                take(cloud, cluster, node, NOTICE_S)
                waited(lambda n=attempt: ends_of(run)[n][0] == "stopped", f"the end of attempt {attempt}", START_S)
                after_s = newest_checkpoint_at(run) - noticed
                print(f"{cloud}: a checkpoint {after_s:.1f} s after the notice")
                assert 0 < after_s < NOTICE_S
                started(run, attempt + 1, world_size=2)
                assert not trains(node)
                cluster.remove_node(node, allow_graceful=False)
                spot = [*(other for other in spot if other is not node), cluster.add_node(num_cpus=1)]
            assert process.wait(timeout=END_S) == 0, log.read_text()
        finally:
            process.kill()
    assert ends_of(run) == [*[("stopped", "preempted", 2)] * len(CLOUDS), ("succeeded", None, 2)]
    assert run.digest() == undisturbed.digest()
    assert run.curve() == undisturbed.curve()
