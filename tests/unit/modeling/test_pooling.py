"""Pooling gives what sentence-transformers gives, for every mode and alone from the real tokens."""

from __future__ import annotations

import pytest
import torch

from sst2_ray.modeling.layout.packing import pack
from sst2_ray.modeling.layout.varlen import to_varlen
from sst2_ray.modeling.pooling import pool, pool_packed, pool_varlen
from sst2_ray.modeling.sources.folders import POOLING_MODES

HIDDEN = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])


@pytest.mark.parametrize("modes", [*((mode,) for mode in POOLING_MODES), ("cls", "mean"), POOLING_MODES])
def test_it_is_sentence_transformers_pooling(modes):
    from sentence_transformers.sentence_transformer.modules import Pooling

    theirs = Pooling(embedding_dimension=4, pooling_mode=modes)
    expected = theirs({"token_embeddings": HIDDEN, "attention_mask": MASK})["sentence_embedding"]
    torch.testing.assert_close(pool(HIDDEN, MASK, modes), expected)


@pytest.mark.parametrize("modes", [*((mode,) for mode in POOLING_MODES), ("cls", "mean"), POOLING_MODES])
def test_packed_tokens_are_pooled_to_the_same_features_and_gradients(modes):
    packed, padded = HIDDEN.clone().requires_grad_(), HIDDEN.clone().requires_grad_()
    packing = pack(MASK)
    found = pool_packed(packed.view(-1, 4)[packing.source], packing, modes)
    expected = pool(padded, MASK, modes)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(packed.grad, padded.grad)


@pytest.mark.parametrize("modes", [*((mode,) for mode in POOLING_MODES), ("cls", "mean"), POOLING_MODES])
def test_tokens_that_lie_end_to_end_are_pooled_to_the_same_features_and_gradients(modes):
    flat, padded = HIDDEN[MASK.bool()].requires_grad_(), HIDDEN.clone().requires_grad_()
    _, layout = to_varlen(MASK, MASK)
    found, expected = pool_varlen(flat, layout, modes), pool(padded, MASK, modes)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(flat.grad, padded.grad[MASK.bool()])


def test_many_sentences_are_pooled_block_by_block():
    lengths = torch.randint(1, 6, (600,), generator=torch.Generator().manual_seed(0))
    lengths[0] = 5
    hidden, mask = torch.randn(600, 5, 4), (torch.arange(5) < lengths[:, None]).long()
    packing = pack(mask)
    found = pool_packed(hidden.view(-1, 4)[packing.source], packing, ("mean", "lasttoken"))
    torch.testing.assert_close(found, pool(hidden, mask, ("mean", "lasttoken")))


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_padding_counts_for_nothing(mode):
    other = HIDDEN.clone()
    other[MASK == 0] = 1e3
    torch.testing.assert_close(pool(HIDDEN, MASK, (mode,)), pool(other, MASK, (mode,)))


def test_features_are_fp32_whatever_the_encoder_computes_in():
    assert pool(HIDDEN.bfloat16(), MASK.bool(), ("mean", "max")).dtype == torch.float32
