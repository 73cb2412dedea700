"""Names and files of formats, and the facts that travel with each. Imports no torch."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sst2_ray.errors import InputError
from sst2_ray.modeling.sources.folders import META_FILE, JsonObject, read_json

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Inputs of a graph, in the order of `collate`; the last one for pairs alone, where the encoder takes it."""


class Backend(StrEnum):
    """A library that computes logits."""

    TORCH = "torch"
    ONNX = "onnx"
    OPENVINO = "openvino"

    @property
    def module(self) -> str:
        """Return the Python module of the library."""
        return "onnxruntime" if self is Backend.ONNX else str(self)

    @property
    def library(self) -> str:
        """Return the library's own spelling."""
        return {Backend.TORCH: "torch", Backend.ONNX: "ONNX Runtime", Backend.OPENVINO: "OpenVINO"}[self]

    def require(self, flag: str = "--backend") -> None:
        """Raise InputError, with the install line, where the library is not installed."""
        if importlib.util.find_spec(self.module) is None:
            raise InputError(f"{flag} {self}: {self.module} is not installed; pip install 'sst2-ray[{self}]'")


class Variant(StrEnum):
    """Precision of a converted model."""

    FP32 = "fp32"
    FP16 = "fp16"
    """Weights in 16 bits."""
    INT8 = "int8"
    """Weights in 8 bits, activations quantized at run time by their own range."""
    INT8_STATIC = "int8-static"
    """Weights in 8 bits, activations quantized by ranges measured on sentences of train."""


def file_name(backend: Backend, variant: Variant) -> str:
    """Return the name of a model file as the libraries' own exporters spell it."""
    suffix = "" if variant is Variant.FP32 else f"_{variant.replace('-', '_')}"
    return f"model{suffix}.onnx" if backend is Backend.ONNX else f"openvino_model{suffix}.xml"


@dataclass(frozen=True, kw_only=True)
class FormatFolder:
    """A folder with the files of one format, complete with tokenizer, classes and facts."""

    path: Path
    backend: Backend
    variants: tuple[Variant, ...]
    default: Variant
    """The variant that is used where none is named."""
    meta: JsonObject
    """Content of its sst2_ray.json."""

    @property
    def takes_type_ids(self) -> bool:
        """Tell whether the graph takes token_type_ids as well."""
        return "token_type_ids" in self.meta["format"].get("inputs", ())

    def file(self, variant: Variant) -> Path:
        """Return the model file of a variant."""
        return self.path / file_name(self.backend, variant)

    def files(self, variant: Variant) -> tuple[Path, ...]:
        """Return all files of a variant: OpenVINO keeps the weights beside the graph."""
        file = self.file(variant)
        return (file,) if self.backend is Backend.ONNX else (file, file.with_suffix(".bin"))

    def num_bytes(self, variant: Variant) -> int:
        """Return the size of a variant's files."""
        return sum(file.stat().st_size for file in self.files(variant))


def find_format(folder: Path, backend: Backend, *, source: str) -> FormatFolder:
    """Find the files of a format in an export, or in a folder that holds that format alone.

    Raises:
        InputError: With one line that begins with `source`: the format is missing or damaged.
    """
    path = folder / str(backend)
    if not (path / META_FILE).is_file():
        path = folder
    if not (path / META_FILE).is_file():
        raise InputError(f"{source}: it has no {META_FILE}, so it is no export of this package")
    meta = read_json(path / META_FILE, source=source)
    facts = meta.get("format")
    if not isinstance(facts, dict) or facts.get("backend") != backend:
        raise InputError(f"{source}: it holds no {backend} model; make one: sst2-ray export {folder} --to {backend}")
    try:
        found = FormatFolder(
            path=path,
            backend=backend,
            variants=tuple(map(Variant, facts["variants"])),
            default=Variant(facts["default"]),
            meta=meta,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source}: {META_FILE} is damaged ({error}); export the model again") from None
    for variant in found.variants:
        if not found.file(variant).is_file():
            raise InputError(f"{source}: {found.file(variant).name} is missing; export the model again")
    return found
