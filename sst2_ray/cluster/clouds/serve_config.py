"""Checks of Ray Serve's config: a file of its own (serve.yaml), or the text inside a RayService."""

from __future__ import annotations

from collections import Counter

import yaml

from sst2_ray.cluster.file import PLACEHOLDER, UniqueKeyLoader
from sst2_ray.cluster.findings import Findings
from sst2_ray.config.section import Section
from sst2_ray.errors import did_you_mean

IMPORT_PATH = "sst2_ray.serving.app:build"
_SETTINGS: dict[str, tuple[type, ...]] = {
    "model_dir": (str,), "device": (str,), "precision": (str,), "num_replicas": (int,), "cpus_per_replica": (int,),
    "gpus_per_replica": (int, float), "tokens_per_batch": (int,), "max_texts": (int,), "max_text_chars": (int,),
    "max_body_bytes": (int,), "max_queued_requests": (int,), "require_token": (bool,),
}  # fmt: skip
"""Settings of the application with their types; this room does not import it."""
_CHOICES = {"device": ("auto", "cpu", "cuda"), "precision": ("auto", "fp32", "bf16")}
_TOP = (
    "proxy_location", "http_options", "grpc_options", "controller_options", "logging_config", "tracing_config", "applications",
    "target_capacity",
)  # fmt: skip
_APPLICATION = (
    "name", "route_prefix", "import_path", "runtime_env", "host", "port", "deployments", "autoscaling_policy", "args", "logging_config",
    "external_scaler_enabled",
)  # fmt: skip
_HTTP = (
    "host", "port", "root_path", "request_timeout_s", "keep_alive_timeout_s", "ssl_keyfile", "ssl_certfile", "ssl_keyfile_password",
    "ssl_ca_certs", "location", "middlewares", "num_cpus",
)  # fmt: skip
_PROXIES = ("EveryNode", "HeadOnly", "Disabled")
_TAKEN_PORTS = {
    6379: "Ray's own", 8076: "Ray's object manager", 8265: "the dashboard", 10001: "Ray's client", 22: "SSH",
}  # fmt: skip


def read_serve_config(text: str, where: str, found: Findings) -> Section | None:
    """Parse the config; None, and an error, where it cannot be read."""
    try:
        value = yaml.load(text, Loader=UniqueKeyLoader)  # nosec B506: a SafeLoader
    except yaml.YAMLError as error:
        found.error(where, f"cannot be read as YAML: {' '.join(str(error).split())[:160]}", "correct the line")
        return None
    if not isinstance(value, dict):
        found.error(where, f"a mapping is expected, found {type(value).__name__}", "compare with cluster/serve.yaml")
        return None
    return Section(value, where)


def check_serve_config(config: Section, found: Findings) -> None:
    """Check keys, values and types of the config and of the project's application in it."""
    _check_keys(config, _TOP, found)
    location = config.text("proxy_location", "EveryNode")
    if location not in _PROXIES:
        found.error(config.at("proxy_location"), f"{location!r} does not exist", did_you_mean(location, _PROXIES))
    _check_http(config.section("http_options"), found)
    applications = config.sections("applications")
    if not applications:
        remedy = f"applications: [{{import_path: {IMPORT_PATH}}}]"
        found.error(config.path or "applications", "has no application: nothing is served", remedy)
    for key in ("name", "route_prefix"):
        default = "default" if key == "name" else "/"
        for value, times in Counter(application.text(key, default) for application in applications).items():
            if times > 1:
                found.error(
                    config.at("applications"), f"{key} {value} is given {times} times", "one of its own for each"
                )
    for application in applications:
        _check_keys(application, _APPLICATION, found)
        prefix = application.text("route_prefix", "/")
        if not prefix.startswith("/") or (len(prefix) > 1 and prefix.endswith("/")):
            what = f"{prefix!r}: a route begins with / and does not end with it"
            found.error(application.at("route_prefix"), what, f"/{prefix.strip('/')}")
        if application.text("import_path") != IMPORT_PATH:
            what = f"{application.text('import_path')!r} is not the application of this project"
            found.warning(application.at("import_path"), what, IMPORT_PATH)
        else:
            _check_settings(application.section("args"), found)


def _check_keys(section: Section, known: tuple[str, ...], found: Findings) -> None:
    for key in section.raw:
        if key not in known:
            found.error(section.at(str(key)), "Ray Serve knows no such key", did_you_mean(str(key), known))


def _check_http(options: Section, found: Findings) -> None:
    _check_keys(options, _HTTP, found)
    port = options.get("port")
    if port is not None and (type(port) is not int or not 1 <= port <= 65535):
        found.error(options.at("port"), f"{port!r} is no port", "a number, without quotation marks")
    elif isinstance(port, int) and port in _TAKEN_PORTS:
        found.error(options.at("port"), f"{port} is the port of {_TAKEN_PORTS[port]}", "8000")
    timeout = options.get("request_timeout_s")
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout <= 0):
        found.error(options.at("request_timeout_s"), f"{timeout!r}: no request is ever answered", "60")


def _check_settings(args: Section, found: Findings) -> None:
    for key, value in args.raw.items():
        types = _SETTINGS.get(key)
        if types is None:
            what = "the application has no such setting, and does not start"
            found.error(args.at(key), what, did_you_mean(key, _SETTINGS))
        elif type(value) not in types:
            found.error(args.at(key), f"{value!r} is no {types[0].__name__}", "as in cluster/serve.yaml")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and value < (key != "gpus_per_replica"):
            found.error(args.at(key), f"{value:g}: nothing could be served", "1 or more")
        elif key in _CHOICES and value not in _CHOICES[key]:
            found.error(args.at(key), f"{value!r} does not exist", did_you_mean(str(value), _CHOICES[key]))
    if not args.text("model_dir"):
        found.error(args.at("model_dir"), "missing: there is nothing to serve", "the model's folder or URI")
    if args.get("require_token") is False:
        found.error(
            args.at("require_token"),
            "false: every pod of the cluster can ask, and whoever else reaches the port",
            "remove it",
        )


def check_serve_file(text: str, where: str, found: Findings) -> None:
    """Check a Serve config file of a Ray that runs already."""
    config = read_serve_config(text, where, found)
    if config is None:
        return
    config = Section(config.raw)
    check_serve_config(config, found)
    host = config.section("http_options").text("host", "127.0.0.1")
    if host not in ("127.0.0.1", "localhost", "::1"):
        what = f"{host}: requests and their token go unencrypted to whoever listens on the way"
        found.warning("http_options.host", what, "127.0.0.1, or behind a load balancer with TLS")
    for path, value in config.strings():
        for name in PLACEHOLDER.findall(value):
            found.error(path, f"{name} stands for a value of yours", f"replace {name}")
