"""The job that doctor runs on a cluster: asks every node by a task of its own, and lets the nodes work together.

usage (on the cluster): python -m sst2_ray.cluster.doctor.cluster_probe FILE, JSON with the keys storage_path, model, data, rehearse
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sst2_ray.cluster.doctor import probe
from sst2_ray.cluster.findings import Finding
from sst2_ray.config.section import Section
from sst2_ray.formatting import without_secret
from sst2_ray.network import free_port, use_node_interface

_ALL_REDUCE_BYTES = {"nccl": 256 * 2**20, "gloo": 16 * 2**20}
_ALL_REDUCE_ROUNDS = 10
_REHEARSAL_TIMEOUT_S = 400
"""Starting workers and compiling layers take a minute or two; the steps themselves take seconds."""
_TASK_TIMEOUT_S = 180


@dataclass(frozen=True)
class Node:
    """A living node of the cluster."""

    id: str
    address: str
    is_head: bool
    cpus: float
    gpus: int
    kind: tuple[str, ...]
    """Group and accelerator that the cluster file names; machines of one's own are all of one group."""

    @property
    def placement(self) -> NodeAffinitySchedulingStrategy:
        """Return the strategy that puts a task on this node and nowhere else."""
        return NodeAffinitySchedulingStrategy(self.id, soft=False)


def living_nodes() -> list[Node]:
    """Return the living nodes, the head first, then by address."""
    found = []
    for node in (Section(node) for node in ray.nodes() if node["Alive"]):
        resources, labels = node.section("Resources"), node.section("Labels")
        found.append(
            Node(
                id=node.text("NodeID"),
                address=node.text("NodeManagerAddress"),
                is_head="node:__internal_head__" in resources,
                cpus=resources.number("CPU") or 0,
                gpus=int(resources.number("GPU") or 0),
                kind=(labels.text("ray.io/node-group"), labels.text("ray.io/accelerator-type")),
            )
        )
    return sorted(found, key=lambda node: (not node.is_head, node.address))


def read_options(file: Path) -> Section:
    """Read what is to be checked, and delete the file: a URI in it may hold credentials."""
    options = Section(json.loads(file.read_text(encoding="utf-8")))
    file.unlink()
    return options


def main(options: Section) -> None:
    """Print findings as lines of JSON behind MARK."""
    ray.init(address="auto", log_to_driver=False)
    nodes = living_nodes()
    # The same storage must be seen everywhere: every node looks for what the first one wrote.
    marker, storage = f".doctor-{uuid.uuid4().hex}", options.text("storage_path")
    if storage:
        _write_marker(storage, marker)
    for node in nodes:
        ask = ray.remote(num_cpus=0, scheduling_strategy=node.placement)
        described = ray.get(ask(probe.describe).remote(), timeout=_TASK_TIMEOUT_S)
        print(probe.MARK + json.dumps({"where": node.address, "node": described}), flush=True)
        if storage:
            _tell(ray.get(ask(check_storage).remote(node.address, storage, marker), timeout=_TASK_TIMEOUT_S))
        for kind in ("model", "data"):
            if options.text(kind):
                source = ask(check_source).remote(node.address, kind, options.text(kind))
                _tell(ray.get(source, timeout=_TASK_TIMEOUT_S))
    if storage:
        _remove_marker(storage, marker)
    workers = [node for node in nodes if node.cpus or node.gpus]
    if len(workers) > 1 or any(node.gpus > 1 for node in workers):
        _tell(all_reduce(workers))
    if options.get("rehearse"):
        _rehearse_all(workers)


def _rehearse_all(workers: list[Node]) -> None:
    if not workers:
        remedy = "start one (min_workers), or ask again within the idle minutes after a job"
        _tell(_warning("cluster", "no worker runs at the moment: nothing was rehearsed", remedy))
    # One of each kind: by the group that the cluster file names, and by size.
    for node in {(*node.kind, node.cpus, node.gpus): node for node in reversed(workers)}.values():
        _tell(rehearse(node))


def _tell(finding: Finding) -> None:
    record = {"level": finding.level, "where": finding.where, "what": finding.what, "remedy": finding.remedy}
    print(probe.MARK + json.dumps(record), flush=True)


def _ok(where: str, what: str) -> Finding:
    return Finding(level="ok", where=where, what=what)


def _warning(where: str, what: str, remedy: str) -> Finding:
    return Finding(level="warning", where=where, what=what, remedy=remedy)


def _error(where: str, what: str, remedy: str) -> Finding:
    return Finding(level="error", where=where, what=what, remedy=remedy)


def _write_marker(uri: str, marker: str) -> None:
    from sst2_ray.storage import Storage

    Storage.open(uri).write_bytes(marker, b"doctor")


def _remove_marker(uri: str, marker: str) -> None:
    from sst2_ray.storage import Storage

    storage = Storage.open(uri)
    storage.filesystem.delete_file(storage.path(marker))


def check_storage(where: str, uri: str, marker: str) -> Finding:
    """Check, on a node, that the storage can be written and is the one that the head wrote to."""
    from sst2_ray.storage import Storage

    shown = without_secret(uri)
    try:
        storage = Storage.open(uri)
        storage.probe()
        shared = storage.exists(marker)
    except Exception as problem:
        what = f"{shown} cannot be written: {' '.join(str(problem).split())[:160]}"
        return _error(where, what, "mount it on every node, or give the node's role the right to it")
    if not shared:
        remedy = "shared storage (NFS, s3://, gs://): checkpoints of all ranks must meet"
        return _error(where, f"{shown} is a folder of its own here, not the head's", remedy)
    return _ok(where, f"{shown} is reachable, writable and shared")


