"""The command `export`: convert a trained model, prove that it answers the same, keep the fastest that does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from sst2_ray import formatting
from sst2_ray.config.fields import AlsoPositional, AtLeastOne, Folder, NotNegative, check_fields
from sst2_ray.config.flags import parse
from sst2_ray.errors import InputError
from sst2_ray.modeling.export.meta import local_export, read_meta
from sst2_ray.modeling.sources.folders import META_FILE, read_json
from sst2_ray.predict.formats.files import Backend, FormatFolder, Variant, find_format
from sst2_ray.predict.predictor import export_classes, is_regression
from sst2_ray.tables import Column, Tabular

if TYPE_CHECKING:
    from rich.console import Console

    from sst2_ray.data.rows import Splits
    from sst2_ray.predict.proof import Row, Sentences

PROOF_FILE = "proof.json"
Format = Literal["onnx", "openvino"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Convert a trained model to ONNX or OpenVINO, prove that it answers the same, and keep the fastest that does."""

    model_dir: Annotated[Folder, AlsoPositional()]
    """Exported model: the folder `model` of a run, or the run's own folder."""
    to: tuple[Format, ...] = ("onnx",)
    """Formats; each gets a folder of its name inside the model's, complete with tokenizer, classes and facts."""
    fp16: bool = False
    """Also with weights in 16 bits: half the size."""
    int8: bool = False
    """Also in int8: with ranges of activations found at run time, and with ranges measured on sentences of train."""
    calibration_rows: AtLeastOne = 512
    """Sentences of train that those ranges are measured on."""
    data: str | None = None
    """Data set with these sentences and those of --prove; None: the one that the model was trained on."""
    prove: bool = False
    """Label every sentence of dev and of the part of train that was held out with each, compare with fp32 in torch, and measure
    speed and memory side by side."""
    prove_rows: AtLeastOne | None = None
    """Label so many of these sentences, dev's first; None: all."""
    keep_best: bool = False
    """After the proof: keep the fastest whose accuracy is shown to be less than --max-loss below, and delete the others."""
    max_loss: NotNegative[float] = 0.5
    """Points of accuracy that --keep-best may lose, at most, by the lower end of the 95 % interval."""

    def __post_init__(self) -> None:
        check_fields(self, ExportConfig)
        if not self.to:
            raise InputError("--to: name at least one of onnx, openvino")
        if len(set(self.to)) < len(self.to):
            raise InputError(f"--to {' '.join(self.to)}: names a format twice")

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Return the precisions that are asked for."""
        int8 = (Variant.INT8, Variant.INT8_STATIC) if self.int8 else ()
        return (Variant.FP32, *((Variant.FP16,) if self.fp16 else ()), *int8)


@dataclass(frozen=True, kw_only=True, repr=False)
class ExportResult(Tabular):
    """Converted models of an export, and what the proof says of them."""

    model_dir: str
    formats: tuple[FormatFolder, ...]
    """Folders that were written and stay."""
    left_out: Mapping[str, str]
    """Models that could not be converted, such as "onnx int8-static" -> why."""
    rows: tuple[Row, ...] = ()
    """Findings of the proof, a row a model, torch first; empty without a proof."""
    sentences: str = ""
    """Evaluation data of the proof."""
    kept: str | None = None
    """The model that `keep_best` has kept; None: all are there."""

    @property
    def files(self) -> dict[str, str]:
        """Return the model files that are there by name, such as "onnx int8"."""
        found = {f"{one.backend} {variant}": one.file(variant) for one in self.formats for variant in one.variants}
        return {name: str(path) for name, path in found.items()}

    def table(self) -> tuple[Sequence[Column], Sequence[Sequence[str]]]:
        """Return the proof, or the files where nothing was proved."""
        if self.rows:
            from sst2_ray.predict.proof import table

            return table(self.rows)
        columns = (Column(title="model", align="left"), Column(title="size"), Column(title="file", align="left"))
        sizes = [one.num_bytes(variant) for one in self.formats for variant in one.variants]
        cells = zip(self.files.items(), sizes, strict=True)
        return columns, [[name, formatting.size(size), path] for (name, path), size in cells]

    def notes(self) -> Sequence[str]:
        """Return what was measured on, what was left out, and what is kept."""
        measured = [f"on {self.sentences}"] if self.rows else []
        missing = [f"not written: {name}: {reason}" for name, reason in self.left_out.items()]
        return [*measured, *missing, *([f"kept: {self.kept}; the others are deleted"] if self.kept else [])]


def main(argv: list[str]) -> int:
    """Run `sst2-ray export`."""
    from sst2_ray.terminal import console

    config = parse(
        ExportConfig,
        argv,
        prog="sst2-ray export",
        description="Convert a trained model, prove that it answers the same, keep the fastest that does.",
        examples=("sst2-ray export runs/first/model --to onnx openvino --int8 --prove --keep-best",),
    )
    export_model(config, console())
    return 0


def export_model(config: ExportConfig, out: Console) -> ExportResult:
    """Convert, prove and keep as `config` says, and print what happens on `out`. Raises InputError."""
    folder = local_export(config.model_dir)
    source = f"--model-dir {folder}"
    meta = read_meta(folder, source)
    if is_regression(str(folder)):
        raise InputError(f"{source}: answers with values; only models of classes are converted")
    for name in config.to:
        Backend(name).require("--to")
    splits = _splits(config, folder) if config.int8 or config.prove or config.keep_best else None
    sentences = None
    if splits is not None and (config.prove or config.keep_best):
        sentences = unseen(splits, meta.info.labels, config.prove_rows)
    result = _convert(config, folder, splits, out)
    return result if sentences is None else _prove(config, result, sentences, meta.info.labels, out)


def _splits(config: ExportConfig, folder: Path) -> Splits:
    """Read the data set that the model was trained on, as its run did, or the one that is named."""
    from sst2_ray.config.train import TrainConfig, config_from_dict
    from sst2_ray.data.load import load_splits

    if config.data is not None:
        return load_splits(TrainConfig(data=config.data, batch_size=1), model=export_classes(str(folder)))
    values = read_json(folder / META_FILE, source=str(folder)).get("config")
    trained = config_from_dict(values if isinstance(values, dict) else {}, source=str(folder))
    try:
        return load_splits(dataclasses.replace(trained, batch_size=1))
    except InputError as error:
        raise InputError(f"{error} (the data that the model was trained on; --data names another place)") from None


def unseen(splits: Splits, labels: tuple[str, ...], limit: int | None = None) -> Sentences:
    """Return the sentences that a model was not trained on, with its numbers of their classes: dev, then what was held out.

    Args:
        splits: The data that it was trained on, divided as its run did.
        labels: Names of the model's classes.
        limit: Return so many of them; None: all.

    Raises:
        InputError: A class is not among the model's.
    """
    import numpy as np

    from sst2_ray.data.labels import ClassNames
    from sst2_ray.predict.proof import Sentences

    number = ClassNames(labels).match(list(splits.classes.names))
    missing = [name for name in splits.classes.names if name not in number]
    if missing:
        raise InputError(f"--data: its class {missing[0]} is not among the model's: {', '.join(labels)}")
    own = np.array([number[name] for name in splits.classes.names], dtype=np.int16)
    parts = [splits.dev] if splits.selection is None else [splits.dev, splits.selection]
    texts = [text for part in parts for text in part.texts][:limit]
    numbers = own[np.concatenate([part.labels for part in parts])[:limit].astype(np.int64)]
    name = splits.eval_split
    if len(texts) > len(splits.dev):
        name += " and of what was held out of train"
    return Sentences(texts=texts, labels=numbers, name=name)


def _convert(config: ExportConfig, folder: Path, splits: Splits | None, out: Console) -> ExportResult:
    out.print(f"converting to {' and '.join(config.to)} ...", soft_wrap=True, markup=False)
    from sst2_ray.predict.formats.convert import Export, convert  # seconds of imports

    export = Export.load(folder)
    sample = splits.train.texts[: config.calibration_rows] if splits is not None else []
    formats, missing = [], {}
    for name in config.to:
        made, left_out = convert(export, Backend(name), config.variants, sample)
        formats.append(made)
        for variant in made.variants:
            size = formatting.size(made.num_bytes(variant))
            out.print(f"written: {made.file(variant)} ({size})", soft_wrap=True, markup=False)
        for variant, reason in left_out.items():
            missing[f"{name} {variant}"] = reason
            out.print(f"not written: {name} {variant}: {reason}", soft_wrap=True, markup=False)
    return ExportResult(model_dir=str(folder), formats=tuple(formats), left_out=missing)


def _prove(
    config: ExportConfig, result: ExportResult, sentences: Sentences, labels: tuple[str, ...], out: Console
) -> ExportResult:
    """Measure all models, show and write what was found, and delete what is not kept."""
    from sst2_ray.predict.measuring import Candidate
    from sst2_ray.predict.proof import fastest, prove, show

    folder, formats = Path(result.model_dir), result.formats
    own = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    candidates = [(Candidate(model_dir=str(folder), precision=precision), own) for precision in ("fp32", "auto")]
    for made in formats:
        for variant in made.variants:
            one = Candidate(model_dir=str(folder), backend=str(made.backend), variant=str(variant))
            candidates.append((one, made.num_bytes(variant)))
    out.print(f"measuring {len(candidates)} models on {sentences.words} ...", soft_wrap=True, markup=False)
    rows = prove(candidates, sentences, labels)
    show(out, rows, sentences)
    for made in formats:
        _write_proof(made.path / PROOF_FILE, rows, sentences)
        out.print(f"written: {made.path / PROOF_FILE}", soft_wrap=True, markup=False)
    result = dataclasses.replace(result, rows=tuple(rows), sentences=sentences.words)
    kept = fastest(rows, config.max_loss / 100) if config.keep_best else None
    if kept is not None:
        from sst2_ray.predict.formats.convert import keep_only

        backend = Backend(kept.candidate.backend)
        keep_only(formats, backend, Variant(kept.candidate.variant or ""))  # a converted model names its own
        out.print(f"kept: {kept.candidate.name}; the others are deleted")
        left = find_format(folder, backend, source=f"--model-dir {folder}")
        return dataclasses.replace(result, formats=(left,), kept=kept.candidate.name)
    if config.keep_best:
        number = len(sentences.texts)
        out.print(f"kept: all; none is shown to lose less than {config.max_loss:g} points on {number:,} sentences")
    return result


def _write_proof(path: Path, rows: Sequence[Row], sentences: Sentences) -> None:
    models = [
        {
            "model": row.candidate.name,
            "accuracy": row.accuracy,
            "minus_fp32_in_torch": None
            if row.difference is None
            else {
                "value": row.difference.value,
                "low": row.difference.interval.low,
                "high": row.difference.interval.high,
                "level": row.difference.interval.level,
            },
            "largest_probability_difference": row.largest_probability_difference,
            "sentences_per_sec": {str(size): rate for size, rate in row.rates.items()},
            "peak_memory_bytes": row.peak_bytes,
            "file_bytes": row.file_bytes,
            "load_s": row.load_s,
            "changed": [dataclasses.asdict(change) for change in row.changes],
        }
        for row in rows
    ]
    values = {"sentences": sentences.name, "num_sentences": len(sentences.texts), "models": models}
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
