"""Prediction on two hosts, network namespaces with a Ray node each, writes the rows of one process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import models
from tests.support.folders import labelled_rows, review_folder
from tests.support.hosts import REPOSITORY, HostLab, missing_for_hosts
from tests.support.waiting import waited

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(400)]

BIN = Path(sys.executable).parent
QUIET = f"export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=disabled PYTHONPATH={REPOSITORY}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostLab]:
    """Yield two hosts, a Ray node of one core on each."""
    reason = missing_for_hosts()
    if reason:
        pytest.skip(f"hosts cannot be made here: {reason}")
    with HostLab(tmp_path_factory.mktemp("lab"), count=2) as lab:
        head = f"{lab.address(0)}:6379"
        start = f"{QUIET}; {BIN}/ray start --num-cpus=1 --node-ip-address="
        lab.run(0, f"{start}{lab.address(0)} --head --port=6379 --include-dashboard=false")
        lab.run(1, f"{start}{lab.address(1)} --address={head}")
        nodes = f"import ray; ray.init('{head}', log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))"
        waited(
            lambda: "2" in lab.run(0, f'{QUIET}; {sys.executable} -c "{nodes}"', check=False).stdout.split(),
            "two nodes",
            60,
        )
        yield lab


def test_two_hosts_write_the_rows_of_one_process(lab: HostLab) -> None:
    export = models.export_of(models.sbert_folder(lab.shared / "sbert"), lab.shared / "export")
    folder = review_folder(lab.shared / "in", files=8, rows=400)
    words = f"{sys.executable} -m sst2_ray predict --model-dir {export} --input {folder} --precision fp32"
    at_home = f"cd {REPOSITORY}; {QUIET}"
    lab.run(0, f"{at_home} OMP_NUM_THREADS=1; {words} --out {lab.shared}/one.parquet")  # as a worker of one core
    two = f"{words} --out {lab.shared}/out --num-workers 2"
    done = lab.run(0, f"{at_home} RAY_ADDRESS={lab.address(0)}:6379; {two}", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert labelled_rows(lab.shared / "out").equals(labelled_rows(lab.shared / "one.parquet"))
    logs = [list(lab.root(index).glob("tmp/ray/session_*/logs/worker-*.err")) for index in (0, 1)]
    assert all(logs), "a host had no worker"
