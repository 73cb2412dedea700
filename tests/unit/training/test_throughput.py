"""Phases add up to what was spent, and no utilisation is stated for a chip whose peak is not known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sst2_ray.training import throughput
from sst2_ray.training.throughput import PHASES, PhaseTimer, model_flop_utilization, model_flops_per_token, peak_flops


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when it is told to."""
    now = [0.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_seconds_are_summed_by_phase(clock):
    timer = PhaseTimer()
    for _ in range(2):
        with timer.phase("forward"):
            clock(2)
    with timer.phase("evaluation"):
        clock(5)
    assert timer.seconds == {"forward": 4, "evaluation": 5}


def test_training_is_neither_evaluation_nor_checkpoint(clock):
    timer = PhaseTimer()
    for number, name in enumerate(PHASES):
        with timer.phase(name):
            clock(10**number)
    assert timer.training_seconds == 11111


def test_the_phase_that_runs_is_known_and_time_counts_also_where_it_fails(clock):
    timer = PhaseTimer()
    assert timer.current == "start-up"
    with pytest.raises(RuntimeError), timer.phase("backward"):
        assert timer.current == "backward"
        clock(3)
        raise RuntimeError
    assert timer.current == "start-up"
    assert timer.seconds["backward"] == 3


def test_examples_and_tokens_are_counted():
    timer = PhaseTimer()
    timer.count(examples=2, tokens=30, padded_tokens=40)
    timer.count(examples=1, tokens=10, padded_tokens=10)
    assert (timer.num_examples, timer.num_tokens, timer.num_padded_tokens) == (3, 40, 50)


def test_a_token_costs_6_flop_a_weight_that_multiplies_and_none_for_tables_norms_and_biases():
    model = nn.Sequential(nn.Embedding(1000, 8), nn.Linear(8, 4), nn.LayerNorm(4))
    assert model_flops_per_token(model) == 6 * 8 * 4


def test_a_cpu_s_peak_is_measured_and_plausible():
    peak = peak_flops(torch.device("cpu"), bf16=False)
    assert peak is not None and 1e9 < peak < 1e14


@pytest.mark.parametrize(("name", "share"), [("NVIDIA A100-SXM4-80GB", 0.25), ("NVIDIA L40", None)])
def test_a_gpu_s_utilisation_is_its_share_of_all_chips_peak_or_unknown(monkeypatch, name, share):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    said = model_flop_utilization(
        tokens_per_sec=156e12 / 1e8,
        flops_per_token=1e8,
        world_size=2,
        peak=peak_flops(torch.device("cuda"), bf16=True),
    )
    assert said == (None if share is None else pytest.approx(share))


def test_peak_memory_is_at_least_what_torch_takes():
    assert throughput.peak_memory_gib(torch.device("cpu")) > 0.1
