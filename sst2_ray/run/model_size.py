"""The size of a model from its shape alone, before it is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sst2_ray.modeling.sources import ResolvedModel
from sst2_ray.modeling.sources.families import encoder_sizes


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """The shape of an encoder."""

    parameters: int
    """All parameters, tables included."""
    multiplied: int
    """Parameters that multiply activations: a table's are looked up."""
    layers: int
    hidden: int
    inner: int
    """Width of the feed-forward layer."""
    gated: bool
    """True if its first matrix is twice as wide (GeGLU)."""
    heads: int
    window: int | None = None
    """Positions that a layer of local attention sees; None: every layer is global."""
    global_layers: int | None = None
    """None: all."""

    def attended(self, length: int) -> float:
        """Return the positions that a token attends to, the mean over the layers."""
        if self.window is None or self.global_layers is None:
            return length
        local = self.layers - self.global_layers
        return (self.global_layers * length + local * min(length, self.window)) / self.layers


def num_parameters(resolved: ResolvedModel, vocab_size: int) -> int:
    """Count the encoder's parameters from its shape alone, to about 1 %: enough to state memory and storage."""
    return model_size(resolved, vocab_size).parameters


def model_size(resolved: ResolvedModel, vocab_size: int) -> ModelSize:
    """Return the encoder's shape. `vocab_size`: entries of a random model's tokenizer."""
    shape = model_shape(resolved)
    return size_of(shape, vocab_size=vocab_size if resolved.info.random_weights else shape.vocab_size)


def size_of(shape: Any, *, vocab_size: int) -> ModelSize:
    """Count embeddings, attention, feed-forward layers and norms of a transformers config; the head is small."""
    sizes = encoder_sizes(shape)
    hidden, layers, inner = sizes.hidden, sizes.layers, sizes.inner
    # ModernBERT's feed-forward is gated (its first matrix is twice as wide) and it has no position table.
    gated = shape.model_type == "modernbert"
    positions = 0 if gated else sizes.positions + 2
    multiplied = layers * (4 * hidden * hidden + hidden * inner * (3 if gated else 2)) + hidden * hidden
    return ModelSize(
        parameters=(vocab_size + positions) * hidden + multiplied + layers * 9 * hidden,
        multiplied=multiplied,
        layers=layers,
        hidden=hidden,
        inner=inner,
        gated=gated,
        heads=sizes.heads,
        window=shape.local_attention if gated else None,
        global_layers=shape.layer_types.count("full_attention") if gated else None,
    )


def model_shape(resolved: ResolvedModel) -> Any:
    """Return the encoder's transformers config, with the defaults that `resolved` leaves out."""
    from transformers import AutoConfig

    values = {k: v for k, v in resolved.architecture.items() if k != "model_type"}
    return AutoConfig.for_model(resolved.architecture["model_type"], **values)
