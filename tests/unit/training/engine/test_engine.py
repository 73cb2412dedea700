"""Plain torch behind the engine's protocol, which ZeRO-2 is compared with (test_parity.py)."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.optimizer import build_optimizer
from sst2_ray.training.engine.base import NonFiniteError
from sst2_ray.training.engine.torch import TorchEngine
from tests.support.checkpoints import model_of

CONFIG = TrainConfig(learning_rate=1e-2, weight_decay=0.1)


def engine_of(model=None, *, max_grad_norm: float = 0.0) -> TorchEngine:
    model = model_of(0.5) if model is None else model
    return TorchEngine(model, build_optimizer(model, CONFIG), max_grad_norm=max_grad_norm)


def take_step(engine: TorchEngine, scale: float = 1.0, learning_rate: float = 1e-2) -> float:
    """On loss = scale * sum of all weights: every gradient is `scale`."""
    with engine.accumulation():
        engine.backward(scale * sum(p.sum() for p in engine.module.parameters()))
    return engine.step(learning_rate).read()


def weights(engine: TorchEngine) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in engine.module.parameters()])


def test_a_step_is_adamws():
    engine = engine_of()
    take_step(engine, learning_rate=1e-2)
    # All parameters are vectors, which do not decay; the first update of AdamW is lr * g / (|g| + eps).
    assert weights(engine).tolist() == pytest.approx([0.5 - 1e-2 / (1 + 1e-6)] * 39, rel=1e-6)


def test_parts_of_a_loss_are_summed():
    whole, parts = engine_of(), engine_of()
    take_step(whole, 3.0)
    with parts.accumulation():
        for part in (1.0, 2.0):
            parts.backward(part * sum(p.sum() for p in parts.module.parameters()))
    parts.step(1e-2)
    torch.testing.assert_close(weights(parts), weights(whole))


def test_gradients_do_not_reach_the_next_step():
    once, twice = engine_of(), engine_of()
    take_step(once, 2.0)
    take_step(twice, 2.0)
    assert take_step(twice, 1.0) == pytest.approx(math.sqrt(39))


def test_the_norm_before_clipping_is_returned():
    assert take_step(engine_of(max_grad_norm=0.1), 2.0) == pytest.approx(2 * math.sqrt(39))


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_refused_and_the_weights_stay(scale):
    engine = engine_of()
    with pytest.raises(NonFiniteError, match=r"gradient norm (nan|inf)"):
        take_step(engine, scale)
    assert set(weights(engine).tolist()) == {0.5}
    assert take_step(engine, 1.0) == pytest.approx(math.sqrt(39))


def test_before_the_first_step_the_state_is_0():
    shard = engine_of().optimizer_shard()
    assert shard.step == 0
    assert all(not tensor.any() for tensor in shard.tensors.values())


def test_an_engine_goes_on_where_another_stopped():
    first = engine_of()
    for scale in (1.0, -2.0, 3.0):
        take_step(first, scale)
    second = engine_of(copy.deepcopy(first.module))
    second.load_optimizer_shard(first.optimizer_shard())
    for engine in (first, second):
        take_step(engine, 0.5)
    assert torch.equal(weights(first), weights(second))


def test_every_parameter_has_its_place_in_its_group():
    engine = engine_of()
    shard = engine.optimizer_shard()
    assert [(s.name, s.offset, s.numel) for s in shard.spans] == [
        ("table", 0, 21),
        ("weight", 21, 10),
        ("bias", 31, 3),
        ("scale", 34, 5),
    ]
    assert shard.tensors["0.exp_avg"].numel() == 39
