"""Every private name of Ray that the package uses is there in the installed version.

A Ray that moved one fails here, with the name and the file that uses it, before a run finds out.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy

import sst2_ray
from sst2_ray.run.ray.trainer import _UNUSED, Trainer

PACKAGE = Path(sst2_ray.__file__).parent
FILES = [*sorted((PACKAGE / "run" / "ray").glob("*.py")), PACKAGE / "cluster" / "ray_private.py"]
METHODS = (
    (Trainer.__mro__[1], "_create_default_callbacks", "Trainer leaves callbacks out in it"),
    (Trainer.__mro__[1], "_initialize_and_run_controller", "ElasticTrainer gives its scaling policy there"),
    (ElasticScalingPolicy, "make_decision_for_non_running_worker_group", "_RoomPolicy counts room in it"),
    (ElasticScalingPolicy, "_maybe_send_resource_request", "_RoomPolicy asks an autoscaler with it"),
    (ElasticScalingPolicy, "_get_resize_decision", "_RoomPolicy decides with it"),
)
"""(class, method, use) of Ray's classes that run/ray extends."""


def is_private(name: str) -> bool:
    return name.startswith("ray.") and any(part.startswith("_") for part in name.split("."))


def dotted(node: ast.expr) -> str:
    """The name that an attribute of an attribute spells; empty where it is none."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id])) if isinstance(node, ast.Name) else ""


def private_names(file: Path) -> Iterator[str]:
    """Full dotted names, whether imported, or reached through what was imported."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            imported |= {alias.asname: alias.name for alias in node.names if alias.asname}
            yield from (alias.name for alias in node.names if is_private(alias.name))
    yield from (name for name in imported.values() if is_private(name))
    for node in ast.walk(tree):
        head, dot, rest = dotted(node).partition(".") if isinstance(node, ast.Attribute) else ("", "", "")
        name = f"{imported.get(head, head)}{dot}{rest}"
        if dot and is_private(name):
            yield name


def missing_part(name: str) -> str | None:
    """The shortest beginning of a name that Ray does not have; None where it has all that exists before Ray runs."""
    parts = name.split(".")
    found: object = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], start=2):
        if found is None:  # set when Ray runs
            return None
        if not hasattr(found, part):
            module = ".".join(parts[:number])
            try:
                importlib.import_module(module)
            except ImportError as error:
                if (error.name or "ray").partition(".")[0] == "ray":
                    return module
                # A cloud's own library is not installed: the name is looked for where it is written.
                return None if parts[number] in defined_in(module) else ".".join(parts[: number + 1])
        found = getattr(found, part)
    return None


def defined_in(module: str) -> set[str]:
    """Functions and classes of a module that cannot be imported here."""
    origin = importlib.util.find_spec(module).origin
    tree = ast.parse(Path(origin).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


USES = sorted({(file.name, name) for file in FILES if file.exists() for name in private_names(file)})


@pytest.mark.parametrize(("file", "name"), USES)
def test_a_private_name_is_there(file: str, name: str) -> None:
    missing = missing_part(name)
    assert missing is None, f"Ray {ray.__version__} has no {missing} any more; {file} uses {name}"


def test_the_search_finds_what_is_used() -> None:
    assert {name for _, name in USES} >= {
        "ray._private.state.available_resources_per_node",
        "ray._private.state.state.get_draining_nodes",
        "ray._private.worker._global_node.all_processes",
        "ray.train.torch.config._TorchBackend",
        "ray._raylet.ActorClassID.size",
    }
    assert missing_part("ray._private.state.no_such_function") == "ray._private.state.no_such_function"
    config = "ray.autoscaler._private.gcp.config"  # needs Google's library, which is not installed everywhere
    assert missing_part(f"{config}.no_such_function") == f"{config}.no_such_function"


@pytest.mark.parametrize(("owner", "method", "use"), METHODS)
def test_a_method_that_is_extended_is_there(owner: type, method: str, use: str) -> None:
    assert hasattr(owner, method), f"Ray {ray.__version__}: {owner.__name__} has no {method} any more; {use}"


def test_the_callbacks_that_are_left_out_are_still_called_so() -> None:
    """Otherwise they are started again, and cost a process each."""
    from ray.train.v2.api import data_parallel_trainer

    missing = [name for name in _UNUSED if not hasattr(data_parallel_trainer, name)]
    assert not missing, f"Ray {ray.__version__} calls {missing} otherwise: name them anew in run/ray/trainer.py"
