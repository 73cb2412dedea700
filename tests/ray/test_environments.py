"""A run in the shells, containers and shares of machines that people have: it succeeds, and says nothing on stderr.

docs/environments.md names each with what happens.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InfeasibleError
from sst2_ray.run.train import train
from tests.support.environments import (
    COMMAND,
    REPOSITORY,
    SmallRuns,
    cpu_quota,
    in_container,
    missing_for_containers,
    missing_for_quotas,
    small_runs,
)
from tests.support.waiting import waited


@pytest.fixture
def long(tmp_path: Path) -> str:
    """Make a folder whose path is longer than a socket's may be."""
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    return str(folder)


containers = pytest.mark.skipif(bool(missing_for_containers()), reason=missing_for_containers() or "-")
quotas = pytest.mark.skipif(bool(missing_for_quotas()), reason=missing_for_quotas() or "-")

LATIN_1 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"}
ODD = {"OMP_NUM_THREADS": "4,2", "PYTHONNOUSERSITE": "1", **LATIN_1}


def test_a_run_in_an_awkward_shell_succeeds(small: SmallRuns, long: str) -> None:
    """The shell has one core of two, a long TMPDIR, nested thread counts, no user site, latin-1, stdin closed, and a reader that leaves."""
    words = small.words("awkward")
    done = small.run(words, before=["taskset", "-c", "0"], after="<&- | head -1", TMPDIR=long, **ODD)
    row = small.succeeded("awkward", done)
    assert row["world_size"] == 1
    assert "1 worker of 1 CPU," in (small.folder / "runs/awkward/logs/driver.log").read_text(encoding="utf-8")
    assert {node["address"] for node in json.loads(row["node_types_json"])} == {"127.0.0.1"}


@containers
@quotas
def test_a_run_in_a_strict_container_succeeds() -> None:
    """Any user id, no home, a read-only root, 64 MB of shared memory, nine tenths of a core."""
    with (
        tempfile.TemporaryDirectory(prefix="env-", dir="/tmp") as folder,  # of its own: its files are another user's
        tempfile.TemporaryDirectory(prefix="c-", dir="/tmp") as work,
        cpu_quota(0.9) as processes,
    ):
        small = small_runs(Path(folder))
        Path(work).chmod(0o755)
        enter = ["bash", "-c", f'echo $$ > {processes}; exec "$@"', "quota"]
        done = small.run(small.words("container"), before=[*enter, *in_container(Path(work))])
        small.succeeded("container", done)
        waited(lambda: not processes.read_text(), "the end of its processes", 15)


@containers
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["doctor"], 0, "doctor: 0 errors"),
        (["doctor", f"{REPOSITORY}/cluster/onprem.yaml", "--offline"], 2, "passed"),
        (
            ["submit", "--address=http://127.0.0.1:9", "--", "true"],
            2,
            "error: http://127.0.0.1:9: no job server answers",
        ),
        (
            ["up", f"{REPOSITORY}/cluster/onprem.yaml"],
            2,
            "error: this user has no home for the cluster's token; set HOME",
        ),
    ],
    ids=["doctor", "doctor-file", "submit", "up"],
)
def test_commands_about_clusters_need_no_home_or_say_so_in_one_line(
    small: SmallRuns, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, says: str
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)  # Ray sets it in a process that has started one
    with tempfile.TemporaryDirectory(prefix="c-", dir="/tmp") as work, tempfile.TemporaryDirectory(dir="/tmp") as empty:
        Path(work).chmod(0o755)
        Path(empty).chmod(0o777)
        Path(empty, "job.txt").touch()
        enter = ["env", "-C", empty, *in_container(Path(work))]
        done = small.run([COMMAND, *words], before=enter)
    assert done.returncode == code, done.stderr
    assert says in done.stderr.splitlines()[-1]
    assert not [line for line in done.stderr.splitlines() if "Traceback" in line]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "before", "after", "env"),
    [
        ("affinity", ["taskset", "-c", "1"], "", {}),
        ("long-tmpdir", [], "", {"TMPDIR": "long"}),
        ("nested-threads", [], "", {"OMP_NUM_THREADS": "4,2"}),
        ("latin-1", [], "", LATIN_1),
        ("no-stdin", [], "<&-", {}),
        ("no-stdout", [], ">&-", {}),
        ("no-files", [], "<&- >&- 2>&-", {}),
        ("head", [], "| head -1", {}),
        ("tee-that-dies", [], "> >(exec tee /dev/full >/dev/null 2>&1)", {}),
        ("no-terminal", ["setsid"], "", {}),
    ],
)
def test_a_run_goes_on_in(
    small: SmallRuns, long: str, name: str, before: list[str], after: str, env: dict[str, str]
) -> None:
    values = {key: long if value == "long" else value for key, value in env.items()}
    done = small.run(small.words(name), before=before, after=after, **values)
    small.succeeded(name, done)


