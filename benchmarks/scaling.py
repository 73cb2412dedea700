"""Costs of a step on paper on 1 to 512 GPUs, and what becomes the bottleneck when. Nothing of it was measured.

    python -m benchmarks.scaling [--model modernbert-base] [--machines p4d.24xlarge ...] [--gpus 1 8 64 512] [--docs docs/scaling.md]

The arithmetic and the sources of its formulas are in sst2_ray/run/planning/cost_model.py, the GPUs' figures in
sst2_ray/training/gpus.py, prices in sst2_ray/cluster/prices.py. Takes seconds.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from sst2_ray.cluster.prices import RECORDED, SOURCES, machine_of
from sst2_ray.config.registry import MODELS
from sst2_ray.run.model_size import size_of
from sst2_ray.run.planning.cost_model import (
    FEWEST_TOKENS,
    LAUNCH_S,
    ModelSize,
    communication_bytes,
    flops_per_token,
    launches,
    memory,
    step_time,
    tokens_that_hide_nothing,
)
from sst2_ray.training.gpus import GPUS
from sst2_ray.training.task import DEFAULT_MICRO_BATCH_TOKENS

SST2_ROWS, SST2_TOKENS = 67_349, 13.6
"""Sentences of SST-2's train split; mean tokens of one, the two special ones included."""

BATCHES = (64, 256, 1024, 4096, None)
"""Sentences of a global batch; None: a full micro-batch on every GPU."""


@dataclass(frozen=True)
class Node:
    """A machine type; network: the type's stated maximum in docs.aws.amazon.com, "Accelerated computing instances"."""

    gpu: str
    network_gbit_per_s: float
    num_gpus: int = 8


NODES = {
    "p4d.24xlarge": Node("NVIDIA A100-SXM4-40GB", 400),
    "p5.48xlarge": Node("NVIDIA H100 80GB HBM3", 3200),
    "g6.48xlarge": Node("NVIDIA L4", 100),
}

HEADS = (
    "GPUs", "sentences a step", "tokens a GPU", "memory a GPU, GiB", "sent a GPU, MiB", "arithmetic, ms", "optimizer, ms",
    "communication, ms", "of it hidden, ms", "launches, ms", "step at least, ms", "utilization at most", "bottleneck", "epoch at least, s",
    "epoch at least, USD",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="modernbert-base", choices=[n for n, s in MODELS.items() if s.architecture])
    parser.add_argument("--machines", nargs="+", choices=NODES, default=list(NODES))
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--docs", help="write the page to this file instead of printing it")
    arguments = parser.parse_args()
    size = shape_of(arguments.model)
    tables = {name: rows(size, name, arguments.gpus) for name in arguments.machines}
    page = text(arguments.model, size, tables, arguments.gpus)
    if arguments.docs:
        Path(arguments.docs).write_text(page)
    else:
        print(page)
    return 0


def shape_of(model: str) -> ModelSize:
    from transformers import AutoConfig

    shape = AutoConfig.for_model(MODELS[model].architecture, **MODELS[model].shape)
    return size_of(shape, vocab_size=shape.vocab_size)


def rows(size: ModelSize, machine: str, counts: list[int]) -> list[list[str]]:
    """A row for every batch and number of GPUs."""
    return [row(size, machine, count, batch) for batch in BATCHES for count in counts]


def row(size: ModelSize, machine: str, count: int, batch: int | None) -> list[str]:
    node = NODES[machine]
    gpu, length = GPUS[node.gpu], round(SST2_TOKENS)
    full = DEFAULT_MICRO_BATCH_TOKENS["cuda"]
    sentences = batch or int(full * count / SST2_TOKENS)
    if sentences < count:
        return [str(count), f"{sentences:,}", "fewer sentences than GPUs", *["–"] * (len(HEADS) - 3)]
    tokens = sentences * SST2_TOKENS / count
    held = memory(size, num_workers=count, tokens=min(full, round(tokens)), length=length)
    time = step_time(
        size,
        gpu,
        num_gpus=count,
        tokens_per_gpu=tokens,
        length=length,
        gpus_per_node=node.num_gpus,
        network_bytes_per_s=node.network_gbit_per_s * 1e9 / 8,
        num_launches=launches(size, micro_batches=math.ceil(tokens / full)),
    )
    epoch = SST2_ROWS / sentences * time.total
    listed = machine_of("aws", machine)
    price = listed.usd_per_hour if listed else None
    return [
        str(count), f"{sentences:,}", f"{tokens:,.0f}", f"{held.total / 2**30:.1f} of {gpu.memory_gb * 1e9 / 2**30:.0f}",
        f"{communication_bytes(size, num_workers=count) / 2**20:,.0f}", f"{1e3 * time.arithmetic:.2f}",
        f"{1e3 * time.optimizer:.2f}", f"{1e3 * time.communication:.2f}", f"{1e3 * time.hidden:.2f}",
        f"{1e3 * time.launching:.2f}", f"{1e3 * time.total:.2f}",
        f"{time.utilization:.0%}", time.bottleneck,
        f"{epoch:.2f}" if sentences <= SST2_ROWS else "a step holds more than an epoch",
        f"{epoch / 3600 * price * count / node.num_gpus:.4f}" if price and sentences <= SST2_ROWS else "–",
    ]  # fmt: skip


