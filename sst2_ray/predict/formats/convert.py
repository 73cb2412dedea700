"""Conversion of an exported classifier to ONNX and OpenVINO: one graph with pooling and head, for any batch and width."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from sst2_ray.data.texts import Text
from sst2_ray.modeling.export.sbert import write_json, write_tokenizer
from sst2_ray.modeling.sources.folders import META_FILE, read_json
from sst2_ray.predict.formats.card import format_card
from sst2_ray.predict.formats.files import Backend, FormatFolder, Variant, find_format
from sst2_ray.predict.formats.loaded import Export, LeftOut
from sst2_ray.predict.formats.to_onnx import write_onnx
from sst2_ray.predict.formats.to_openvino import write_openvino

__all__ = ["Export", "convert", "keep_only"]


def convert(
    export: Export, backend: Backend, variants: Sequence[Variant], sample: Sequence[Text]
) -> tuple[FormatFolder, LeftOut]:
    """Write the folder of a format into the export's, replacing the one that stands there; it appears whole or not at all.

    Args:
        export: The export.
        backend: The library that will load it.
        variants: Precisions, fp32 among them.
        sample: Sentences of train that static int8 measures its ranges on.

    Returns:
        What was written, and the variants that could not be.

    Raises:
        InputError: The library or what converts to it is not installed, or fp32 cannot be converted.
    """
    target = export.folder / str(backend)
    with tempfile.TemporaryDirectory(prefix=f".{backend}.", dir=export.folder) as scratch, quiet():
        folder = Path(scratch) / str(backend)
        folder.mkdir()
        writer = write_onnx if backend is Backend.ONNX else write_openvino
        left_out = writer(export, folder, variants, sample)
        _write_facts(export, folder, backend, [v for v in variants if v not in left_out])
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
    return find_format(export.folder, backend, source=f"--model-dir {export.folder}"), left_out


def _write_facts(export: Export, folder: Path, backend: Backend, variants: Sequence[Variant]) -> None:
    """Write what must travel with the graph: classes, task, tokenizer, limits, training data, and the card."""
    tokenizer = export.tokenizer
    write_tokenizer(tokenizer, folder, export.max_length)
    labels = dict(enumerate(export.classifier.info.labels))
    config = export.classifier.backbone.config.to_dict()
    config |= {
        "architectures": None,
        "id2label": labels,
        "label2id": {name: number for number, name in labels.items()},
        "problem_type": "single_label_classification",
    }
    write_json(folder / "config.json", config)
    facts = {
        "backend": str(backend),
        "variants": [str(variant) for variant in variants],
        "default": str(Variant.FP32),
        "inputs": list(export.inputs),
        "pad_id": export.pad_id,
        "unknown_id": tokenizer.unk_token_id,
        "special_ids": list(tokenizer.all_special_ids),
    }
    meta = read_json(export.folder / META_FILE, source=str(export.folder))
    meta = {**meta, "format": facts}
    write_json(folder / META_FILE, meta)
    (folder / "README.md").write_text(format_card(backend, Variant.FP32, meta), encoding="utf-8")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the converters' own chatter off the terminal."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def keep_only(formats: Sequence[FormatFolder], backend: Backend, variant: Variant) -> None:
    """Delete all converted models but one; a format of which nothing is left loses its folder."""
    for made in formats:
        if made.backend is not backend:
            shutil.rmtree(made.path)
            continue
        for other in made.variants:
            if other is not variant:
                for file in made.files(other):
                    file.unlink()
        facts = {**made.meta["format"], "variants": [str(variant)], "default": str(variant)}
        meta = {**made.meta, "format": facts}
        write_json(made.path / META_FILE, meta)
        (made.path / "README.md").write_text(format_card(backend, variant, meta), encoding="utf-8")
