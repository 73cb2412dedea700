"""The command `serve`: answer requests with an exported model until Ctrl-C."""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import os
import socket
import time
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Literal

from sst2_ray.config.fields import AtLeastOne, Positional, Rule
from sst2_ray.config.flags import parse
from sst2_ray.errors import InfeasibleError, InputError, RunFailedError, first_line
from sst2_ray.formatting import without_secret
from sst2_ray.serving.protocol import EXAMPLE, EXAMPLE_OF_PAIRS, TOKEN_VARIABLE, Limits
from sst2_ray.storage import absolute
from sst2_ray.terminal import busy

NAME = "sst2"
"""Name of the application in Ray Serve."""

_REQUEST_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Flags of `serve`."""

    model_dir: Positional[str]
    """Exported model: the folder `model` of a run, or the run's own folder; a path or a URI (s3://, gs://)."""
    host: str = "127.0.0.1"
    """Address to listen on. Another one than loopback needs a token: set SST2_RAY_SERVE_TOKEN; requests then carry
    `Authorization: Bearer TOKEN`."""
    port: Annotated[int, Rule[int](lambda v: 0 < v < 65536, "must be between 1 and 65535")] = 8000
    """Port to listen on."""
    num_replicas: AtLeastOne = 1
    """Copies of the model, each in a process of its own, with a GPU of its own where there are GPUs."""
    cpus_per_replica: AtLeastOne | None = None
    """CPU cores of a replica; None: an equal share."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of matrix products, as in predict."""
    tokens_per_batch: AtLeastOne = 4096
    """Most tokens of the requests that a replica computes together."""
    max_texts: AtLeastOne = Limits.max_texts
    """Most texts of one request."""
    max_text_chars: AtLeastOne = Limits.max_text_chars
    """Most characters of one text; the model cuts texts to its own length long before."""

    @property
    def is_loopback(self) -> bool:
        """Tell whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def main(argv: list[str]) -> int:
    """Run `sst2-ray serve`; return its exit code, 0 after Ctrl-C or SIGTERM.

    Raises:
        Sst2RayError: Something is wrong.
    """
    config = parse(
        ServeConfig, argv, prog="sst2-ray serve", description="Answer requests with an exported model (Ray Serve)."
    )
    with busy(f"loading {config.model_dir}"):
        _check(config)
    with busy("starting Ray and the replicas"):
        ray, serve = _started(config)
    try:
        _announce(config)
        while True:  # one long wait would not hear a signal that arrives just before it
            time.sleep(1)
    except KeyboardInterrupt:
        return 0
    finally:
        _shut_down(ray, serve)
    return 0


def _check(config: ServeConfig) -> None:
    """Refuse what cannot work, before Ray is started."""
    if importlib.util.find_spec("uvicorn") is None or importlib.util.find_spec("starlette") is None:
        raise InputError('serve: Ray Serve is not installed; pip install "sst2-ray[serve]"')
    if not config.is_loopback and not os.environ.get(TOKEN_VARIABLE):
        raise InputError(
            f"--host {config.host}: others can reach it, so a token is needed: set {TOKEN_VARIABLE}, or listen on 127.0.0.1"
        )
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise InputError(
                f"--port {config.port}: cannot listen on {config.host} ({error.strerror or error}); choose another --port or --host"
            ) from None
    from sst2_ray.predict.predictor import Predictor

    Predictor(config.model_dir, device="cpu")  # a damaged model is told here, in one line


def _started(config: ServeConfig) -> tuple[ModuleType, ModuleType]:
    """Start Ray and the application; returns the modules ray and ray.serve."""
    from sst2_ray.config.train import TrainConfig
    from sst2_ray.run.connect import start_ray, starts_ray_here
    from sst2_ray.run.planning.nodes import cluster_view
    from sst2_ray.run.planning.placement import decide

    is_own = starts_ray_here()
    ray = start_ray()
    from ray import serve

    from sst2_ray.serving.app import build

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    use_gpu = {"cpu": False, "cuda": True}.get(config.device)
    wanted = TrainConfig(
        batch_size=1, num_workers=config.num_replicas, cpus_per_worker=config.cpus_per_replica, use_gpu=use_gpu
    )
    try:
        placement = decide(wanted, cluster_view())
    except InfeasibleError as error:
        raise InfeasibleError(str(error).replace("--num-workers", "--num-replicas", 1)) from None
    application = build(
        {
            "model_dir": absolute(config.model_dir),
            "device": config.device,
            "precision": config.precision,
            "num_replicas": config.num_replicas,
            "cpus_per_replica": placement.cpus_per_worker,
            "gpus_per_replica": int(placement.use_gpu),
            "tokens_per_batch": config.tokens_per_batch,
            "max_texts": config.max_texts,
            "max_text_chars": config.max_text_chars,
            "require_token": not config.is_loopback,
        }
    )
    options = {"host": config.host, "port": config.port, "request_timeout_s": _REQUEST_TIMEOUT_S}
    if not is_own and (serve.status().proxies or serve.status().applications):
        raise InputError(
            f"RAY_ADDRESS {os.environ['RAY_ADDRESS']}: Ray Serve runs there already, with its own address and applications; "
            "deploy with cluster/serve.yaml (serve deploy), or unset RAY_ADDRESS"
        )
    try:
        serve.start(proxy_location="HeadOnly", http_options=options)
        serve.run(application, name=NAME, route_prefix="/")
    except RuntimeError as error:
        _shut_down(ray, serve)
        raise RunFailedError(f"serve: the application did not start ({first_line(error)})") from None
    return ray, serve


def _announce(config: ServeConfig) -> None:
    from sst2_ray.predict.predictor import export_text_columns
    from sst2_ray.terminal import console

    host = f"[{config.host}]" if ":" in config.host else config.host
    url = f"http://{host}:{config.port}"
    token = f" -H 'Authorization: Bearer '${TOKEN_VARIABLE}" if os.environ.get(TOKEN_VARIABLE) else ""
    out = console()
    example = EXAMPLE_OF_PAIRS if export_text_columns(config.model_dir) else EXAMPLE
    for line in (
        f"serving {without_secret(config.model_dir)} at {url}   (POST /predict, GET /ready, GET /health; Ctrl-C stops)",
        f"curl {url}/predict{token} -d '{example}'",
    ):
        out.print(line, soft_wrap=True, markup=False, highlight=False)


def _shut_down(ray: ModuleType, serve: ModuleType) -> None:
    """End the application; requests that are being answered are answered first."""
    if ray.is_initialized():
        serve.shutdown()
        ray.shutdown()
