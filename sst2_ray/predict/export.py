"""The command `export`: convert a trained model, prove that it answers the same, keep the fastest that does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from sst2_ray import formatting
from sst2_ray.config.fields import AlsoPositional, AtLeastOne, Folder, NotNegative
from sst2_ray.config.flags import parse
from sst2_ray.errors import InputError
from sst2_ray.modeling.export.meta import local_export, read_meta
from sst2_ray.modeling.sources.folders import META_FILE, read_json
from sst2_ray.predict.formats.files import Backend, FormatFolder, Variant

if TYPE_CHECKING:
    from rich.console import Console

    from sst2_ray.data.rows import Splits
    from sst2_ray.predict.proof import Row, Sentences

PROOF_FILE = "proof.json"


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Convert a trained model to ONNX or OpenVINO, prove that it answers the same, and keep the fastest that does."""

    model_dir: Annotated[Folder, AlsoPositional()]
    """Exported model: the folder `model` of a run, or the run's own folder."""
    to: tuple[Literal["onnx", "openvino"], ...] = ("onnx",)
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
    """Label every dev sentence with each, compare with fp32 in torch, and measure speed and memory side by side."""
    keep_best: bool = False
    """After the proof: keep the fastest whose accuracy is shown to be less than --max-loss below, and delete the others."""
    max_loss: NotNegative[float] = 0.5
    """Points of accuracy that --keep-best may lose, at most, by the lower end of the 95 % interval."""

    def __post_init__(self) -> None:
        if not self.to:
            raise InputError("--to: name at least one of onnx, openvino")
        if len(set(self.to)) < len(self.to):
            raise InputError(f"--to {' '.join(self.to)}: names a format twice")

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Return the precisions that are asked for."""
        int8 = (Variant.INT8, Variant.INT8_STATIC) if self.int8 else ()
        return (Variant.FP32, *((Variant.FP16,) if self.fp16 else ()), *int8)


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
    folder = local_export(config.model_dir)
    source = f"--model-dir {folder}"
    meta = read_meta(folder, source)
    for name in config.to:
        Backend(name).require()
    splits = _splits(config, folder) if config.int8 or config.prove or config.keep_best else None
    sentences = _dev(splits, meta.info.labels) if splits and (config.prove or config.keep_best) else None
    out = console()
    formats = _convert(config, folder, splits, out)
    if sentences is not None:
        _prove(config, folder, formats, sentences, meta.info.labels, out)
    return 0


def _splits(config: ExportConfig, folder: Path) -> Splits:
    """Read the data set that the model was trained on, as its run did, or the one that is named."""
    from sst2_ray.config.train import TrainConfig, config_from_dict
    from sst2_ray.data.load import load_splits

    if config.data is not None:
        return load_splits(TrainConfig(data=config.data, batch_size=1))
    values = read_json(folder / META_FILE, source=str(folder)).get("config")
    trained = config_from_dict(values if isinstance(values, dict) else {}, source=str(folder))
    try:
        return load_splits(dataclasses.replace(trained, batch_size=1))
    except InputError as error:
        raise InputError(f"{error} (the data that the model was trained on; --data names another place)") from None


def _dev(splits: Splits, labels: tuple[str, ...]) -> Sentences:
    """Return the dev sentences with the model's numbers of their classes. Raises InputError where one is not among these."""
    import numpy as np

    from sst2_ray.data.labels import ClassNames
    from sst2_ray.predict.proof import Sentences

    number = ClassNames(labels).match(list(splits.classes.names))
    missing = [name for name in splits.classes.names if name not in number]
    if missing:
        raise InputError(f"--data: its class {missing[0]} is not among the model's: {', '.join(labels)}")
    own = np.array([number[name] for name in splits.classes.names], dtype=splits.dev.labels.dtype)
    return Sentences(texts=list(splits.dev.texts), labels=own[splits.dev.labels], name=splits.eval_split)


def _convert(config: ExportConfig, folder: Path, splits: Splits | None, out: Console) -> list[FormatFolder]:
    from sst2_ray.predict.formats.convert import Export, convert

    export = Export.load(folder)
    sample = splits.train.texts[: config.calibration_rows] if splits is not None else []
    formats = []
    for name in config.to:
        made, left_out = convert(export, Backend(name), config.variants, sample)
        formats.append(made)
        for variant in made.variants:
            size = formatting.size(made.num_bytes(variant))
            out.print(f"written: {made.file(variant)} ({size})", soft_wrap=True, markup=False)
        for variant, reason in left_out.items():
            out.print(f"not written: {name} {variant}: {reason}", soft_wrap=True, markup=False)
    return formats


def _prove(
    config: ExportConfig,
    folder: Path,
    formats: Sequence[FormatFolder],
    sentences: Sentences,
    labels: tuple[str, ...],
    out: Console,
) -> None:
    """Measure all models, show and write what was found, and delete what is not kept."""
    from sst2_ray.predict.measuring import Candidate
    from sst2_ray.predict.proof import fastest, prove, show

    own = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    candidates = [(Candidate(model_dir=str(folder), precision=precision), own) for precision in ("fp32", "auto")]
    for made in formats:
        for variant in made.variants:
            one = Candidate(model_dir=str(folder), backend=str(made.backend), variant=str(variant))
            candidates.append((one, made.num_bytes(variant)))
    rows = prove(candidates, sentences, labels)
    show(out, rows, sentences)
    for made in formats:
        _write_proof(made.path / PROOF_FILE, rows, sentences)
        out.print(f"written: {made.path / PROOF_FILE}", soft_wrap=True, markup=False)
    if config.keep_best:
        kept = fastest(rows, config.max_loss / 100)
        if kept is None:
            out.print(
                f"kept: all; none is shown to lose less than {config.max_loss:g} points on {len(sentences.texts):,} "
                "sentences"
            )
            return
        from sst2_ray.predict.formats.convert import keep_only

        keep_only(formats, Backend(kept.candidate.backend), Variant(kept.candidate.variant))
        out.print(f"kept: {kept.candidate.name}; the others are deleted")


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
