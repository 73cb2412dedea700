"""Decay on matrices alone, both readings of it, and the learning rate at the edges of its course."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.optimizer import build_optimizer, lr_factor, num_warmup_steps


def small_model():
    return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3))


def test_matrices_decay_and_vectors_do_not():
    model = small_model()
    optimizer = build_optimizer(model, TrainConfig(weight_decay=0.01))
    matrices, vectors = optimizer.param_groups
    assert [tuple(p.shape) for p in matrices["params"]] == [(5, 4), (3, 4)]
    assert [tuple(p.shape) for p in vectors["params"]] == [(3,), (3,), (3,)]
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.01, 0.0)


def test_berts_norms_do_not_decay(sbert_folder):
    from tests.support.models import build

    model, _, config = build(sbert_folder)
    decaying = {id(p) for p in build_optimizer(model, config).param_groups[0]["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in decaying}
    assert names
    assert not any("LayerNorm" in name or name.endswith("bias") for name in names)


def test_frozen_parameters_are_left_out():
    model = small_model()
    model[0].weight.requires_grad = False
    optimizer = build_optimizer(model, TrainConfig())
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 3]


def test_a_model_of_vectors_alone_has_one_group():
    assert len(build_optimizer(nn.LayerNorm(3), TrainConfig()).param_groups) == 1


def test_betas_epsilon_and_rate_are_the_configs():
    config = TrainConfig(learning_rate=3e-5, adam_beta1=0.8, adam_beta2=0.95, adam_eps=1e-7)
    optimizer = build_optimizer(small_model(), config)
    assert optimizer.defaults["betas"] == (0.8, 0.95)
    assert optimizer.defaults["eps"] == 1e-7
    assert optimizer.defaults["lr"] == 3e-5
    assert optimizer.defaults["fused"]


@pytest.mark.parametrize("factor", [1.0, 0.25])
@pytest.mark.parametrize(("form", "peak"), [("adamw", 8e-5), ("fully_decoupled", 1.0)])
def test_both_readings_of_weight_decay_shrink_a_weight_as_they_say(form, peak, factor):
    # With a zero gradient AdamW's step is its decay alone.
    config = TrainConfig(learning_rate=8e-5, weight_decay=0.01, weight_decay_form=form)
    model = nn.Linear(3, 2, bias=False).double()
    before = model.weight.detach().clone()
    optimizer = build_optimizer(model, config)
    optimizer.param_groups[0]["lr"] = config.learning_rate * factor
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before * (1 - peak * factor * 0.01), rtol=1e-12, atol=0)


def test_the_papers_decay_is_0_125_for_torch():
    config = TrainConfig(learning_rate=8e-5, weight_decay=1e-5, weight_decay_form="fully_decoupled")
    assert build_optimizer(nn.Linear(2, 2), config).param_groups[0]["weight_decay"] == pytest.approx(0.125)


def test_the_rate_rises_from_0_to_1_and_falls_to_0():
    course = [lr_factor(step, 10, 4) for step in range(12)]
    assert course[:5] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert course[5:] == pytest.approx([5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0.0, 0.0])


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert lr_factor(0, 5, 0) == 1.0
    assert lr_factor(4, 5, 0) == pytest.approx(0.2)


def test_a_single_step():
    assert lr_factor(0, 1, 0) == 1.0
    assert lr_factor(1, 1, 0) == 0.0


def test_a_warm_up_of_all_steps_never_falls():
    assert [lr_factor(step, 3, 3) for step in range(4)] == [0.0, 1 / 3, 2 / 3, 0.0]


def test_the_course_is_that_of_transformers():
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=7, num_training_steps=50)
    for step in range(50):
        assert lr_factor(step, 50, 7) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(
    ("total", "fraction", "steps"),
    [(100, 0.06, 6), (101, 0.06, 7), (50, 0.0, 0), (3, 0.06, 1), (1, 0.06, 1), (10, 0.3, 3)],
)
def test_warm_up_steps_are_rounded_up_but_not_for_rounding_errors(total, fraction, steps):
    assert num_warmup_steps(total, fraction) == steps
