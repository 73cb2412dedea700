"""Every row is computed once, whatever the batches, and the model is left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sst2_ray.modeling.layout.varlen import Varlen
from sst2_ray.training.evaluate import CLOSE, compute_logits
from tests.support.flash import compute_with_flash
from tests.support.models import build
from tests.support.tokens import review_lengths, token_arrays


@pytest.fixture
def model(sbert_folder):
    return build(sbert_folder)[0]


def logits_of(model, tokens, max_tokens: int = 256, bf16: bool = False) -> np.ndarray:
    return compute_logits(model, tokens, bf16=bf16, pad_id=0, max_tokens=max_tokens, device=torch.device("cpu"))


@pytest.mark.parametrize("max_tokens", [1, 64, 4096])
def test_a_row_has_the_logits_that_it_has_alone(model, max_tokens):
    tokens = token_arrays(review_lengths(30), vocabulary=100)
    logits = logits_of(model, tokens, max_tokens)
    assert logits.dtype == np.float32
    for row in range(len(tokens)):
        ids = torch.from_numpy(tokens.input_ids[tokens.offsets[row] : tokens.offsets[row + 1]]).long()[None]
        alone = model(ids, torch.ones_like(ids)).detach().numpy()[0]
        np.testing.assert_allclose(logits[row], alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bf16", [False, True])
def test_it_tells_after_every_batch(model, bf16):
    tokens, calls = token_arrays(review_lengths(5), vocabulary=100), []
    options = {"pad_id": 0, "max_tokens": 1, "device": torch.device("cpu"), "on_batch": lambda: calls.append(1)}
    compute_logits(model, tokens, bf16=bf16, **options)
    assert len(calls) == (10 if bf16 else 5)  # an untrained head's logits are all close: computed again in fp32


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_inside_and_the_mode_is_what_it_was(model, training):
    tokens = token_arrays(review_lengths(5), vocabulary=100)
    expected = logits_of(model.eval(), tokens)
    model.train(training)
    np.testing.assert_array_equal(logits_of(model, tokens), expected)
    assert model.training is training


def test_sentences_laid_end_to_end_have_the_logits_of_padded_ones(model, monkeypatch):
    tokens = token_arrays(review_lengths(30), vocabulary=100)
    expected = compute_logits(model, tokens, bf16=True, pad_id=0, max_tokens=256, device=torch.device("cpu"), close=0.0)
    compute_with_flash(model, monkeypatch)
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(type(inputs[1])))
    found = compute_logits(model, tokens, bf16=True, pad_id=0, max_tokens=256, device=torch.device("cpu"), close=0.0)
    assert set(seen) == {Varlen}
    np.testing.assert_allclose(found, expected, atol=5e-3)
    np.testing.assert_allclose(logits_of(model, tokens), logits_of(model, tokens, bf16=True), atol=1e-6)


def test_in_bf16_rows_near_the_boundary_have_the_logits_of_fp32(model):
    tokens = token_arrays(review_lengths(40), vocabulary=100)
    in_fp32 = logits_of(model, tokens)
    differences = np.sort(np.abs(in_fp32[:, 1] - in_fp32[:, 0]))
    # Logits scaled so that half of the rows are near the boundary.
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(CLOSE / float(differences[20]))
    in_fp32, in_bf16 = logits_of(model, tokens), logits_of(model, tokens, bf16=True)
    close = np.abs(in_bf16[:, 1] - in_bf16[:, 0]) < CLOSE
    assert 0 < close.sum() < len(tokens)
    np.testing.assert_allclose(in_bf16[close], in_fp32[close], rtol=1e-4, atol=1e-6)
    assert not np.array_equal(in_bf16[~close], in_fp32[~close])
    np.testing.assert_array_equal(in_bf16.argmax(axis=1), in_fp32.argmax(axis=1))
