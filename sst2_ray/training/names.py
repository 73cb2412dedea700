"""Names of what attempts leave below their run's folder. Imports no torch: drivers need them as well."""

CHECKPOINT_FOLDER = "checkpoints"
EXPORT_FOLDER = "model"
LAST_EXPORT_FOLDER = "model-last"
"""The weights after the last step, where dev will be scored later and they are not the best ones."""

LEFT = "left"
"""Status of an attempt that wrote a checkpoint and gave its workers back, so that another goes on elsewhere."""
