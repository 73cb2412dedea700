"""The shipped files say the same things in the same words, and pin what the project pins."""

from __future__ import annotations

import importlib.metadata
import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sst2_ray.cluster.clouds.aws import check_source
from sst2_ray.cluster.file import load_cluster_file, use_token_if_present
from sst2_ray.cluster.prices import MACHINES, machine_of
from sst2_ray.cluster.ssh import Host
from sst2_ray.cluster.up import ensure_token
from sst2_ray.errors import InputError
from tests.support.cluster_files import FILES, REPOSITORY, rendered

LOCK = (REPOSITORY / "cluster/node/requirements.lock").read_text()
TESTED = (REPOSITORY / "constraints.txt").read_text()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
RAY_FILES = [name for name in FILES if name != "kuberay"]


def pins(text: str = LOCK) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE))


def test_every_pinned_version_is_one_that_the_project_declares_to_work() -> None:
    declared = {requirement.name: requirement for requirement in map(Requirement, PROJECT["dependencies"])}
    wrong = {
        name: version
        for name, version in pins().items()
        if name in declared and not declared[name].specifier.contains(version)
    }
    assert wrong == {} and declared.keys() <= pins().keys()


def test_nodes_get_the_versions_that_the_tests_ran_with() -> None:
    tested = pins(TESTED)
    other = {name: (version, tested[name]) for name, version in pins().items() if tested.get(name, version) != version}
    assert other == {}


def test_the_lock_holds_what_serving_on_a_cluster_needs() -> None:
    (serve,) = (Requirement(text) for text in PROJECT["optional-dependencies"]["serve"])
    asked = [Requirement(text) for text in importlib.metadata.requires(serve.name) or []]
    wanted = [
        r for r in asked if r.marker and r.marker.evaluate({"extra": "serve"}) and not r.marker.evaluate({"extra": ""})
    ]
    assert len(wanted) > 3
    assert [str(r) for r in wanted if canonicalize_name(r.name) not in pins()] == []


def test_every_package_of_the_lock_has_a_hash() -> None:
    entries = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins()) > 100
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_ray_is_the_same_in_the_pins_the_image_the_manifest_and_here() -> None:
    version = pins()["ray"]
    assert version == importlib.metadata.version("ray")
    assert rendered("kuberay")["spec"]["rayClusterSpec"]["rayVersion"] == version
    assert f"FROM rayproject/ray:{version}-py311-gpu" in (REPOSITORY / "cluster/Dockerfile").read_text()
    assert f"sst2-ray:{version}" in FILES["kuberay"].read_text()


def test_every_url_and_tag_fits_the_python_and_the_torch_beside_it() -> None:
    python = re.search(r"PYTHON_VERSION=(\S+)", (REPOSITORY / "cluster/node/setup.sh").read_text())
    assert python is not None
    tag, torch = f"cp{python[1].replace('.', '')}", pins()["torch"]
    cuda = next(name.removeprefix("nvidia-cudnn-cu") for name in pins() if name.startswith("nvidia-cudnn-cu"))
    for path in (path for path in (REPOSITORY / "cluster").rglob("*") if path.is_file()):
        text = path.read_text()
        for wheel in re.findall(r"\S+\.whl", text):
            assert f"-{tag}-" in wheel or "-py3-" in wheel, f"{path}: {wheel}"
            assert f"torch{torch.rpartition('.')[0]}" in wheel or "torch" not in wheel, f"{path}: {wheel}"
        for found in re.findall(r"\bpy(3\d{1,2})\b", text):
            assert f"cp{found}" == tag, f"{path}: py{found}"
        for found in re.findall(r"\bpython(3\.\d+)\b|python-version (3\.\d+)", text):
            assert python[1] in found, f"{path}: {found}"
        for found in re.findall(r"download\.pytorch\.org/whl/cu(\d\d)", text):
            assert found == cuda, f"{path}: cu{found}"


@pytest.mark.parametrize("name", RAY_FILES)
def test_every_mounted_path_exists_in_the_repository(name: str) -> None:
    for local in rendered(name)["file_mounts"].values():
        assert local.startswith("~") or (REPOSITORY / local).exists(), local


@pytest.mark.parametrize("name", ["aws", "gcp", "azure"])
def test_every_cloud_file_gives_the_spot_watcher_its_place_on_workers_only(name: str) -> None:
    document = rendered(name)
    assert any("watch_spot.sh" in command for command in document["worker_start_ray_commands"])
    assert not any("watch_spot.sh" in command for command in document["head_start_ray_commands"])


@pytest.mark.parametrize("name", FILES)
def test_every_file_explains_itself(name: str) -> None:
    text = FILES[name].read_text()
    assert text.startswith("# ") and text.count("#") >= 12


