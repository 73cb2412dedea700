"""A batch computed without its padding gives what the padded one gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sst2_ray.modeling.dropout import row_keys
from sst2_ray.modeling.layout.packing import pack
from tests.support import models


def mask_of(lengths: list[int]) -> torch.Tensor:
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


def test_every_token_has_one_place_and_rectangles_hold_rows_of_like_length():
    lengths = [*range(33, 43), *range(3, 25)]
    packing = pack(mask_of(lengths))
    count = sum(lengths)
    assert packing.num_tokens == count
    assert packing.lengths.tolist() == lengths
    assert packing.row[:count].tolist() == sorted(packing.row[:count].tolist(), key=lambda row: -lengths[row])
    assert torch.equal(packing.source[:count], (packing.row * 42 + packing.position)[:count])
    assert torch.equal(packing.places[packing.tokens], torch.arange(len(packing.row)))
    assert int(packing.filled.sum()) == len(packing.row)
    assert [(s.rows, s.width, s.mask is None) for s in packing.segments] == [
        (16, 48, False),
        (8, 24, False),
        (9, 16, False),
    ]


def test_a_long_row_does_not_widen_the_rectangle_of_short_ones():
    assert [(s.rows, s.width) for s in pack(mask_of([2048, 20, 20])).segments] == [
        (1, 2048),
        (2, 24),
        (1, 16),  # the filler
    ]


def test_rows_after_a_wide_rectangle_come_in_eights():
    segments = pack(mask_of([100] * 3 + [30] * 21 + [15] * 8)).segments
    assert [(s.rows, s.width) for s in segments] == [(3, 104), (24, 32), (6, 16)]


@pytest.mark.parametrize("lengths", [[1], [16], [32], [15, 1], [40] * 8, [33] * 9])
def test_the_number_of_tokens_is_a_multiple_of_16_for_any_batch(lengths):
    packing = pack(mask_of(lengths))
    assert 0 < len(packing.source) - packing.num_tokens <= 16
    assert len(packing.source) % 16 == 0
    assert int(packing.position.max()) < max(lengths)  # a model need not have positions for the filler
    assert sum(segment.rows for segment in packing.segments) == len(lengths) + 1
    wide = [segment for segment in packing.segments if segment.width > 16]
    assert sum(segment.rows for segment in wide) == (len(lengths) if max(lengths) > 16 else 0)  # without the filler


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("kind", "options"), [("sbert", {}), ("modernbert", {"local_attention": 8})])
def test_logits_and_gradients_are_those_of_the_padded_batch(kind, options, training, tmp_path):
    folder = getattr(models, f"{kind}_folder")(tmp_path / "model", **options)
    model, tokenizer, _ = models.build(folder, encoder_dropout=0.2, dropout=0.2)
    keys = model.train(training).key_dropout()
    ids, mask = models.encode(tokenizer, [*models.SENTENCES, " ".join(models.SENTENCES)])
    keys.set(torch.from_numpy(row_keys(seed=0, global_step=1, row_ids=np.arange(len(ids)))))
    outcomes = []
    for packs in (True, False):
        model.supports_packing = packs
        assert model.packs(ids.device) == packs
        model.zero_grad()
        logits = model(ids, mask)
        torch.nn.functional.cross_entropy(logits, torch.arange(len(ids)) % 2).backward()
        outcomes.append((logits.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-4, atol=1e-5)
