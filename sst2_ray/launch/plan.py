"""What a run will do, in numbers, before it starts."""

from __future__ import annotations

from typing import Any

from sst2_ray.launch.admission import Placement
from sst2_ray.launch.prepare import Prepared
from sst2_ray.modeling.sources import ResolvedModel
from sst2_ray.storage import Storage

MIB = 2**20


def num_parameters(resolved: ResolvedModel, vocab_size: int) -> int:
    """Parameters of the encoder from its shape alone: embeddings, attention, feed-forward, norms; the head is small.

    vocab_size: of a random model's tokenizer. Exact to about 1 %: enough to state memory and storage.
    """
    shape = model_shape(resolved)
    hidden, layers, inner = shape.hidden_size, shape.num_hidden_layers, shape.intermediate_size
    vocabulary = vocab_size if resolved.info.random_weights else shape.vocab_size
    # ModernBERT's feed-forward is gated (its first matrix is twice as wide) and it has no position table.
    gated = resolved.info.kind == "modernbert"
    feed_forward = hidden * inner * (3 if gated else 2)
    positions = 0 if gated else shape.max_position_embeddings + 2
    return (
        (vocabulary + positions) * hidden + layers * (4 * hidden * hidden + feed_forward + 9 * hidden) + hidden * hidden
    )


def model_shape(resolved: ResolvedModel) -> Any:
    """The encoder's transformers config, with the defaults that `resolved` leaves out."""
    from transformers import AutoConfig

    values = {k: v for k, v in resolved.architecture.items() if k != "model_type"}
    return AutoConfig.for_model(resolved.architecture["model_type"], **values)


def describe(prepared: Prepared, placement: Placement) -> list[tuple[str, str]]:
    """Rows of the plan: examples, steps, tokens, workers, memory a worker, storage."""
    from sst2_ray.training.schedule import total_steps

    config, checked = prepared.checked.config, prepared.checked
    train, dev = prepared.tokens["train"], prepared.tokens["dev"]
    steps = total_steps(config, len(train))
    per_epoch = -(-len(train) // config.batch_size)
    mean = len(train.input_ids) / len(train)
    last = len(train) % config.batch_size
    parameters = num_parameters(checked.resolved, prepared.vocab_size)
    # fp32 weights and gradients whole, two moments and the masters shared out (Rajbhandari et al. 2020, arXiv 1910.02054);
    # gradients are kept whole because micro-batches are reduced once a step.
    state = (8 + 12 / placement.num_workers) * parameters / MIB
    checkpoint = 12 * parameters / MIB
    selection = (
        f", {len(prepared.tokens['selection']):,} held out of train to choose by"
        if "selection" in prepared.tokens
        else ""
    )
    storage = Storage.open(config.storage_path)
    return [
        ("run", f"{config.run_name} (config {config.config_hash})"),
        (
            "model",
            f"{checked.resolved.info.label}, about {parameters / 1e6:.1f} M parameters, weights: {checked.resolved.info.source}",
        ),
        (
            "data",
            f"{checked.splits.source}: {len(train):,} train rows, {len(dev):,} {checked.splits.eval_split}{selection}",
        ),
        ("tokens", f"{len(train.input_ids):,} an epoch, {mean:.1f} a sentence, longest {int(train.lengths.max())}"),
        (
            "steps",
            f"{steps:,} of {config.batch_size} examples ({per_epoch:,} an epoch"
            + (f", the last one of {last})" if last else ")")
            + f", learning rate up to {config.learning_rate:g}, seed {config.seed}",
        ),
        ("workers", f"{placement}, {'DeepSpeed ZeRO-2' if config.engine == 'zero2' else 'plain torch'}"),
        ("memory", f"about {state:,.0f} MiB a worker for weights, gradients and optimizer, activations on top"),
        (
            "storage",
            f"{storage.root}/{config.run_name}: up to {(config.keep_checkpoints + 2) * checkpoint / 1024:.1f} GiB of checkpoints "
            f"while it runs, {4 * parameters / 2**30:.2f} GiB for the exported model",
        ),
    ]
