"""The operator behind attention without padding: its contract on a CPU, and the operators of torch that it calls on a GPU."""

from __future__ import annotations

import pytest
import torch

from sst2_ray.modeling.attention import varlen
from sst2_ray.modeling.attention.varlen import varlen_attention
from tests.support.flash import places_of

ENDS = torch.tensor([0, 7, 8, 20], dtype=torch.int32)


def inputs(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(20, 2, 8, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("window", [-1, 3])
def test_every_sentence_is_computed_as_if_it_were_alone(window):
    query, key, value = inputs()
    output, log_sum, _ = varlen_attention(query, key, value, *places_of(ENDS), 12, 0.3, window, 0.0)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((output * weights).sum(), (query, key, value))
    alone = []
    for start, end in ((0, 7), (7, 8), (8, 20)):
        q, k, v = (x[start:end].transpose(0, 1) for x in (query, key, value))
        place = torch.arange(end - start)
        seen = (place[:, None] - place).abs() <= (window if window >= 0 else 99)
        alone.append(
            torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=0.3).transpose(0, 1)
        )
    expected = torch.cat(alone)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
    assert log_sum.shape == (2, 20)
    gradients = torch.autograd.grad((expected * weights).sum(), (query, key, value))
    torch.testing.assert_close(found, gradients, rtol=1e-5, atol=1e-6)


def test_dropout_drops_the_share_and_its_gradient_is_that_of_what_was_kept():
    query, key, value = inputs()
    torch.manual_seed(3)
    output, _, state = varlen_attention(query, key, value, *places_of(ENDS), 12, 0.3, -1, 0.25)
    found = torch.autograd.grad(output.square().sum(), (query, key, value))
    kept = varlen._kept(state, torch.Size((2, 20, 20)), 0.25)
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (kept == 0).float().mean().item() == pytest.approx(0.25, abs=0.07)
    probabilities = varlen._scores(query, key, ENDS, 0.3, -1).softmax(-1)
    expected = torch.einsum("hqk,khd->qhd", kept * probabilities, value)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad(expected.square().sum(), (query, key, value))
    torch.testing.assert_close(found, gradients, rtol=1e-4, atol=1e-5)


def test_the_generator_s_state_decides_what_is_dropped():
    outputs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        outputs.append(varlen_attention(*inputs(), *places_of(ENDS), 12, 0.3, -1, 0.5)[0])
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_operator_is_registered_as_torch_wants_it(dropout):
    """Schema, autograd and shapes for compilers."""
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        varlen_attention, (*inputs(torch.bfloat16), *places_of(ENDS), 12, 0.3, 4, dropout), test_utils=tests
    )


def test_torch_s_operators_take_the_arguments_that_they_are_called_with():
    remedy = f"torch {torch.__version__} calls FlashAttention otherwise: adapt modeling/attention/varlen.py"
    forward = [argument.name for argument in torch.ops.aten._flash_attention_forward.default._schema.arguments]
    assert forward[:10] == [
        "query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "dropout_p", "is_causal",
        "return_debug_mask",
    ], remedy  # fmt: skip
    assert {"scale", "window_size_left", "window_size_right"} <= set(forward), remedy
    assert len(torch.ops.aten._flash_attention_forward.default._schema.returns) == 5, remedy
    backward = [argument.name for argument in torch.ops.aten._flash_attention_backward.default._schema.arguments]
    assert backward[:14] == [
        "grad_out", "query", "key", "value", "out", "logsumexp", "cum_seq_q", "cum_seq_k", "max_q", "max_k",
        "dropout_p", "is_causal", "rng_state", "unused",
    ], remedy  # fmt: skip
    assert {"scale", "window_size_left", "window_size_right"} <= set(backward), remedy
