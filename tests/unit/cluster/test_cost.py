"""What a cluster costs, said before anything is started: from a price that the user gives, or from the dated table."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sst2_ray.cluster.clouds import cloud_of
from sst2_ray.cluster.doctor.command import DoctorConfig, examine_file
from sst2_ray.cluster.file import ClusterFile, load_cluster_file
from sst2_ray.cluster.prices import RECORDED, machine_of
from sst2_ray.cluster.submit import command as submit
from tests.support.cluster_files import FILES, rendered

pytestmark = pytest.mark.usefixtures("home")


def cluster_of(name: str, folder: Path) -> ClusterFile:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(rendered(name), sort_keys=False))
    return load_cluster_file(path)


def costs(cluster: ClusterFile, **options: float) -> list[str]:
    config = DoctorConfig(offline=True, **options)  # type: ignore[arg-type]
    return [finding.what for finding in examine_file(cluster, config) if finding.where == "cost"]


def test_idle_and_most_an_hour_come_from_the_dated_table(tmp_path: Path) -> None:
    head, worker = (machine_of("aws", name) for name in ("m6i.xlarge", "g6.2xlarge"))
    assert head is not None and worker is not None and head.usd_per_hour and worker.usd_per_hour
    hourly, forgotten = costs(cluster_of("aws", tmp_path))
    assert "ends by itself after 30 minutes ($0.10), a busy one after 72 hours" in forgotten
    most = head.usd_per_hour + 8 * worker.usd_per_hour
    assert hourly.startswith(
        f"${head.usd_per_hour:.2f} an hour idle, at most ${most:.2f} with 8 workers, spot workers below that"
    )
    assert RECORDED in hourly and "https://aws.amazon.com/ec2/pricing" in hourly


@pytest.mark.parametrize(("name", "head_price"), [("aws", 0.192), ("gcp", 0.134), ("azure", 0.192)])
def test_a_job_costs_the_head_and_its_workers_at_the_users_price(
    name: str,
    head_price: float,
    tmp_path: Path,
) -> None:
    hourly, _, job = costs(cluster_of(name, tmp_path), price_per_hour=2.0, hours=3, workers=4)
    assert "your price for a worker" in hourly and "list prices" not in hourly
    assert job == f"a job of 3 hours on 4 workers: ${3 * (head_price + 4 * 2.0):.2f}"


@pytest.mark.parametrize("name", ["aws", "gcp", "azure"])
def test_every_machine_of_a_shipped_file_is_in_the_dated_table_with_its_price_and_sizes(
    name: str, tmp_path: Path
) -> None:
    cluster = cluster_of(name, tmp_path)
    for node_type in cluster.node_types:
        machine = machine_of(name, cloud_of(cluster).machine_name(node_type))
        assert machine is not None and machine.usd_per_hour, node_type.name
        if not node_type.is_head and name != "aws":  # on AWS Ray reads the sizes from EC2
            declared = (node_type.resources.whole("CPU"), node_type.resources.whole("GPU"))
            assert declared == (machine.cpus, machine.gpus)


def test_machines_of_ones_own_have_no_price(tmp_path: Path) -> None:
    assert costs(cluster_of("onprem", tmp_path)) == []


def test_a_dry_run_of_submit_states_the_cost_and_sends_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "a.py").write_text("1")
    argv = [str(FILES["aws"]), "--working-dir", str(work), "--dry-run", "--", "python", "a.py"]
    assert submit.main(argv) == 0
    told = capsys.readouterr().err
    assert "machines: m6i.xlarge (head), g6.2xlarge (spot), g6.2xlarge in us-west-2a" in told
    assert (
        "forgotten, the idle cluster ends by itself after 30 minutes" in told
        and "cost: $0.19 an hour idle" in told
        and "would submit sst2-" in told
    )
