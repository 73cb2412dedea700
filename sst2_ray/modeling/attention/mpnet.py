"""MPNet's attention without padding on a CPU: its scores have a bias by the distance of two tokens, a table for all layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder, MPNetModel, MPNetSelfAttention

from sst2_ray.modeling.attention.keyed import attend_segment
from sst2_ray.modeling.layout.packing import Packing, Segment, attend_packed


@dataclass(frozen=True)
class _PackedBias:
    """The layout of a packed batch and its bias, which layers are handed in place of a bias for all places."""

    packing: Packing
    table: Tensor
    """[1, heads, width, width] of the widest segment; narrower ones take its corner."""


class PackedMPNetEncoder(MPNetEncoder):
    """transformers' layers of MPNet, which also take a packed batch."""

    packing: Packing | None = None
    """Layout of the batch that is being computed; None: it is padded."""

    def compute_position_bias(self, x: Tensor, position_ids: Tensor | None = None, num_buckets: int = 32) -> Any:
        """Return the bias of a padded batch, [rows, heads, width, width], or what stands for that of a packed one."""
        if self.packing is None:
            return super().compute_position_bias(x, position_ids, num_buckets)
        widest = max(segment.width for segment in self.packing.segments)
        return _PackedBias(self.packing, super().compute_position_bias(x.new_empty(1, widest), None, num_buckets))


class PackedMPNetSelfAttention(MPNetSelfAttention):
    """transformers' attention of MPNet, which also takes a packed batch."""

    def forward(
        self, hidden_states: Tensor, attention_mask: Any = None, position_bias: Any = None, **keywords: Any
    ) -> Any:
        """Compute ([1, T, size],) of a packed batch, whose bias brings its layout; the same as ever of a padded one."""
        if not isinstance(position_bias, _PackedBias):
            return super().forward(hidden_states, attention_mask, position_bias, **keywords)
        shape = (1, -1, self.num_attention_heads, self.attention_head_size)
        query, key, value = (layer(hidden_states).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        packing, table = position_bias.packing, position_bias.table

        def attend(q: Tensor, k: Tensor, v: Tensor, segment: Segment) -> Tensor:
            bias = table[..., : segment.width, : segment.width]
            return attend_segment(self, q, k, v, segment, packing, bias=bias)

        output = attend_packed(query, key, value, packing, attend)
        return (self.o(output.reshape(hidden_states.shape)),)


def install(backbone: nn.Module) -> None:
    """Let the MPNet model inside `backbone` take packed batches, with the keyword `packing`."""
    for module in list(backbone.modules()):
        if type(module) is MPNetSelfAttention:
            module.__class__ = PackedMPNetSelfAttention
        elif type(module) is MPNetEncoder:
            module.__class__ = PackedMPNetEncoder
        elif isinstance(module, MPNetModel):
            module.register_forward_pre_hook(_take_packing, with_kwargs=True)


def _take_packing(model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, Any]:
    """Hand the layout of a batch on to the layers, as MPNetModel does not."""
    model.encoder.packing = keywords.pop("packing", None)
    return arguments, keywords
