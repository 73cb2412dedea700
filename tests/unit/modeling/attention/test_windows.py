"""Attention over a window in blocks gives what a mask over all places gives, forward and backward."""

from __future__ import annotations

import pytest
import torch

from sst2_ray.modeling.attention import keyed
from sst2_ray.modeling.attention.windows import local_attention
from sst2_ray.modeling.layout.packing import pack

REACH = 4


def qkv(*shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("lengths", [(24,), (29, 29), (29, 17, 2), (8, 7), (3, 1)])
def test_blocks_equal_a_mask_over_all_places(lengths):
    width = max(lengths)
    inputs = qkv(len(lengths), 2, width, 6)
    places = torch.arange(width)
    real = (places < torch.tensor(lengths)[:, None])[:, None, None, :]
    near = (places[:, None] - places).abs() <= REACH
    expected = torch.nn.functional.scaled_dot_product_attention(*inputs, attn_mask=real & near, scale=0.3)
    mask = None if len(set(lengths)) == 1 else real
    found = local_attention(*inputs, mask, reach=REACH, scale=0.3)
    assert not found.isnan().any()
    # Queries of padding have no output that counts.
    expected, found = (torch.where(real.transpose(2, 3), x, 0.0) for x in (expected, found))
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape, dtype=torch.float64)
    gradients = [torch.autograd.grad((x * weights).sum(), inputs, retain_graph=True) for x in (expected, found)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("blocks_from", [1, 10**9])
def test_long_packed_sentences_take_the_blocks_and_short_ones_the_mask(monkeypatch, blocks_from):
    monkeypatch.setattr(keyed, "_BLOCKS_FROM", blocks_from)
    used = []
    monkeypatch.setattr(
        keyed, "local_attention", lambda *values, **named: used.append(1) or local_attention(*values, **named)
    )
    packing = pack((torch.arange(40) < torch.tensor([40, 25])[:, None]).long())
    inputs = [x.float() for x in qkv(1, 2, len(packing.row), 6)]
    found, _ = keyed._attention(torch.nn.Module(), *inputs, None, packing=packing, sliding_window=REACH + 1)
    assert bool(used) == (blocks_from == 1)
    for start, length in ((0, 40), (40, 25)):
        places = torch.arange(length)
        near = (places[:, None] - places).abs() <= REACH
        q, k, v = (x[:, :, start : start + length] for x in inputs)
        alone = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=near).transpose(1, 2)
        torch.testing.assert_close(found[:, start : start + length], alone, rtol=1e-4, atol=1e-5)
