"""Machines that end by themselves: the watch that cluster/node/autostop.sh starts, with real sockets and a stand-in for shutdown."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import yaml

from sst2_ray.cluster import cost
from sst2_ray.cluster.clouds import cloud_of
from sst2_ray.cluster.file import load_cluster_file
from sst2_ray.cluster.life import life, with_life
from tests.support.cluster_files import FILES, REPOSITORY
from tests.support.waiting import waited

SCRIPT = REPOSITORY / "cluster/node/autostop.py"
CLOUDS = ("aws", "gcp", "azure")


class Dashboard:
    """A job server with one job in `status`, and the applications of Ray Serve."""

    def __init__(self) -> None:
        self.status = "RUNNING"
        self.applications: dict[str, object] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                serve = {"applications": outer.applications}
                answers = {"/api/jobs/": [{"status": outer.status}], "/api/serve/applications/": serve}
                self.wfile.write(json.dumps(answers[self.path]).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    made = Dashboard()
    yield made
    made.server.shutdown()
    made.server.server_close()


Watch = Callable[..., Callable[[], bool | None]]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Start the watch with limits of a second; what comes back tells whether the machine has ended."""
    started: list[subprocess.Popen[bytes]] = []
    ended = tmp_path / "ended"

    def start(*flags: str) -> Callable[[], bool | None]:
        words = [
            *flags,
            "--idle-minutes",
            "0.015",
            "--lost-minutes",
            "0.015",
            "--poll-s",
            "0.1",
            "--proc",
            f"{tmp_path}/proc",
            "--command",
            f"touch {ended}",
        ]
        started.append(
            subprocess.Popen([sys.executable, str(SCRIPT), *words], env={**os.environ, "HOME": str(tmp_path)})
        )
        return lambda: ended.exists() or None

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "STOPPED"])
def test_a_head_whose_jobs_have_ended_ends(watch: Watch, dashboard: Dashboard, status: str) -> None:
    dashboard.status = status
    assert waited(watch("head", "--dashboard", dashboard.url, "--ssh-port", "1"), "the end", 15)


def test_a_head_without_a_dashboard_ends(watch: Watch) -> None:
    assert waited(watch("head", "--dashboard", "http://127.0.0.1:9", "--ssh-port", "1"), "the end", 15)


def test_a_head_lives_while_a_job_runs_and_ends_after_it(watch: Watch, dashboard: Dashboard) -> None:
    ended = watch("head", "--dashboard", dashboard.url, "--ssh-port", "1")
    time.sleep(3)
    assert not ended()
    dashboard.status = "SUCCEEDED"
    assert waited(ended, "the end", 15)


def test_a_head_lives_while_a_model_is_served(watch: Watch, dashboard: Dashboard) -> None:
    dashboard.status, dashboard.applications = "SUCCEEDED", {"sst2": {"status": "RUNNING"}}
    ended = watch("head", "--dashboard", dashboard.url, "--ssh-port", "1")
    time.sleep(3)
    assert not ended()
    dashboard.applications = {}
    assert waited(ended, "the end", 15)


@pytest.mark.parametrize("title", ["ray::JobSupervisor", "ray::ServeController.listen_for_change"])
def test_a_head_whose_dashboard_is_gone_lives_while_rays_processes_work(
    watch: Watch, tmp_path: Path, title: str
) -> None:
    for pid, line in {"6": "ray::IDLE", "7": title, "8": "grep\0JobSupervisor"}.items():
        (tmp_path / "proc" / pid).mkdir(parents=True)
        (tmp_path / "proc" / pid / "cmdline").write_text(line)
    ended = watch("head", "--dashboard", "http://127.0.0.1:9", "--ssh-port", "1")
    time.sleep(3)
    assert not ended()
    (tmp_path / "proc/7/cmdline").unlink()
    assert waited(ended, "the end", 15)


