"""The job that doctor runs on a cluster: asks every node by a task of its own, and lets the nodes work together.

usage (on the cluster): python -m sst2_ray.cluster.doctor.cluster_probe JSON, with the keys of `main`
"""

from __future__ import annotations

import json
import socket
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sst2_ray.cluster.doctor import probe
from sst2_ray.cluster.doctor.cluster import MARK
from sst2_ray.network import use_node_interface

_ALL_REDUCE_BYTES = {"nccl": 256 * 2**20, "gloo": 16 * 2**20}
_ALL_REDUCE_ROUNDS = 10
_REHEARSAL_S = 20.0


def main(options: dict[str, Any]) -> None:
    """Print findings as lines of JSON behind MARK."""
    ray.init(address="auto", log_to_driver=False)
    nodes = sorted(
        (node for node in ray.nodes() if node["Alive"]),
        key=lambda node: ("node:__internal_head__" not in node["Resources"], node["NodeManagerAddress"]),
    )
    # The same storage must be seen everywhere: every node looks for what the first one wrote.
    marker = f".doctor-{uuid.uuid4().hex}"
    storage = options.get("storage_path")
    if storage:
        _write_marker(storage, marker)
    for node in nodes:
        where = str(node["NodeManagerAddress"])
        ask = ray.remote(num_cpus=0, scheduling_strategy=_on(node))
        _tell({"where": where, "node": ray.get(ask(probe.describe).remote(), timeout=180)})
        if storage:
            _tell(ray.get(ask(check_storage).remote(where, storage, marker), timeout=180))
        for kind in ("model", "data"):
            if options.get(kind):
                _tell(ray.get(ask(check_source).remote(where, kind, options[kind]), timeout=180))
    if storage:
        _remove_marker(storage, marker)
    workers = [node for node in nodes if node["Resources"].get("CPU", 0) or node["Resources"].get("GPU", 0)]
    if len(workers) > 1 or any(node["Resources"].get("GPU", 0) > 1 for node in workers):
        _tell(all_reduce(workers))
    if options.get("rehearse"):
        if not workers:
            _tell(
                _finding(
                    "warning",
                    "cluster",
                    "no worker runs at the moment: nothing was rehearsed",
                    "start one (min_workers), or ask again within the idle minutes after a job",
                )
            )
        for node in _one_of_each_kind(workers):
            _tell(rehearse(node))


