"""The Ray Serve application: a gateway that checks requests, and replicas of the model behind it.

`sst2_ray.serving.app:build` is the `import_path` of Serve's config files; its `args` are the fields of `ServeSettings`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse

from sst2_ray.data.texts import Text, stripped
from sst2_ray.errors import InputError, did_you_mean
from sst2_ray.serving.batching import TokenBatcher
from sst2_ray.serving.protocol import (
    TOKEN_VARIABLE,
    Limits,
    RequestError,
    check_token,
    read_texts,
    rows_of,
    token_hash,
)

_TRIES = 5
"""Replicas that a request is sent to, one after the other, where they are lost: a prediction changes nothing."""

_READY_WITHIN_S = 5.0
_DRAINED = 8
"""Multiple of the largest body that is still read, and dropped, before the refusal: a client that is cut off while it
sends may not see the answer."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of the application: `args` in Serve's config file."""

    model_dir: str
    """Exported model, or the folder of a run; a path that every node sees, or a URI."""
    device: str = "auto"
    precision: str = "auto"
    num_replicas: int = 1
    cpus_per_replica: int = 1
    gpus_per_replica: float = 0
    tokens_per_batch: int = 4096
    """Most tokens of the requests that a replica computes together."""
    max_texts: int = Limits.max_texts
    max_text_chars: int = Limits.max_text_chars
    max_body_bytes: int = Limits.max_body_bytes
    max_queued_requests: int = 1024
    """Requests that may wait; the next one is answered with 503."""
    require_token: bool = True
    """Refuse to start without a token in the environment variable SST2_RAY_SERVE_TOKEN."""

    @property
    def limits(self) -> Limits:
        """Return the sizes above which a request is refused."""
        return Limits(max_texts=self.max_texts, max_text_chars=self.max_text_chars, max_body_bytes=self.max_body_bytes)


