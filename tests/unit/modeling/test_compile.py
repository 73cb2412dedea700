"""Compiled layers give what uncompiled ones give, from few graphs. Traced for real, run by torch's own operations: kernels
for a GPU need one (tests/gpu), those for a CPU a C++ compiler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from sst2_ray.errors import InputError
from sst2_ray.modeling.build import compile_layers
from sst2_ray.modeling.dropout import row_keys
from sst2_ray.modeling.layout.varlen import to_varlen
from tests.support import models
from tests.support.flash import compute_with_flash


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch):
    """Reset the compiler, put its settings back afterwards, and name what passes for a C compiler, which is not called."""
    monkeypatch.setenv("CC", "cc")
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(disable=False, recompile_limit=8):
        yield
    torch._dynamo.reset()


def outcomes(model, keys, tokenizer, *, varlen):
    """Compute logits and gradients of batches of several sizes."""
    found = []
    for count in (3, 5):
        ids, mask = models.encode(tokenizer, (2 * models.SENTENCES)[count : 2 * count])
        keys.set(torch.from_numpy(row_keys(seed=0, global_step=count, row_ids=np.arange(count))))
        model.zero_grad()
        logits = model(*(to_varlen(ids, mask) if varlen else (ids, mask)))
        logits.square().sum().backward()
        found.append((logits.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    return found


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("varlen", [False, True])
@pytest.mark.parametrize(("kind", "options", "graphs"), [("sbert", {}, 1), ("modernbert", {"num_hidden_layers": 4}, 3)])
def test_compiled_layers_give_the_same_from_at_most_a_graph_a_kind_of_layer(
    kind, options, graphs, varlen, tmp_path, monkeypatch
):
    folder = getattr(models, f"{kind}_folder")(tmp_path / "model", **options)
    # What FlashAttention's own generator drops would differ.
    model, tokenizer, _ = models.build(folder, dropout=0.2, encoder_dropout=0.0 if varlen else 0.2)
    keys = model.train().key_dropout()
    model.supports_packing = False
    if varlen:
        compute_with_flash(model, monkeypatch)
    expected = outcomes(model, keys, tokenizer, varlen=varlen)
    compile_layers(model, backend="aot_eager")
    found = outcomes(model, keys, tokenizer, varlen=varlen)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert 0 < counters["stats"]["unique_graphs"] <= graphs
    assert not counters["graph_break"]


def test_a_worker_without_a_c_compiler_is_told_so(monkeypatch):
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="no C compiler"):
        compile_layers(torch.nn.Linear(2, 2))
