"""Batches side by side: each is computed once, in one thread, and the numbers do not depend on how many there are."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from sst2_ray.predict.predictor import Predictor
from sst2_ray.training.lanes import run_in_lanes
from tests.support.models import SENTENCES, export_of, sbert_folder


@pytest.fixture
def threads():
    """Sets torch's number of threads for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_every_batch_is_taken_once_by_a_thread_of_one(threads):
    threads(3)
    seen, used = [], set()

    def compute(batches):
        for batch in batches:
            seen.append(batch)
            used.add((threading.get_ident(), torch.get_num_threads()))

    run_in_lanes(16, compute, range(100))
    assert sorted(seen) == list(range(100))
    assert {num for _, num in used} == {1} and threading.get_ident() not in {ident for ident, _ in used}
    assert torch.get_num_threads() == 3


def test_an_error_in_a_lane_is_the_caller_s(threads):
    threads(2)

    def compute(batches):
        raise ValueError(f"batch {next(batches)}")

    with pytest.raises(ValueError, match="batch"):
        run_in_lanes(2, compute, range(2))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_logits_are_bit_for_bit_those_of_one_thread(threads, precision, tmp_path):
    export = export_of(sbert_folder(tmp_path / "sbert"), tmp_path / "export")
    found = []
    for num in (1, 2, 3):
        threads(num)
        found.append(Predictor(export, precision=precision, batch_tokens=64).logits(SENTENCES * 20))
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
