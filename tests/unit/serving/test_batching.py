"""Requests that wait are computed together, up to a number of tokens, and each gets its own logits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from sst2_ray.serving.batching import Logits, TokenBatcher


class Counting:
    """A model whose logits are the texts' numbers; the first batch waits until it is told to go on."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.batches: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> Logits:
        self.batches.append(list(texts))
        self.go_on.wait(10)
        if "broken" in texts:
            raise ValueError("broken")
        return np.array([[float(text)] for text in texts], dtype=np.float32)


def test_what_arrives_meanwhile_is_the_next_batch_up_to_the_tokens() -> None:
    model = Counting()

    async def run() -> list[list[float]]:
        batcher = TokenBatcher(model, max_tokens=10)
        first = asyncio.create_task(batcher.logits(["0"], 3))
        await asyncio.sleep(0.05)  # its computation has begun
        rest = [
            asyncio.create_task(batcher.logits([str(i), str(i + 100)], n)) for i, n in ((1, 4), (2, 6), (3, 30), (4, 1))
        ]
        await asyncio.sleep(0)
        model.go_on.set()
        return [found[:, 0].tolist() for found in await asyncio.gather(first, *rest)]

    assert asyncio.run(run()) == [[0], [1, 101], [2, 102], [3, 103], [4, 104]]
    assert model.batches == [["0"], ["1", "101", "2", "102"], ["3", "103"], ["4", "104"]]


def test_a_batch_that_fails_fails_its_own_requests_only() -> None:
    model = Counting()
    model.go_on.set()

    async def run() -> Logits:
        batcher = TokenBatcher(model, max_tokens=1)
        with pytest.raises(ValueError, match="broken"):
            await batcher.logits(["broken"], 1)
        return await batcher.logits(["7"], 1)

    assert asyncio.run(run()).tolist() == [[7]]


def test_a_request_whose_client_has_gone_is_not_computed() -> None:
    model = Counting()

    async def run() -> None:
        batcher = TokenBatcher(model, max_tokens=1)
        first = asyncio.create_task(batcher.logits(["1"], 1))
        await asyncio.sleep(0.05)
        gone = asyncio.create_task(batcher.logits(["2"], 1))
        last = asyncio.create_task(batcher.logits(["3"], 1))
        await asyncio.sleep(0)
        gone.cancel()
        model.go_on.set()
        await asyncio.gather(first, last)

    asyncio.run(run())
    assert model.batches == [["1"], ["3"]]