class Model:
    """A replica of the model; it computes the requests that wait together."""

    def __init__(self, settings: ServeSettings) -> None:
        import torch

        from sst2_ray.predict.predictor import Predictor
        from sst2_ray.run.environment import compute_at_once

        compute_at_once()
        torch.set_num_threads(settings.cpus_per_replica)
        self._predictor = Predictor(settings.model_dir, device=settings.device, precision=settings.precision)
        self._batcher = TokenBatcher(self._predictor.logits, settings.tokens_per_batch)
        self._predictor.logits([("warm", "up") if self._predictor.text_columns else "warm up"])

    async def predict(self, texts: Sequence[Text]) -> list[dict[str, object]] | str:
        """Label texts that are not blank; returns their columns a row, or why they are refused."""
        from sst2_ray.predict.shapes import added_columns

        try:
            tokens = self._predictor.tokenize(texts, source="texts")
        except InputError as error:
            return str(error)
        logits = await self._batcher.logits(texts, len(tokens.input_ids))
        columns = {name: values.tolist() for name, values in added_columns(logits, self._predictor.classes).items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    async def facts(self) -> dict[str, object]:
        """Describe the model, once it is loaded."""
        import numpy as np

        from sst2_ray.predict.shapes import added_columns

        meta, classes = self._predictor.meta, self._predictor.classes
        columns = list(added_columns(np.zeros((0, len(classes)), dtype=np.float32), classes))
        return {
            "model": meta.info.label, "labels": list(classes.names), "max_length": meta.max_length, "columns": columns,
            "text_columns": list(self._predictor.text_columns),
        }  # fmt: skip


class Gateway:
    """The HTTP side: tokens, limits and forms are checked here, and a lost replica is replaced by another one."""

    def __init__(self, model: DeploymentHandle, limits: Limits, token: str | None) -> None:
        self._model, self._limits, self._token = model, limits, token
        self._known: dict[str, Any] = {}

    async def __call__(self, request: Request) -> JSONResponse:
        """Answer one request."""
        try:
            status, value = await self._answer(request)
        except RequestError as error:
            headers = {"Retry-After": "1"} if error.status == 503 else None
            return JSONResponse({"error": error.message}, error.status, headers)
        return JSONResponse(value, status)

    async def _answer(self, request: Request) -> tuple[int, object]:
        path = request.url.path.rstrip("/")
        if path == "/health":
            return 200, {"status": "ok"}
        if path == "/ready":
            return 200, {"status": "ready", **await self._facts()}
        if path != "/predict":
            raise RequestError(404, f"no such path: {path or '/'}; POST /predict, GET /health, GET /ready")
        if request.method != "POST":
            raise RequestError(405, f"{request.method} /predict: use POST")
        check_token(request.headers.get("authorization"), self._token)
        body = await self._body(request)
        self._known = self._known or await self._facts()
        pairs = bool(self._known["text_columns"])
        texts = read_texts(body, self._limits, pairs=pairs)
        given = [text for text in texts if text is not None and stripped(text) is not None]
        predicted = await self._predicted(given) if given else []
        return 200, {"predictions": rows_of(texts, predicted, self._known["columns"], pairs=pairs)}

    async def _body(self, request: Request) -> bytes:
        """Read the body. Raises RequestError where it is too large."""
        most, body, size = self._limits.max_body_bytes, bytearray(), 0
        async for chunk in request.stream():
            size += len(chunk)
            if size <= most:
                body += chunk
            elif size > _DRAINED * most:
                break
        if size > most:
            raise RequestError(413, f"the body has more than {most:,} bytes; send several requests")
        return bytes(body)

    async def _predicted(self, texts: Sequence[Text]) -> list[dict[str, object]]:
        for _ in range(_TRIES):
            try:
                found = await self._model.predict.remote(texts)
            except RayActorError:  # the replica was lost; Serve starts another one
                continue
            except (BackPressureError, DeploymentUnavailableError):
                raise RequestError(503, "too many requests wait already; try again") from None
            if isinstance(found, str):
                raise RequestError(422, found)
            rows: list[dict[str, object]] = found
            return rows
        raise RequestError(503, f"{_TRIES} replicas of the model were lost one after the other; try again")

    async def _facts(self) -> dict[str, Any]:
        """Ask a replica about its model. Raises RequestError 503 where none answers."""
        try:
            facts: dict[str, Any] = await asyncio.wait_for(self._ask(), _READY_WITHIN_S)
        except (TimeoutError, RayActorError, BackPressureError, DeploymentUnavailableError):
            raise RequestError(503, "no replica of the model is ready; try again") from None
        return facts

    async def _ask(self) -> dict[str, Any]:
        facts: dict[str, Any] = await self._model.facts.remote()
        return facts


def settings_of(args: Mapping[str, object]) -> ServeSettings:
    """Read the `args` of a config file. Raises InputError for unknown names, and where the token is missing."""
    names = [field.name for field in dataclasses.fields(ServeSettings)]
    for name in args:
        if name not in names:
            raise InputError(f"args.{name}: is no setting of the application; {did_you_mean(name, names)}")
    if "model_dir" not in args:
        raise InputError("args.model_dir: must be given: the folder of an exported model, or its URI")
    settings = ServeSettings(**args)  # type: ignore[arg-type]
    if settings.require_token and not os.environ.get(TOKEN_VARIABLE):
        raise InputError(
            f"{TOKEN_VARIABLE}: is not set; set it to a secret token, or args.require_token to false where only loopback listens"
        )
    return settings


def build(args: Mapping[str, object]) -> serve.Application:
    """Build the application from the `args` of a config file. Raises InputError."""
    settings = settings_of(args)
    token = os.environ.get(TOKEN_VARIABLE)
    model = serve.deployment(Model, name="Model").options(
        num_replicas=settings.num_replicas,
        max_ongoing_requests=256,
        max_queued_requests=settings.max_queued_requests,
        health_check_period_s=2,
        graceful_shutdown_timeout_s=30,
        ray_actor_options={"num_cpus": settings.cpus_per_replica, "num_gpus": settings.gpus_per_replica},
    )
    gateway = serve.deployment(Gateway, name="Gateway").options(
        max_ongoing_requests=settings.max_queued_requests,
        max_queued_requests=settings.max_queued_requests,
        health_check_period_s=2,
        ray_actor_options={"num_cpus": 0},
    )
    return gateway.bind(model.bind(settings), settings.limits, token_hash(token) if token else None)
