"""The script that the raylet starts for a worker does what Ray's own does, without importing Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sst2_ray.run.ray import setup_worker
from sst2_ray.run.ray.fork_server import light_setup

ray = pytest.importorskip("ray")

OWN = setup_worker.__file__
RAYS = str(Path(ray.__file__).parent / "_private" / "workers" / "setup_worker.py")
TELL = """
import json, os, sys
names = ["PLAIN", "REPLACED", "DROPPED"]
print(json.dumps([sys.argv, {name: os.environ.get(name) for name in names}, sys.flags.no_site, "ray" in sys.modules]))
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="used on Linux only")


def told(script: str, worker: Path, context: dict | None, *flags: str) -> list:
    """Run a set-up script as the raylet does; return what the worker tells."""
    own = [] if context is None else [f"--serialized-runtime-env-context={json.dumps(context)}"]
    words = [*flags, str(worker), "--node-ip-address=127.0.0.1", "--language=PYTHON", *own, "--worker-id=a b"]
    environ = {**os.environ, "HERE": "there", "PLAIN": "before"}
    done = subprocess.run([sys.executable, script, *words], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    """Write a script that stands in for Ray's worker script."""
    script = tmp_path / "default_worker.py"
    script.write_text(TELL)
    return script


VARIABLES = {"PLAIN": 'a "b" $c', "REPLACED": "${HERE}/x", "DROPPED": "${NOBODY_HAS_THIS}y"}


@pytest.mark.parametrize(
    "context", [{"env_vars": VARIABLES}, {"py_executable": f"'{sys.executable}' -S", "env_vars": {}}]
)
def test_it_sets_up_what_ray_s_script_does(worker: Path, context: dict) -> None:
    own = told(OWN, worker, context)
    assert own == told(RAYS, worker, context)
    assert own[0] == [str(worker), "--node-ip-address=127.0.0.1", "--worker-id=a b"]


def test_python_s_flags_stay_flags(worker: Path) -> None:
    assert told(OWN, worker, {}, "-S", "-s") == told(RAYS, worker, {}, "-S", "-s")
    assert told(OWN, worker, {}, "-S")[2] == 1


@pytest.mark.parametrize("beyond", [{"command_prefix": ["true", "&&"]}, {"override_worker_entrypoint": "other.py"}])
def test_more_than_variables_is_left_to_ray_s_script(worker: Path, beyond: dict) -> None:
    worker.with_name("setup_worker.py").write_text(TELL)  # beside Ray's worker script, as in Ray's folder
    words, *_ = told(OWN, worker, beyond)
    assert words[0] == str(worker.with_name("setup_worker.py"))
    assert f"--serialized-runtime-env-context={json.dumps(beyond)}" in words


def test_it_imports_no_ray() -> None:
    code = "import sys, runpy; runpy.run_path(sys.argv[1]); print(sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, OWN], capture_output=True, text=True, check=True)
    assert "ray" not in done.stdout
    assert "argparse" not in done.stdout


def test_a_ray_that_is_started_meanwhile_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's node tells the path to its raylet; the raylet leaves it out, by its name, where nothing is to be set up."""
    from ray._private import node, parameter

    class Asked(Exception):
        pass

    def update(_: parameter.RayParams, **values: object) -> None:
        raise Asked(values["setup_worker_path"])

    monkeypatch.setattr(parameter.RayParams, "update_if_absent", update)
    with light_setup(), pytest.raises(Asked, match=OWN):
        node.Node(parameter.RayParams(), head=True)
    with pytest.raises(Asked, match=RAYS):
        node.Node(parameter.RayParams(), head=True)
    assert Path(OWN).name == Path(RAYS).name
