"""Weights laid out once: the answers of autocast in bf16, those of fp32 outside of it."""

from __future__ import annotations

import pytest
import torch

from sst2_ray.modeling.prepack import prepack
from tests.support.families import family_folder
from tests.support.models import add_sbert_modules, build, encode


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "modernbert", "sbert on bert"])
def test_logits_are_those_of_the_model_before(kind, tmp_path):
    folder = family_folder(kind.removeprefix("sbert on "), tmp_path / "model", hidden_size=64, dim=64)
    if kind.startswith("sbert"):
        add_sbert_modules(folder)
    model, tokenizer, _ = build(folder)
    inputs = encode(tokenizer)
    with torch.no_grad():
        exact = model(*inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(*inputs)
        if not prepack(model):
            pytest.skip("this CPU's torch has no products in bf16 with weights laid out before")
        assert torch.equal(model(*inputs), exact)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model(*inputs)
    scale = exact.abs().max()
    assert (found - exact).abs().max() <= 0.02 * scale + 2 * (rounded - exact).abs().max()
    assert not torch.equal(found, exact)
