"""Functions that are called from Python: their errors name their arguments, not the flags of a command line."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from sst2_ray.config.fields import Kind, kinds_of
from sst2_ray.config.python_words import python_words
from sst2_ray.config.sweep import SweepFlags
from sst2_ray.config.train import TrainConfig

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., str])


def told_in_python(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that is called from Python: its errors name its arguments and the fields of the configs."""

    @functools.wraps(function)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        with python_words(lambda: {**_config_kinds(), **_arguments(function)}):
            return function(*args, **kwargs)

    return told


def _config_kinds() -> dict[str, Kind]:
    return {**kinds_of(SweepFlags), **kinds_of(TrainConfig)}


def _arguments(function: Callable[..., object]) -> dict[str, Kind]:
    """Return the arguments of a function. Their annotations are texts, some of names that only a type checker imports."""
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        first = str(parameter.annotation).partition(" ")[0]
        type_ = {"bool": bool, "int": int, "float": float}.get(first, str)
        found[name] = Kind(type=type_, choices=(), optional=True)
    return found


def takes_out_first(function: F) -> F:
    """Let a function take `out` by place, before the storage, as its first version did."""

    @functools.wraps(function)
    def call(*args: object, **options: object) -> str:
        if args and "out" not in options:
            options["out"], args = args[0], args[1:]
        return function(*args, **options)

    return cast("F", call)
