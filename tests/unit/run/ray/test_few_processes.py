"""A Ray of this process's own starts without the processes that no run asks for, its agent among them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray._private import parameter, ray_constants, services, utils

from sst2_ray.run.ray import light_agent
from sst2_ray.run.ray.few_processes import _LEFT_OUT, few_processes

NAMES = (
    (parameter, "RayParams"),
    (services, "start_api_server"),
    (services, "_build_python_executable_command_memory_profileable"),
    (utils, "get_dashboard_dependency_error"),
)
COMMAND = [sys.executable, "-I", "-S", str(light_agent.__file__)]


def test_ray_s_own_names_are_put_back() -> None:
    before = [getattr(module, name) for module, name in NAMES]
    with few_processes():
        assert all(getattr(module, name) is not old for (module, name), old in zip(NAMES, before, strict=True))
    assert [getattr(module, name) for module, name in NAMES] == before


def test_what_ray_passes_on_purpose_stays() -> None:
    with few_processes():
        assert vars(parameter.RayParams()).items() >= _LEFT_OUT.items()
        assert parameter.RayParams(include_log_monitor=True).include_log_monitor is True


def test_a_ray_without_these_parameters_starts_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Params:
        def __init__(self, *, num_cpus: int) -> None:
            self.num_cpus = num_cpus

    monkeypatch.setattr(parameter, "RayParams", Params)
    with few_processes():
        assert vars(parameter.RayParams(num_cpus=2)) == {"num_cpus": 2}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="used on Linux only")
def test_the_agent_alone_is_another_program() -> None:
    build = services._build_python_executable_command_memory_profileable
    with few_processes():
        replaced = services._build_python_executable_command_memory_profileable
        assert replaced(ray_constants.PROCESS_TYPE_DASHBOARD_AGENT, "session") == COMMAND
        other = ray_constants.PROCESS_TYPE_RUNTIME_ENV_AGENT
        assert replaced(other, "session", unbuffered=False) == build(other, "session", unbuffered=False)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="used on Linux only")
def test_the_agent_tells_that_it_has_no_ports_and_ends_with_its_raylet(tmp_path: Path) -> None:
    raylet = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); input()"
    command = [sys.executable, "-c", raylet, *COMMAND, "agent.py", f"--session-dir={tmp_path}", "--node-id=0a"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        names = [f"{name}_0a" for name in light_agent._PORTS]
        assert wait_until(lambda: sorted(path.name for path in tmp_path.iterdir()) == sorted(names))
        assert {(tmp_path / name).read_text() for name in names} == {"-1"}
        assert Path("/proc", str(pid)).exists()
        process.kill()
    assert wait_until(lambda: not Path("/proc", str(pid)).exists())


def test_the_agent_of_a_ray_that_is_not_known_is_ray_s_own(tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text("import sys\nprint(sys.argv[1:])")
    done = subprocess.run([*COMMAND, str(script), "--folder=x"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "['--folder=x']\n"


def wait_until(condition, timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