@pytest.mark.parametrize("script", ["cluster/node/setup.sh", "cluster/node/watch_spot.sh", "cluster/slurm.sbatch"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    path = REPOSITORY / script
    assert path.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_the_nodes_check_finds_this_environment_complete_and_names_what_is_missing() -> None:
    check = [sys.executable, str(REPOSITORY / "cluster/node/missing.py"), str(REPOSITORY / "pyproject.toml")]
    lock = str(REPOSITORY / "cluster/node/requirements.lock")
    complete = subprocess.run([*check, lock], capture_output=True, text=True, check=False)
    assert complete.returncode == 0, complete.stderr
    lacking = subprocess.run(
        [*check, lock, "no-such-package>=1", "pyyaml<1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert lacking.returncode == 1
    assert "no-such-package>=1 (not installed)" in lacking.stderr and "pyyaml<1 (has " in lacking.stderr


def test_the_watcher_script_does_nothing_where_the_package_has_no_watcher(tmp_path: Path) -> None:
    result = subprocess.run(
        ["bash", str(REPOSITORY / "cluster/node/watch_spot.sh")],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0 and list(tmp_path.iterdir()) == []


def test_the_account_stack_opens_no_port_to_the_world_and_grants_no_wildcard() -> None:
    text = (REPOSITORY / "cluster/aws-account.yaml").read_text()
    assert "0.0.0.0/0" not in text and "::/0" not in text
    assert not re.search(r"Action:.*\*", text) and "FullAccess" not in text
    assert len(re.findall(r'Resource: "\*"', text)) == 1


@pytest.mark.parametrize("cidr", ["0.0.0.0/0", "1.2.3.4/4", "me", "::/0"])
def test_an_address_range_that_is_not_ones_own_is_refused(cidr: str) -> None:
    with pytest.raises(InputError, match="--ssh-from"):
        check_source(cidr)


def test_one_address_is_a_range_of_its_own() -> None:
    assert check_source("203.0.113.7") == "203.0.113.7/32" and check_source("10.0.0.0/8") == "10.0.0.0/8"


def test_every_cluster_has_a_token_of_its_own_which_ray_is_given(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "x")  # restored after the test, whatever is set in it
        monkeypatch.delenv(name)
    cluster = load_cluster_file(FILES["gcp"])
    assert use_token_if_present(cluster) == home / ".ray/auth_token"
    assert ensure_token(cluster.token) and cluster.token == home / ".sst2-ray/sst2.token"
    mounts = yaml.safe_load(cluster.for_ray().read_text())["file_mounts"]
    assert mounts["~/.ray/auth_token"] == str(cluster.token)
    assert use_token_if_present(cluster) == cluster.token and os.environ["RAY_AUTH_TOKEN_PATH"] == str(cluster.token)
    assert "~/.ray/auth_token" in load_cluster_file(FILES["onprem"]).document.section("file_mounts").raw


def test_the_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / ".ray" / "auth_token"
    assert (
        ensure_token(path)
        and stat.S_IMODE(path.stat().st_mode) == 0o600
        and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    )
    before = path.read_text()
    assert len(before) == 64 and not ensure_token(path) and path.read_text() == before


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a: [", "cannot be read as YAML"),
        ("- a", "a mapping is expected"),
        ("provider: {type: awz}", "did you mean aws"),
        ("cluster_name: x", "not supported"),
    ],
)
def test_a_file_that_is_no_cluster_file_is_refused_in_one_line(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=told) as refused:
        load_cluster_file(path)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(InputError, match="no such cluster file"):
        load_cluster_file("nowhere.yaml")


def test_a_changed_host_key_is_refused_and_others_are_not_asked() -> None:
    command = Host(address="10.0.0.1", user="ubuntu", key=Path("/k"), known_hosts=Path("/h")).command("-N")
    assert (
        command[-1] == "ubuntu@10.0.0.1"
        and "StrictHostKeyChecking=accept-new" in command
        and "BatchMode=yes" in command
    )
    assert "UserKnownHostsFile=/h" in command


def test_every_machine_of_the_shipped_files_has_a_price() -> None:
    text = "".join(path.read_text() for path in FILES.values())
    for cloud, key in (("aws", "InstanceType"), ("gcp", "machineType"), ("azure", "vmSize")):
        for name in set(re.findall(rf"(?<!\w){key}: (\S+)", text)):
            machine = machine_of(cloud, name)
            assert machine is not None and machine.usd_per_hour is not None, name


def test_machines_with_more_gpus_cost_more_within_a_family() -> None:
    families: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for machine in MACHINES.values():
        if machine.gpus and machine.usd_per_hour:
            families.setdefault((machine.cloud, machine.gpu), []).append((machine.gpus, machine.usd_per_hour))
    for rows in families.values():
        cheapest = {gpus: min(price for count, price in rows if count == gpus) for gpus, _ in rows}
        assert [cheapest[gpus] for gpus in sorted(cheapest)] == sorted(cheapest.values())


def test_the_rendered_files_are_yaml_that_keeps_every_key_once() -> None:
    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader: yaml.Loader, node: yaml.MappingNode) -> dict[object, object]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key stands twice: {keys}"
        return {loader.construct_object(key): loader.construct_object(value, deep=True) for key, value in node.value}

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    for path in FILES.values():
        yaml.load(path.read_text(), Strict)
