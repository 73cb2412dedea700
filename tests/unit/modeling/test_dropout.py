"""Masks depend on seed, step, row and place, and on nothing else: not on width, neighbours or the random state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import CONFIG_MAPPING, MODEL_MAPPING

from sst2_ray.modeling import dropout
from sst2_ray.modeling.attention.keyed import KEYED_ATTENTION, KEYED_TYPES, install_keyed_dropout
from sst2_ray.modeling.dropout import DropoutKeys, KeyedDropout, keep_mask, row_keys
from sst2_ray.modeling.layout.varlen import to_varlen
from tests.support.models import build, encode


def keys_of(rows, *, seed=0, step=0) -> torch.Tensor:
    return torch.from_numpy(row_keys(seed=seed, global_step=step, row_ids=np.asarray(rows, dtype=np.int64)))


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(np.corrcoef(a.flatten().numpy(), b.flatten().numpy())[0, 1])


def at(site: int) -> torch.Tensor:
    return torch.tensor(site, dtype=torch.int32)


NOISE = 4 / np.sqrt(64 * 32 * 16)
"""Four standard errors of the correlation of two independent masks of 64 rows, 32 positions and 16 features."""


# ---- keys


def test_a_row_has_one_key_whoever_computes_it():
    everybody = keys_of(range(1000), seed=3, step=7)
    assert torch.equal(keys_of([5, 999, 17], seed=3, step=7), everybody[[5, 999, 17]])
    assert everybody.dtype == torch.int32


@pytest.mark.parametrize("other", [{"seed": 1}, {"step": 1}, {"seed": 2**40}])
def test_another_seed_or_step_gives_other_keys(other):
    same = (keys_of(range(1000)) == keys_of(range(1000), **other)).sum()
    assert same <= 1


def test_the_keys_of_all_rows_of_sst2_hardly_collide():
    keys = keys_of(range(67_349))
    # Birthdays among 2**32: n * (n - 1) / 2**33 = 0.5 pairs are expected.
    assert len(keys) - len(torch.unique(keys)) <= 5


# ---- masks


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(384,), (40, 384), (12, 40, 40)])
def test_the_share_that_is_dropped_is_the_probability(shape, probability):
    mask = keep_mask(keys_of(range(64)), at(0), shape, probability)
    assert mask.shape == (64, *shape)
    error = 4 * np.sqrt(probability * (1 - probability) / mask.numel())
    assert 1 - mask.float().mean().item() == pytest.approx(probability, abs=error)


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_every_row_position_and_feature_is_dropped_equally_often(probability):
    kept = keep_mask(keys_of(range(128)), at(3), (128, 128), probability).float()
    error = 5 * np.sqrt(probability * (1 - probability) / 128**2)
    for axes in ((1, 2), (0, 2), (0, 1)):
        assert (kept.mean(dim=axes) - (1 - probability)).abs().max() < error


def test_a_mask_does_not_depend_on_the_padded_width():
    keys = keys_of(range(8))
    assert torch.equal(keep_mask(keys, at(1), (10, 16), 0.5), keep_mask(keys, at(1), (33, 16), 0.5)[:, :10])
    assert torch.equal(
        keep_mask(keys, at(1), (4, 10, 10), 0.5), keep_mask(keys, at(1), (4, 33, 33), 0.5)[:, :, :10, :10]
    )


def test_a_mask_does_not_depend_on_the_neighbours():
    together = keep_mask(keys_of([4, 9, 2]), at(1), (10, 16), 0.5)
    assert torch.equal(keep_mask(keys_of([9]), at(1), (10, 16), 0.5), together[1:2])


def test_a_mask_does_not_depend_on_the_random_state():
    torch.manual_seed(1)
    first = keep_mask(keys_of(range(8)), at(1), (10, 16), 0.5)
    torch.manual_seed(2)
    assert torch.equal(keep_mask(keys_of(range(8)), at(1), (10, 16), 0.5), first)


def mask(rows=range(64), *, site=0, seed=0, step=0) -> torch.Tensor:
    return keep_mask(keys_of(rows, seed=seed, step=step), at(site), (32, 16), 0.5)


@pytest.mark.parametrize(
    "other",
    [{"site": 1}, {"site": 24}, {"step": 1}, {"seed": 1}, {"rows": range(64, 128)}, {"rows": range(1, 65)}],
    ids=str,
)
def test_masks_of_other_places_steps_seeds_and_rows_are_independent(other):
    assert abs(correlation(mask(), mask(**other))) < NOISE


def test_masks_inside_a_row_are_independent():
    a = mask()
    assert abs(correlation(a[:, 1:], a[:, :-1])) < NOISE * 1.1
    assert abs(correlation(a[:, :, 1:], a[:, :, :-1])) < NOISE * 1.1


def test_no_two_sites_of_a_deep_model_share_a_mask():
    masks = torch.stack([mask(range(8), site=site).flatten() for site in range(85)]).float() - 0.5
    shared = (masks @ masks.T / masks.size(1)).fill_diagonal_(0)  # 0.25 times the correlation
    assert shared.abs().max() < 0.25 * 5 / np.sqrt(masks.size(1))


def test_a_gpu_s_generator_depends_on_seed_step_and_rank_alone(monkeypatch):
    generator = torch.Generator()
    monkeypatch.setattr(torch.cuda, "default_generators", (torch.Generator(), generator))

    def drawn(**place: int) -> float:
        values = {"seed": 1, "global_step": 2, "rank": 3, **place}
        dropout.seed_gpu(torch.device("cuda:1"), **values)
        return torch.rand((), generator=generator).item()

    first = drawn()
    assert drawn() == first
    others = [drawn(seed=2), drawn(global_step=3), drawn(rank=4)]
    assert len({first, *others}) == 4


def test_a_cpu_s_generator_is_left_alone():
    before = torch.get_rng_state()
    dropout.seed_gpu(torch.device("cpu"), seed=1, global_step=2, rank=3)
    assert torch.equal(torch.get_rng_state(), before)


# ---- the module


def test_what_is_kept_is_scaled_so_that_the_mean_stays():
    keys = DropoutKeys()
    keys.set(keys_of(range(512)))
    out = KeyedDropout(0.25, 0, keys)(torch.ones(512, 64))
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert out.mean().item() == pytest.approx(1, abs=0.02)


def test_nothing_is_dropped_in_evaluation_or_at_probability_0():
    keys = DropoutKeys()
    keys.set(keys_of(range(4)))
    x = torch.randn(4, 8)
    assert KeyedDropout(0.5, 0, keys).eval()(x) is x
    assert KeyedDropout(0.0, 0, keys)(x) is x


def test_gradients_pass_where_values_passed():
    keys = DropoutKeys()
    keys.set(keys_of(range(4)))
    x = torch.ones(4, 8, requires_grad=True)
    out = KeyedDropout(0.5, 0, keys)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


@pytest.mark.parametrize("size", [1, 7, 16])
@pytest.mark.parametrize("compiled", [False, True])
def test_token_vectors_have_the_masks_of_a_padded_batch_forward_and_backward(size, compiled):
    keys, lengths = DropoutKeys(), [5, 2, 9]
    keys.set(keys_of(range(3)))
    attend = (torch.arange(9) < torch.tensor(lengths)[:, None]).long()
    _, layout = to_varlen(attend, attend)
    x = torch.randn(16, size, requires_grad=True)
    with keys.packed(layout):
        drop = dropout._drop_tokens if compiled else dropout.drop_tokens
        out = drop(x, *keys.of_tokens, at(4), 0.3)
        assert torch.equal(KeyedDropout(0.3, 4, keys)(x[None])[0], out)
    kept = keep_mask(keys.keys, at(4), (9, size), 0.3)[attend.bool()]
    assert torch.equal(out, dropout.apply_mask(x, kept, 0.3))
    out.sum().backward()
    assert torch.equal(x.grad != 0, kept)


def test_the_operator_is_registered_as_torch_wants_it():
    inputs = torch.randn(6, 8, requires_grad=True), keys_of(range(6)), keys_of(range(6)), at(1), 0.5
    torch.library.opcheck(
        dropout.drop_tokens, inputs, test_utils=("test_schema", "test_autograd_registration", "test_faketensor")
    )


def test_without_keys_torch_draws_the_mask():
    torch.manual_seed(0)
    expected = nn.functional.dropout(torch.ones(4, 8), 0.5)
    torch.manual_seed(0)
    assert torch.equal(KeyedDropout(0.5, 0, DropoutKeys())(torch.ones(4, 8)), expected)


def test_what_does_not_hold_the_batch_s_rows_is_torch_s():
    keys = DropoutKeys()
    keys.set(keys_of(range(3)))
    torch.manual_seed(0)
    expected = nn.functional.dropout(torch.ones(8, 4), 0.5)
    torch.manual_seed(0)
    assert torch.equal(KeyedDropout(0.5, 0, keys)(torch.ones(8, 4)), expected)


# ---- in a model

TEXTS = ["a gripping , funny film", "it never comes to life", "uneasy", "a warm , funny , engaging film ."]


def logits_of(model, keys, tokenizer, rows: list[int], **padding) -> torch.Tensor:
    ids, attend = encode(tokenizer, [TEXTS[row] for row in rows])
    if padding:
        extra = (0, padding["extra"])
        ids = nn.functional.pad(ids, extra, value=tokenizer.pad_token_id)
        attend = nn.functional.pad(attend, extra)
    keys.set(keys_of(rows))
    with torch.no_grad():
        return model(ids, attend)


@pytest.fixture(params=["sbert", "modernbert"])
def trained(request):
    """Build a toy model in training mode, its dropout keyed; ModernBERT has none by itself."""
    options = {"encoder_dropout": 0.2, "dropout": 0.2}
    model, tokenizer, _ = build(request.getfixturevalue(f"{request.param}_folder"), **options)
    return model.train(), model.key_dropout(), tokenizer


def test_every_dropout_of_a_model_is_keyed_and_has_a_site_of_its_own(trained):
    model, _, _ = trained
    assert not [m for m in model.modules() if type(m) is nn.Dropout]
    sites = [int(m.site) for m in model.modules() if isinstance(m, KeyedDropout)]
    assert sorted(sites) == list(range(len(sites)))
    assert len(sites) > 3


def test_a_row_s_logits_do_not_depend_on_the_rows_beside_it_or_on_padding(trained):
    model, keys, tokenizer = trained
    alone = torch.cat([logits_of(model, keys, tokenizer, [row]) for row in range(4)])
    torch.testing.assert_close(logits_of(model, keys, tokenizer, [0, 1, 2, 3]), alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits_of(model, keys, tokenizer, [3, 1], extra=20), alone[[3, 1]], rtol=1e-5, atol=1e-6)


def test_dropout_is_on_in_training_and_off_in_evaluation(trained):
    model, keys, tokenizer = trained
    dropped = logits_of(model, keys, tokenizer, [0, 1])
    assert torch.equal(logits_of(model, keys, tokenizer, [0, 1]), dropped)
    model.eval()
    assert not torch.allclose(logits_of(model, keys, tokenizer, [0, 1]), dropped)


def test_without_dropout_the_model_stays_what_it_was(sbert_folder):
    model, _, _ = build(sbert_folder, encoder_dropout=0.0)
    before = model.backbone.config._attn_implementation
    model.key_dropout()
    assert model.backbone.config._attn_implementation == before


SHAPE = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "pad_token_id": 0,
}  # fmt: skip
RELATIVE = {
    "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_position_embeddings": 64,
    "max_relative_positions": 16,
}  # fmt: skip
SHAPES = {
    "distilbert": {"vocab_size": 300, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "pad_token_id": 0},
    "modernbert": {
        **SHAPE,
        "global_attn_every_n_layers": 2,
        "local_attention": 8,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "deberta": {**SHAPE, **RELATIVE},
    "deberta-v2": {**SHAPE, **RELATIVE, "position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    "albert": {**SHAPE, "embedding_size": 32},
    "electra": {**SHAPE, "embedding_size": 32},
}


class Encoder(nn.Module):
    """Encoder with as much of a SentenceClassifier as `install_keyed_dropout` needs."""

    def __init__(self, model_type: str, probability: float, attention: str = "sdpa") -> None:
        super().__init__()
        names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout", "dropout", "mlp_dropout")
        config = CONFIG_MAPPING[model_type](**SHAPES.get(model_type, SHAPE))
        for name in names:
            if isinstance(getattr(config, name, None), float | int):
                setattr(config, name, probability)
        torch.manual_seed(0)
        self.backbone = MODEL_MAPPING[type(config)]._from_config(config, attn_implementation=attention)

    def hidden(self, lengths: list[int], keys: DropoutKeys | None, rows: list[int]) -> torch.Tensor:
        if keys is not None:
            keys.set(keys_of(rows))
        places = torch.arange(max(lengths))
        ids = (torch.tensor(rows)[:, None] * 37 + places * 11) % 290 + 5
        attend = (places < torch.tensor(lengths)[:, None]).long()
        out = self.backbone(input_ids=ids * attend, attention_mask=attend).last_hidden_state
        return (out * attend[:, :, None]).detach()


@pytest.mark.parametrize("model_type", sorted(KEYED_TYPES))
def test_attention_that_draws_its_own_masks_is_attention(model_type):
    """Keyed attention agrees with torch's where there is next to nothing to drop."""
    lengths, rows = [30, 7, 19], [0, 1, 2]
    keyed = Encoder(model_type, 1e-12).train()
    keys = install_keyed_dropout(keyed, keyed.backbone)
    assert keyed.backbone.config._attn_implementation == KEYED_ATTENTION
    expected = Encoder(model_type, 0.0).eval().hidden(lengths, None, rows)
    torch.testing.assert_close(keyed.hidden(lengths, keys, rows), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", sorted(KEYED_TYPES))
def test_no_architecture_draws_from_the_random_state(model_type):
    model = Encoder(model_type, 0.3).train()
    keys = install_keyed_dropout(model, model.backbone)
    torch.manual_seed(1)
    first = model.hidden([30, 7, 19], keys, [0, 1, 2])
    torch.manual_seed(2)
    torch.testing.assert_close(model.hidden([7], keys, [1])[0], first[1, :7], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", ["deberta", "deberta-v2"])
@pytest.mark.parametrize("rows", [[0], [0, 1, 2]])
def test_a_table_of_relative_positions_keeps_torch_s_dropout_and_everything_else_is_keyed(model_type, rows):
    model = Encoder(model_type, 0.3, "eager").train()
    keys = install_keyed_dropout(model, model.backbone)
    assert {name.split(".")[-1] for name, m in model.named_modules() if type(m) is nn.Dropout} == {"pos_dropout"}
    keys.set(keys_of(rows))
    ids = torch.arange(5, 35).repeat(len(rows), 1)
    out = model.backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    out.sum().backward()
    assert bool(out.isfinite().all())


@pytest.mark.parametrize("model_type", ["deberta", "deberta-v2"])
def test_but_for_the_table_of_positions_deberta_s_masks_are_those_of_the_rows(model_type):
    model = Encoder(model_type, 0.3, "eager").train()
    keys = install_keyed_dropout(model, model.backbone)
    for name, module in model.named_modules():
        if name.endswith("pos_dropout"):
            module.p = 0.0
    together = model.hidden([30, 30, 30], keys, [0, 1, 2])
    torch.testing.assert_close(model.hidden([30], keys, [1])[0], together[1], rtol=1e-4, atol=1e-5)
