"""The plan of a run in numbers, before it starts."""

from __future__ import annotations

import math

from sst2_ray import formatting
from sst2_ray.config.train import TrainConfig
from sst2_ray.run.model_size import ModelSize
from sst2_ray.run.planning.cost_model import (
    FEWEST_TOKENS,
    LAUNCH_S,
    Memory,
    communication_bytes,
    launches,
    memory,
)
from sst2_ray.run.planning.paper import PaperForecast, Step, paper_forecast
from sst2_ray.run.planning.placement import ClusterView, Placement
from sst2_ray.run.prepare import RunInputs
from sst2_ray.storage import address

MIB = 2**20

PROCESS_GIB = 0.9
"""Resident memory of a CPU worker before it has a model: Python, torch, transformers, DeepSpeed, Ray; measured."""

KEPT_GIB = 0.4
"""Memory that the allocator of a CPU worker keeps for a while after it was freed (environment.JEMALLOC_CONF); measured."""


def describe(
    inputs: RunInputs, placement: Placement, *, network_gbit_per_s: float | None = None
) -> list[tuple[str, str]]:
    """Return rows of the plan: examples, steps, tokens, workers, memory a worker, messages, storage.

    Args:
        inputs: with tokens.
        placement: of the workers.
        network_gbit_per_s: rate between the workers' machines, for the time that messages take; None: none is stated.
    """
    config, model, splits = inputs.config, inputs.resolved.info, inputs.splits
    train, dev = inputs.tokens["train"], inputs.tokens["dev"]
    selection = inputs.tokens.get("selection")
    others = "".join(f", {len(rows):,} {name}" for name, rows in splits.others.items())
    held_out = f"{others}, {len(selection):,} held out of train to choose by" if selection is not None else others
    mean, unit = len(train.input_ids) / len(train), "pair" if splits.text_columns else "sentence"
    size = inputs.made.size
    memory_words = _memory_words(inputs, placement)
    engine = "DeepSpeed ZeRO-2" if config.engine == "zero2" else "plain torch"
    return [
        ("run", f"{config.run_name} (config {config.config_hash})"),
        ("model", f"{model.label}, about {size.parameters / 1e6:.1f} M parameters, weights: {model.source}"),
        ("data", f"{splits.source}: {len(train):,} train rows, {len(dev):,} {splits.eval_split}{held_out}"),
        *_pair_words(inputs),
        ("classes", splits.class_words),
        *([("class weights", splits.weight_words)] if splits.class_weights else []),
        ("tokens", f"{len(train.input_ids):,} an epoch, {mean:.1f} a {unit}, longest {int(train.lengths.max())}"),
        ("steps", _steps_words(config, len(train))),
        ("workers", f"{placement}, {engine}"),
        ("memory", memory_words),
        ("messages", _messages_words(size, placement, network_gbit_per_s)),
        *(_launch_rows(inputs, size, placement) if placement.use_gpu else ()),
        ("storage", _storage_words(config, size)),
    ]


def on_paper(
    inputs: RunInputs, placement: Placement, cluster: ClusterView, *, network_gbit_per_s: float | None = None
) -> PaperForecast | None:
    """Return the least time of a run on the cluster's GPUs; None without GPUs, or where their data sheet is not known.

    Args:
        inputs: with tokens.
        placement: of the workers.
        cluster: that they are placed on.
        network_gbit_per_s: rate between the workers' machines; None: it is not known.
    """
    from sst2_ray.training.step_counts import total_steps
    from sst2_ray.training.task import DEFAULT_MICRO_BATCH_TOKENS, compiles_layers

    if not placement.use_gpu:
        return None
    config, train = inputs.config, inputs.tokens["train"]
    mean = len(train.input_ids) / len(train)
    steps = total_steps(config, len(train))
    gpus = [int(node.gpus) for node in cluster.nodes] + [int(gpus) for _, gpus, _ in cluster.node_types]
    return paper_forecast(
        Step(
            size=inputs.made.size,
            tokens=mean * config.batch_size,
            length=round(mean),
            micro_batch_tokens=config.micro_batch_tokens or DEFAULT_MICRO_BATCH_TOKENS["cuda"],
            compiled=compiles_layers(config, mean * config.batch_size * steps / placement.num_workers),
        ),
        cluster.chips,
        num_steps=steps,
        num_workers=placement.num_workers,
        gpus_per_node=max([1, *gpus]),
        network_gbit_per_s=network_gbit_per_s,
    )


def worker_memory(inputs: RunInputs, *, num_workers: int, use_gpu: bool) -> Memory:
    """Compute one worker's memory. The chip may not be known: bf16's copies are counted unless fp32 is asked for."""
    from sst2_ray.training.task import DEFAULT_MICRO_BATCH_TOKENS

    config, train = inputs.config, inputs.tokens["train"]
    length = len(train.input_ids) / len(train)
    most = config.micro_batch_tokens or DEFAULT_MICRO_BATCH_TOKENS["cuda" if use_gpu else "packed"]
    return memory(
        inputs.made.size,
        num_workers=num_workers,
        tokens=min(most, round(length * config.batch_size / num_workers)),
        length=round(length),
        bf16=config.precision != "fp32",
        scores_kept=not use_gpu,
    )


