"""Optional trackers, through Ray's own callbacks: TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from sst2_ray.errors import InputError
from sst2_ray.storage import Storage

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


def check_trackers(trackers: Sequence[str], sweep: Storage) -> None:
    """Raise InputError where a package or an address is missing."""
    for tracker in trackers:
        if importlib.util.find_spec(PACKAGES[tracker]) is None:
            raise InputError(
                f"--trackers {tracker}: {PACKAGES[tracker]} is not installed; pip install {PACKAGES[tracker]}"
            )
    if "mlflow" in trackers and not sweep.is_local and "MLFLOW_TRACKING_URI" not in os.environ:
        raise InputError("--trackers mlflow: set MLFLOW_TRACKING_URI, MLflow cannot write to this storage by itself")
    if "wandb" in trackers and not {"WANDB_API_KEY", "WANDB_MODE"} & set(os.environ):
        raise InputError("--trackers wandb: set WANDB_API_KEY, or WANDB_MODE=offline")


def callbacks(trackers: Sequence[str], sweep: Storage, name: str) -> list[Any]:
    """Make Tune's callbacks. MLflow writes to MLFLOW_TRACKING_URI, or below the sweep's folder."""
    made: list[Any] = []
    if "tensorboard" in trackers:
        from ray.tune.logger import TBXLoggerCallback

        made.append(TBXLoggerCallback())
    if "mlflow" in trackers:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{sweep.path('mlflow.db')}"
        made.append(MLflowLoggerCallback(tracking_uri=uri, experiment_name=name))
    if "wandb" in trackers:
        from ray.air.integrations.wandb import WandbLoggerCallback

        made.append(WandbLoggerCallback(project="sst2-ray", group=name))
    return made


def where(trackers: Sequence[str], sweep: Storage) -> list[tuple[str, str]]:
    """Return rows for the closing table: how to look at them."""
    rows = []
    if "tensorboard" in trackers:
        rows.append(("TensorBoard", f"tensorboard --logdir {sweep.path('tune')}"))
    if "mlflow" in trackers:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{sweep.path('mlflow.db')}"
        rows.append(("MLflow", f"mlflow ui --backend-store-uri {uri}"))
    return rows
