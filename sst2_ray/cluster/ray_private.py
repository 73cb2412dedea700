"""Every private name of Ray that clusters need, behind small typed functions. Each imports ray only when it is called."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from sst2_ray.config.section import Section
from sst2_ray.network import within

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Ray prefers these to any address that it is given."""
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 8.0
SUBMIT_TIMEOUT_S = 15.0
"""The server itself waits 10 s for the agent that starts jobs before it says that there is none."""
UPLOAD_TIMEOUT_S = 600.0

PREEMPTION = 2
"""DRAIN_NODE_REASON_PREEMPTION of Ray's autoscaler protocol."""


@contextlib.contextmanager
def address_variables_ignored() -> Iterator[None]:
    """Hide the variables that would send a call to another cluster than the one it names."""
    hidden = {name: os.environ.pop(name) for name in ADDRESS_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def ignored_addresses(given: str) -> list[str]:
    """Return a line for every variable that names another cluster than the one that was given."""
    named = {name: os.environ.get(name, "") for name in ADDRESS_VARIABLES}
    return [
        f"{name}={value} is ignored: {given} was given" for name, value in named.items() if value not in ("", given)
    ]


def job_client(address: str) -> JobSubmissionClient:
    """Return a client of the job server at `address` and of no other, with a deadline on every request.

    Loopback addresses (the tunnel) are never asked for through a proxy.
    """
    import requests
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging",
                 "_private.runtime_env.working_dir"):  # fmt: skip
        logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)  # submit lists the upload itself
    local = urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")

    class Client(JobSubmissionClient):
        """Ray's client with a deadline."""

        def _do_request(
            self,
            method: str,
            endpoint: str,
            *,
            data: bytes | None = None,
            json_data: dict[str, object] | None = None,
            **options: object,
        ) -> object:
            answer_s = UPLOAD_TIMEOUT_S if data else SUBMIT_TIMEOUT_S if method == "POST" else ANSWER_TIMEOUT_S
            options["timeout"] = (CONNECT_TIMEOUT_S, answer_s)
            if local:
                options["proxies"] = {"http": None, "https": None, "all": None}
            ask = partial(super()._do_request, method, endpoint, data=data, json_data=json_data, **options)
            try:  # a log may be long; of all else the whole answer counts, not only its first byte
                return within(UPLOAD_TIMEOUT_S if data or "/logs" in endpoint else CONNECT_TIMEOUT_S + answer_s, ask)
            except TimeoutError as error:
                raise requests.Timeout(str(error)) from None

    with address_variables_ignored():
        client: JobSubmissionClient = Client(address)
    return client


def whole_log(client: JobSubmissionClient, job_id: str) -> str:
    """Return a job's log from the dashboard's files; what is not UTF-8 is replaced.

    Ray's own `get_job_logs` fails at the first such byte, and its stream ends there without a word.
    """
    node = client.get_job_info(job_id).driver_node_id
    query = urlencode({"submission_id": job_id, "node_id": node, "lines": -1, "timeout": 30})
    answer = client._do_request("GET", f"/api/v0/logs/file?{query}")
    if answer.status_code != 200:
        raise RuntimeError(f"Request failed with status code {answer.status_code}: {answer.text}")
    # Ray reads logs as text, with every kind of line end as "\n": what was printed before is skipped by counting characters.
    return io.TextIOWrapper(io.BytesIO(answer.content), encoding="utf-8", errors="replace").read()


def node_totals(client: JobSubmissionClient) -> list[dict[str, float]]:
    """Return the resources of every living node."""
    query = "detail=1&limit=1000&filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
    nodes = Section(client._do_request("GET", f"/api/v0/nodes?{query}").json()).section("data").section("result")
    totals = [node.section("resources_total") for node in nodes.sections("result")]
    return [{name: total.number(name) or 0.0 for name in total.raw} for total in totals]


def nodes_being_set_up(client: JobSubmissionClient) -> list[str]:
    """Return the autoscaler's lines about machines that exist and do not run Ray yet; none where no autoscaler tells of any."""
    answer = Section(client._do_request("GET", "/api/cluster_status?format=1").json())
    text = answer.section("data").text("clusterStatus") or answer.section("data").text("cluster_status")
    pending = re.search(r"^Pending:\n((?:\s.*\n)*)", text, re.MULTILINE)
    lines = [line.strip() for line in pending[1].splitlines()] if pending else []
    return [line for line in lines if line and not line.startswith("(") and "launching" not in line]