def text(model: str, size: ModelSize, tables: dict[str, list[list[str]]], counts: list[int]) -> str:
    """The page."""
    lines = [
        f"# {model} on more GPUs, on paper",
        "",
        "Lower bounds of the time of one optimizer step, computed and not measured "
        "(`python -m benchmarks.scaling --docs docs/scaling.md`):",
        "",
        "- arithmetic at the data sheet's dense bf16 peak, networks at their stated rate, no latency, no data loading",
        f"- {launches(size):,} kernels per step of one micro-batch with compiled layers ({launches(size, compiled=False):,} "
        "without; estimated, `python -m benchmarks.launches` counts them on a CPU; an H200 ran 877, helpers of its library "
        f"included), {1e6 * LAUNCH_S:g} us each, as that card replays them in a CUDA graph",
        "- gradients are sent during the backward pass where a GPU's share of them is at least a million numbers",
        "",
        "No run has all of these: up to 16,384 tokens per GPU and step it replays CUDA graphs and sends gradients after the "
        "backward pass; layers are compiled only in runs of 20 million tokens per GPU or more. "
        "[Measured](speed.md#on-a-gpu) on an H200, a step of 64 sentences takes 8.6 ms, 7.7 with compiled layers. "
        "Formulas and their sources: `sst2_ray/run/planning/cost_model.py`; GPUs: `sst2_ray/training/gpus.py`. "
        "For a run of your own: `--dry-run --network-gbit-per-s RATE`, and `--calibrate` where it is to run on this machine's CPUs.",
        "",
        f"{size.parameters / 1e6:.0f} M parameters, {size.multiplied / 1e6:.0f} M of them multiplied, "
        f"{flops_per_token(size, round(SST2_TOKENS)) / 1e9:.2f} GFLOP a token forward and backward. SST-2: {SST2_ROWS:,} sentences "
        f"of {SST2_TOKENS} tokens. The last rows fill a micro-batch of {DEFAULT_MICRO_BATCH_TOKENS['cuda']:,} tokens on every GPU.",
    ]
    lines += ["", *choice()]
    for machine, table in tables.items():
        lines += ["", f"## {machine}", "", *_about(machine, size, counts), ""]
        lines += [
            f"| {' | '.join(HEADS)} |",
            f"|{'---|' * len(HEADS)}",
            *(f"| {' | '.join(cells)} |" for cells in table),
        ]
    lines += [
        "",
        f"Cost: on-demand list prices recorded {RECORDED}, {SOURCES['aws']}; none is stated where none was recorded.",
    ]
    return "\n".join(lines) + "\n"


def choice() -> list[str]:
    """Say how many GPUs a user should choose, by the rule of FEWEST_TOKENS."""
    rows = []
    for batch in (batch for batch in BATCHES if batch):
        most = max(1, int(batch * SST2_TOKENS / FEWEST_TOKENS))
        rows.append(f"| {batch:,} | {batch * SST2_TOKENS:,.0f} | {most} |")
    return [
        "## What to choose",
        "",
        f"In a step of fewer than about {FEWEST_TOKENS:,} tokens a GPU (measured on one H200; bounds on paper stand under each machine) "
        "more than half of the time does not shrink with them, and "
        "more GPUs make it slower: their messages come on top. SST-2's sentences are short: choose the batch that learns best first, "
        "then no more GPUs than it can feed, and give the others to other trials of a sweep (a trial a GPU needs no messages at all). "
        "`--dry-run` says so of a plan.",
        "",
        "| sentences a step | tokens a step | GPUs at most |",
        "|---|---|---|",
        *rows,
    ]


def _about(machine: str, size: ModelSize, counts: list[int]) -> list[str]:
    """The machine, and from how many tokens on arithmetic is the larger part."""
    node = NODES[machine]
    gpu = GPUS[node.gpu]
    edges = []
    for count in counts:
        time = step_time(
            size,
            gpu,
            num_gpus=count,
            tokens_per_gpu=0,
            length=round(SST2_TOKENS),
            gpus_per_node=node.num_gpus,
            network_bytes_per_s=node.network_gbit_per_s * 1e9 / 8,
            num_launches=launches(size),
        )
        edges.append(f"{tokens_that_hide_nothing(size, gpu, time, length=round(SST2_TOKENS)):,.0f} on {count} GPUs")
    return [
        f"Nodes of {node.num_gpus} {node.gpu}: {gpu.peak_bf16_flops / 1e12:.0f} TFLOP/s, memory {gpu.memory_bytes_per_s / 1e12:.2f} "
        f"TB/s, {gpu.link_bytes_per_s / 1e9:.0f} GB/s one way to a node's other GPUs, {node.network_gbit_per_s:g} Gbit/s between nodes.",
        f"Arithmetic is more than half of a step from these tokens a GPU on: {', '.join(edges)}.",
    ]


if __name__ == "__main__":
    sys.exit(main())
