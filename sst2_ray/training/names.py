"""Names that workers and drivers share: folders below a run's, and phases of an attempt. Imports no torch."""

from __future__ import annotations

from enum import StrEnum

CHECKPOINT_FOLDER = "checkpoints"
EXPORT_FOLDER = "model"
LAST_EXPORT_FOLDER = "model-last"
"""The weights after the last step, kept where they are not the best ones and dev is scored later."""


class Phase(StrEnum):
    """An activity of a rank."""

    START_UP = "start-up"
    MODEL = "model"
    TRAINING = "training"
    DATA = "data"
    FORWARD = "forward"
    BACKWARD = "backward"
    COMMUNICATION = "communication"
    OPTIMIZER = "optimizer"
    EVALUATION = "evaluation"
    CHECKPOINT = "checkpoint"
    BEST_WEIGHTS = "best weights"
    EXPORT = "export"
    UPLOAD = "upload"


PHASE_WORDS = {
    Phase.MODEL: "loading the model",
    Phase.BEST_WEIGHTS: "loading the best weights",
    Phase.EVALUATION: "scoring",
    Phase.EXPORT: "exporting the model",
    Phase.UPLOAD: "uploading the model",
}
"""Phases of an attempt without steps, as people read them; what happens between two steps is not announced."""
