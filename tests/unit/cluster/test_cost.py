"""Tests of a cluster's cost, said before anything is started: from a price that the user gives, or from the dated table."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from sst2_ray.cluster.clouds import cloud_of
from sst2_ray.cluster.doctor import command as doctor
from sst2_ray.cluster.doctor.command import DoctorConfig, examine_file
from sst2_ray.cluster.file import ClusterFile, load_cluster_file
from sst2_ray.cluster.life import with_life
from sst2_ray.cluster.prices import RECORDED, machine_of
from sst2_ray.cluster.submit import command as submit
from sst2_ray.cluster.submit.forecast import forecast_job
from sst2_ray.cluster.submit.plan import plan_rows
from sst2_ray.errors import InputError
from tests.support import models
from tests.support.cluster_files import FILES, rendered
from tests.support.reviews import reviews, write_glue_folder

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
    assert (
        "machines: head m6i.xlarge (4 CPUs, 16 GiB, $0.19 an hour), 0 to 8 g6.2xlarge (1 L4, 8 CPUs, 32 GiB, " in told
    )
    assert "zone: us-west-2a" in told and "an hour: $0.19 idle, at most $8.01 with 8 workers" in told
    assert "this job: its length is not known" in told
    assert "forgotten: the idle cluster ends by itself after 30 minutes ($0.10)" in told
    assert "a busy one after 72 hours (at most $577)" in told and "would submit sst2-" in told


@pytest.mark.parametrize(
    ("name", "head", "worker"), [("aws", 0.192, 0.9776), ("gcp", 0.134, 0.85), ("azure", 0.192, 3.673)]
)
def test_the_plan_of_a_job_of_known_length_is_the_price_of_its_machines(
    name: str, head: float, worker: float, tmp_path: Path
) -> None:
    rows = dict(
        plan_rows(cluster_of(name, tmp_path), ("python", "jobs/sweep.py", "--num-workers", "2"), tmp_path, hours=3)
    )
    assert rows["this job"].startswith(f"3 hours with 2 workers: ${3 * (head + 2 * worker):.2f}")
    assert f"${head + 2 * worker:.2f} with this job's 2 workers" in rows["an hour"] and RECORDED in rows["an hour"]
    assert f"after 72 hours (at most ${72 * (head + 2 * worker):,.0f}, " in rows["forgotten"]
    assert name != "azure" or "not charged" in rows["zone"]


def test_a_file_without_autostop_says_what_a_month_costs(tmp_path: Path) -> None:
    cluster = with_life(cluster_of("aws", tmp_path), {"--idle-minutes": 0, "--max-hours": 0})
    rows = dict(plan_rows(cluster, ("python", "a.py"), tmp_path))
    assert rows["forgotten"] == "nothing ends a forgotten cluster: $138 a month idle"


def test_machines_of_ones_own_have_a_plan_without_prices(tmp_path: Path) -> None:
    rows = plan_rows(cluster_of("onprem", tmp_path), ("python", "a.py"), tmp_path)
    assert rows == [("machines", "3 machines of your own: no list price")]
    shipped = load_cluster_file(FILES["onprem"])
    ((name, words),) = plan_rows(shipped, ("python", "a.py"), tmp_path)
    assert name == "to fill in" and words.startswith("HEAD_ADDRESS, WORKER_ADDRESS_1")


def test_results_that_end_with_the_head_are_said(tmp_path: Path) -> None:
    cluster = cluster_of("aws", tmp_path)
    words = ("python", "jobs/sweep.py", "--num-workers", "2")
    assert "gone with it" in dict(plan_rows(cluster, words, tmp_path))["results"]
    for told in ("--storage-path=s3://bucket/runs", "--config"):
        assert "results" not in dict(plan_rows(cluster, (*words, told), tmp_path))
    assert "results" not in dict(plan_rows(cluster, ("python", "a.py"), tmp_path))


def test_the_plan_of_a_training_job_is_the_dry_run_of_its_own_command_for_the_clusters_gpus(tmp_path: Path) -> None:
    data = write_glue_folder(tmp_path / "data", reviews(50), reviews(10, topic="play"))
    model = models.modernbert_folder(tmp_path / "model")
    words = ("--model", str(model), "--data", str(data), "--batch-size", "16", "--epochs", "3", "--max-length", "64")
    command = ("python", "jobs/train.py", *words, "--storage-path", "s3://a-bucket-that-nobody-reaches/sst2")
    rows = dict(plan_rows(cluster_of("aws", tmp_path), command, tmp_path))
    assert (
        rows["this job"].startswith("at least ")
        and "with 1 worker, on paper at the GPU's peak: at least $" in rows["this job"]
    )
    assert "2 workers in as many zones would pay up to $" in rows["zone"]
    # A model so small that its host launches for longer than the GPU computes, whatever its share of the batch.
    assert "2 are no faster (" in rows["more workers"] and "10 Gbit/s between machines" in rows["more workers"]
    assert rows["an hour"].startswith("$0.19 idle, $1.17 with this job's 1 worker, at most $8.01")
    assert "a busy one after 72 hours (at most $84, $577 with all workers)" in rows["forgotten"]


@pytest.mark.parametrize(
    ("command", "workers"),
    [
        (("python", "jobs/train.py"), 1),
        (("python", "-m", "sst2_ray", "train", "--num-workers=4"), 4),
        (("sst2-ray", "train", "--num-workers", "2:8"), 2),
        (("/home/me/venv/bin/sst2-ray", "sweep"), 1),
        (("python", "train.py", "--num-workers", "4"), None),
        (("bash", "-c", "train"), None),
    ],
)
def test_the_workers_of_a_job_are_those_that_its_command_asks_for(
    command: tuple[str, ...], workers: int | None, tmp_path: Path
) -> None:
    assert forecast_job(command, tmp_path, None).num_workers == workers


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("jobs/trian.py", "jobs/trian.py: no such script in .*; did you mean jobs/train.py"),
        ("jobs/left_out.py", "jobs/left_out.py: is left out of the upload"),
        ("jobs/train.py --preset papre", "--preset papre: no such preset; did you mean paper"),
        ("./jobs/train.py --no-such-flag 1", "unknown flag --no-such-flag"),
        ("jobs/train.py --config there.yaml --epochs two", "--epochs two: must be "),
        ("jobs/sweep.py --preset papre", "--preset papre: no such preset"),
        ("jobs/sweep.py --models sbert sbert", "--models: sbert is there twice"),
        ("jobs/sweep.py --resume s3://b/runs/a --num-seeds x", "--num-seeds x: must be "),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_a_command_that_cannot_run_is_refused_before_it_is_sent(
    command: str, line: str, dry: bool, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    (work / "jobs").mkdir(parents=True)
    for name in ("train", "sweep", "left_out"):
        (work / "jobs" / f"{name}.py").write_text("1")
    (work / ".gitignore").write_text("left_out.py\n")
    words = ["--dry-run"] if dry else ["--address", "http://127.0.0.1:9"]
    with pytest.raises(InputError, match=line) as caught:
        submit.main([*words, "--working-dir", str(work), "--", "python", *command.split()])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        "python jobs/train.py --config not_here.yaml --data not_here.csv",
        "python jobs/train.py --help",
        "python jobs/sweep.py --resume s3://not-here/a",
        "python jobs/sweep.py --preset paper-grid --data rotten-tomatoes",
        "python /abs/a.py",
        "python -m other.module",
        "python -c 1",
        "bash a.sh",
    ],
)
def test_what_only_the_cluster_has_is_no_mistake_of_a_command(command: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    for name in ("train", "sweep"):
        (work / "jobs").mkdir(parents=True, exist_ok=True)
        (work / "jobs" / f"{name}.py").write_text("1")
    assert submit.main(["--dry-run", "--working-dir", str(work), "--", *command.split()]) == 0


def test_why_no_plan_can_be_made_gives_no_advice_for_this_machine_and_cuts_no_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        line = f"error: --data rotten-tomatoes: {'word ' * 60}; pip install -e '.[demo]'\n"
        return subprocess.CompletedProcess([], 2, "", line)

    monkeypatch.setattr("sst2_ray.cluster.submit.forecast.subprocess.run", fails)
    rows = dict(plan_rows(cluster_of("aws", tmp_path), ("python", "jobs/train.py"), tmp_path))
    assert "pip" not in rows["this job"] and "word ...)" in rows["this job"]


def test_doctor_says_that_the_cloud_was_not_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, words, is_said in (("aws", [], True), ("aws", ["--offline"], False), ("gcp", [], False)):
        doctor.main([str(cluster_of(name, tmp_path).path), *words])
        told = capsys.readouterr().err
        assert ("; not asked: the cloud (quota, types, bucket: --ask-cloud)\n" in told) == is_said


def test_a_plan_that_cannot_be_made_says_why_and_the_rest_is_told(tmp_path: Path) -> None:
    rows = dict(plan_rows(cluster_of("aws", tmp_path), ("python", "jobs/train.py", "--no-such-flag", "1"), tmp_path))
    assert "no plan could be made here: " in rows["this job"] and "--no-such-flag" in rows["this job"]
    assert "with this job's 1 worker" in rows["an hour"]
