"""Batches of requests by tokens: what arrives while one batch is computed makes up the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sst2_ray.data.texts import Text

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class _Waiting:
    """Texts of one request that wait for their logits."""

    texts: Sequence[Text]
    num_tokens: int
    done: asyncio.Future[Logits]


class TokenBatcher:
    """A queue in front of a model, for one event loop.

    Nothing waits for a batch to fill: a lone request is computed at once, and under load batches grow to `max_tokens`. A
    request that is larger is a batch of its own.
    """

    def __init__(self, compute: Callable[[Sequence[Text]], Logits], max_tokens: int) -> None:
        """Prepare an empty queue.

        Args:
            compute: Returns logits [texts, classes]; called in one thread, a batch after the other.
            max_tokens: Most tokens of the requests that are computed together.
        """
        self._compute, self._max_tokens = compute, max_tokens
        self._queue: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1)
        self._worker: asyncio.Task[None] | None = None

    async def logits(self, texts: Sequence[Text], num_tokens: int) -> Logits:
        """Compute logits [texts, classes] together with whatever else is waiting."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(texts, num_tokens, loop.create_future())
        self._queue.append(waiting)
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return await waiting.done

    async def _work(self) -> None:
        """Compute until nobody waits."""
        while self._queue:
            batch = self._next_batch()
            texts = [text for one in batch for text in one.texts]
            try:
                logits = await asyncio.get_running_loop().run_in_executor(self._thread, self._compute, texts)
            except Exception as error:
                for one in batch:
                    if not one.done.done():
                        one.done.set_exception(error)
                continue
            start = 0
            for one in batch:
                end = start + len(one.texts)
                if not one.done.done():  # its client may have gone
                    one.done.set_result(logits[start:end])
                start = end

    def _next_batch(self) -> list[_Waiting]:
        """Take requests from the queue, in their order, up to `max_tokens`; those whose client has gone are left out."""
        batch: list[_Waiting] = []
        num_tokens = 0
        while self._queue and (not batch or num_tokens + self._queue[0].num_tokens <= self._max_tokens):
            one = self._queue.popleft()
            if not one.done.done():
                batch.append(one)
                num_tokens += one.num_tokens
        return batch
