"""Machines of a cluster on Google Cloud in another zone than the file's, which Ray, asking about one zone, does not see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sst2_ray.cluster import cost, down, up, zones
from sst2_ray.cluster.clouds import CLOUDS, NoHeadError, gcp_api
from sst2_ray.cluster.file import load_cluster_file
from sst2_ray.errors import InputError, RunFailedError
from tests.support.cluster_files import rendered


class Request:
    def __init__(self, answer: Callable[[], Any]) -> None:
        self.execute = answer


class Compute:
    """Google's client of Compute Engine, with one machine a page; `protected` ones cannot be deleted."""

    def __init__(self, *machines: dict[str, Any]) -> None:
        self.machines, self.protected, self.waited = list(machines), set[str](), list[str]()

    def instances(self) -> Compute:
        return self

    zoneOperations = instances

    def aggregatedList(self, *, project: str, filter: str) -> Request:
        assert (project, filter) == ("acme-nlp", "labels.ray-cluster-name=sst2")
        return self._page(0)

    def aggregatedList_next(self, _: Request, page: dict[str, Any]) -> Request | None:
        return self._page(page["next"]) if page["next"] < len(self.machines) else None

    def _page(self, index: int) -> Request:
        listed: dict[str, Any] = {"zones/europe-west1-b": {"warning": {"code": "NO_RESULTS_ON_PAGE"}}}
        for machine in self.machines[index : index + 1]:
            listed[f"zones/{machine['zone']}"] = {"instances": [machine]}
        return Request(lambda: {"items": listed, "next": index + 1})

    def delete(self, *, project: str, zone: str, instance: str) -> Request:
        def run() -> dict[str, str]:
            if instance in self.protected:
                raise RuntimeError("Required 'compute.instances.delete' permission")
            self.machines = [
                machine for machine in self.machines if (machine["zone"], machine["name"]) != (zone, instance)
            ]
            return {"name": f"operation-{project}-{instance}"}

        return Request(run)

    def wait(self, *, project: str, zone: str, operation: str) -> Request:
        assert project and zone
        return Request(lambda: self.waited.append(operation))


def machine(name: str, zone: str, status: str = "RUNNING", kind: str = "e2-standard-4", **more: Any) -> dict[str, Any]:
    made = {"name": name, "zone": zone, "status": status, "machineType": f"https://x/zones/{zone}/machineTypes/{kind}"}
    return {**made, "creationTimestamp": "2026-01-05T10:00:00.000-08:00", **more}


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Compute:
    made = Compute()
    monkeypatch.setattr(gcp_api, "google_compute", lambda _: made)
    return made


@pytest.fixture
def path(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: ARG001
    """A file of two zones; `ray up` and `ray down` do nothing, doctor finds nothing, and no head runs in the zone that is asked."""
    document = rendered("gcp")
    document["provider"]["availability_zone"] = "us-central1-a,us-central1-b"
    file = tmp_path / "gcp.yaml"
    file.write_text(yaml.safe_dump(document))

    def none(_: Any) -> str:
        raise NoHeadError("no running head")

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(up, "_refuse_mistakes", lambda *_: None)
    monkeypatch.setattr(CLOUDS["gcp"], "head", none, raising=False)
    for module in (zones, down):
        monkeypatch.setattr(module, "run_ray", lambda *_: 0)
    return file


def test_machines_are_listed_in_every_zone_of_the_region(google: Compute, path: Path) -> None:
    spot = {"scheduling": {"provisioningModel": "SPOT"}}
    gpu = {"guestAccelerators": [{"acceleratorType": "https://x/nvidia-tesla-t4", "acceleratorCount": 1}]}
    google.machines = [
        machine("head", "us-central1-b"),
        machine("new", "us-central1-a", "STAGING", "g2-standard-8", **spot, **gpu),
        machine("old", "us-central1-f", "TERMINATED", "n1-standard-8", **gpu),
        machine("other", "us-west1-a"),  # a cluster of that name in another region
    ]
    found = CLOUDS["gcp"].status(load_cluster_file(path))
    assert found is not None
    assert [(one.id, one.zone, one.state, one.machine, one.spot) for one in found] == [
        ("head", "us-central1-b", "running", "e2-standard-4", False),
        ("new", "us-central1-a", "pending", "g2-standard-8", True),
        ("old", "us-central1-f", "stopped", "n1-standard-8 with 1 nvidia-tesla-t4", False),
    ]
    assert found[0].started_s == 1767636000


def test_cost_lists_them(google: Compute, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    google.machines = [machine("head", "us-central1-b")]
    assert cost.main([str(path)]) == 0
    assert "sst2: 1 machine, $0.13 an hour" in capsys.readouterr().out


def test_down_ends_what_lies_in_another_zone(google: Compute, path: Path) -> None:
    google.machines = [machine("head", "us-central1-b"), machine("worker", "us-central1-f", "TERMINATED")]
    assert down.main([str(path)]) == 0
    assert google.machines == [] and google.waited == ["operation-acme-nlp-head", "operation-acme-nlp-worker"]


def test_down_names_what_google_does_not_delete(google: Compute, path: Path) -> None:
    google.machines, google.protected = [machine("head", "us-central1-b")], {"head"}
    with pytest.raises(RunFailedError, match=r"still there after ray down: head \(running\)"):
        down.main([str(path)])


def test_up_starts_no_second_cluster_beside_machines_in_another_zone(google: Compute, path: Path) -> None:
    google.machines = [machine("head", "us-central1-b"), machine("worker", "us-central1-f", "TERMINATED")]
    with pytest.raises(
        InputError,
        match=r"machines in us-central1-b, and is looked for in us-central1-a; go on there with --zone us-central1-b",
    ):
        up.main([str(path), "--yes"])
    assert up.main([str(path), "--yes", "--zone", "us-central1-b"]) == 0
    assert load_cluster_file(path).zone == "us-central1-b" and len(google.machines) == 2
    assert up.main([str(path), "--yes"]) == 0


def test_up_between_two_zones_says_that_down_ends_both(google: Compute, path: Path) -> None:
    google.machines = [machine("head", "us-central1-b"), machine("first", "us-central1-a")]
    with pytest.raises(InputError, match=r"looked for in us-central1-a; end all of them with `sst2-ray down"):
        up.main([str(path), "--yes", "--zone", "us-central1-b"])
    assert len(google.machines) == 2


def test_what_google_refuses_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise RuntimeError("Your default credentials\nwere not found")

    monkeypatch.setattr(gcp_api, "google_compute", refuse)
    with pytest.raises(InputError, match=r"^Google Cloud: Your default credentials were not found; gcloud auth"):
        down.main([str(path)])


def test_without_googles_library_nothing_is_listed(path: Path) -> None:
    assert CLOUDS["gcp"].status(load_cluster_file(path)) is None
