"""Sentences laid end to end give what the padded batch gives: for torch's own FlashAttention (its contract in plain torch)
and behind transformers' way to the package flash-attn."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from sst2_ray.modeling.dropout import row_keys
from sst2_ray.modeling.layout.varlen import TILE, Bucket, tiles_of, to_varlen
from tests.support import models
from tests.support.flash import compute_with_flash


@pytest.mark.parametrize("way", ["torch", "flash-attn"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("kind", "options"), [("sbert", {}), ("modernbert", {"local_attention": 8})])
def test_logits_and_gradients_are_those_of_the_padded_batch(kind, options, training, way, tmp_path, monkeypatch):
    folder = getattr(models, f"{kind}_folder")(tmp_path / "model", **options)
    model, tokenizer, _ = models.build(folder, dropout=0.2)
    for name, module in model.named_modules():
        if name.endswith("attention.self.dropout"):
            module.p = 0.0  # the kernels draw for themselves
    keys = model.train(training).key_dropout()
    ids, mask = models.encode(tokenizer, [*models.SENTENCES, " ".join(models.SENTENCES)])
    keys.set(torch.from_numpy(row_keys(seed=0, global_step=1, row_ids=np.arange(len(ids)))))

    def outcome(*inputs):
        model.zero_grad()
        logits = model(*inputs)
        torch.nn.functional.cross_entropy(logits, torch.arange(len(ids)) % 2).backward()
        return logits.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    padded = outcome(ids, mask)
    if way == "torch":
        model.lay_end_to_end()
    else:
        compute_with_flash(model, monkeypatch)
    torch.testing.assert_close(outcome(*to_varlen(ids, mask)), padded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["sbert", "modernbert"])
def test_filler_rows_change_nothing(kind, tmp_path):
    model, tokenizer, _ = models.build(getattr(models, f"{kind}_folder")(tmp_path / "model"))
    model.lay_end_to_end()
    ids, layout = to_varlen(*models.encode(tokenizer, models.SENTENCES))
    rows = len(models.SENTENCES)
    bucket = Bucket.of(len(ids), rows, layout.longest)
    filled, its_layout = bucket.fill(ids, layout, pad_id=tokenizer.pad_token_id)
    assert (len(filled), len(its_layout.ends) - 1, its_layout.longest) == (bucket.tokens, bucket.rows, bucket.longest)
    assert (its_layout.ends.diff() > 0).all() and its_layout.ends.diff().max() <= bucket.longest
    assert torch.equal(its_layout.row, torch.repeat_interleave(its_layout.ends.diff()))

    def outcome(*inputs):
        model.zero_grad()
        losses = torch.nn.functional.cross_entropy(
            model(*inputs), torch.arange(len(inputs[1].ends) - 1) % 2, reduction="none"
        )
        losses[:rows].sum().backward()
        return losses[:rows].detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    torch.testing.assert_close(outcome(filled, its_layout), outcome(ids, layout), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "lengths", [[7, 1, 12, 70, 3], [65, 1] * 40, [64, 64], [1, 65, 1, 129, 63, 2], [13] * 500, [1], [300]]
)
def test_tiles_hold_whole_rows_or_a_part_of_a_long_one(lengths):
    """A table filled up for a graph has as many tiles as tokens alone ask for."""
    ends = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    cuts = tiles_of(ends).tolist()
    assert cuts[0] == 0 and cuts[-1] == sum(lengths)
    row = np.repeat(np.arange(len(lengths)), lengths)
    for start, end in pairwise(cuts):
        assert 0 < end - start <= TILE
        whole = {start, end} <= set(ends.tolist())
        assert whole or row[start] == row[end - 1], "parts of two rows"
        assert whole or lengths[row[start]] > TILE
    filled = tiles_of(ends, filled=True)
    assert len(filled) == 3 * sum(lengths) // TILE + 2
    assert filled.tolist() == cuts + [cuts[-1]] * (len(filled) - len(cuts))


def test_buckets_are_few_and_little_larger_than_their_batches():
    sizes = range(100, 16_385)
    found = [Bucket.of(tokens, 64, 50) for tokens in sizes]
    fillers = [(bucket.tokens - tokens) / (bucket.rows - 64) for bucket, tokens in zip(found, sizes, strict=True)]
    assert min(fillers) >= 1 and max(fillers) <= 65
    assert len(set(found)) < 80
    assert max(b.tokens / tokens for b, tokens in zip(found, sizes, strict=True) if tokens >= 700) < 1.15


@pytest.mark.parametrize("kind", ["sbert", "modernbert"])
def test_a_padded_batch_in_between_is_computed_as_one(kind, tmp_path):
    """Evaluations in fp32 are padded, and training goes on without padding."""
    model, tokenizer, _ = models.build(getattr(models, f"{kind}_folder")(tmp_path / "model"))
    ids, mask = models.encode(tokenizer, models.SENTENCES)
    expected = model.eval()(ids, mask)
    model.lay_end_to_end()
    for _ in range(2):
        torch.testing.assert_close(model(*to_varlen(ids, mask)), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(ids, mask), expected, rtol=1e-5, atol=1e-5)


def test_rows_lie_one_after_the_other():
    ids, layout = to_varlen(
        torch.tensor([[5, 6, 0], [7, 8, 9], [4, 0, 0]]), torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]])
    )
    assert ids.tolist() == [5, 6, 7, 8, 9, 4]
    assert layout.row.tolist() == [0, 0, 1, 1, 1, 2]
    assert layout.position.tolist() == [0, 1, 0, 1, 2, 0]
    assert (layout.ends.tolist(), layout.longest) == ([0, 2, 5, 6], 3)


def test_other_attention_would_mix_sentences_and_is_refused(tmp_path):
    model, tokenizer, _ = models.build(models.sbert_folder(tmp_path / "model"))
    assert not model.supports_varlen
    with pytest.raises(AssertionError, match="mix the sentences"):
        model(*to_varlen(*models.encode(tokenizer, models.SENTENCES)))
