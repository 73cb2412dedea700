"""A batch computed without its padding gives what the padded one gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sst2_ray.modeling.dropout import install, row_keys
from sst2_ray.modeling.packing import pack
from tests.support import models


def mask_of(lengths: list[int]) -> torch.Tensor:
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


def test_every_token_has_one_place_and_rectangles_hold_rows_of_like_length():
    lengths = [3, 40, 7, 16, 17, 39, 1]
    packing = pack(mask_of(lengths))
    assert packing.row.tolist() == sorted(packing.row.tolist(), key=lambda row: -lengths[row])
    assert torch.equal(packing.source, packing.row * 40 + packing.position)
    assert torch.equal(packing.places[packing.tokens], torch.arange(sum(lengths)))
    assert int(packing.filled.sum()) == sum(lengths)
    assert [(s.rows, s.width, s.mask is None) for s in packing.segments] == [
        (2, 40, False),
        (2, 17, False),
        (3, 16, False),
    ]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("kind", "options"), [("sbert", {}), ("modernbert", {"local_attention": 8})])
def test_logits_and_gradients_are_those_of_the_padded_batch(kind, options, training, tmp_path):
    folder = getattr(models, f"{kind}_folder")(tmp_path / "model", **options)
    model, tokenizer, _ = models.build(folder, encoder_dropout=0.2, dropout=0.2)
    keys = install(model.train(training))
    ids, mask = models.encode(tokenizer, [*models.SENTENCES, " ".join(models.SENTENCES)])
    keys.set(torch.from_numpy(row_keys(seed=0, global_step=1, row_ids=np.arange(len(ids)))))
    outcomes = []
    for packs in (True, False):
        model.can_pack = packs
        assert model.packs(ids.device) == packs
        model.zero_grad()
        logits = model(ids, mask)
        torch.nn.functional.cross_entropy(logits, torch.arange(len(ids)) % 2).backward()
        outcomes.append((logits.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-4, atol=1e-5)
