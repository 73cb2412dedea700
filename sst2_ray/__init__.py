"""Fine-tune ModernBERT and SBERT on SST-2 with Ray Train, DeepSpeed ZeRO-2 and Ray Tune.

import sst2_ray
result = sst2_ray.train(sst2_ray.TrainConfig(model="sbert-minilm"))
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sst2_ray.config.train import TrainConfig
    from sst2_ray.predict.command import predict
    from sst2_ray.run.train import TrainResult, train
    from sst2_ray.version import __version__

_HOME = {
    "TrainConfig": "sst2_ray.config.train",
    "TrainResult": "sst2_ray.run.train",
    "__version__": "sst2_ray.version",
    "predict": "sst2_ray.predict.command",
    "train": "sst2_ray.run.train",
}
"""Public name -> the module that defines it, imported when the name is first used."""

__all__ = ["TrainConfig", "TrainResult", "__version__", "predict", "train"]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `import sst2_ray` alone stays fast."""
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'sst2_ray' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package; `sst2_ray.predict` stays a function although a folder of the package has that name."""

    def __setattr__(self, name: str, value: object) -> None:
        # the import system binds the folder `predict` to its name here when a module of it is first imported
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