def check_source(where: str, kind: str, name: str) -> Finding:
    """Check, on a node, that the model or the data can be read from there."""
    from sst2_ray.config.registry import GLUE_HUB_ID, MODELS

    shown = without_secret(name)
    packaged = name == "rotten-tomatoes" or (name in MODELS and MODELS[name].hub_id is None)
    if packaged or Path(name).expanduser().exists():
        return _ok(where, f"--{kind} {shown} is there")
    hub_id = GLUE_HUB_ID if name == "glue" else MODELS[name].hub_id if name in MODELS else name
    try:
        from huggingface_hub import HfApi

        HfApi().repo_info(str(hub_id), repo_type="dataset" if kind == "data" else "model", timeout=20)
    except Exception as problem:
        remedy = "a folder on shared storage, or open the way to the hub (HF_ENDPOINT)"
        return _error(where, f"--{kind} {shown} cannot be reached: {type(problem).__name__}", remedy)
    return _ok(where, f"--{kind} {shown} is reachable on the hub")


def _collective(rank: int, world: int, address: str, backend: str) -> float:
    """Return the bus bandwidth of an all-reduce in GB/s: bytes * 2 (world - 1) / world / seconds (NCCL's tests define it so)."""
    import torch
    import torch.distributed as dist

    use_node_interface()
    dist.init_process_group(backend, init_method=f"tcp://{address}", rank=rank, world_size=world)
    size = _ALL_REDUCE_BYTES[backend]
    data = torch.ones(size // 4, device="cuda" if backend == "nccl" else "cpu")
    for _ in range(2):
        dist.all_reduce(data)
        data.fill_(1.0)
    dist.barrier()
    started = time.perf_counter()
    for _ in range(_ALL_REDUCE_ROUNDS):
        dist.all_reduce(data)
    if backend == "nccl":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / _ALL_REDUCE_ROUNDS
    dist.destroy_process_group()
    return size * 2 * (world - 1) / world / seconds / 1e9


def all_reduce(nodes: list[Node]) -> Finding:
    """Run an all-reduce over every GPU (NCCL), or over one process a node (gloo) where there is none."""
    gpus = any(node.gpus for node in nodes)
    backend = "nccl" if gpus else "gloo"
    places = [node for node in nodes for _ in range(node.gpus if gpus else 1)]
    first = ray.remote(num_cpus=0, scheduling_strategy=places[0].placement)
    address = f"{places[0].address}:{ray.get(first(free_port).remote(''), timeout=60)}"
    tasks = [
        ray.remote(num_cpus=0, num_gpus=1 if gpus else 0, scheduling_strategy=node.placement)(_collective)
        .remote(rank, len(places), address, backend)
        for rank, node in enumerate(places)
    ]  # fmt: skip
    where = f"all-reduce of {len(places)} {'GPUs' if gpus else 'nodes'}"
    try:
        speed = min(ray.get(tasks, timeout=_TASK_TIMEOUT_S))
    except Exception as problem:
        for task in tasks:
            ray.cancel(task, force=True)
        what = f"{backend} does not work: {' '.join(str(problem).split())[-200:]}"
        remedy = (
            "ports 1024-65535 open between the nodes? NCCL_SOCKET_IFNAME the right interface? a GPU held by somebody?"
        )
        return _error(where, what, remedy)
    size = _ALL_REDUCE_BYTES[backend] // 2**20
    return _ok(where, f"{speed:.2f} GB/s bus bandwidth ({backend}, {size} MiB)")


def _rehearsal(address: str, cpus: int, use_gpu: bool) -> Section:
    """Run the rehearsal of the training loop. By name: what checks clusters knows nothing of runs."""
    found: dict[str, object] = import_module("sst2_ray.run.rehearsal").rehearse(address, cpus=cpus, use_gpu=use_gpu)
    return Section(found)


def rehearse(node: Node) -> Finding:
    """Take 20 steps of the training loop on one node, through Ray Train and ZeRO-2, with what one worker gets."""
    where = f"rehearsal on {node.address}"
    run = ray.remote(num_cpus=0, scheduling_strategy=node.placement)(_rehearsal)
    try:
        task = run.remote(node.address, min(1, int(node.cpus)), node.gpus > 0)
        result = ray.get(task, timeout=_REHEARSAL_TIMEOUT_S)
    except Exception as problem:
        what = f"training fails: {' '.join(str(problem).split())[-200:]}"
        return _error(where, what, "the same would happen to the job: correct this first")
    loss = result.number("train_loss")
    if loss is None or loss != loss:
        return _error(where, "the loss is not a number", "faulty GPU or torch build: another machine")
    device = result.text("device") or "its CPUs"
    what = f"{result.number('steps_per_sec') or 0:.1f} steps/s of batch 32 on {device}, through Ray Train and ZeRO-2"
    return _ok(where, f"{what} ({result.text('precision')}, {result.text('attention')} attention)")


if __name__ == "__main__":
    main(read_options(Path(sys.argv[1])))