def _pair_words(inputs: RunInputs) -> list[tuple[str, str]]:
    """Describe how pairs are read; nothing for single texts."""
    columns = inputs.splits.text_columns
    if not columns:
        return []
    pooled = ", pooled as a whole (a cross-encoder)" if inputs.resolved.stack is not None else ""
    return [("texts", f"pairs of {columns[0]} and {columns[1]}, read as one sequence with the separator{pooled}")]


def _steps_words(config: TrainConfig, num_rows: int) -> str:
    from sst2_ray.training.step_counts import total_steps

    per_epoch, last = -(-num_rows // config.batch_size), num_rows % config.batch_size
    last_words = f", the last one of {last}" if last else ""
    return (
        f"{total_steps(config, num_rows):,} of {config.batch_size} examples ({per_epoch:,} an epoch{last_words}), "
        f"learning rate up to {formatting.learning_rate(config.learning_rate)}, seed {config.seed}"
    )


def _memory_words(inputs: RunInputs, placement: Placement) -> str:
    if placement.use_gpu:
        part = worker_memory(inputs, num_workers=placement.num_workers, use_gpu=True)
        parts, kind = _parts(part), " of its GPU"
    else:
        parts, kind = process_memory(inputs, num_workers=placement.num_workers), ""
    words = ", ".join(f"{name} {gib:.2f}" for name, gib in parts.items())
    return f"about {sum(parts.values()):.2f} GiB{kind} a worker: {words}"


def _parts(part: Memory) -> dict[str, float]:
    """Return what a step needs, in GiB."""
    parts = {
        "weights": part.weights,
        "gradients": part.gradients,
        "optimizer": part.optimizer,
        "activations": part.activations,
    }
    return {name: num_bytes / 2**30 for name, num_bytes in parts.items()}


def process_memory(inputs: RunInputs, *, num_workers: int) -> dict[str, float]:
    """Compute the resident memory of a worker on CPUs, in GiB, by what it is for."""
    part = worker_memory(inputs, num_workers=num_workers, use_gpu=False)
    copy = 4 * inputs.made.size.parameters + part.optimizer
    return {"Python and libraries": PROCESS_GIB, **_parts(part), "checkpoint": copy / 2**30, "allocator": KEPT_GIB}


def _launch_rows(inputs: RunInputs, size: ModelSize, placement: Placement) -> list[tuple[str, str]]:
    """Return what is launched for a GPU, and what to change where that takes longer than the arithmetic."""
    from sst2_ray.training.step_counts import total_steps
    from sst2_ray.training.task import DEFAULT_MICRO_BATCH_TOKENS, compiles_layers, replays_graphs

    config, train = inputs.config, inputs.tokens["train"]
    mean = len(train.input_ids) / len(train)
    tokens = mean * config.batch_size / placement.num_workers
    micro_batches = math.ceil(tokens / (config.micro_batch_tokens or DEFAULT_MICRO_BATCH_TOKENS["cuda"]))
    compiled = compiles_layers(config, tokens * total_steps(config, len(train)))
    count = launches(size, micro_batches=micro_batches, compiled=compiled)
    graphs = replays_graphs(config, tokens)
    how = "replayed as CUDA graphs where sentences are laid end to end" if graphs else "one by one"
    taken = f"{1e3 * LAUNCH_S * count:.1f} ms at {1e6 * LAUNCH_S:g} us each"
    layers = ", layers compiled" if compiled else ""
    rows = [("launches", f"about {count:,} a step{layers}, {how}: {taken}" + ("" if graphs else " or more"))]
    if tokens < FEWEST_TOKENS:
        fewer = "" if placement.num_workers == 1 else "fewer GPUs or "
        larger = math.ceil(FEWEST_TOKENS * placement.num_workers / mean)
        rows.append(
            (
                "advice",
                f"{tokens:,.0f} tokens a GPU and step: below about {FEWEST_TOKENS:,} more than half of a large GPU's step is "
                f"launches; {fewer}a larger batch ({larger:,}) would use it better",
            )
        )
    return rows


def _messages_words(size: ModelSize, placement: Placement, network_gbit_per_s: float | None) -> str:
    if placement.num_workers == 1:
        return "none: one worker"
    sent = communication_bytes(size, num_workers=placement.num_workers)
    took = f", {8e-9 * sent / network_gbit_per_s:.3g} s at {network_gbit_per_s:g} Gbit/s" if network_gbit_per_s else ""
    most = "" if placement.use_gpu else "at most "  # of the token embeddings' gradient only rows that were looked up
    return f"{most}{sent / MIB:,.0f} MiB sent by each worker a step: gradients and weights{took}"


def _storage_words(config: TrainConfig, size: ModelSize) -> str:
    checkpoints = (config.keep_checkpoints + 2) * 12 * size.parameters
    return (
        f"{address(config.storage_path, config.run_name)}: up to {formatting.size(checkpoints)} of checkpoints while it runs, "
        f"{formatting.size(4 * size.parameters)} for the exported model"
    )