@pytest.mark.slow
def test_variables_of_accelerate_change_nothing(small: SmallRuns) -> None:
    """transformers would load weights and buffers on the first rank alone, for a launcher that then sends them to the others."""
    of_accelerate = {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
    rows = [
        small.succeeded(
            name, small.run(small.words(name, "--num-workers=2"), RAY_OVERRIDE_RESOURCES='{"CPU": 2}', **variables)
        )
        for name, variables in (("plain", {}), ("accelerate", of_accelerate))
    ]
    assert rows[0]["last_dev_loss"] == rows[1]["last_dev_loss"] and rows[0]["world_size"] == rows[1]["world_size"] == 2


@pytest.mark.slow
@quotas
@pytest.mark.parametrize("cores", [0.5, 1.5])
def test_a_quota_between_whole_cores_grants_the_whole_ones_and_at_least_one(small: SmallRuns, cores: float) -> None:
    name = f"quota-{cores}"
    with cpu_quota(cores) as processes:
        done = small.run(small.words(name), before=["bash", "-c", f'echo $$ > {processes}; exec "$@"', "quota"])
        small.succeeded(name, done)
        waited(lambda: not processes.read_text(), "the end of its processes", 15)
    assert "1 worker of 1 CPU," in (small.folder / f"runs/{name}/logs/driver.log").read_text(encoding="utf-8")


@pytest.mark.slow
@containers
def test_a_run_without_a_network_but_loopback_succeeds(small: SmallRuns) -> None:
    done = small.run(
        small.words("offline"), before=["unshare", "--net", "bash", "-c", 'ip link set lo up; exec "$@"', "-"]
    )
    small.succeeded("offline", done)


@pytest.mark.slow
@containers
def test_an_address_that_goes_away_in_the_middle_of_a_run_is_not_missed(small: SmallRuns) -> None:
    """A laptop that changes networks: the outward address vanishes after the first step."""
    script = (
        "ip link set lo up; ip link add out type veth peer name peer; ip link set peer up; "
        "ip addr add 10.9.8.7/24 dev out; ip link set out up; "
        "ip route add default via 10.9.8.1; "
        f'(until grep -q "step 1/" {small.folder}/runs/roaming/logs/attempt-0-rank-0.log 2>/dev/null; do sleep 0.1; done; '
        'ip link del out) & exec "$@"'
    )
    words = small.words("roaming", "--epochs=40")
    done = small.run(words, before=["unshare", "--net", "bash", "-c", script, "-"])
    small.succeeded("roaming", done)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "before", "epochs", "code", "status"),
    [("hung-up", [], 4000, 5, "stopped"), ("nohup", ["nohup"], 30, 0, "succeeded")],
)
def test_a_terminal_that_is_closed_stops_a_run_unless_it_is_under_nohup(
    small: SmallRuns, name: str, before: list[str], epochs: int, code: int, status: str
) -> None:
    words = [*before, *small.words(name, f"--epochs={epochs}")]
    with (small.folder / f"{name}.out").open("wb") as out:
        process = subprocess.Popen(
            words, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=out, stderr=out, start_new_session=True
        )
    try:
        log = small.folder / f"runs/{name}/logs/attempt-0-rank-0.log"
        waited(lambda: log.exists() and "last minute" in log.read_text(errors="replace"), "a step", 120)
        os.killpg(process.pid, signal.SIGHUP)  # as a terminal does, to all of the group
        assert process.wait(120) == code
    finally:
        process.kill()
    assert small.row(name)["status"] == status


def test_a_ray_that_does_not_start_is_one_line(small: SmallRuns, tmp_path: Path) -> None:
    done = small.run(
        small.words("no-ray"), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(tmp_path / "nothing"), RAY_AUTH_TOKEN=""
    )
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done.stderr
    assert done.stderr.startswith("error: Ray does not start on this machine (")
    assert not (small.folder / "runs/no-ray").exists()


def test_a_process_that_never_starts_is_given_up_at_placement_s_deadline(tmp_path: Path) -> None:
    import ray

    small = small_runs(tmp_path)
    ray.init(address="local", include_dashboard=False, num_cpus=2, runtime_env={"py_executable": "/bin/sleep 1000"})
    try:
        with pytest.raises(InfeasibleError, match="has started no process within placement_timeout_s=4"):
            train(
                TrainConfig(
                    model=f"{small.folder}/model", data=f"{small.folder}/data", batch_size=16, epochs=1,
                    storage_path=f"{small.folder}/runs", name="never", placement_timeout_s=4.0,
                ),
                quiet=True,
            )  # fmt: skip
    finally:
        ray.shutdown()
    assert (small.row("never")["status"], small.row("never")["failure_class"]) == ("failed", "not_placeable")
