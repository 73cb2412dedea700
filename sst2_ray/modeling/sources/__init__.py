"""Model sources: a name, a hub id or a folder, resolved on the driver to something cheap to send to workers."""

from sst2_ray.modeling.sources.families import max_positions
from sst2_ray.modeling.sources.folders import exported_corpora
from sst2_ray.modeling.sources.info import ModelInfo, ResolvedModel
from sst2_ray.modeling.sources.resolve import local_folder, resolve_model

__all__ = ["ModelInfo", "ResolvedModel", "exported_corpora", "local_folder", "max_positions", "resolve_model"]
