"""Every row is computed once, whatever the batches, and the model is left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sst2_ray.training.evaluate import compute_logits
from tests.support.models import build
from tests.support.tokens import review_lengths, token_arrays


@pytest.fixture
def model(sbert_folder):
    return build(sbert_folder)[0]


def logits_of(model, tokens, max_tokens: int = 256) -> np.ndarray:
    return compute_logits(model, tokens, pad_id=0, max_tokens=max_tokens, device=torch.device("cpu"))


@pytest.mark.parametrize("max_tokens", [1, 64, 4096])
def test_a_row_has_the_logits_that_it_has_alone(model, max_tokens):
    tokens = token_arrays(review_lengths(30), vocabulary=100)
    logits = logits_of(model, tokens, max_tokens)
    assert logits.dtype == np.float32
    for row in range(len(tokens)):
        ids = torch.from_numpy(tokens.input_ids[tokens.offsets[row] : tokens.offsets[row + 1]]).long()[None]
        alone = model(ids, torch.ones_like(ids)).detach().numpy()[0]
        np.testing.assert_allclose(logits[row], alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_inside_and_the_mode_is_what_it_was(model, training):
    tokens = token_arrays(review_lengths(5), vocabulary=100)
    expected = logits_of(model.eval(), tokens)
    model.train(training)
    np.testing.assert_array_equal(logits_of(model, tokens), expected)
    assert model.training is training
