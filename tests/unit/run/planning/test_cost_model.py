"""The arithmetic of a step on paper, against counts made by hand."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from transformers import AutoConfig, AutoModel

from benchmarks.scaling import shape_of
from benchmarks.shared import REPOSITORY
from sst2_ray.run.model_size import size_of
from sst2_ray.run.planning.cost_model import (
    LAUNCH_S,
    ModelSize,
    activation_bytes_per_token,
    communication_bytes,
    flops_per_token,
    launches,
    memory,
    optimizer_bytes,
    step_time,
    tokens_that_hide_nothing,
)
from sst2_ray.training.gpus import GPUS, Gpu

BERT = ModelSize(parameters=1000, multiplied=600, layers=2, hidden=10, inner=40, gated=False, heads=2)
GPU = Gpu(peak_bf16_flops=1e6, peak_fp32_flops=1e5, memory_bytes_per_s=1e6, memory_gb=1, link_bytes_per_s=8e3)


@pytest.mark.parametrize(("name", "millions"), [("bert", 109.5), ("modernbert", 149.0)])
def test_a_model_s_parameters_are_counted_to_1_percent(name, millions):
    shape = AutoConfig.for_model(name)
    with torch.device("meta"):
        model = AutoModel.from_config(shape)
    actual = sum(p.numel() for p in model.parameters())
    assert actual / 1e6 == pytest.approx(millions, abs=0.1)
    assert size_of(shape, vocab_size=shape.vocab_size).parameters == pytest.approx(actual, rel=0.01)


def test_a_token_costs_6_flop_a_multiplied_weight_and_attention_over_its_positions():
    assert flops_per_token(BERT, 5) == 6 * 600 + 12 * 2 * 10 * 5
    local = dataclasses.replace(BERT, window=4, global_layers=1)
    assert flops_per_token(local, 8) == 6 * 600 + 12 * 2 * 10 * (8 + 4) / 2


def test_weights_and_gradients_are_whole_and_the_moments_shared_out():
    one, four = (memory(BERT, num_workers=n, bf16=False) for n in (1, 4))
    assert (one.weights, one.gradients, one.optimizer, one.activations) == (4000, 8000, 8000, 0)
    assert (four.weights, four.gradients, four.optimizer) == (4000, 8000, 2000)
    assert memory(BERT, num_workers=1).weights == 4000 + 2 * 600
    assert four.total == four.state == 14000


def test_a_layer_of_four_times_the_width_keeps_34_bytes_a_number_and_scores_5_a_head_and_position():
    assert activation_bytes_per_token(BERT, 7, bf16=True, scores_kept=False) == 2 * 34 * 10
    kept = activation_bytes_per_token(BERT, 7, bf16=True, scores_kept=True)
    assert kept == 2 * 34 * 10 + 2 * 5 * 2 * 7


def test_a_worker_alone_sends_nothing_and_many_send_almost_twice_the_weights():
    assert communication_bytes(BERT, num_workers=1) == 0
    assert communication_bytes(BERT, num_workers=2) == 4000
    assert communication_bytes(BERT, num_workers=8) == 7000


def test_the_slowest_link_decides_and_the_largest_part_is_the_bottleneck():
    values = {"num_gpus": 8, "tokens_per_gpu": 1000, "length": 5, "network_bytes_per_s": 1e3}
    inside = step_time(BERT, GPU, gpus_per_node=8, **values)
    across = step_time(BERT, GPU, gpus_per_node=4, **values)
    assert inside.communication == pytest.approx(7000 / 8e3)
    assert across.communication == pytest.approx(7000 / 1e3)
    assert inside.optimizer == pytest.approx(optimizer_bytes(BERT, num_workers=8) / 1e6)
    assert (inside.bottleneck, across.bottleneck) == ("arithmetic", "communication")
    assert inside.utilization == pytest.approx(4.8 / (4.8 + 0.013 + 0.875), abs=1e-3)


def test_with_the_tokens_of_the_edge_arithmetic_is_half_of_the_step():
    values = {"num_gpus": 8, "length": 5, "gpus_per_node": 4, "network_bytes_per_s": 1e3}
    edge = tokens_that_hide_nothing(BERT, GPU, step_time(BERT, GPU, tokens_per_gpu=1, **values), length=5)
    assert step_time(BERT, GPU, tokens_per_gpu=edge, **values).utilization == pytest.approx(0.5)


def test_gradients_hide_behind_a_backward_pass_that_is_long_enough():
    size = dataclasses.replace(BERT, parameters=8 * 2**20, multiplied=6 * 2**20)
    values = {"num_gpus": 8, "length": 5, "gpus_per_node": 8, "network_bytes_per_s": 1e3}
    time = step_time(size, GPU, tokens_per_gpu=1e9, **values)
    assert time.hidden == time.communication / 2 * 0.75  # tables' gradients come last
    assert time.total == pytest.approx(time.arithmetic + time.optimizer + time.communication * 0.625)
    time = step_time(size, GPU, tokens_per_gpu=1, **values)
    assert time.hidden == pytest.approx(time.arithmetic * 2 / 3)
    edge = tokens_that_hide_nothing(size, GPU, time, length=5)
    assert step_time(size, GPU, tokens_per_gpu=edge, **values).utilization == pytest.approx(0.5)
    assert (
        step_time(BERT, GPU, tokens_per_gpu=1e9, **values).hidden == 0
    )  # of so small shares each is a message too many


def test_a_host_that_launches_longer_than_the_gpu_computes_decides():
    values = {"num_gpus": 1, "length": 5, "gpus_per_node": 8, "network_bytes_per_s": 1e3}
    few = step_time(BERT, GPU, tokens_per_gpu=1, num_launches=1e6, **values)
    assert (few.total, few.bottleneck) == (pytest.approx(1e6 * LAUNCH_S), "launches")
    many = step_time(BERT, GPU, tokens_per_gpu=1e6, num_launches=1e6, **values)
    assert many.total == pytest.approx(many.arithmetic + many.optimizer)
    assert many.bottleneck == "arithmetic"
    edge = tokens_that_hide_nothing(BERT, GPU, few, length=5)
    assert step_time(BERT, GPU, tokens_per_gpu=edge, num_launches=1e6, **values).utilization == pytest.approx(0.5)


@pytest.mark.parametrize("way", ["varlen", "compiled"])
@pytest.mark.parametrize("model", ["modernbert-base", "sbert-minilm"])
def test_launches_are_estimated_to_2_percent_of_those_counted(model, way):
    counted = json.loads((REPOSITORY / "benchmarks/results/launches.json").read_text())["counts"][model][way]["total"]
    assert launches(shape_of(model), compiled=way == "compiled") == pytest.approx(counted, rel=0.02)


def test_every_micro_batch_launches_anew_and_the_optimizer_once():
    size = shape_of("modernbert-base")
    once, twice = (launches(size, micro_batches=n) for n in (1, 2))
    assert once < twice < 2 * once


def test_a_gpu_is_known_by_its_whole_name():
    assert GPUS["NVIDIA L40S"].peak_bf16_flops == 362e12
    assert "NVIDIA L40" not in GPUS and "NVIDIA A100-SXM4-40GB MIG 1g.5gb" not in GPUS
