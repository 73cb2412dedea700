"""Fine-tune ModernBERT and SBERT on SST-2 with Ray Train, DeepSpeed ZeRO-2 and Ray Tune.

import sst2_ray
result = sst2_ray.train(sst2_ray.TrainConfig(model="sbert-minilm"))
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sst2_ray.config.train import TrainConfig
from sst2_ray.version import __version__

if TYPE_CHECKING:
    from sst2_ray.predict.command import predict
    from sst2_ray.run.train import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "__version__", "predict", "train"]

_LAZY = {"train": "sst2_ray.run.train", "TrainResult": "sst2_ray.run.train", "predict": "sst2_ray.predict.command"}


def __getattr__(name: str) -> Any:
    """Ray and torch are imported when they are first needed, not with the package."""
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sst2_ray' has no attribute {name!r}")


class _Package(ModuleType):
    """This package: `sst2_ray.predict` stays a function although a folder of the package has that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system binds `sst2_ray/predict/` to its name here whenever a module of it is first imported.
        if not (name in _LAZY and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
