"""A GPU that torch cannot compute on is named before the first step, whatever keeps torch from it."""

from __future__ import annotations

import pytest
import ray
import ray.train.torch
import torch

from sst2_ray.errors import RunFailedError
from sst2_ray.run.ray.torch_backend import _refuse_unusable, _unusable_gpu


@pytest.fixture
def gpu(monkeypatch):
    """A worker that holds GPU 3. Returns what sets whether torch sees it, and the device that stands for it."""
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: [3])
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.7")

    def set_up(device: str | None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: device is not None)
        monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device(device or "cpu"))

    return set_up


def test_a_gpu_that_computes_is_used(gpu):
    gpu("cpu")
    assert _unusable_gpu() is None


def test_a_gpu_that_torch_does_not_see_is_named(gpu):
    gpu(None)
    assert _unusable_gpu() == f"GPU 3 of 10.0.0.7 (torch {torch.__version__})"


def test_a_gpu_without_kernels_in_this_build_is_named_with_the_reason(gpu, monkeypatch):
    message = "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might be ..."

    def ones(*_, **__):
        raise RuntimeError(message)

    gpu("cuda:0")
    monkeypatch.setattr(torch, "ones", ones)
    found = _unusable_gpu()
    assert found == f"GPU 3 of 10.0.0.7 (torch {torch.__version__}): {message.splitlines()[0]}"
    with pytest.raises(RunFailedError, match=r"of 1 workers: rank 1: GPU 3 of 10\.0\.0\.7 .*no kernel image") as caught:
        _refuse_unusable([None, found])
    assert "\n" not in str(caught.value)