def upload_filters(root: Path, patterns: list[str]) -> Callable[[Path], list[Callable[[Path], bool]]]:
    """Return a function from a folder to the filters that Ray applies below it; True means that a path is left out."""
    from ray._private.runtime_env.packaging import _get_excludes, get_excludes_from_ignore_files

    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)
    fixed = _get_excludes(root, patterns)

    def filters(folder: Path) -> list[Callable[[Path], bool]]:
        own: list[Callable[[Path], bool]] = get_excludes_from_ignore_files(folder, include_gitignore=True)
        return [fixed, *own] if folder == root else own

    return filters


def schema_problem(document: dict[str, object], *, sizes_from_cloud: bool) -> tuple[str, str] | None:
    """Prepare and validate `document` as `ray up` does; return (dotted path, message) of the first problem.

    The path is empty where Ray itself refuses, without its schema. `sizes_from_cloud`: `ray up` asks the cloud for the
    resources of a machine type.
    """
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    heard = io.StringIO()
    try:
        # Ray's launcher prints, and leaves with SystemExit, where it refuses.
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            config = prepare_config(copy.deepcopy(document))
            for node_type in config.get("available_node_types", {}).values():
                if isinstance(node_type, dict) and sizes_from_cloud:
                    node_type.setdefault("resources", {})
            validate_config(config)
    except jsonschema.ValidationError as problem:
        return ".".join(str(part) for part in problem.absolute_path) or "top level", problem.message[:200]
    except (Exception, SystemExit) as problem:
        return "", " ".join(f"{heard.getvalue()} {problem}".split())[-200:]
    return None


def generated_key(platform: str, index: int | None, region: str, scope: str, user: str) -> Path:
    """Return where `ray up` keeps the private key that it makes on Google Cloud (index 0 first) and Azure (no index)."""
    from ray.autoscaler._private.util import generate_ssh_key_name, generate_ssh_key_paths

    _, private = generate_ssh_key_paths(generate_ssh_key_name(platform, index, region, scope, user))
    return Path(private)


@functools.cache
def start_flags() -> frozenset[str]:
    """Return the flags that `ray start` takes."""
    from ray.scripts.scripts import start

    return frozenset(flag for parameter in start.params for flag in (*parameter.opts, *parameter.secondary_opts))


def start_value_problem(flag: str, value: str) -> str:
    """Return why `ray start` refuses the value of a flag; empty where it takes it, or has no such flag."""
    import click
    from ray.scripts.scripts import start

    parameter = next((parameter for parameter in start.params if flag in parameter.opts), None)
    try:
        if parameter is not None:
            parameter.type.convert(value, parameter, None)
    except click.UsageError as error:
        return str(error.message)
    return ""


def google_compute(provider: dict[str, object]) -> Any:
    """Return Google's client of Compute Engine with the file's credentials, as `ray up` makes it; None without its library."""
    try:
        from ray.autoscaler._private.gcp.config import construct_clients_from_provider_config
    except ImportError:
        return None
    return construct_clients_from_provider_config(provider)[2]


@functools.cache
def azure_template_parameters() -> dict[str, str]:
    """Return the parameters of Ray's template of an Azure machine with their types; Azure refuses anything else, minutes
    into a deployment."""
    import ray.autoscaler._private as private

    path = Path(private.__file__ or "").parent / "_azure" / "azure-vm-template.json"
    parameters = json.loads(path.read_text())["parameters"]
    return {**{name: entry["type"].lower() for name, entry in parameters.items()}, "availability_zone": "string"}


def drain_node(address: str | None, node_id: str | None, deadline_ms: int) -> str:
    """Ask the GCS to drain a node (None: the one at this machine's address); return its id.

    Raises RuntimeError where no such node lives, or Ray refuses.
    """
    from ray._private import services
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.gcs_pb2 import GcsNodeInfo

    gcs = GcsClient(address=services.canonicalize_bootstrap_address_or_die(address))
    if node_id is None:
        here = services.get_node_ip_address()
        alive = (
            node.hex()
            for node, info in gcs.get_all_node_info().items()
            if info.node_manager_address == here and info.state == GcsNodeInfo.ALIVE
        )
        node_id = next(alive, None)
        if node_id is None:
            raise RuntimeError(f"no living node at {here}")
    accepted, reason = gcs.drain_node(node_id, PREEMPTION, "the cloud takes this spot machine", deadline_ms)
    if not accepted:
        raise RuntimeError(f"Ray does not drain node {node_id}: {reason}")
    return str(node_id)
