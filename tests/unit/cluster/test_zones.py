"""A cluster lies in one zone of those that its file lists, and moves to the next where that one has no machines left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ray.job_submission import JobDetails, JobStatus, JobType

from sst2_ray.cluster import up, zones
from sst2_ray.cluster.clouds import CLOUDS, NoHeadError
from sst2_ray.cluster.file import ClusterFile, load_cluster_file
from sst2_ray.cluster.life import life
from sst2_ray.cluster.submit import command as submit
from sst2_ray.cluster.submit.output import NOT_PLACED, Output
from sst2_ray.errors import InputError
from tests.support.cluster_files import FILES, rendered

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def cluster() -> ClusterFile:
    return load_cluster_file(FILES["aws"])


def zone_for_ray(cluster: ClusterFile) -> str:
    return str(yaml.safe_load(cluster.for_ray().read_text())["provider"]["availability_zone"])


def test_ray_is_given_the_first_zone_alone(cluster: ClusterFile) -> None:
    assert cluster.zones == ("us-west-2a", "us-west-2b", "us-west-2c")
    assert cluster.zone == zone_for_ray(cluster) == "us-west-2a"


def test_after_a_move_every_command_finds_the_cluster_in_its_new_zone(cluster: ClusterFile) -> None:
    cluster.set_zone("us-west-2b")
    again = load_cluster_file(FILES["aws"])
    assert again.zone == zone_for_ray(again) == "us-west-2b" and zones.zone_after(again) == "us-west-2c"
    cluster.set_zone(None)
    assert again.zone == "us-west-2a"


def test_clusters_of_one_name_on_two_clouds_remember_a_zone_each(cluster: ClusterFile, tmp_path: Path) -> None:
    document = rendered("gcp")
    document["provider"]["availability_zone"] = "us-central1-a,us-central1-b"
    (tmp_path / "gcp.yaml").write_text(yaml.safe_dump(document))
    google = load_cluster_file(tmp_path / "gcp.yaml")
    assert google.name == cluster.name
    google.set_zone("us-central1-b")
    assert cluster.zone == "us-west-2a"
    cluster.set_zone(None)
    assert google.zone == "us-central1-b"


def test_a_cloud_that_cannot_be_asked_is_not_one_without_a_cluster(
    cluster: ClusterFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> str:
        raise RuntimeError("Reauthentication is needed")

    monkeypatch.setattr("ray.autoscaler.sdk.get_head_node_ip", refuse)
    with pytest.raises(InputError, match="cannot ask for the head of 'sst2': Reauthentication is needed"):
        up._move_away(cluster, "us-west-2b", restart=False)
    assert cluster.zone == "us-west-2a"


def test_behind_the_last_zone_there_is_none(cluster: ClusterFile) -> None:
    cluster.set_zone("us-west-2c")
    assert zones.zone_after(cluster) is None
    with pytest.raises(InputError, match="us-west-2c is the last of us-west-2a, us-west-2b, us-west-2c"):
        zones.wanted_zone(cluster, zone=None, next_zone=True)


@pytest.mark.parametrize("zone", ["us-east-1a", "us-west-2", "b", "us-west-2ab"])
def test_a_zone_of_another_region_is_refused(cluster: ClusterFile, zone: str) -> None:
    with pytest.raises(InputError, match=f"^--zone {zone}: not a zone of us-west-2"):
        zones.wanted_zone(cluster, zone=zone, next_zone=False)


def test_a_file_without_zones_has_none_to_choose() -> None:
    with pytest.raises(InputError, match="lists no zones"):
        zones.wanted_zone(load_cluster_file(FILES["azure"]), zone=None, next_zone=True)


def test_the_zone_where_it_runs_already_is_no_move(cluster: ClusterFile) -> None:
    assert zones.wanted_zone(cluster, zone="us-west-2a", next_zone=False) is None


def test_on_google_cloud_several_zones_can_stand_in_the_file(tmp_path: Path) -> None:
    document = rendered("gcp")
    document["provider"]["availability_zone"] = "us-central1-a,us-central1-b"
    path = tmp_path / "gcp.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    cluster = load_cluster_file(path)
    found = [finding for finding in CLOUDS["gcp"].check(cluster) if finding.where == "provider.availability_zone"]
    assert [(finding.level, finding.what) for finding in found] == [("ok", "us-central1-a, then us-central1-b")]
    assert zones.wanted_zone(cluster, zone=None, next_zone=True) == "us-central1-b"
    assert zone_for_ray(cluster) == "us-central1-a"


# ---- sst2-ray up


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record what `up` and `submit` have Ray do: nothing is started or ended."""
    done: list[str] = []

    def run_ray(arguments: list[str], cluster: ClusterFile) -> int:
        done.append(f"{arguments[0]} in {zone_for_ray(cluster)}")
        return 0

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(up, "_refuse_mistakes", lambda *_: None)
    monkeypatch.setattr(up, "_prepare_account", lambda *_: None)
    monkeypatch.setattr(zones, "run_ray", run_ray)
    monkeypatch.setattr(zones, "down", lambda cluster: done.append(f"down in {zone_for_ray(cluster)}"))
    return done


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A head that runs until `down`, with jobs of these states; none at all without `runs`."""

    def runs(*states: str, runs: bool = True) -> None:
        jobs = [
            JobDetails(type=JobType.SUBMISSION, submission_id=f"job-{n}", status=JobStatus(state), entrypoint="x")
            for n, state in enumerate(states)
        ]

        def address(cluster: ClusterFile) -> str:
            if not runs or cluster.zone != "us-west-2a":
                raise NoHeadError("no running head")
            return "203.0.113.9"

        @contextlib.contextmanager
        def tunnel(_: Any) -> Iterator[Any]:
            yield SimpleNamespace(url="http://127.0.0.1:1")

        monkeypatch.setattr(CLOUDS["aws"], "head", address, raising=False)
        monkeypatch.setattr(up, "Tunnel", tunnel)
        monkeypatch.setattr(up, "connect", lambda _: SimpleNamespace(list_jobs=lambda: jobs))

    return runs


def test_up_moves_an_idle_cluster_to_the_next_zone(head: Callable[..., None], told: list[str]) -> None:
    head("SUCCEEDED")
    assert up.main([str(FILES["aws"]), "--next-zone", "--yes"]) == 0
    assert told == ["down in us-west-2a", "up in us-west-2b"]


def test_up_in_a_zone_where_nothing_runs_yet_ends_nothing(head: Callable[..., None], told: list[str]) -> None:
    head(runs=False)
    assert up.main([str(FILES["aws"]), "--zone", "us-west-2c", "--yes"]) == 0
    assert told == ["up in us-west-2c"]


def test_a_cluster_with_jobs_is_not_moved(head: Callable[..., None], told: list[str], cluster: ClusterFile) -> None:
    head("RUNNING", "SUCCEEDED")
    with pytest.raises(InputError, match="moving to us-west-2b would end job-0"):
        up.main([str(FILES["aws"]), "--next-zone", "--yes"])
    assert told == [] and cluster.zone == "us-west-2a"


# ---- sst2-ray submit


class Client:
    """A job server on which a job ends without a place in the zones of `full`, and well elsewhere; others run as told."""

    def __init__(self, cluster: ClusterFile, full: tuple[str, ...], *others: JobDetails) -> None:
        self.cluster, self.full, self.others = cluster, full, list(others)
        self.submitted_in: list[str] = []

    def list_jobs(self) -> list[JobDetails]:
        return self.others

    def submit_job(self, *, submission_id: str, **_: Any) -> str:
        self.submitted_in.append(self.cluster.zone)
        return submission_id

    def get_job_info(self, name: str) -> JobDetails:
        code = 3 if self.cluster.zone in self.full else 0
        state = JobStatus.FAILED if code else JobStatus.SUCCEEDED
        return JobDetails(
            type=JobType.SUBMISSION, submission_id=name, status=state, entrypoint="x", driver_exit_code=code
        )

    def get_job_logs(self, _: str) -> str:
        return f"error: first failed: the workers {NOT_PLACED} 1800\n" if self.cluster.zone in self.full else "done\n"


@pytest.fixture
def send(
    told: list[str],  # noqa: ARG001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., int]:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/a.py").write_text("1")
    monkeypatch.setattr(submit, "_way_to", lambda *_: ("http://127.0.0.1:8265", lambda: None))

    def run(client: Client) -> int:
        monkeypatch.setattr(submit, "connect", lambda _: client)
        words = ["--working-dir", str(tmp_path / "work"), "--next-zone", "--", "python", "a.py"]
        return submit.main([str(FILES["aws"]), *words])

    return run


def test_a_job_that_finds_no_machines_is_submitted_again_in_the_next_zone(
    send: Callable[..., int], told: list[str], cluster: ClusterFile
) -> None:
    client = Client(cluster, ("us-west-2a", "us-west-2b"))
    assert send(client) == 0
    assert client.submitted_in == ["us-west-2a", "us-west-2b", "us-west-2c"]
    assert told == ["down in us-west-2a", "up in us-west-2b", "down in us-west-2b", "up in us-west-2c"]


def test_a_moved_cluster_keeps_the_times_that_up_was_given(
    send: Callable[..., int], head: Callable[..., None], cluster: ClusterFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    head(runs=False)
    found: list[tuple[float | None, float | None]] = []

    def run_ray(_: list[str], started: ClusterFile) -> int:
        found.append((life(started, "--idle-minutes"), life(started, "--max-hours")))
        return 0

    def end(ended: ClusterFile) -> None:
        ended.set_limits({})

    monkeypatch.setattr(zones, "run_ray", run_ray)
    monkeypatch.setattr(zones, "down", end)
    head(runs=False)
    assert up.main([str(FILES["aws"]), "--max-hours", "8", "--yes"]) == 0
    assert send(Client(cluster, ("us-west-2a", "us-west-2b"))) == 0
    assert found == [(30, 8)] * 3
    assert up.main([str(FILES["aws"]), "--yes"]) == 0
    assert found[-1] == (30, 72) and cluster.limits == {}


def test_where_every_zone_is_full_the_exit_code_is_that_of_the_job(
    send: Callable[..., int], cluster: ClusterFile, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client(cluster, cluster.zones)
    assert send(client) == 3
    assert len(client.submitted_in) == 3 and "us-west-2c is the last zone" in capsys.readouterr().err


def test_a_cluster_on_which_others_run_is_not_moved_under_them(
    send: Callable[..., int], told: list[str], cluster: ClusterFile, capsys: pytest.CaptureFixture[str]
) -> None:
    other = JobDetails(
        type=JobType.SUBMISSION, submission_id="theirs", status=JobStatus.RUNNING, entrypoint="python b.py", metadata={}
    )
    assert send(Client(cluster, cluster.zones, other)) == 3
    assert told == [] and "not moved to us-west-2b: theirs still run" in capsys.readouterr().err


def test_the_words_of_a_run_without_a_place_are_found_across_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    for piece in ("the workers were not pla", "ced within --placem", "ent-timeout-s 600"):
        output(piece)
    assert output.tells_of_no_place and capsys.readouterr().out.endswith("--placement-timeout-s 600")


def test_the_words_are_those_that_a_run_ends_with() -> None:
    from sst2_ray.run.launch import not_placed
    from sst2_ray.run.ray.state import NodesToCome

    assert NOT_PLACED in not_placed(1800, NodesToCome())


def test_next_zone_needs_a_file_with_zones(told: list[str], tmp_path: Path) -> None:
    del told
    for where in ([str(FILES["onprem"])], ["--address", "http://127.0.0.1:1"]):
        with pytest.raises(InputError, match="--next-zone needs a cluster file that lists zones"):
            submit.main([*where, "--next-zone", "--working-dir", str(tmp_path), "--", "python", "a.py"])