def _on(node: dict[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def _tell(record: dict[str, Any]) -> None:
    print(MARK + json.dumps(record), flush=True)


def _finding(level: str, where: str, what: str, remedy: str = "") -> dict[str, Any]:
    return {"level": level, "where": where, "what": what, "remedy": remedy}


def _write_marker(uri: str, marker: str) -> None:
    from sst2_ray.storage import Storage

    Storage.open(uri).write_bytes(marker, b"doctor")


def _remove_marker(uri: str, marker: str) -> None:
    from sst2_ray.storage import Storage

    storage = Storage.open(uri)
    storage.filesystem.delete_file(storage.path(marker))


def check_storage(where: str, uri: str, marker: str) -> dict[str, Any]:
    """On a node: the storage is written, and it is the one that the head wrote to."""
    from sst2_ray.storage import Storage

    try:
        storage = Storage.open(uri)
        storage.probe()
        shared = storage.exists(marker)
    except Exception as problem:
        return _finding(
            "error",
            where,
            f"{uri} cannot be written: {' '.join(str(problem).split())[:160]}",
            "mount it on every node, or give the node's role the right to it",
        )
    if not shared:
        return _finding(
            "error",
            where,
            f"{uri} is a folder of its own here, not the head's",
            "shared storage (NFS, s3://, gs://): checkpoints of all ranks must meet",
        )
    return _finding("ok", where, f"{uri} is reachable, writable and shared")


def check_source(where: str, kind: str, name: str) -> dict[str, Any]:
    """On a node: the model or the data can be read from there."""
    from sst2_ray.config.registry import GLUE_HUB_ID, MODELS

    if (
        Path(name).expanduser().exists()
        or name == "rotten-tomatoes"
        or (name in MODELS and MODELS[name].hub_id is None)
    ):
        return _finding("ok", where, f"--{kind} {name} is there")
    hub_id = GLUE_HUB_ID if name == "glue" else MODELS[name].hub_id if name in MODELS else name
    try:
        from huggingface_hub import HfApi

        HfApi().repo_info(str(hub_id), repo_type="dataset" if kind == "data" else "model", timeout=20)
    except Exception as problem:
        return _finding(
            "error",
            where,
            f"--{kind} {name} cannot be reached: {type(problem).__name__}",
            "a folder on shared storage, or open the way to the hub (HF_ENDPOINT)",
        )
    return _finding("ok", where, f"--{kind} {name} is reachable on the hub")


def _collective(rank: int, world: int, address: str, backend: str) -> float:
    """Bus bandwidth of an all-reduce in GB/s: bytes * 2 (world - 1) / world / seconds (the definition of NCCL's tests)."""
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


def _free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("", 0))
        return int(chosen.getsockname()[1])


def all_reduce(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """All-reduce over every GPU (NCCL), or over one process a node (gloo) where there is none."""
    gpus = any(node["Resources"].get("GPU", 0) for node in nodes)
    backend = "nccl" if gpus else "gloo"
    places = [node for node in nodes for _ in range(int(node["Resources"].get("GPU", 0)) if gpus else 1)]
    first = ray.remote(num_cpus=0, scheduling_strategy=_on(places[0]))
    address = f"{places[0]['NodeManagerAddress']}:{ray.get(first(_free_port).remote(), timeout=60)}"
    tasks = [
        ray.remote(num_cpus=0, num_gpus=1 if gpus else 0, scheduling_strategy=_on(node))(_collective)
        .remote(rank, len(places), address, backend)
        for rank, node in enumerate(places)
    ]  # fmt: skip
    where = f"all-reduce of {len(places)} {'GPUs' if gpus else 'nodes'}"
    try:
        speed = min(ray.get(tasks, timeout=180))
    except Exception as problem:
        for task in tasks:
            ray.cancel(task, force=True)
        return _finding(
            "error",
            where,
            f"{backend} does not work: {' '.join(str(problem).split())[-200:]}",
            "ports 1024-65535 open between the nodes? NCCL_SOCKET_IFNAME the right interface? a GPU held by somebody?",
        )
    return _finding(
        "ok", where, f"{speed:.2f} GB/s bus bandwidth ({backend}, {_ALL_REDUCE_BYTES[backend] // 2**20} MiB)"
    )


def _one_of_each_kind(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By the group that the cluster file names, and by size: machines of one's own are all of one group."""
    kinds: dict[tuple[Any, ...], dict[str, Any]] = {}
    for node in nodes:
        labels, total = node.get("Labels", {}), node["Resources"]
        named = (labels.get("ray.io/node-group"), labels.get("ray.io/accelerator-type"))
        kinds.setdefault((*named, total.get("CPU", 0), total.get("GPU", 0)), node)
    return list(kinds.values())


def _train_a_little(seconds: float) -> dict[str, float]:
    """Optimizer steps of ModernBERT's shape (base on a GPU, mini on a CPU) on random sentences of 16 tokens."""
    import torch
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    from sst2_ray.config.registry import MODELS

    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = MODELS["modernbert-base" if device == "cuda" else "modernbert-mini"].shape
    model = ModernBertForSequenceClassification(ModernBertConfig(**shape, num_labels=2)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.randint(100, 5000, (32, 16), device=device)
    labels = torch.randint(0, 2, (32,), device=device)
    started, steps, loss = time.perf_counter(), 0, torch.tensor(0.0)
    while time.perf_counter() - started < seconds:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    return {
        "steps": steps,
        "seconds": time.perf_counter() - started,
        "loss": float(loss.detach()),
        "gpu": float(device == "cuda"),
    }


def rehearse(node: dict[str, Any]) -> dict[str, Any]:
    """Train for 20 seconds on one node, with what one worker gets."""
    where = f"rehearsal on {node['NodeManagerAddress']}"
    gpu = 1 if node["Resources"].get("GPU", 0) else 0
    run = ray.remote(
        num_cpus=min(1, int(node["Resources"].get("CPU", 0))),
        num_gpus=gpu,
        scheduling_strategy=_on(node),
    )
    try:
        result = ray.get(run(_train_a_little).remote(_REHEARSAL_S), timeout=_REHEARSAL_S + 180)
    except Exception as problem:
        return _finding(
            "error",
            where,
            f"training fails: {' '.join(str(problem).split())[-200:]}",
            "the same would happen to the job: correct this first",
        )
    if result["loss"] != result["loss"]:
        return _finding("error", where, "the loss is not a number", "faulty GPU or torch build: another machine")
    return _finding(
        "ok",
        where,
        f"{result['steps'] / result['seconds']:.1f} steps/s of batch 32 on {'a GPU' if result['gpu'] else 'its CPUs'}",
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