def test_a_head_lives_while_somebody_is_connected_by_ssh(watch: Watch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sshd:
        laptop = socket.create_connection(sshd.getsockname())
        connection, _ = sshd.accept()
        ended = watch("head", "--dashboard", "http://127.0.0.1:9", "--ssh-port", str(sshd.getsockname()[1]))
        time.sleep(3)
        assert not ended()
        laptop.close()
        connection.close()
        assert waited(ended, "the end", 15)


def test_a_worker_ends_when_no_head_answers_any_more(watch: Watch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        ended = watch("worker", "--head", f"127.0.0.1:{head.getsockname()[1]}")
        time.sleep(3)
        assert not ended()
    assert waited(ended, "the end", 15)


def test_every_machine_ends_after_its_longest_life_whatever_it_does(watch: Watch, dashboard: Dashboard) -> None:
    assert waited(watch("head", "--dashboard", dashboard.url, "--max-hours", "0.0001"), "the end", 15)


def test_a_second_start_replaces_the_first(tmp_path: Path) -> None:
    (tmp_path / ".sst2-ray").mkdir()
    settings = {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    pids = []
    for _ in range(2):
        words = ["bash", str(REPOSITORY / "cluster/node/autostop.sh"), "head", "--command", "true"]
        subprocess.run(words, env=settings, check=True, timeout=20)
        pids.append(int((tmp_path / ".sst2-ray/autostop.pid").read_text()))
        pid = pids[-1]
        waited(lambda pid=pid: b"autostop.py" in Path(f"/proc/{pid}/cmdline").read_bytes() or None, "the watch", 10)
    try:
        assert pids[0] != pids[1]
        waited(lambda: not Path(f"/proc/{pids[0]}/cmdline").exists() or None, "the end of the first", 10)
    finally:
        os.kill(pids[1], 9)


@pytest.mark.parametrize(
    ("script", "module", "words"), [("autostop.sh", "autostop.py", ["head"]), ("watch_spot.sh", "spot_watcher", [])]
)
def test_before_set_up_and_after_a_reboot_the_watches_start(
    tmp_path: Path, script: str, module: str, words: list[str]
) -> None:
    """There is only the system's Python then, and the number in the file may be another process's."""
    folder, tools = tmp_path / ".sst2-ray", tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "cat", "dirname", "grep", "kill", "nohup", "setsid"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    for name in ("python3",) if script == "autostop.sh" else ("python",):
        (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} -c "import time; time.sleep(60)" "$@"\n')
        (tools / name).chmod(0o755)
    (folder / "src/sst2_ray/cluster").mkdir(parents=True)
    (folder / "src/sst2_ray/cluster/spot_watcher.py").touch()
    file = folder / ("autostop.pid" if script == "autostop.sh" else "spot_watcher.pid")
    settings = {"HOME": str(tmp_path), "PATH": str(tools)}
    with subprocess.Popen(["sleep", "60"]) as other:
        file.write_text(str(other.pid))
        subprocess.run(
            ["bash", str(REPOSITORY / "cluster/node" / script), *words], env=settings, check=True, timeout=20
        )
        pid = int(file.read_text())
        try:
            assert pid != other.pid and other.poll() is None
            waited(lambda: module in Path(f"/proc/{pid}/cmdline").read_text() or None, "the watch", 10)
        finally:
            for process in {pid, other.pid}:
                os.kill(process, 9)


@pytest.fixture
def autostop() -> ModuleType:
    spec = importlib.util.spec_from_file_location("autostop", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class CloudApi:
    """A cloud's metadata and its API, which delete a machine for whoever has the right to."""

    ANSWERS: ClassVar = {
        "/instance/service-accounts/default/token": {"access_token": "T"},
        "/instance/zone": "projects/1/zones/us-central1-a",
        "/instance/name": "worker-7",
        "/identity/oauth2/token": {"access_token": "T"},
        "/instance/compute/resourceId": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/w",
        "/virtualMachines/w": {"properties": {"networkProfile": {"networkInterfaces": [{"id": "/nic"}]}}},
        "/nic": {
            "properties": {
                "ipConfigurations": [
                    {"properties": {"publicIPAddress": {"id": "/ip"}, "subnet": {}}},
                    {"properties": {}},
                ]
            }
        },
    }

    def __init__(self, *, may_delete: bool = True) -> None:
        self.may_delete = may_delete
        self.calls: list[tuple[str, str, object, dict[str, str]]] = []

    def ask(
        self, url: str, *, method: str = "GET", body: object = None, timeout_s: float = 10.0, **headers: str
    ) -> bytes:
        del timeout_s
        self.calls.append((method, url, body, headers))
        if method == "DELETE" and not self.may_delete:
            raise OSError("HTTP Error 403: Forbidden")
        found = next((value for end, value in self.ANSWERS.items() if url.partition("?")[0].endswith(end)), {})
        return (found if isinstance(found, str) else json.dumps(found)).encode()


def test_on_google_cloud_a_machine_has_itself_deleted(autostop: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    api = CloudApi()
    monkeypatch.setattr(autostop, "ask", api.ask)
    autostop.delete_in_the_cloud("gcp")
    url = "https://compute.googleapis.com/compute/v1/projects/1/zones/us-central1-a/instances/worker-7"
    assert api.calls[-1] == ("DELETE", url, None, {"Authorization": "Bearer T"})
    assert all(headers == {"Metadata_Flavor": "Google"} for _, _, _, headers in api.calls[:-1])


def test_on_azure_a_machine_has_itself_deleted_with_its_disk_network_card_and_address(
    autostop: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = CloudApi()
    monkeypatch.setattr(autostop, "ask", api.ask)
    monkeypatch.setattr(autostop, "SETTLE_S", 0.0)
    autostop.delete_in_the_cloud("azure")
    (change,) = [body for method, _, body, _ in api.calls if method == "PATCH"]
    assert change == {
        "properties": {
            "storageProfile": {"osDisk": {"deleteOption": "Delete"}},
            "networkProfile": {"networkInterfaces": [{"id": "/nic", "properties": {"deleteOption": "Delete"}}]},
        }
    }
    (card,) = [body for method, _, body, _ in api.calls if method == "PUT"]
    assert isinstance(card, dict)
    address = {"id": "/ip", "properties": {"deleteOption": "Delete"}}
    places = [{"properties": {"publicIPAddress": address, "subnet": {}}}, {"properties": {}}]
    assert card == {"properties": {"ipConfigurations": places}}
    method, url, _, headers = api.calls[-1]
    assert method == "DELETE" and headers == {"Authorization": "Bearer T"}
    assert url.startswith("https://management.azure.com/subscriptions/s/") and url.endswith("&forceDeletion=true")


def test_on_azure_a_machine_without_the_right_to_its_address_has_itself_deleted_nevertheless(
    autostop: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = CloudApi()

    def ask(url: str, *, method: str = "GET", **more: Any) -> bytes:
        if method == "PUT":
            raise OSError("HTTP Error 403: Forbidden")
        return api.ask(url, method=method, **more)

    monkeypatch.setattr(autostop, "ask", ask)
    monkeypatch.setattr(autostop, "SETTLE_S", 0.0)
    autostop.delete_in_the_cloud("azure")
    assert [method for method, *_ in api.calls][-2:] == ["PATCH", "DELETE"]


@pytest.mark.parametrize("cloud", ["gcp", "azure"])
def test_a_machine_without_the_right_to_delete_itself_shuts_down(
    autostop: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cloud: str
) -> None:
    api = CloudApi(may_delete=False)
    monkeypatch.setattr(autostop, "ask", api.ask)
    monkeypatch.setattr(autostop, "SETTLE_S", 0.0)
    flags = ["worker", "--cloud", cloud, "--head", "127.0.0.1:9", "--max-hours", "0.00001"]
    assert autostop.main([*flags, "--command", f"touch {tmp_path}/off"]) == 0
    assert (tmp_path / "off").exists() and api.calls[-1][0] == "DELETE"


def test_on_google_cloud_every_machine_has_a_longest_life_that_needs_no_right(home: Path) -> None:
    del home
    cluster = load_cluster_file(FILES["gcp"])
    lives = [node_type.config.section("scheduling") for node_type in cluster.node_types]
    assert [life.section("maxRunDuration").whole("seconds") for life in lives] == [72 * 3600] * 3
    assert {life.text("instanceTerminationAction") for life in lives} == {"DELETE"}
    for hours, seconds in ((5, 18000), (0, None)):
        limited = cloud_of(cluster).limit_life(cluster, {"--max-hours": hours})
        scheduling = [node_type.config.section("scheduling") for node_type in limited.node_types]
        assert [life.section("maxRunDuration").whole("seconds") for life in scheduling] == [seconds] * 3
        wrong = [f for f in cloud_of(limited).check(limited) if f.level == "error" and "scheduling" in f.where]
        assert wrong == []
    assert cloud_of(cluster).limit_life(cluster, {}) is cluster


@pytest.mark.parametrize("name", CLOUDS)
def test_every_cloud_file_ends_its_head_and_its_workers(name: str) -> None:
    document = yaml.safe_load(FILES[name].read_text())
    (head,) = [command for command in document["head_start_ray_commands"] if "autostop.sh" in command]
    (worker,) = [command for command in document["worker_start_ray_commands"] if "autostop.sh" in command]
    watch = f"bash ~/.sst2-ray/node/autostop.sh head --cloud {name} --idle-minutes 30 --max-hours 72"
    assert head == watch and document["initialization_commands"] == [watch]  # before anything can fail, too
    assert f'worker --cloud {name} --head "$RAY_HEAD_IP:6379" --lost-minutes 15' in worker


def test_times_given_to_up_reach_the_file_that_ray_is_given(home: Path) -> None:  # noqa: ARG001
    cluster = load_cluster_file(FILES["aws"])
    assert life(cluster, "--idle-minutes") == 30 and with_life(cluster, {}) is cluster
    given = yaml.safe_load(with_life(cluster, {"--idle-minutes": 5, "--max-hours": 0}).for_ray().read_text())
    for key in ("initialization_commands", "head_start_ray_commands"):
        assert any("--idle-minutes 5 --max-hours 0" in command for command in given[key])
    assert any("--lost-minutes 15 --max-hours 0" in command for command in given["worker_start_ray_commands"])


def test_times_given_to_up_reach_a_command_that_states_none(home: Path, tmp_path: Path) -> None:  # noqa: ARG001
    text = FILES["aws"].read_text().replace(" --idle-minutes 30 --max-hours 72", "").replace(" --max-hours 72", "")
    (tmp_path / "bare.yaml").write_text(text)
    cluster = load_cluster_file(tmp_path / "bare.yaml")
    assert (life(cluster, "--idle-minutes"), life(cluster, "--max-hours")) == (30, 72)
    given = with_life(cluster, {"--idle-minutes": 5, "--max-hours": 2})
    assert (life(given, "--idle-minutes"), life(given, "--max-hours")) == (5, 2)
    (worker,) = [text for text in given.document.texts("worker_start_ray_commands") if "autostop.sh" in text]
    assert "worker --max-hours 2 " in worker
    assert "--idle-minutes" not in worker


def test_cost_lists_what_the_cloud_lists(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del home
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed (the dev extra)")
    moto = pytest.importorskip("moto", reason="moto is not installed (the dev extra)")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with moto.mock_aws():
        ec2 = boto3.client("ec2", region_name="us-west-2")
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "ray-cluster-name", "Value": "sst2"}]}]
        ec2.run_instances(ImageId=image, InstanceType="m6i.xlarge", MinCount=1, MaxCount=1, TagSpecifications=tags)
        ec2.run_instances(ImageId=image, InstanceType="m6i.xlarge", MinCount=1, MaxCount=1)  # somebody else's
        assert cost.main([str(FILES["aws"])]) == 0
    told = capsys.readouterr().out
    assert "m6i.xlarge  running" in told and "sst2: 1 machine, $0.19 an hour" in told
