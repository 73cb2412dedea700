"""A Ray of this process's own without the processes that no run asks for: they would start before the first worker."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator

from sst2_ray.run.ray import light_agent

_LEFT_OUT = {"no_monitor": True, "include_log_monitor": False}
"""Parameters of a Ray without autoscaler, which has no machine to add here, and without the process that carries workers'
output to the driver, which asks for none."""


@contextlib.contextmanager
def few_processes() -> Iterator[None]:
    """Leave them out of a Ray that is started meanwhile. A Ray that names them otherwise starts them, and works as well.

    The server of the dashboard is started even without a dashboard, for statistics of usage that nobody sends.
    """
    from ray._private import parameter, ray_constants, services, utils

    params, build = parameter.RayParams, services._build_python_executable_command_memory_profileable
    before = services.start_api_server, utils.get_dashboard_dependency_error
    known = _LEFT_OUT.keys() & inspect.signature(params).parameters.keys()

    class Params(params):  # type: ignore[misc, valid-type]
        def __init__(self, *args: object, **values: object) -> None:
            super().__init__(*args, **{**{name: _LEFT_OUT[name] for name in known}, **values})

    def command(component: str, *args: object, **values: object) -> list[str]:
        if component == ray_constants.PROCESS_TYPE_DASHBOARD_AGENT and sys.platform.startswith("linux"):
            return [sys.executable, "-I", "-S", str(light_agent.__file__)]
        return build(component, *args, **values)

    parameter.RayParams, services._build_python_executable_command_memory_profileable = Params, command
    services.start_api_server = lambda *_, **__: (None, None)
    # It would import the dashboard's libraries to see whether they are there.
    utils.get_dashboard_dependency_error = lambda: None
    try:
        yield
    finally:
        parameter.RayParams, services._build_python_executable_command_memory_profileable = params, build
        services.start_api_server, utils.get_dashboard_dependency_error = before
