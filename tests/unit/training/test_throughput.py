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


class Work:
    """A mark in the work of a GPU that is `behind` the host."""

    done = 0

    def __init__(self, at: float) -> None:
        self.at = at

    def query(self) -> bool:
        return self.at <= Work.done

    def synchronize(self) -> None:
        Work.done = max(Work.done, self.at)

    def elapsed_time(self, end: Work) -> float:
        assert end.query(), "torch raises where the GPU has not come to it"
        return 1e3 * (end.at - self.at)


def test_a_gpu_s_phases_are_those_of_its_own_work(clock):
    given = [0.0]
    timer = PhaseTimer(lambda: Work(given[0]))
    for name, host, gpu in (("forward", 1, 5), ("backward", 1, 10), ("optimizer", 16, 2), ("forward", 1, 7)):
        with timer.phase(name):
            clock(host)
            given[0] += gpu
        Work.done = given[0] if name == "optimizer" else Work.done
    assert timer.training_seconds == 19
    assert Work.done == 17, "nothing but its end waits for the GPU"
    expected = {"forward": 12, "backward": 10, "optimizer": 2}
    assert timer.phase_seconds() == {name: expected.get(name, 0) for name in PHASES}
    assert Work.done == 24


def test_a_cpu_s_phases_are_the_host_s(clock):
    timer = PhaseTimer()
    with timer.phase("data"):
        clock(3)
    assert timer.phase_seconds() == {name: 3 if name == "data" else 0 for name in PHASES}


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


def test_the_peak_of_a_gpu_is_that_of_the_precision_that_computes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA L4")
    assert peak_flops(torch.device("cuda"), bf16=True) == 121e12
    assert peak_flops(torch.device("cuda"), bf16=False) == 30.3e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3 MIG 1g.10gb")
    assert peak_flops(torch.device("cuda"), bf16=True) is None
