"""Fine-tune ModernBERT and SBERT on SST-2 with Ray Train, DeepSpeed ZeRO-2 and Ray Tune.

import sst2_ray
result = sst2_ray.train(sst2_ray.TrainConfig(model="sbert-minilm"))
sst2_ray.predict(result.model_dir, "a quiet triumph")
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sst2_ray import errors
    from sst2_ray.api import (
        Results,
        best,
        compare,
        export,
        power,
        predict,
        report,
        results,
        runs,
        status,
        stop,
    )
    from sst2_ray.config.sweep import SweepConfig
    from sst2_ray.config.train import TrainConfig
    from sst2_ray.manage.presets import Presets, presets
    from sst2_ray.predict.export import ExportResult
    from sst2_ray.predict.predictor import Predictor
    from sst2_ray.predict.shapes import Prediction
    from sst2_ray.run.result import TrainResult
    from sst2_ray.run.train import train
    from sst2_ray.sweep.result import SweepResult
    from sst2_ray.sweep.start import sweep
    from sst2_ray.version import __version__

__all__ = [
    "ExportResult", "Prediction", "Predictor", "Presets", "Results", "SweepConfig", "SweepResult",
    "TrainConfig", "TrainResult", "__version__", "best", "compare", "errors", "export", "power", "predict",
    "presets", "report", "results", "runs", "status", "stop", "sweep", "train",
]  # fmt: skip

_HOME = {
    **dict.fromkeys(
        (
            "Results",
            "best",
            "compare",
            "export",
            "power",
            "predict",
            "report",
            "results",
            "runs",
            "status",
            "stop",
        ),
        "sst2_ray.api",
    ),
    **dict.fromkeys(("Presets", "presets"), "sst2_ray.manage.presets"),
    "ExportResult": "sst2_ray.predict.export",
    "Prediction": "sst2_ray.predict.shapes",
    "Predictor": "sst2_ray.predict.predictor",
    "TrainResult": "sst2_ray.run.result",
    "SweepConfig": "sst2_ray.config.sweep",
    "SweepResult": "sst2_ray.sweep.result",
    "TrainConfig": "sst2_ray.config.train",
    "__version__": "sst2_ray.version",
    "sweep": "sst2_ray.sweep.start",
    "train": "sst2_ray.run.train",
}
"""Public name -> the module that defines it, imported when the name is first used."""


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `import sst2_ray` alone stays fast."""
    import importlib

    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name == "errors":
        return importlib.import_module("sst2_ray.errors")
    raise AttributeError(f"module 'sst2_ray' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """This package; `predict`, `results` and `sweep` stay functions although folders of it have these names."""

    def __setattr__(self, name: str, value: object) -> None:
        # the import system binds a folder to its name here when a module of it is first imported
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
